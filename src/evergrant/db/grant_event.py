"""What happened to one grant: the timeline that an operator reads."""

from datetime import datetime
from typing import Any

from sqlalchemy import JSON, ForeignKey, Index, String
from sqlalchemy.orm import Mapped, mapped_column

from evergrant.db.base import Base
from evergrant.db.types import UtcDateTime


class GrantEvent(Base):
    """Something that happened to a grant, once or `n` times. It outlives the grant for a while."""

    __tablename__ = "grant_events"
    __table_args__ = (Index("ix_grant_events_at", "at"),)

    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id", ondelete="CASCADE"), primary_key=True)
    grant_id: Mapped[str] = mapped_column(String(32), primary_key=True)
    id: Mapped[str] = mapped_column(String(48), primary_key=True)
    """In the order of time."""
    at: Mapped[datetime] = mapped_column(UtcDateTime)
    n: Mapped[int] = mapped_column(default=1)
    kind: Mapped[str] = mapped_column(String(32))
    actor: Mapped[str] = mapped_column(String(300), default="")
    """Who did it, as the audit log writes it; empty where evergrant did."""
    data: Mapped[dict[str, Any]] = mapped_column(JSON, default=dict)
    """Outcomes and codes, never secrets."""
