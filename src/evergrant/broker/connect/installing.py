"""Connecting an installation: somebody installs the app at the provider, whose key then gets tokens for it.

The browser brings the installation's id back, and anybody can write any id into an address. So the same trip brings a
code, the code is redeemed for that person's own token, and the provider is asked with it whether the installation is
theirs. That token is kept nowhere.
"""

import logging
from dataclasses import replace

from evergrant import placeholders
from evergrant.app_types import AppType
from evergrant.broker.apps.provider_client import ProviderClient
from evergrant.broker.connect.authorization_requests import Authorization
from evergrant.broker.connect.fresh_consent import FreshConsent
from evergrant.broker.grants.credentials import as_secret
from evergrant.broker.runtime.broker import Broker
from evergrant.db import OutboundApp
from evergrant.errors import ConnectFailed, UpstreamError, UpstreamRejected, UpstreamUnavailable
from evergrant.oauth2 import sources
from evergrant.oauth2.authorization import AuthorizationResponse
from evergrant.oauth2.quirks import Quirks
from evergrant.oauth2.token_response import TokenResponse

log = logging.getLogger(__name__)


def check_installed(app: OutboundApp, response: AuthorizationResponse, quirks: Quirks) -> None:
    """Check that an answer that is no refusal is about an installation that is there, and brings a code.

    Raises:
        ConnectFailed: somebody else has to approve it first, or the provider is not set to send a code.
    """
    if response.error not in ("", "invalid_response"):
        return
    ids = _ids(quirks)
    if not ids or not all(response.captured.get(name) for name in ids):
        raise ConnectFailed(
            "installation_pending",
            f"{app.name} names no installation. Perhaps an owner of the account has to approve it there first: "
            "connect again then.",
        )
    if not response.code:
        raise ConnectFailed(
            "invalid_response",
            f"{app.name} was installed, but its provider does not say by whom: let it request user authorization "
            "during installation, and connect again.",
        )


async def obtain_installation(
    broker: Broker, authorization: Authorization, provider: ProviderClient, person: TokenResponse, fresh: FreshConsent
) -> None:
    """Put the installation's first token, and what the next ones are obtained from, in the place of the person's.

    Raises:
        ConnectFailed: the installation is not that person's, or the provider gives no token for it.
    """
    app = authorization.app
    fresh.answer = None  # the person's is kept nowhere
    await _check_theirs(broker, authorization, provider, person, fresh)
    try:
        tokens = await sources.obtain(
            broker.http,
            provider.server,
            provider.client,
            AppType.INSTALLATION,
            fields={},
            scopes=authorization.request.scopes,
            resources=authorization.request.resources,
            quirks=provider.quirks,
        )
    except UpstreamError as error:
        log.warning("an installation gives no token", extra={"app": app.id, "error": error.message})
        raise failed_by(error) from error
    fresh.answer = replace(tokens, refresh_token=as_secret({}))


async def _check_theirs(
    broker: Broker, authorization: Authorization, provider: ProviderClient, person: TokenResponse, fresh: FreshConsent
) -> None:
    app = authorization.app
    token = person.access_token.get_secret_value()
    try:
        url = provider.quirks.url(provider.quirks.installation_check, app.name)
        answer = await broker.http.get_json(url, {"authorization": f"Bearer {token}"})
        if answer.status == 429 or answer.status >= 500:
            raise UpstreamUnavailable(f"{app.name} answered {answer.status}.")
    except UpstreamError as error:
        log.warning("an installation could not be checked", extra={"app": app.id, "error": error.message})
        raise failed_by(error) from error
    if not 200 <= answer.status < 300:
        ids = " ".join(fresh.details[name] for name in _ids(provider.quirks))
        raise ConnectFailed(
            "access_denied",
            f"{app.name} says that the installation {ids} is not this person's: connect as somebody who may use it.",
        )


def _ids(quirks: Quirks) -> list[str]:
    """Return the names of the variables that say which installation it is."""
    asked = placeholders.names_in(quirks.installation_check)
    return [capture.name for capture in quirks.captures if capture.source == "callback" and capture.name in asked]


def failed_by(error: UpstreamError) -> ConnectFailed:
    """Make the error that ends a trip, of what the provider said or did not say."""
    code = "server_error" if isinstance(error, UpstreamRejected) else "temporarily_unavailable"
    return ConnectFailed(error.provider_error or code, error.message)
