"""Access policies: who may fetch or connect which app, with which scopes."""

from datetime import datetime

from sqlalchemy import JSON, CheckConstraint, ForeignKey, Index, String, text
from sqlalchemy.orm import Mapped, mapped_column

from evergrant.db.base import Base
from evergrant.db.types import UtcDateTime


class AccessPolicy(Base):
    """One rule. An app and action without any rule are open to everybody who is authenticated for them.

    One that names claims is about users, one that names keys about those keys, one that names neither about everybody.
    """

    __tablename__ = "access_policies"
    __table_args__ = (
        CheckConstraint("action IN ('fetch', 'connect')", name="action"),
        Index("ix_access_policies_project_id_app_id", "project_id", "app_id"),
    )

    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id", ondelete="CASCADE"), primary_key=True)
    id: Mapped[str] = mapped_column(String(22), primary_key=True)
    app_id: Mapped[str] = mapped_column(String(64))
    action: Mapped[str] = mapped_column(String(16))
    claims: Mapped[dict[str, list[str]]] = mapped_column(JSON, default=dict)
    """For users: each claim named here must have one of the values listed."""
    key_ids: Mapped[list[str]] = mapped_column(JSON, default=list)
    """For management keys: one of these."""
    scopes: Mapped[list[str]] = mapped_column(JSON, default=list)
    """At most these scopes. Empty: any."""
    levels: Mapped[list[str]] = mapped_column(JSON, default=list, server_default=text("'[]'"))
    """Whose connections: `user`, `tenant`. Empty: any, but users connect a tenant's own only where that is named."""
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
