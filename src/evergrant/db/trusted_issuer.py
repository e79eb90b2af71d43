"""Trusted issuers: identity providers whose JWTs identify a project's users."""

from datetime import datetime

from sqlalchemy import ForeignKey, String, UniqueConstraint, false
from sqlalchemy.orm import Mapped, mapped_column

from evergrant.crypto.sealed import Sealed
from evergrant.db.base import Base
from evergrant.db.types import SealedBytes, UtcDateTime


class TrustedIssuer(Base):
    """One issuer that a project trusts, and which claims to read."""

    __tablename__ = "trusted_issuers"
    __table_args__ = (UniqueConstraint("project_id", "issuer"),)

    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id", ondelete="CASCADE"), primary_key=True)
    id: Mapped[str] = mapped_column(String(22), primary_key=True)
    issuer: Mapped[str] = mapped_column()
    """Compared exactly with the claim `iss`."""
    jwks_url: Mapped[str] = mapped_column()
    audience: Mapped[str] = mapped_column()
    """Must be among the claim `aud`."""
    user_claim: Mapped[str] = mapped_column(default="sub")
    tenant_claim: Mapped[str] = mapped_column(default="")
    machines_without_user: Mapped[bool] = mapped_column(default=False, server_default=false())
    """Whether a token without the user claim is a machine's, which stands for its tenant."""
    mcp: Mapped[bool] = mapped_column(default=False, server_default=false())
    """Whether MCP clients are sent to this issuer for their tokens (RFC 9728)."""
    login_client_id: Mapped[str] = mapped_column(default="", server_default="")
    """Our client there, which signs browsers in to see whose they are; empty for none."""
    login_client_secret: Mapped[Sealed | None] = mapped_column(SealedBytes)
    last_kid: Mapped[str] = mapped_column(default="", server_default="")
    """The id of the key that signed the last token that was accepted."""
    last_seen_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    """When that was, accurate to a minute."""
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
