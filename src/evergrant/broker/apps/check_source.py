"""The check of an app that obtains its tokens by itself: with the app's own credentials, it asks for one."""

from collections.abc import AsyncIterator

from evergrant.app_types import AppType
from evergrant.broker.apps.check_result import CheckResult
from evergrant.broker.apps.kind_rules import missing_for_tokens
from evergrant.broker.apps.provider_client import provider_client
from evergrant.broker.apps.variables import missing_variables, template_of
from evergrant.broker.runtime.broker import Broker
from evergrant.db import OutboundApp
from evergrant.errors import UpstreamRejected, UpstreamUnavailable
from evergrant.oauth2 import sources
from evergrant.oauth2.failures import ABOUT_THE_CLIENT

_TRIED = (AppType.CLIENT_CREDENTIALS, AppType.JWT_BEARER, AppType.SIGNED_JWT)
"""Asking for one more token changes nothing. A login may end the session before."""


async def checks_of_source(broker: Broker, app: OutboundApp) -> AsyncIterator[CheckResult]:
    """Check what can be told without a connection, and yield each result as soon as it is there."""
    template = template_of(broker, app)
    missing = missing_for_tokens(app, template)
    missing += [f"variables.{name}" for name in missing_variables(template, app.variables)]
    if missing:
        yield CheckResult("definition", False, f"It lacks {', '.join(missing)}: it gets no tokens.")
        return
    yield CheckResult("definition", True, "It has everything of its own that its tokens need.")
    if app.template_id and template is None:
        text = f"The template {app.template_id} is gone, and with it how tokens are obtained."
        yield CheckResult("template", False, text)
        return
    kind = AppType(app.app_type)
    asked = template is not None and (
        any(field.is_asked_for and field.required for field in template.fields.values())
        or any(v.source == "user" and v.is_required and not app.variables.get(n) for n, v in template.variables.items())
    )
    if asked or kind not in _TRIED:
        yield CheckResult("credentials", True, "Each connection has its own: they are tried when they are uploaded.")
        return
    yield await _try_source(broker, app, kind)


async def _try_source(broker: Broker, app: OutboundApp, kind: AppType) -> CheckResult:
    provider = await provider_client(broker, app)
    try:
        await sources.obtain(
            broker.http,
            provider.server,
            provider.client,
            kind,
            fields={},
            scopes=app.default_scopes,
            resources=[app.resource] if app.resource else (),
            quirks=provider.quirks,
        )
    except UpstreamUnavailable as error:
        return CheckResult("token endpoint", False, error.message)
    except UpstreamRejected as error:
        if error.refusal not in ABOUT_THE_CLIENT:
            return CheckResult("token", False, error.message)
        remedy = "It may be clientId, clientSecret or tokenEndpointAuthMethod."
        return CheckResult("client", False, f"{error.message} {remedy}")
    return CheckResult("token", True, "It gets a token.")
