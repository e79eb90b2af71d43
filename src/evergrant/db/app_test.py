"""Test connections: the last one of each app."""

from datetime import datetime
from typing import Any

from sqlalchemy import JSON, ForeignKeyConstraint, String
from sqlalchemy.orm import Mapped, mapped_column

from evergrant.db.base import Base
from evergrant.db.types import UtcDateTime


class AppTest(Base):
    """How the last test of an app went, step by step."""

    __tablename__ = "app_tests"
    __table_args__ = (
        ForeignKeyConstraint(
            ["project_id", "app_id"], ["outbound_apps.project_id", "outbound_apps.id"], ondelete="CASCADE"
        ),
    )

    project_id: Mapped[str] = mapped_column(String(31), primary_key=True)
    app_id: Mapped[str] = mapped_column(String(64), primary_key=True)
    id: Mapped[str] = mapped_column(String(22))
    made_by: Mapped[str] = mapped_column(String(300))
    steps: Mapped[list[dict[str, Any]]] = mapped_column(JSON, default=list)
    grant_id: Mapped[str] = mapped_column(String(32), default="")
    """The connection that the test made and has not yet deleted; empty for none."""
    started_at: Mapped[datetime] = mapped_column(UtcDateTime)
    left_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    """When the browser left for the provider; none before."""
    finished_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
