"""The audit log: what was changed and done, by whom. Append-only; each record carries the hash of the one before."""

from datetime import datetime
from typing import Any

from sqlalchemy import JSON, BigInteger, ForeignKey, Index, LargeBinary, String, text
from sqlalchemy.orm import Mapped, mapped_column

from evergrant.db.base import Base
from evergrant.db.types import UtcDateTime


def _where(condition: str) -> dict[str, Any]:
    return {"postgresql_where": text(condition), "sqlite_where": text(condition)}


class AuditEvent(Base):
    """One record of a project's audit log. Nothing in it is secret."""

    __tablename__ = "audit_events"
    __table_args__ = (
        Index("ix_audit_events_project_id_occurred_at", "project_id", "occurred_at"),
        # All but the seals of the call log, of which there may be one a second.
        Index("ix_audit_events_told", "project_id", "sequence", **_where("action <> 'calls.sealed'")),
        # The console's filters, newest first. Most records name no user, and many no app.
        Index("ix_audit_events_action", "project_id", "action", "sequence"),
        Index("ix_audit_events_actor", "project_id", "actor", "sequence"),
        Index("ix_audit_events_user", "project_id", "user_id", "sequence", **_where("user_id <> ''")),
        Index("ix_audit_events_app", "project_id", "app_id", "sequence", **_where("app_id <> ''")),
    )

    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id", ondelete="CASCADE"), primary_key=True)
    sequence: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    """1, 2, 3 ... within the project, without gaps."""
    occurred_at: Mapped[datetime] = mapped_column(UtcDateTime)
    action: Mapped[str] = mapped_column(String(64))
    actor: Mapped[str] = mapped_column(default="")
    """`key:<id>`, `user:<id>`, `cli` or `evergrant`."""
    remote_address: Mapped[str] = mapped_column(String(45), default="")
    app_id: Mapped[str] = mapped_column(String(64), default="")
    user_id: Mapped[str] = mapped_column(String(255), default="")
    tenant_id: Mapped[str] = mapped_column(String(255), default="")
    data: Mapped[dict[str, Any]] = mapped_column(JSON, default=dict)
    previous_hash: Mapped[bytes] = mapped_column(LargeBinary(32))
    hash: Mapped[bytes] = mapped_column(LargeBinary(32))
