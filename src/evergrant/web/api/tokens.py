"""Fetching tokens: the hot path.

The calls are plain ASGI (`web.plain`). Their routes document them as the conventional ones do, by the same models.
"""

import inspect
from collections.abc import Callable
from functools import lru_cache
from typing import Any, TypeGuard

from pydantic import Field
from pydantic_core import from_json, to_json
from starlette.types import Receive, Scope

from evergrant import clock
from evergrant.broker.grants.grants import ResourceOwner
from evergrant.broker.runtime.broker import Broker
from evergrant.broker.runtime.principal import Permission
from evergrant.broker.tokens.fetch import FetchRequest, fetch_token, parse_scopes
from evergrant.web.api.token_wire import TokenAnswer, token_body
from evergrant.web.api.wire import (
    LONGEST_APP_ID,
    LONGEST_ID,
    AppId,
    Flag,
    OptionalId,
    OwnerId,
    Text,
    WireModel,
    errors,
    parsed,
)
from evergrant.web.deps import limited_in
from evergrant.web.middleware import body_of
from evergrant.web.plain import PlainRoute
from evergrant.web.routing import ApiRouter

router = ApiRouter(prefix="/v1/mgmt/outbound/app", tags=["tokens"], route_class=PlainRoute)

MOST_SCOPES = 500
MOST_REMEMBERED, LONGEST_REMEMBERED = 2_048, 512
"""How many bodies of a call, of so many bytes at most, are remembered with what they ask for: agents repeat themselves.
A body has no secrets, and what one asks for is the same whoever asks."""


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

    scopes: list[Text] = Field(max_length=MOST_SCOPES, description="All of these, whatever their order.")


class FetchTenantTokenLatest(FetchBody):
    """A tenant's most recently consented token."""

    tenant_id: OwnerId


class FetchTenantToken(FetchTenantTokenLatest):
    """A tenant's token with these scopes."""

    scopes: list[Text] = Field(max_length=MOST_SCOPES, description="All of these, whatever their order.")


_FLAGS = frozenset({"withRefreshToken", "forceRefresh"})


class FetchCall:
    """One of the four calls, as `web.plain` makes it."""

    def __init__(self, model: type[FetchBody], owner: Callable[[Any], ResourceOwner]) -> None:
        """`owner` tells whose token a body of this model asks for."""
        self.model, self._owner = model, owner
        members = {field.alias for field in model.model_fields.values()}
        self._usual_members = members & {"appId", "externalIdentifier", "options", "userId", "tenantId", "scopes"}
        self._remembered = lru_cache(MOST_REMEMBERED)(lambda body: self.usual(body) or self.read(body))
        self._is_of_user, self._has_scopes = "userId" in members, "scopes" in members

    async def __call__(self, scope: Scope, receive: Receive) -> bytes:
        """Return the answer, as JSON."""
        broker: Broker = scope["app"].state.broker
        with broker.metrics.time_fetch() as timer:
            authorization = next((value for name, value in scope["headers"] if name == b"authorization"), b"")
            principal = await limited_in(scope, broker, authorization.decode("latin-1"))
            if not principal.is_user:  # whether a user may fetch depends on whose token it wants
                principal.require(Permission.TOKENS_FETCH)
            wanted = self.wanted(await body_of(scope, receive))
            now = clock.now()
            token = await fetch_token(broker, principal, wanted, now=now)
            if token.grant.last_refresh_time is not None and token.grant.last_refresh_time >= now:
                timer.outcome = "refreshed"
            return to_json({"token": token_body(token)})

    def wanted(self, body: bytes) -> FetchRequest:
        """Read what a body asks for.

        Raises:
            MalformedRequest, MissingArgument, InvalidValue: as the conventional calls.
        """
        if len(body) <= LONGEST_REMEMBERED:
            return self._remembered(body)
        return self.usual(body) or self.read(body)

    def read(self, body: bytes) -> FetchRequest:
        """Read a body by its model, whatever it is. Raises as `wanted`."""
        asked = parsed(body, self.model)
        return FetchRequest(
            app_id=asked.app_id,
            owner=self._owner(asked),
            external_identifier=asked.external_identifier,
            scopes=parse_scopes(asked.scopes) if isinstance(asked, FetchUserToken | FetchTenantToken) else None,
            with_refresh_token=asked.options.with_refresh_token,
            force_refresh=asked.options.force_refresh,
            minimum_seconds=asked.options.minimum_seconds,
        )

    def usual(self, body: bytes) -> FetchRequest | None:
        """Read a body as nearly all are: printable ids and scopes, and no option that is set. None for any other.

        The model says what can be asked for; this is the usual part of it, at a fifth of the cost.
        """
        try:
            asked = from_json(body)
        except ValueError:
            return None
        if type(asked) is not dict or not self._usual_members.issuperset(asked):
            return None
        app_id, scopes, identifier = asked.get("appId"), asked.get("scopes"), asked.get("externalIdentifier", "")
        user_id, tenant_id = asked.get("userId", ""), asked.get("tenantId", "")
        if not _is_word(app_id) or len(app_id) > LONGEST_APP_ID:
            return None
        if not (_is_id(user_id) and _is_id(tenant_id) and _is_id(identifier) and _is_unset(asked.get("options"))):
            return None
        if not (user_id if self._is_of_user else tenant_id):
            return None
        if self._has_scopes:
            if type(scopes) is not list or len(scopes) > MOST_SCOPES or not all(map(_is_word, scopes)):
                return None
            scopes = tuple(scopes)
        return FetchRequest(app_id, ResourceOwner(user_id, tenant_id), identifier, scopes)


