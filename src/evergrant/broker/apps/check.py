"""The check of an app's registration with its provider, as far as it can be made without a user (`app/test`)."""

from collections.abc import AsyncIterator

from evergrant import clock, placeholders
from evergrant.app_types import AppType
from evergrant.broker.apps import dynamic_registration
from evergrant.broker.apps.apps import load_app
from evergrant.broker.apps.check_result import CheckResult
from evergrant.broker.apps.check_source import checks_of_source
from evergrant.broker.apps.definition import missing_for_connect
from evergrant.broker.apps.health import note_unhealthy
from evergrant.broker.apps.provider_client import callback_url, client_document_url
from evergrant.broker.apps.quirks import quirks_of
from evergrant.broker.apps.variables import missing_variables, template_of
from evergrant.broker.runtime.broker import Broker
from evergrant.db import OutboundApp
from evergrant.errors import EvergrantError, InvalidValue, Refusal, UpstreamRejected, UpstreamUnavailable
from evergrant.oauth2.failures import ABOUT_THE_CLIENT
from evergrant.oauth2.protected_resource import Discovered, discover_either


async def check_app(broker: Broker, project_id: str, app_id: str) -> list[CheckResult]:
    """Check everything that a connect trip needs. Nothing is changed at the provider, nor here.

    But for one thing: that the provider has forgotten our registration is noted, so that the next connect registers.

    Raises:
        AppNotFound: there is no such app.
    """
    app = await load_app(broker, project_id, app_id)
    return [check async for check in checks_of(broker, app)]


async def checks_of(broker: Broker, app: OutboundApp) -> AsyncIterator[CheckResult]:
    """Check an app as `check_app` does, and yield each result as soon as it is there."""
    kind = AppType(app.app_type)
    if kind is AppType.API_KEY:
        yield CheckResult("definition", True, "It holds keys that were uploaded: nothing of it needs the provider.")
        return
    if not kind.is_consented:
        async for check in checks_of_source(broker, app):
            yield check
        return
    missing = missing_for_connect(app)
    missing += [f"variables.{name}" for name in missing_variables(template_of(broker, app), app.variables)]
    if missing:
        yield CheckResult("definition", False, f"It lacks {', '.join(missing)}: nobody can connect.")
        yield _check_redirect_uri(broker, app)
        return
    yield CheckResult("definition", True, "It has everything that a connect trip needs.")
    yield _check_redirect_uri(broker, app)
    if app.template_id and template_of(broker, app) is None:
        text = f"The template {app.template_id} is gone, and with it what only it knew of the provider's habits."
        yield CheckResult("template", False, text)
    if app.discovery_url:
        yield await _check_metadata(broker, app)
    yield await _check_authorization_endpoint(broker, app)
    if kind is AppType.INSTALLATION:  # it has no refresh tokens, so that the client is seen at a code only
        yield CheckResult("client", True, "It is tried with the first connection.")
        return
    async for check in _check_client(broker, app):
        yield check


def _check_redirect_uri(broker: Broker, app: OutboundApp) -> CheckResult:
    url = callback_url(broker, app)
    if not app.use_dcr:
        return CheckResult("redirect URI", True, f"Register {url} at the provider, exactly so.")
    if app.registered_redirect_uri not in ("", url):
        return CheckResult("redirect URI", True, f"It is now {url}: the next connect registers anew with that.")
    return CheckResult("redirect URI", True, f"{url}; evergrant registers it by itself.")


async def _check_metadata(broker: Broker, app: OutboundApp) -> CheckResult:
    """Compare what the provider publishes today with what the app has."""
    try:
        found = await discover_either(broker.http, app.discovery_url, resource_first=app.use_dcr)
    except InvalidValue as error:
        return CheckResult("metadata", False, "; ".join(entry["problem"] for entry in error.details["fields"]))
    differing = [name for name, theirs, ours in _published_and_stored(found, app) if theirs and theirs != ours]
    if differing:
        return CheckResult(
            "metadata", False, f"The provider publishes another {', '.join(differing)} than the app has."
        )
    return CheckResult("metadata", True, "What the provider publishes is what the app has.")


def _published_and_stored(found: Discovered, app: OutboundApp) -> list[tuple[str, str, str]]:
    server = found.server
    return [
        ("issuer", server.issuer, app.issuer),
        ("authorizationUrl", server.authorization_endpoint, app.authorization_url),
        ("tokenUrl", server.token_endpoint, app.token_url),
        ("dcrUrl", server.registration_endpoint if app.use_dcr else "", app.dcr_url),
        ("resource", found.resource, app.resource),
    ]


async def _check_authorization_endpoint(broker: Broker, app: OutboundApp) -> CheckResult:
    """Check that the endpoint answers. What it says to a request without parameters means nothing."""
    name = "authorization endpoint"
    url = quirks_of(broker, app).fill(app.authorization_url)
    if names := placeholders.names_in(url):
        return CheckResult(name, True, _DIFFERS_BY_CONNECTION.format(", ".join(names)))
    try:
        answer = await broker.http.get_json(url)
    except EvergrantError as error:
        return CheckResult(name, False, error.message)
    if answer.status in (404, 410) or answer.status >= 500:
        return CheckResult(name, False, f"It answers {answer.status}: check authorizationUrl.")
    return CheckResult(name, True, "It answers.")


async def _check_client(broker: Broker, app: OutboundApp) -> AsyncIterator[CheckResult]:
    name = "client"
    if dynamic_registration.needs_registration(broker, app, now=clock.now()):
        how = f"as {document}" if (document := client_document_url(broker, app)) else f"at {app.dcr_url}"
        yield CheckResult("registration", True, f"The next connect registers {how}.")
        return
    quirks = quirks_of(broker, app)
    if names := placeholders.names_in(quirks.fill(quirks.refresh_endpoint or app.token_url)):
        yield CheckResult("token endpoint", True, _DIFFERS_BY_CONNECTION.format(", ".join(names)))
        return
    if quirks.exchanges("refresh"):
        yield CheckResult(name, True, "This provider has no refresh tokens: nothing can be told without a user.")
        return
    try:
        await dynamic_registration.try_client(broker, app)
    except UpstreamUnavailable as error:
        yield CheckResult("token endpoint", False, error.message)
    except UpstreamRejected as error:
        noted = await dynamic_registration.note_refusal(broker, app, error)
        if noted is not error:
            await note_unhealthy(broker, app, noted.message)
            yield CheckResult("token endpoint", True, "It answers.")
            yield CheckResult("registration", False, noted.message)
        elif error.provider_error == "invalid_client_key":
            yield CheckResult(name, False, error.message)
        elif error.refusal in ABOUT_THE_CLIENT:
            yield CheckResult("token endpoint", True, "It answers.")
            yield CheckResult(
                name, False, f"{error.message} It may be clientId, clientSecret or tokenEndpointAuthMethod."
            )
        elif error.refusal in (Refusal.REQUEST, Refusal.INVALID_REQUEST):
            # A complaint about what was asked, by which a server may or may not have looked at the client before.
            yield CheckResult("token endpoint", True, "It answers.")
            text = f"It was not refused ({error.provider_error}); more cannot be told without a user."
            yield CheckResult(name, True, text)
        else:
            yield CheckResult("token endpoint", False, error.message)
    else:
        yield CheckResult("token endpoint", True, "It answers.")
        yield CheckResult(name, True, "The provider accepts the client id and secret.")


_DIFFERS_BY_CONNECTION = "Each connection has its own ({}), so that it cannot be asked without a user."
