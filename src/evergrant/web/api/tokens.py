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
from evergrant.broker.tokens.fetch import FetchRequest, Token, fetch_token, parse_scopes
from evergrant.metrics import FetchTimer
from evergrant.web.api.wire import AppId, Flag, OptionalId, OwnerId, Text, WireModel, epoch, errors, example, read_body
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


class TokenBody(WireModel):
    """A token that works now."""

    id: str = Field(description="The connection's id.")
    app_id: str
    user_id: str = Field(description="Empty for a tenant's token.")
    token_sub: str = Field(description="The user's id at the provider; empty when unknown.")
    access_token: str
    access_token_type: str
    access_token_expiry: str = Field(description="Epoch seconds as text; empty when the provider gave no end.")
    has_refresh_token: bool
    refresh_token: str | None = Field(default=None, description="Only with `withRefreshToken`.")
    last_refresh_time: str = Field(description="Epoch seconds as text; empty before the first refresh.")
    last_refresh_error: str
    scopes: list[str]
    tenant_id: str | None = None
    granted_by: str | None = None
    external_identifier: str | None = None
    details: dict[str, str] | None = Field(
        default=None,
        description="What calls to the provider's API need beside the token (its shop, instance or company), by "
        "variable of the app's template; left out where there is nothing.",
    )


class TokenAnswer(WireModel):
    """The answer of every fetch call."""

    model_config = example(
        {
            "token": {
                "id": "9b2f6f0c5d8e4a7190c3b7d1e2f4a586",
                "appId": "google-contacts",
                "userId": "alice",
                "tokenSub": "113456789012345678901",
                "accessToken": "ya29.a0AfB...",
                "accessTokenType": "Bearer",
                "accessTokenExpiry": "1741107113",
                "hasRefreshToken": True,
                "lastRefreshTime": "1741103514",
                "lastRefreshError": "",
                "scopes": ["https://www.googleapis.com/auth/contacts.readonly"],
            }
        }
    )

    token: TokenBody


def token_body(token: Token) -> dict[str, Any]:
    """Write a token as the SDKs read it: what a plain user's token does not have is left out, not empty."""
    view = token.grant
    body: dict[str, Any] = {
        "id": view.id,
        "appId": view.app_id,
        "userId": view.user_id,
        "tokenSub": view.token_sub,
        "accessToken": token.access_token.get_secret_value(),
        "accessTokenType": view.access_token_type,
        "accessTokenExpiry": epoch(view.expires_at),
        "hasRefreshToken": view.refresh_token is not None,
    }
    if token.refresh_token is not None:
        body["refreshToken"] = token.refresh_token.get_secret_value()
    body |= {
        "lastRefreshTime": epoch(view.last_refresh_time),
        "lastRefreshError": view.last_refresh_error,
        "scopes": view.scopes,
    }
    if view.tenant_id:
        body["tenantId"] = view.tenant_id
    if view.granted_by:
        body["grantedBy"] = view.granted_by
    if view.external_identifier:
        body["externalIdentifier"] = view.external_identifier
    if view.details:
        body["details"] = view.details
    return body


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
