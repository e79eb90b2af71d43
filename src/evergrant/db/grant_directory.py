"""Where lists of grants look things up: what a list sorts and searches by, apart from the grants' own rows.

Refreshes write to `grants` all the time, and each index there makes each of them dearer. These rows are written when
somebody connects, and never by a refresh.
"""

from datetime import datetime

from sqlalchemy import ForeignKeyConstraint, Index, String
from sqlalchemy.orm import Mapped, mapped_column

from evergrant.db.base import Base
from evergrant.db.types import UtcDateTime

BY_BEGINNING = String(255).with_variant(String(255, collation="C"), "postgresql")
"""Compared by its bytes on every database, so that ids with a common beginning stand side by side."""


class GrantDirectory(Base):
    """One grant, as lists find it."""

    __tablename__ = "grant_directory"
    __table_args__ = (
        ForeignKeyConstraint(["project_id", "grant_id"], ["grants.project_id", "grants.id"], ondelete="CASCADE"),
        Index("ix_grant_directory_time", "project_id", "consented_at", "grant_id"),
        Index("ix_grant_directory_app", "project_id", "app_id", "consented_at", "grant_id"),
        Index("ix_grant_directory_user", "project_id", "user_id", "consented_at", "grant_id"),
        Index("ix_grant_directory_tenant", "project_id", "tenant_id", "consented_at", "grant_id"),
        Index("ix_grant_directory_subject", "project_id", "token_sub", "consented_at", "grant_id"),
        Index("ix_grant_directory_app_id", "project_id", "app_id", "grant_id"),
    )

    project_id: Mapped[str] = mapped_column(String(31), primary_key=True)
    grant_id: Mapped[str] = mapped_column(String(32), primary_key=True)
    app_id: Mapped[str] = mapped_column(String(64))
    user_id: Mapped[str] = mapped_column(BY_BEGINNING)
    tenant_id: Mapped[str] = mapped_column(BY_BEGINNING)
    token_sub: Mapped[str] = mapped_column()
    consented_at: Mapped[datetime] = mapped_column(UtcDateTime)
