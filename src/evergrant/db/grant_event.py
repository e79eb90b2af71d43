"""What happened to one grant: the timeline that an operator reads."""

from datetime import datetime
from typing import Any

from sqlalchemy import JSON, Index, String, text
from sqlalchemy.orm import Mapped, mapped_column

from evergrant.db.base import Base
from evergrant.db.types import UtcDateTime

IS_ENDING = "kind IN ('replaced', 'superseded', 'deleted')"


class GrantEvent(Base):
    """Something that happened to a grant, once or `n` times. It outlives the grant for a while.

    No foreign key: each refresh writes a row, and all of a project would lock the project's one row for it.
    """

    __tablename__ = "grant_events"
    __table_args__ = (
        # Of what is gone, by when it went: no refresh writes here.
        Index("ix_grant_events_endings", "at", postgresql_where=text(IS_ENDING), sqlite_where=text(IS_ENDING)),
    )

    project_id: Mapped[str] = mapped_column(String(31), primary_key=True)
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
