"""Approvals: one request that an agent wants to make, and what its owner said to it."""

from datetime import datetime

from sqlalchemy import ForeignKey, Index, LargeBinary, String
from sqlalchemy.orm import Mapped, mapped_column

from evergrant.crypto.sealed import Sealed
from evergrant.db.base import Base
from evergrant.db.types import SealedBytes, UtcDateTime


class Approval(Base):
    """A request, to the byte, that waits for a decision or has one. It is used up by being made."""

    __tablename__ = "approvals"
    __table_args__ = (
        Index("ix_approvals_ticket_digest", "ticket_digest", unique=True),
        Index("ix_approvals_owner", "project_id", "user_id", "tenant_id"),
        Index("ix_approvals_created_at", "project_id", "created_at", "id"),
        Index("ix_approvals_request_digest", "project_id", "request_digest"),
        Index("ix_approvals_expires_at", "expires_at"),
    )

    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id", ondelete="CASCADE"), primary_key=True)
    id: Mapped[str] = mapped_column(String(22), primary_key=True)
    ticket_digest: Mapped[bytes] = mapped_column(LargeBinary(32))
    """Of the ticket in the link to its page."""
    ticket: Mapped[Sealed] = mapped_column(SealedBytes)
    """So that who asks for the same again is told the same link."""
    request_digest: Mapped[bytes] = mapped_column(LargeBinary(32))
    """SHA-256 over who asks for whom, app, connection, method, base, path and query, headers and body."""
    app_id: Mapped[str] = mapped_column(String(64))
    user_id: Mapped[str] = mapped_column(String(255), default="")
    tenant_id: Mapped[str] = mapped_column(String(255), default="")
    external_identifier: Mapped[str] = mapped_column(String(255), default="")
    agent_id: Mapped[str] = mapped_column(String(255), default="")
    agent_name: Mapped[str] = mapped_column(String(200), default="")
    session_id: Mapped[str] = mapped_column(String(22), default="")
    actor: Mapped[str] = mapped_column(String(300), default="")
    """Who asks, as the audit log writes it."""
    method: Mapped[str] = mapped_column(String(16))
    base: Mapped[str] = mapped_column(String(64), default="")
    target: Mapped[Sealed] = mapped_column(SealedBytes)
    """Path and query."""
    content_type: Mapped[str] = mapped_column(String(200), default="")
    body: Mapped[Sealed | None] = mapped_column(SealedBytes)
    """Headers and the first 4 KiB of the body, for the page; none where there is neither."""
    body_bytes: Mapped[int] = mapped_column(default=0)
    reason: Mapped[str] = mapped_column(String(200), default="")
    """The rule that asks for it: a policy's id, or `session`."""
    status: Mapped[str] = mapped_column(String(16))
    """`pending`, `approved`, `refused` or `used`."""
    verify: Mapped[str] = mapped_column(String(16), default="")
    """How the browser proves to be the owner's: `login`, or empty where only the backend decides."""
    login_issuer_id: Mapped[str] = mapped_column(String(22), default="")
    """The trusted issuer where it signs in."""
    decided_by: Mapped[str] = mapped_column(String(300), default="")
    decision_reason: Mapped[str] = mapped_column(String(500), default="")
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    expires_at: Mapped[datetime] = mapped_column(UtcDateTime)
    """Until when it may be decided; and once it is approved, until when it may be used."""
    decided_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    used_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
