"""Browser logins: a browser's way to the users' identity provider, which proves whose browser it is."""

from datetime import datetime

from sqlalchemy import ForeignKey, Index, LargeBinary, String
from sqlalchemy.orm import Mapped, mapped_column

from evergrant.crypto.sealed import Sealed
from evergrant.db.base import Base
from evergrant.db.types import SealedBytes, UtcDateTime


class BrowserLogin(Base):
    """One sign-in (OpenID Connect, code with PKCE and nonce), used once, for one connect trip or one approval.

    The verifier and the nonce are derived from the browser's cookie, of which a digest only is stored.
    """

    __tablename__ = "browser_logins"
    __table_args__ = (
        Index("ix_browser_logins_state_digest", "state_digest", unique=True),
        Index("ix_browser_logins_subject", "project_id", "purpose", "subject_id"),
        Index("ix_browser_logins_expires_at", "expires_at"),
    )

    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id", ondelete="CASCADE"), primary_key=True)
    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    purpose: Mapped[str] = mapped_column(String(16))
    """`connect` or `approval`."""
    subject_id: Mapped[str] = mapped_column(String(32))
    """The id of the trip or the approval."""
    app_id: Mapped[str] = mapped_column(String(64))
    issuer_id: Mapped[str] = mapped_column(String(22))
    user_id: Mapped[str] = mapped_column(String(255))
    """Who it must turn out to be."""
    redirect_uri: Mapped[str] = mapped_column()
    """The callback address that was sent to the issuer; the token request must repeat it (RFC 6749 4.1.3)."""
    return_path: Mapped[Sealed] = mapped_column(SealedBytes)
    """Where the browser goes on: a path of ours, with the ticket in it."""
    state_digest: Mapped[bytes] = mapped_column(LargeBinary(32))
    browser_digest: Mapped[bytes] = mapped_column(LargeBinary(32))
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    expires_at: Mapped[datetime] = mapped_column(UtcDateTime)
    """Until when it may be finished; and then, until when it proves something."""
    finished_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    """When the answer came, which uses the state up."""
    outcome: Mapped[str] = mapped_column(String(32), default="")
    """`proved`, `wrong_user` or `failed`."""
