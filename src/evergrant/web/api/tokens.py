"""Fetching tokens: the hot path.

The handlers read the body and write the answer themselves; everything else is conventional.
"""

from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.routing import APIRoute
from pydantic import Field
from pydantic_core import to_json

from evergrant import clock
from evergrant.broker.grants.grants import ResourceOwner
from evergrant.broker.runtime.principal import Permission, Principal
from evergrant.broker.tokens.fetch import FetchRequest, fetch_token, parse_scopes
from evergrant.metrics import FetchTimer
from evergrant.web.api.token_wire import TokenAnswer, token_body
from evergrant.web.api.wire import AppId, Flag, OptionalId, OwnerId, Text, WireModel, errors, read_body
from evergrant.web.deps import get_broker, principal_of

router = APIRouter(prefix="/v1/mgmt/outbound/app", tags=["tokens"])


class FetchOptions(WireModel):
    """How to fetch."""

    with_refresh_token: Flag = Field(
        default=False, description="Return the refresh token too. The key needs `tokens:fetch:refresh_token`."
    )
    force_refresh: Flag = Field(default=False, description="Refresh first, even if the token is still good.")
    minimum_seconds: int = Field(
        default=0,
        ge=0,
        le=86_400,
        strict=True,
        description="The token returned lives at least this many seconds, or is refreshed.",
    )


class FetchBody(WireModel):
    """What every fetch call takes."""

    app_id: AppId
    external_identifier: OptionalId = Field(
        default="", description="Which of several accounts of the owner at the provider."
    )
    options: FetchOptions = Field(default_factory=FetchOptions)


class FetchUserTokenLatest(FetchBody):
    """A user's most recently consented token."""

    user_id: OwnerId
    tenant_id: OptionalId = Field(default="", description="The user's consent within this tenant.")


class FetchUserToken(FetchUserTokenLatest):
    """A user's token with these scopes."""

    scopes: list[Text] = Field(max_length=500, description="All of these, whatever their order.")


class FetchTenantTokenLatest(FetchBody):
    """A tenant's most recently consented token."""

    tenant_id: OwnerId


class FetchTenantToken(FetchTenantTokenLatest):
    """A tenant's token with these scopes."""

    scopes: list[Text] = Field(max_length=500, description="All of these, whatever their order.")


async def _fetcher(request: Request) -> Principal:
    principal = await principal_of(request)
    if not principal.is_user:  # whether a user may fetch depends on whose token it wants
        principal.require(Permission.TOKENS_FETCH)
    return principal


async def _answer(
    request: Request,
    timer: FetchTimer,
    principal: Principal,
    body: FetchBody,
    owner: ResourceOwner,
    scopes: list[str] | None,
) -> Response:
    wanted = FetchRequest(
        app_id=body.app_id,
        owner=owner,
        external_identifier=body.external_identifier,
        scopes=None if scopes is None else parse_scopes(scopes),
        with_refresh_token=body.options.with_refresh_token,
        force_refresh=body.options.force_refresh,
        minimum_seconds=body.options.minimum_seconds,
    )
    now = clock.now()
    token = await fetch_token(get_broker(request), principal, wanted, now=now)
    if token.grant.last_refresh_time is not None and token.grant.last_refresh_time >= now:
        timer.outcome = "refreshed"
    return Response(to_json({"token": token_body(token)}), media_type="application/json")


def _documented(model: type[WireModel], example: dict[str, Any]) -> dict[str, Any]:
    schema = {"$ref": f"#/components/schemas/{model.__name__}"}
    return {
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": schema, "example": example}},
        }
    }


_SCOPES = ["https://www.googleapis.com/auth/contacts.readonly"]
_USER = {"appId": "google-contacts", "userId": "alice"}
_TENANT = {"appId": "google-contacts", "tenantId": "acme"}


@router.post(
    "/user/token",
    operation_id="fetchUserToken",
    summary="Fetch a user's token by scopes",
    response_model=TokenAnswer,
    responses=errors(400, 404, 413, 502),
    openapi_extra=_documented(FetchUserToken, {**_USER, "scopes": _SCOPES, "options": {"forceRefresh": False}}),
)
async def fetch_user_token(request: Request) -> Response:
    """Return the grant whose scopes equal the request, else the smallest one that covers it, refreshed if needed."""
    with get_broker(request).metrics.time_fetch() as timer:
        principal = await _fetcher(request)
        body = await read_body(request, FetchUserToken)
        return await _answer(request, timer, principal, body, ResourceOwner(body.user_id, body.tenant_id), body.scopes)


@router.post(
    "/user/token/latest",
    operation_id="fetchLatestUserToken",
    summary="Fetch a user's most recent token",
    response_model=TokenAnswer,
    responses=errors(400, 404, 413, 502),
    openapi_extra=_documented(FetchUserTokenLatest, _USER),
)
async def fetch_latest_user_token(request: Request) -> Response:
    """Return the most recently consented grant that works, whatever its scopes."""
    with get_broker(request).metrics.time_fetch() as timer:
        principal = await _fetcher(request)
        body = await read_body(request, FetchUserTokenLatest)
        return await _answer(request, timer, principal, body, ResourceOwner(body.user_id, body.tenant_id), None)


@router.post(
    "/tenant/token",
    operation_id="fetchTenantToken",
    summary="Fetch a tenant's token by scopes",
    response_model=TokenAnswer,
    responses=errors(400, 404, 413, 502),
    openapi_extra=_documented(FetchTenantToken, {**_TENANT, "scopes": _SCOPES}),
)
async def fetch_tenant_token(request: Request) -> Response:
    """Return the tenant's own grant with these scopes, or the smallest one that covers them.

    A user's grant never answers for a tenant, nor the other way round.
    """
    with get_broker(request).metrics.time_fetch() as timer:
        principal = await _fetcher(request)
        body = await read_body(request, FetchTenantToken)
        return await _answer(request, timer, principal, body, ResourceOwner("", body.tenant_id), body.scopes)


@router.post(
    "/tenant/token/latest",
    operation_id="fetchLatestTenantToken",
    summary="Fetch a tenant's most recent token",
    response_model=TokenAnswer,
    responses=errors(400, 404, 413, 502),
    openapi_extra=_documented(FetchTenantTokenLatest, _TENANT),
)
async def fetch_latest_tenant_token(request: Request) -> Response:
    """Return the tenant's most recently consented grant that works, whatever its scopes."""
    with get_broker(request).metrics.time_fetch() as timer:
        principal = await _fetcher(request)
        body = await read_body(request, FetchTenantTokenLatest)
        return await _answer(request, timer, principal, body, ResourceOwner("", body.tenant_id), None)


PATHS = frozenset(route.path for route in router.routes if isinstance(route, APIRoute))
"""Where these calls are; a user's own token will do for them."""
REQUEST_MODELS = (FetchUserToken, FetchUserTokenLatest, FetchTenantToken, FetchTenantTokenLatest)
"""Models that FastAPI does not see, because the handlers read them; the OpenAPI document needs their schemas."""
