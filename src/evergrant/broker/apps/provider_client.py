"""An app's provider as a value: addresses, client credentials and quirks, ready for calls."""

from dataclasses import dataclass, field, replace

from evergrant.app_types import AppType
from evergrant.broker.apps.quirks import quirks_of
from evergrant.broker.apps.variables import Values
from evergrant.broker.runtime.broker import Broker
from evergrant.broker.runtime.places import slot_in
from evergrant.crypto.sealed import Slot
from evergrant.db import OutboundApp
from evergrant.oauth2.quirks import Quirks
from evergrant.oauth2.registration import ClientRegistration, ServerMetadata

CALLBACK_PATH = "/v1/outbound/oauth/callback"
"""Where providers send answers for the apps that share it; an app's own address is below it."""


@dataclass(frozen=True, slots=True)
class ProviderClient:
    """A provider and our client there: metadata, credentials with the secret opened, and quirks."""

    server: ServerMetadata
    client: ClientRegistration = field(repr=False)
    quirks: Quirks


def public_origin(public_url: str, app: OutboundApp) -> str:
    """Return the origin under which browsers connect this app, where evergrant's own is `public_url`."""
    return f"https://{app.callback_domain}" if app.callback_domain else public_url


def callback_url(broker: Broker, app: OutboundApp) -> str:
    """Return the redirect URI to register with the provider.

    Each app has its own, so that an answer to one app's question cannot be passed off as another's (RFC 9700 section
    4.4.2.2). Apps from before share one until their operator moves them.
    """
    return public_origin(broker.settings.public_url, app) + (
        own_callback_path(app) if app.own_callback else CALLBACK_PATH
    )


def own_callback_path(app: OutboundApp) -> str:
    """Return the path of the app's own callback address, whether it is in use yet or not."""
    return f"{CALLBACK_PATH}/{app.callback_id}"


def client_document_url(broker: Broker, app: OutboundApp) -> str:
    """Return the client id by which the server can read who we are, empty where it cannot.

    draft-ietf-oauth-client-id-metadata-document section 3: an https URL with a path. A loopback trial has none.
    """
    origin = public_origin(broker.settings.public_url, app)
    usable = app.client_id_metadata and origin.startswith("https://")
    return f"{origin}/oauth-client/{app.project_id}/{app.id}.json" if usable else ""


def server_of(app: OutboundApp) -> ServerMetadata:
    """Return the provider's metadata as the app records it."""
    return ServerMetadata(
        issuer=app.issuer,
        authorization_endpoint=app.authorization_url,
        token_endpoint=app.token_url,
        revocation_endpoint=app.revocation_url,
        userinfo_endpoint=app.userinfo_url,
        jwks_uri=app.jwks_url,
        registration_endpoint=app.dcr_url,
        client_id_metadata_document_supported=app.client_id_metadata,
        authorization_response_iss_parameter_supported=app.iss_required,
    )


async def provider_client(broker: Broker, app: OutboundApp, details: Values | None = None) -> ProviderClient:
    """Return what calls to an app's provider need, with the app's secrets opened.

    `details` are the connection's own values, where there is one: its shop, its data centre.

    Raises:
        CannotOpenSealed: the app's secret cannot be read.
    """
    secret = key = None
    if app.client_secret is not None:
        secret = await broker.vault.open(secret_slot(app), app.client_secret)
    if app.signing_key is not None:
        key = await broker.vault.open(secret_slot(app, "signing_key"), app.signing_key)
    is_obtained = AppType(app.app_type).is_obtained  # then a connection's own client authenticates as the app says
    client = ClientRegistration(
        client_id=app.client_id,
        client_secret=secret,
        signing_key=key,
        auth_method=app.token_endpoint_auth_method if secret is not None or is_obtained else "none",
        authorization_params=tuple((key, value) for key, value in app.authorization_url_params),
        token_params=tuple((key, value) for key, value in app.token_url_params),
        pkce=app.pkce,
        access_type=app.access_type,
        name=app.name,
    )
    return _filled(broker, app, client, details)


def with_details(broker: Broker, app: OutboundApp, provider: ProviderClient, details: Values) -> ProviderClient:
    """Return the same provider for a connection of which more is known now: `details` are all of its values."""
    return _filled(broker, app, provider.client, details)


def _filled(broker: Broker, app: OutboundApp, client: ClientRegistration, details: Values | None) -> ProviderClient:
    quirks, server = quirks_of(broker, app, details), server_of(app)
    # The others are filled when they are called, and say then what they lack.
    server = replace(
        server,
        issuer=quirks.fill(server.issuer),
        jwks_uri=quirks.fill(server.jwks_uri),
        userinfo_endpoint=quirks.fill(server.userinfo_endpoint),
    )
    return ProviderClient(server, client, quirks)


def secret_slot(app: OutboundApp, column: str = "client_secret") -> Slot:
    """Return the place that an app's client secret, or its signing key, is sealed for."""
    return slot_in("outbound_apps", app, column)