def _is_unset(options: Any) -> bool:
    return options is None or (
        type(options) is dict and _FLAGS.issuperset(options) and all(value is False for value in options.values())
    )


def _is_id(value: Any) -> TypeGuard[str]:
    return type(value) is str and value.isprintable() and len(value) <= LONGEST_ID


def _is_word(value: Any) -> TypeGuard[str]:
    return type(value) is str and value.isprintable() and " " not in value and value != ""


def _documented(example: dict[str, Any]) -> dict[str, Any]:
    return {"requestBody": {"content": {"application/json": {"example": example}}}}


_SCOPES = ["https://www.googleapis.com/auth/contacts.readonly"]
_USER = {"appId": "google-contacts", "userId": "alice"}
_TENANT = {"appId": "google-contacts", "tenantId": "acme"}


@router.post(
    "/user/token",
    summary="Fetch a user's token by scopes",
    response_model=TokenAnswer,
    responses=errors(400, 404, 413, 502),
    openapi_extra=_documented({**_USER, "scopes": _SCOPES, "options": {"forceRefresh": False}}),
)
def fetch_user_token(body: FetchUserToken) -> ResourceOwner:
    """Return the grant whose scopes equal the request, else the smallest one that covers it, refreshed if needed."""
    return ResourceOwner(body.user_id, body.tenant_id)


@router.post(
    "/user/token/latest",
    summary="Fetch a user's most recent token",
    response_model=TokenAnswer,
    responses=errors(400, 404, 413, 502),
    openapi_extra=_documented(_USER),
)
def fetch_latest_user_token(body: FetchUserTokenLatest) -> ResourceOwner:
    """Return the most recently consented grant that works, whatever its scopes."""
    return ResourceOwner(body.user_id, body.tenant_id)


@router.post(
    "/tenant/token",
    summary="Fetch a tenant's token by scopes",
    response_model=TokenAnswer,
    responses=errors(400, 404, 413, 502),
    openapi_extra=_documented({**_TENANT, "scopes": _SCOPES}),
)
def fetch_tenant_token(body: FetchTenantToken) -> ResourceOwner:
    """Return the tenant's own grant with these scopes, or the smallest one that covers them.

    A user's grant never answers for a tenant, nor the other way round.
    """
    return ResourceOwner("", body.tenant_id)


@router.post(
    "/tenant/token/latest",
    summary="Fetch a tenant's most recent token",
    response_model=TokenAnswer,
    responses=errors(400, 404, 413, 502),
    openapi_extra=_documented(_TENANT),
)
def fetch_latest_tenant_token(body: FetchTenantTokenLatest) -> ResourceOwner:
    """Return the tenant's most recently consented grant that works, whatever its scopes."""
    return ResourceOwner("", body.tenant_id)


CALLS = {
    route.path: FetchCall(inspect.signature(route.endpoint).parameters["body"].annotation, route.endpoint)
    for route in router.routes
    if isinstance(route, PlainRoute)
}
"""The calls by their paths. A route's function tells whose token is asked for, and its docstring documents the call."""
PATHS = frozenset(CALLS)
"""Where these calls are; a user's own token will do for them."""
