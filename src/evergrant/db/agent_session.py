"""Agent sessions: short-lived credentials that let one agent use some of one owner's connections."""

from datetime import datetime
from typing import Any

from sqlalchemy import JSON, ForeignKey, Index, LargeBinary, String
from sqlalchemy.orm import Mapped, mapped_column

from evergrant.db.base import Base
from evergrant.db.types import UtcDateTime


class AgentSession(Base):
    """What one agent may do for one owner, and until when. Only a digest of its key is stored."""

    __tablename__ = "agent_sessions"
    __table_args__ = (
        Index("ix_agent_sessions_created_at", "project_id", "created_at"),
        Index("ix_agent_sessions_owner", "project_id", "user_id", "created_at"),
        Index("ix_agent_sessions_agent", "project_id", "agent_id", "created_at"),
        Index("ix_agent_sessions_expires_at", "expires_at"),
    )

    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id", ondelete="CASCADE"), primary_key=True)
    id: Mapped[str] = mapped_column(String(22), primary_key=True)
    digest: Mapped[bytes] = mapped_column(LargeBinary(32))
    user_id: Mapped[str] = mapped_column(String(255), default="")
    """Whose connections; empty for a tenant's own."""
    tenant_id: Mapped[str] = mapped_column(String(255), default="")
    agent_id: Mapped[str] = mapped_column(String(255))
    agent_name: Mapped[str] = mapped_column(String(200), default="")
    act: Mapped[list[str]] = mapped_column(JSON, default=list)
    """The chain of actors (RFC 8693 section 4.1), outermost first, where a token told of one."""
    apps: Mapped[list[dict[str, Any]]] = mapped_column(JSON)
    """What it may do with each app: a `SessionApp` each, as the wire has it."""
    may_connect: Mapped[bool] = mapped_column()
    may_fetch: Mapped[bool] = mapped_column()
    elicitation: Mapped[str] = mapped_column(String(8), default="url")
    """How its MCP client is asked to open a link: `url`, as the protocol has it, or `link`, in an answer's text."""
    labels: Mapped[dict[str, str]] = mapped_column(JSON, default=dict)
    allowed_cidrs: Mapped[list[str]] = mapped_column(JSON, default=list)
    max_calls: Mapped[int | None] = mapped_column()
    """How many calls it may make; none for any number."""
    calls: Mapped[int] = mapped_column(default=0)
    """How many it has made, counted where there is a limit only."""
    key_id: Mapped[str] = mapped_column(String(22), default="")
    """The management key that minted it: when that ends, so does the session. Empty for a user's token."""
    claims: Mapped[dict[str, Any] | None] = mapped_column(JSON)
    """The claims of the user's token that it was exchanged for, by which policies know the user."""
    made_by: Mapped[str] = mapped_column(String(300), default="")
    """Who minted it, as the audit log writes it."""
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    expires_at: Mapped[datetime] = mapped_column(UtcDateTime)
    revoked_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
