"""The call log: what was called with whose connection, by whom."""

from datetime import datetime
from typing import Any

from sqlalchemy import JSON, BigInteger, ForeignKey, Index, String, text
from sqlalchemy.orm import Mapped, mapped_column

from evergrant.db.base import Base
from evergrant.db.types import UtcDateTime


def _where(condition: str) -> dict[str, Any]:
    return {"postgresql_where": text(condition), "sqlite_where": text(condition)}


class CallRecord(Base):
    """One call, fetch or exchange. No query string, no body and no token is in it."""

    __tablename__ = "call_records"
    __table_args__ = (
        Index("ix_call_records_at", "project_id", "at", "id"),
        Index("ix_call_records_user", "project_id", "user_id", "at", "id"),
        Index("ix_call_records_tenant", "project_id", "tenant_id", "at", "id", **_where("tenant_id <> ''")),
        Index("ix_call_records_agent", "project_id", "agent", "at", "id", **_where("agent <> ''")),
        Index("ix_call_records_session", "project_id", "session_id", "at", "id", **_where("session_id <> ''")),
        Index("ix_call_records_app", "project_id", "app_id", "at", "id"),
        Index("ix_call_records_batch", "project_id", "batch"),
        Index("ix_call_records_unsealed", "at", **_where("batch = ''")),
    )

    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id", ondelete="CASCADE"), primary_key=True)
    id: Mapped[str] = mapped_column(String(22), primary_key=True)
    at: Mapped[datetime] = mapped_column(UtcDateTime)
    """When it began."""
    kind: Mapped[str] = mapped_column(String(16))
    """`call`, `mcp`, `fetch` or `exchange`."""
    app_id: Mapped[str] = mapped_column(String(64), default="")
    user_id: Mapped[str] = mapped_column(String(255), default="")
    tenant_id: Mapped[str] = mapped_column(String(255), default="")
    grant_id: Mapped[str] = mapped_column(String(32), default="")
    actor: Mapped[str] = mapped_column(String(300), default="")
    """`key:<id>`, `session:<id>`, `user:<id>` or `tenant:<id>`."""
    agent: Mapped[str] = mapped_column(String(255), default="")
    act: Mapped[list[str]] = mapped_column(JSON, default=list)
    """The chain of actors behind it, outermost first."""
    session_id: Mapped[str] = mapped_column(String(22), default="")
    remote_address: Mapped[str] = mapped_column(String(45), default="")
    method: Mapped[str] = mapped_column(String(16), default="")
    base: Mapped[str] = mapped_column(String(64), default="")
    path: Mapped[str] = mapped_column(default="")
    """Without its query; at most 2,000 characters."""
    status: Mapped[int] = mapped_column(default=0)
    """Of the answer; 0 where there was none, or none is known yet."""
    source: Mapped[str] = mapped_column(String(16), default="")
    """Whose answer it was: `provider` or `evergrant`; empty where none is known."""
    code: Mapped[str] = mapped_column(String(16), default="")
    """Ours, where evergrant answered with an error."""
    bytes_sent: Mapped[int] = mapped_column(BigInteger, default=0)
    bytes_received: Mapped[int] = mapped_column(BigInteger, default=0)
    ms: Mapped[int] = mapped_column(default=0)
    attempts: Mapped[int] = mapped_column(default=0)
    policy: Mapped[str] = mapped_column(String(64), default="")
    """The rule that decided: a policy's id, `session`, `forbidden` or `policies`."""
    approval_id: Mapped[str] = mapped_column(String(22), default="")
    batch: Mapped[str] = mapped_column(String(22), default="")
    """The batch that the audit log has sealed; empty while a write is under way."""
