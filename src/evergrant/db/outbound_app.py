"""Outbound apps: an OAuth client registration at one provider (RFC 7591), with what its provider needs."""

from datetime import datetime

from sqlalchemy import JSON, ForeignKey, Index, String, UniqueConstraint, false, text
from sqlalchemy.orm import Mapped, mapped_column

from evergrant.crypto.sealed import Sealed
from evergrant.db.base import Base
from evergrant.db.types import SealedBytes, UtcDateTime


class OutboundApp(Base):
    """A provider that a project's users can connect."""

    __tablename__ = "outbound_apps"
    __table_args__ = (
        UniqueConstraint("project_id", "name"),
        Index(
            "ix_outbound_apps_callback_id",
            "callback_id",
            unique=True,
            postgresql_where=text("callback_id <> ''"),
            sqlite_where=text("callback_id <> ''"),
        ),
    )

    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id", ondelete="CASCADE"), primary_key=True)
    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    name: Mapped[str] = mapped_column(String(200))
    description: Mapped[str] = mapped_column(default="")
    logo: Mapped[str] = mapped_column(default="")

    app_type: Mapped[str] = mapped_column(String(32), default="oauth")
    """An `AppType`."""
    tenant_id: Mapped[str] = mapped_column(String(255), default="")
    """The only tenant that may use the app; empty for everybody."""
    template_id: Mapped[str] = mapped_column(String(64), default="")
    """The catalogue entry that the app was made from: the provider's habits are looked up there."""
    variables: Mapped[dict[str, str]] = mapped_column(JSON, default=dict)
    """Values of the entry's variables, for whoever connects."""

    client_id: Mapped[str] = mapped_column(default="")
    client_secret: Mapped[Sealed | None] = mapped_column(SealedBytes)
    client_secret_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    """Since when the secret is stored; none where there is none, or it is from before this was noted."""
    signing_key: Mapped[Sealed | None] = mapped_column(SealedBytes)
    """What signs the assertions of apps that have them: it is never sent."""
    token_endpoint_auth_method: Mapped[str] = mapped_column(String(32), default="client_secret_post")
    discovery_url: Mapped[str] = mapped_column(default="")
    issuer: Mapped[str] = mapped_column(default="")
    authorization_url: Mapped[str] = mapped_column(default="")
    authorization_url_params: Mapped[list[list[str]]] = mapped_column(JSON, default=list)
    token_url: Mapped[str] = mapped_column(default="")
    token_url_params: Mapped[list[list[str]]] = mapped_column(JSON, default=list)
    revocation_url: Mapped[str] = mapped_column(default="")
    userinfo_url: Mapped[str] = mapped_column(default="")
    jwks_url: Mapped[str] = mapped_column(default="")
    iss_required: Mapped[bool] = mapped_column(default=False)
    """The server's metadata promises `iss` in every authorization response (RFC 9207 section 3)."""
    use_dcr: Mapped[bool] = mapped_column(default=False)
    """Register with the server by ourselves, at the first connect (RFC 7591)."""
    dcr_url: Mapped[str] = mapped_column(default="")
    """The server's registration endpoint."""
    resource: Mapped[str] = mapped_column(default="")
    """The protected resource that tokens are for (RFC 8707); an MCP server's own URL, for example."""
    client_id_metadata: Mapped[bool] = mapped_column(default=False)
    """The server reads a client's metadata from the URL that is its id, so that nobody need register."""
    registered_redirect_uri: Mapped[str] = mapped_column(default="")
    """What the client id that we got by ourselves was registered for; empty where the operator entered one."""
    client_secret_expires_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    """When our registration ends (RFC 7591 section 3.2.1), or when the server refused it; none for never."""

    api_base_url: Mapped[str] = mapped_column(default="", server_default="")
    """Where the API is that calls go to; empty for what the catalogue entry says."""
    api_further: Mapped[dict[str, str]] = mapped_column(JSON, default=dict, server_default=text("'{}'"))
    """Other bases, by name."""
    api_headers: Mapped[dict[str, str]] = mapped_column(JSON, default=dict, server_default=text("'{}'"))
    """Sent with every call, unless the caller sends the same."""
    api_forbidden: Mapped[list[str]] = mapped_column(JSON, default=list, server_default=text("'[]'"))
    """Calls that nobody makes, besides those of the catalogue entry: a method and a path each."""

    default_scopes: Mapped[list[str]] = mapped_column(JSON, default=list)
    scope_descriptions: Mapped[dict[str, str]] = mapped_column(JSON, default=dict)
    scope_translations: Mapped[dict[str, dict[str, str]]] = mapped_column(
        JSON, default=dict, server_default=text("'{}'")
    )
    """By language, what a scope means in it; `scope_descriptions` is for all others."""
    default_redirect_url: Mapped[str] = mapped_column(default="")
    callback_domain: Mapped[str] = mapped_column(default="")
    callback_id: Mapped[str] = mapped_column(String(32), default="")
    """The end of the app's own callback address, unique over all projects."""
    own_callback: Mapped[bool] = mapped_column(default=True)
    """Whether the provider sends answers there, and no longer to the address that apps shared in the past."""
    pkce: Mapped[bool] = mapped_column(default=True)
    access_type: Mapped[str] = mapped_column(String(16), default="")
    prompt: Mapped[list[str]] = mapped_column(JSON, default=list)
    skip_consent_page: Mapped[bool] = mapped_column(default=False)
    require_confirmation: Mapped[bool] = mapped_column(default=False)

    revoke_replaced: Mapped[bool] = mapped_column(default=False, server_default=false())
    """Whether a consent that another one replaces is revoked. Many providers end the new one with it."""

    refresh_policy: Mapped[str] = mapped_column(String(16), default="proactive")
    """`proactive`: refreshed in the background before anybody has to wait; `on_demand`: when a fetch needs it."""
    refresh_token_idle_seconds: Mapped[int] = mapped_column(default=0)
    """After so long without use the provider's refresh tokens die; 0 for never, or unknown."""

    unhealthy_since: Mapped[datetime | None] = mapped_column(UtcDateTime)
    unhealthy_reason: Mapped[str] = mapped_column(default="")
    """Why the provider refuses this registration; empty while it does not."""
    restored_pace: Mapped[int | None] = mapped_column()
    """How many of its grants that came back from a backup the background may try at once; none where there are none.

    1 after a restore, one more for each that the provider accepts, and 0 once it refuses one.
    """
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    updated_at: Mapped[datetime] = mapped_column(UtcDateTime)
