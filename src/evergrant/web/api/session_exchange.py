"""An agent session by token exchange: a user's token and its agent's for a key (RFC 8693, RFC 9396)."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Literal

from fastapi import Request
from pydantic import TypeAdapter, ValidationError

from evergrant.broker.access.session_exchange import SessionExchange, exchange_for_session
from evergrant.broker.access.user_tokens import authenticate_actor
from evergrant.broker.runtime.agent_limits import SessionApp
from evergrant.broker.runtime.principal import CALL_SCOPE, FETCH_SCOPE, Principal
from evergrant.errors import InvalidRequest, PermissionDenied
from evergrant.networks import limited_as
from evergrant.web.api.session_wire import AppOfSession, new_session
from evergrant.web.asked import address_of
from evergrant.web.deps import get_broker
from evergrant.web.errors import invalid_request

ACCESS_TOKEN = "urn:ietf:params:oauth:token-type:access_token"
SUBJECTS = (ACCESS_TOKEN, "urn:ietf:params:oauth:token-type:jwt")
AGENT_SESSION = "urn:evergrant:token-type:agent-session"
CONNECT_SCOPE = "outbound.connect"
SESSION_SCOPES = (CALL_SCOPE, CONNECT_SCOPE, FETCH_SCOPE)
"""What a session may do by exchange; the first always."""
DETAILS_TYPE = "outbound_app"
_MOST_LETTERS = 100_000


class OAuthError(Exception):
    """An error in the form of RFC 6749 section 5.2; the description is for a developer."""

    def __init__(self, error: str, description: str, *, status: int = 400, retry_after: int | None = None) -> None:
        super().__init__(description)
        self.error, self.description, self.status, self.retry_after = error, description, status, retry_after


class DetailOfApp(AppOfSession):
    """What a session may do with one app, as an authorization detail (RFC 9396 section 2)."""

    type: Literal["outbound_app"]


_DETAILS = TypeAdapter(list[DetailOfApp])


async def mint_by_exchange(
    request: Request, principal: Principal, form: Mapping[str, str], *, now: datetime
) -> dict[str, Any]:
    """Mint a session for the subject of a form, and return the answer. There is no refresh: exchange again.

    Raises:
        OAuthError: the form says too little, or asks for too much.
        AuthenticationFailed, UpstreamUnavailable: as `authenticate_actor`.
    """
    for name in ("audience", "resource"):
        if name in form:
            raise OAuthError("invalid_request", f"{name} is for providers' tokens: say apps in authorization_details")
    for name in ("actor_token", "actor_token_type"):
        if name not in form:
            raise OAuthError("invalid_request", f"{name} is required")
    if form["actor_token_type"] not in SUBJECTS:
        raise OAuthError("invalid_request", f"actor_token_type must be {' or '.join(SUBJECTS)}")
    scopes = set(form.get("scope", "").split())
    if not scopes <= set(SESSION_SCOPES):
        raise OAuthError("invalid_scope", f"use {', '.join(SESSION_SCOPES)}")
    wanted = SessionExchange(
        apps=_apps(form.get("authorization_details", "")),
        tenant_id=form.get("tenant_id", ""),
        connect=CONNECT_SCOPE in scopes,
        fetch=FETCH_SCOPE in scopes,
    )
    broker, network = get_broker(request), limited_as(address_of(request.scope))
    actor = await authenticate_actor(broker, principal.project_id, form["actor_token"], network=network, now=now)
    try:
        made = await exchange_for_session(broker, principal, actor, wanted, now=now)
    except PermissionDenied as error:  # "unacceptable based on policy" (RFC 8693 section 2.2.2)
        raise OAuthError("invalid_request", error.message) from None
    except InvalidRequest as error:
        raise OAuthError("invalid_authorization_details", error.message) from None
    row = made.row
    granted = {CALL_SCOPE, *scopes}
    return {
        "access_token": made.key,
        "issued_token_type": AGENT_SESSION,
        "token_type": "Bearer",
        "expires_in": max(0, int((row.expires_at - now).total_seconds())),
        "scope": " ".join(scope for scope in SESSION_SCOPES if scope in granted),
        "authorization_details": [{"type": DETAILS_TYPE, **app} for app in row.apps],
        "session": new_session(row, broker.settings.public_url).model_dump(by_alias=True),
    }


def _apps(text: str) -> list[SessionApp]:
    if not text:
        problem = f'say which apps: [{{"type": "{DETAILS_TYPE}", "appId": "..."}}]'
        raise OAuthError("invalid_authorization_details", problem)
    if len(text) > _MOST_LETTERS:
        raise OAuthError("invalid_authorization_details", f"use at most {_MOST_LETTERS:,} characters")
    try:
        return [detail.read() for detail in _DETAILS.validate_json(text)]
    except ValidationError as error:
        problem = invalid_request(error.errors(include_url=False, include_input=False)).message
        raise OAuthError("invalid_authorization_details", problem) from None
