"""Access policies: who may fetch, connect or call which app, with which scopes."""

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
        CheckConstraint("action IN ('fetch', 'connect', 'call')", name="action"),
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
    methods: Mapped[list[str]] = mapped_column(JSON, default=list, server_default=text("'[]'"))
    """Of calls: one of these HTTP methods. Empty: any."""
    paths: Mapped[list[str]] = mapped_column(JSON, default=list, server_default=text("'[]'"))
    """Of calls: below the base; `*` stands for one segment, `**` for any number. Empty: any."""
    agents: Mapped[list[str]] = mapped_column(JSON, default=list, server_default=text("'[]'"))
    """One of these agents asks. Empty: anybody."""
    via: Mapped[list[str]] = mapped_column(JSON, default=list, server_default=text("'[]'"))
    """Of calls: `proxy`, `mcp`. Empty: any."""
    effect: Mapped[str] = mapped_column(String(8), default="allow", server_default="allow")
    """`allow`; of calls also `deny`, or `approve`: each is asked for.

    Deny goes before approve, and that before allow.
    """
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
