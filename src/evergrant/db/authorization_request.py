"""Authorization requests: each is one browser's way to a provider and back, used once."""

from datetime import datetime

from sqlalchemy import JSON, ForeignKeyConstraint, Index, LargeBinary, String
from sqlalchemy.orm import Mapped, mapped_column

from evergrant.crypto.sealed import Sealed
from evergrant.db.base import Base
from evergrant.db.types import SealedBytes, UtcDateTime


class AuthorizationRequest(Base):
    """What a backend asked for, and what must match when the browser comes back.

    The ticket (in the connect link) and the browser's cookie are stored as digests only. The state (at the provider) is
    found by its digest, and sealed beside it while the trip is under way.
    """

    __tablename__ = "authorization_requests"
    __table_args__ = (
        ForeignKeyConstraint(
            ["project_id", "app_id"], ["outbound_apps.project_id", "outbound_apps.id"], ondelete="CASCADE"
        ),
        Index("ix_authorization_requests_ticket_digest", "ticket_digest", unique=True),
        Index("ix_authorization_requests_state_digest", "state_digest", unique=True),
        Index("ix_authorization_requests_browser_digest", "browser_digest"),
        Index("ix_authorization_requests_expires_at", "expires_at"),
    )

    project_id: Mapped[str] = mapped_column(String(31), primary_key=True)
    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    app_id: Mapped[str] = mapped_column(String(64))
    user_id: Mapped[str] = mapped_column(String(255), default="")
    tenant_id: Mapped[str] = mapped_column(String(255), default="")
    granted_by: Mapped[str] = mapped_column(String(255), default="")
    external_identifier: Mapped[str] = mapped_column(String(255), default="")
    scopes: Mapped[list[str]] = mapped_column(JSON)
    redirect_url: Mapped[str] = mapped_column(default="")
    prompt: Mapped[list[str]] = mapped_column(JSON, default=list)
    login_hint: Mapped[str] = mapped_column(default="")
    resources: Mapped[list[str]] = mapped_column(JSON, default=list)
    variables: Mapped[dict[str, str]] = mapped_column(JSON, default=dict)
    """Values of the app's variables that the caller gave."""
    answers: Mapped[dict[str, str]] = mapped_column(JSON, default=dict)
    """Those that the user gave on the consent page, and may give again while nothing has come back."""

    user_label: Mapped[str] = mapped_column(String(120), default="", server_default="")
    """Who the user is, in words that they know: shown to them and used for nothing else."""
    tenant_label: Mapped[str] = mapped_column(String(120), default="", server_default="")
    locale: Mapped[str] = mapped_column(String(16), default="", server_default="")
    """The language of the pages; empty for the browser's."""
    made_by: Mapped[str] = mapped_column(String(300), default="", server_default="")
    """Who made the link, as the audit log writes it."""
    trial_id: Mapped[str] = mapped_column(String(22), default="", server_default="")
    """The test connection that this trip belongs to; empty for none."""
    portal_id: Mapped[str] = mapped_column(String(22), default="", server_default="")
    """The visit of connected accounts that it began from; empty for none."""

    verify: Mapped[str] = mapped_column(String(16), default="", server_default="")
    """How the browser proves to be the owner's: `login` or `confirmation`; empty where the link's maker vouches."""
    agent_name: Mapped[str] = mapped_column(String(200), default="", server_default="")
    """The agent for which the link was made, as the page names it."""
    login_issuer_id: Mapped[str] = mapped_column(String(22), default="", server_default="")
    """The trusted issuer where the browser signs in to prove it; empty for none."""

    ticket_digest: Mapped[bytes] = mapped_column(LargeBinary(32))
    state_digest: Mapped[bytes | None] = mapped_column(LargeBinary(32))
    """Set when the browser leaves for the provider: from then on the ticket is that browser's."""
    state: Mapped[Sealed | None] = mapped_column(SealedBytes)
    """The state itself, for the browser that left with it and comes back to the link."""
    browser_digest: Mapped[bytes | None] = mapped_column(LargeBinary(32))
    code_verifier: Mapped[Sealed | None] = mapped_column(SealedBytes)
    nonce: Mapped[str] = mapped_column(default="")
    redirect_uri: Mapped[str] = mapped_column(default="")
    """The callback address that was sent to the provider; the token request must repeat it (RFC 6749 4.1.3)."""
    destinations: Mapped[str] = mapped_column(String(32), default="", server_default="")
    """Where the code and the verifier go, as a digest: of an app that was moved meanwhile, they must not get there."""
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    expires_at: Mapped[datetime] = mapped_column(UtcDateTime)
    finished_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    """When the answer came back, which uses the state up."""
    outcome: Mapped[Sealed | None] = mapped_column(SealedBytes)
    """Where the browser was sent in the end, for the same browser that brings the answer once more."""
    confirmation_digest: Mapped[bytes | None] = mapped_column(LargeBinary(32))
    grant_id: Mapped[str] = mapped_column(String(32), default="")
    """The pending grant that a confirmation makes usable."""
