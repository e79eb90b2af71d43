"""Sessions of end users at their connected accounts."""

from datetime import datetime
from typing import Any

from sqlalchemy import JSON, ForeignKey, Index, LargeBinary, String
from sqlalchemy.orm import Mapped, mapped_column

from evergrant.db.base import Base
from evergrant.db.types import UtcDateTime


class PortalSession(Base):
    """One user's visit, as a backend asked for it. The link and the cookie are stored as digests only."""

    __tablename__ = "portal_sessions"
    __table_args__ = (
        Index("ix_portal_sessions_code_digest", "code_digest", unique=True),
        Index("ix_portal_sessions_digest", "digest", unique=True),
        Index("ix_portal_sessions_expires_at", "expires_at"),
    )

    id: Mapped[str] = mapped_column(String(22), primary_key=True)
    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id", ondelete="CASCADE"))
    code_digest: Mapped[bytes] = mapped_column(LargeBinary(32))
    digest: Mapped[bytes | None] = mapped_column(LargeBinary(32))
    """Of the cookie; none until the link is opened."""
    user_id: Mapped[str] = mapped_column(String(255))
    tenant_id: Mapped[str] = mapped_column(String(255), default="")
    user_label: Mapped[str] = mapped_column(String(120), default="")
    tenant_label: Mapped[str] = mapped_column(String(120), default="")
    app_ids: Mapped[list[str]] = mapped_column(JSON, default=list)
    """The only apps that are shown; empty for all."""
    allow: Mapped[list[str]] = mapped_column(JSON, default=list)
    """`connect`, `disconnect`."""
    scopes: Mapped[dict[str, list[str]]] = mapped_column(JSON, default=dict)
    """By app: the scopes that may be asked for beside the app's own."""
    locale: Mapped[str] = mapped_column(String(16), default="")
    return_url: Mapped[str] = mapped_column(String(2048), default="")
    made_by: Mapped[str] = mapped_column(String(300))
    key_id: Mapped[str] = mapped_column(String(22), default="")
    """The management key that asked for it, and with which it ends; empty for a user or an operator."""
    claims: Mapped[dict[str, Any] | None] = mapped_column(JSON)
    """What the JWT of the user who asked for it said: policies go by it."""
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    opens_until: Mapped[datetime] = mapped_column(UtcDateTime)
    seen_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    expires_at: Mapped[datetime] = mapped_column(UtcDateTime)
