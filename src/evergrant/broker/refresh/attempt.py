"""One refresh under way: what it needs, put together once and handed from step to step, and the call itself."""

import time
from dataclasses import dataclass

from pydantic import SecretStr

from evergrant.app_types import AppType
from evergrant.broker.apps.provider_client import ProviderClient, callback_url
from evergrant.broker.apps.variables import template_of
from evergrant.broker.grants.credentials import fields_in, with_found
from evergrant.broker.refresh.lease import LeasedGrant
from evergrant.broker.runtime.broker import Broker
from evergrant.broker.runtime.endpoints import Endpoint
from evergrant.db import OutboundApp
from evergrant.errors import TooLateToSend, UpstreamUnavailable
from evergrant.oauth2 import sources, token_endpoint
from evergrant.oauth2.token_response import TokenResponse


@dataclass(frozen=True, slots=True)
class RefreshAttempt:
    """A leased grant with its app, its provider and the token endpoint that will be called."""

    leased: LeasedGrant
    app: OutboundApp
    provider: ProviderClient
    endpoint: Endpoint
    why: str
    """`background`, `fetch` where somebody waits for a token, or `forced`."""


async def send_refresh_token(
    broker: Broker, attempt: RefreshAttempt, refresh_token: SecretStr, *, seconds: float | None = None
) -> TokenResponse:
    """Send a refresh token to the attempt's provider and return its answer. No database connection is held meanwhile.

    Where credentials stand in its place, a token is obtained with them.

    `seconds` is how long the provider may take; None for the usual time. Nothing is sent when the lease is over.

    Raises:
        ReauthorizationRequired, UpstreamRejected, UpstreamUnavailable: as `token_endpoint.refresh`. TooLateToSend: this
            process stood still for too long, and nothing was sent.
    """
    grant, app, provider = attempt.leased.grant, attempt.app, attempt.provider
    kind, fields = AppType(app.app_type), _fields(broker, app, refresh_token)
    client_id = fields.get("client_id") or app.client_id  # what a provider allows, it allows the client that asks
    async with attempt.endpoint.call(name=app.name, client_id=client_id, whose=grant.id):
        started = time.perf_counter()
        was_sent = True
        http = broker.http.under(seconds=seconds, send_before=attempt.leased.ends)
        resources = grant.resources or ([app.resource] if app.resource else ())
        try:
            if kind.is_obtained:
                return await sources.obtain(
                    http,
                    provider.server,
                    provider.client,
                    kind,
                    fields=fields,
                    scopes=grant.scopes,
                    resources=resources,
                    quirks=provider.quirks,
                )
            return await token_endpoint.refresh(
                http,
                provider.server,
                provider.client,
                refresh_token=refresh_token,
                resources=resources,
                granted=grant.scopes,
                redirect_uri=callback_url(broker, app),
                quirks=provider.quirks,
            )
        except TooLateToSend:
            was_sent = False
            raise
        except UpstreamUnavailable as error:
            error.in_doubt = error.in_doubt and not kind.is_obtained  # an answer that is lost takes nothing along
            raise
        finally:
            if was_sent:
                broker.activity.note_call(app.project_id, app.id, (time.perf_counter() - started) * 1000)


def _fields(broker: Broker, app: OutboundApp, refresh_token: SecretStr) -> dict[str, str]:
    """Return the fields that stand in the refresh token's place; none where it is one."""
    if not AppType(app.app_type).is_obtained:
        return {}
    return with_found(template_of(broker, app), fields_in(refresh_token))
