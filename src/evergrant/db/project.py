"""Projects: the unit of isolation. Every other row belongs to exactly one."""

from datetime import datetime

from sqlalchemy import JSON, CheckConstraint, String, text
from sqlalchemy.orm import Mapped, mapped_column

from evergrant.db.base import Base
from evergrant.db.types import UtcDateTime

MAX_PROJECT_ID = 31
"""SDKs derive a region's host name from project ids of 32 characters and more."""


class Project(Base):
    """A customer of this installation: an application, or one environment of it."""

    __tablename__ = "projects"
    __table_args__ = (CheckConstraint("length(id) BETWEEN 1 AND 31", name="id_length"),)

    id: Mapped[str] = mapped_column(String(MAX_PROJECT_ID), primary_key=True)
    name: Mapped[str] = mapped_column(String(200))
    redirect_origins: Mapped[list[str]] = mapped_column(JSON, default=list)
    """Origins (scheme, host, port) that a connect trip may send the browser back to."""
    embed_origins: Mapped[list[str]] = mapped_column(JSON, default=list, server_default=text("'[]'"))
    """Origins whose pages may show connected accounts in a frame."""
    start_dismissed_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    """When an operator put the list of first steps away."""
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    closed_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    """Since then nobody gets in: its deletion has begun. Its id is not given again."""
    shred_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    """When its data keys go at the latest, while a closed project's connections are revoked at the providers."""
    shredded_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    """When its data keys went, and with them all secrets. What is left is the audit log."""
