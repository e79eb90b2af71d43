"""Revocations: tokens that were deleted here and still have to be revoked at their provider (RFC 7009).

Each row is complete in itself: the grant is gone, and the app may be.
"""

from datetime import datetime
from typing import Any

from sqlalchemy import JSON, ForeignKey, Index, String
from sqlalchemy.orm import Mapped, mapped_column

from evergrant.crypto.sealed import Sealed
from evergrant.db.base import Base
from evergrant.db.types import SealedBytes, UtcDateTime


class Revocation(Base):
    """One token to revoke. The row goes when the provider has answered, or after the last try."""

    __tablename__ = "revocations"
    __table_args__ = (Index("ix_revocations_next_attempt_at", "next_attempt_at"),)

    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id", ondelete="CASCADE"), primary_key=True)
    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    grant_id: Mapped[str] = mapped_column(String(32))
    app_id: Mapped[str] = mapped_column(String(64))
    app_name: Mapped[str] = mapped_column(String(200))
    user_id: Mapped[str] = mapped_column(String(255), default="")
    tenant_id: Mapped[str] = mapped_column(String(255), default="")
    external_identifier: Mapped[str] = mapped_column(String(255), default="", server_default="")
    token_sub: Mapped[str] = mapped_column(default="", server_default="")
    granted_by: Mapped[str] = mapped_column(String(255), default="", server_default="")
    person: Mapped[str] = mapped_column(String(255), default="", server_default="")
    """Who was at the browser, where that was not whom the grant was for."""
    revocation_url: Mapped[str] = mapped_column()
    client_id: Mapped[str] = mapped_column()
    client_secret: Mapped[Sealed | None] = mapped_column(SealedBytes)
    auth_method: Mapped[str] = mapped_column(String(32))
    quirks: Mapped[dict[str, Any]] = mapped_column(JSON, default=dict)
    """How the provider wants it, as `oauth2.quirks.to_json` writes it."""
    token: Mapped[Sealed] = mapped_column(SealedBytes)
    token_type_hint: Mapped[str] = mapped_column(String(32))
    reason: Mapped[str] = mapped_column(String(16), default="deleted", server_default="deleted")
    """Why: `deleted`, `replaced`, `refused`, `unconfirmed`, `failed` or `closed` (its project)."""
    attempts: Mapped[int] = mapped_column(default=0)
    next_attempt_at: Mapped[datetime] = mapped_column(UtcDateTime)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
