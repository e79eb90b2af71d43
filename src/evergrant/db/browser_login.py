"""Browser logins: a browser's way to the users' identity provider, which proves whose browser it is."""

from datetime import datetime

from sqlalchemy import ForeignKey, Index, LargeBinary, String
from sqlalchemy.orm import Mapped, mapped_column

from evergrant.crypto.sealed import Sealed
from evergrant.db.base import Base
from evergrant.db.types import SealedBytes, UtcDateTime


class BrowserLogin(Base):
    """One sign-in (OpenID Connect, code with PKCE and nonce), used once, for a connect trip or an approval."""

    __tablename__ = "browser_logins"
    __table_args__ = (
        Index("ix_browser_logins_state_digest", "state_digest", unique=True),
        Index("ix_browser_logins_expires_at", "expires_at"),
    )

    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id", ondelete="CASCADE"), primary_key=True)
    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    purpose: Mapped[str] = mapped_column(String(16))
    """`connect` or `approval`."""
    subject_id: Mapped[str] = mapped_column(String(32))
    """The id of the trip or the approval."""
    issuer_id: Mapped[str] = mapped_column(String(22))
    user_id: Mapped[str] = mapped_column(String(255), default="")
    """Who it must turn out to be."""
    return_path: Mapped[str] = mapped_column(default="")
    """Where the browser goes on: a path of ours, sealed tickets and all."""
    state_digest: Mapped[bytes] = mapped_column(LargeBinary(32))
    browser_digest: Mapped[bytes] = mapped_column(LargeBinary(32))
    code_verifier: Mapped[Sealed] = mapped_column(SealedBytes)
    nonce: Mapped[str] = mapped_column()
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    expires_at: Mapped[datetime] = mapped_column(UtcDateTime)
    finished_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    outcome: Mapped[str] = mapped_column(String(32), default="")
    """`proved`, `wrong_user` or `failed`."""
