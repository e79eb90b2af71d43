"""Token exchange at the standard's own endpoint: form in, OAuth JSON out (RFC 8693).

What comes out is a provider's token, or an agent session for the user and an agent (`session_exchange`).
"""

import logging
from collections.abc import Mapping
from datetime import datetime
from typing import Any
from urllib.parse import parse_qsl

from fastapi import Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field

from evergrant import clock
from evergrant.broker.grants.credentials import CREDENTIALS_TYPE
from evergrant.broker.runtime.principal import Principal
from evergrant.broker.tokens.exchange import ExchangeRequest, exchange_subject_token
from evergrant.broker.tokens.fetch import Token
from evergrant.errors import (
    AppNotFound,
    AuthenticationFailed,
    EvergrantError,
    InvalidRequest,
    OperatorError,
    PermissionDenied,
    RateLimited,
    TokenNotFound,
    UpstreamRejected,
)
from evergrant.web.api.session_exchange import (
    ACCESS_TOKEN,
    AGENT_SESSION,
    SESSION_SCOPES,
    SUBJECTS,
    DetailOfApp,
    OAuthError,
    mint_by_exchange,
)
from evergrant.web.api.session_wire import NewSession
from evergrant.web.api.token_wire import carried_members
from evergrant.web.api.wire import example
from evergrant.web.deps import get_broker, recognised
from evergrant.web.errors import note_limit
from evergrant.web.routing import ApiRouter

log = logging.getLogger(__name__)

router = ApiRouter(tags=["token exchange"])

GRANT_TYPE = "urn:ietf:params:oauth:grant-type:token-exchange"


class ExchangeAnswer(BaseModel):
    """A provider's token, or an agent session's key (RFC 8693 section 2.2.1)."""

    model_config = example(
        {
            "access_token": "ya29.a0AfB...",
            "issued_token_type": ACCESS_TOKEN,
            "token_type": "Bearer",
            "expires_in": 3599,
            "scope": "https://www.googleapis.com/auth/contacts.readonly",
        }
    )

    access_token: str
    issued_token_type: str
    token_type: str
    expires_in: int | None = Field(default=None, description="Seconds; left out when the provider gave no end.")
    scope: str
    details: dict[str, str] | None = Field(
        default=None, description="What calls to the provider's API need beside the token, as a fetch has it."
    )
    headers: dict[str, str] | None = Field(
        default=None, description="Of credentials with several fields: ready headers, as a fetch has them."
    )
    query: dict[str, str] | None = Field(default=None, description="Ready query parameters, likewise.")
    authorization_details: list[DetailOfApp] | None = Field(
        default=None, description="Of an agent session: what it may do with which app (RFC 9396 section 7)."
    )
    session: NewSession | None = Field(default=None, description="Of an agent session: where its agent finds what.")


class ExchangeErrorAnswer(BaseModel):
    """An error (RFC 6749 section 5.2)."""

    model_config = example({"error": "invalid_target", "error_description": "There is no outbound app with this id."})

    error: str
    error_description: str


_FIELDS = {
    "grant_type": f"`{GRANT_TYPE}`",
    "subject_token": "The user's access token, from a trusted issuer, with the scope `outbound.token.fetch`; for an "
    "agent session, `outbound.call` is enough.",
    "subject_token_type": " or ".join(f"`{name}`" for name in SUBJECTS),
    "audience": "The app, by its id. This or `resource` is required, but for an agent session.",
    "resource": "The app, by the resource that its tokens are for.",
    "scope": "Separated by spaces; left out for the most recent connection. For an agent session, what it may do: "
    f"{', '.join(f'`{name}`' for name in SESSION_SCOPES)}.",
    "requested_token_type": f"`{ACCESS_TOKEN}`, which is also meant without it; or `{AGENT_SESSION}`.",
    "actor_token": "For an agent session: the agent's own token, of an issuer that the project trusts.",
    "actor_token_type": "As `subject_token_type`; required with `actor_token`.",
    "authorization_details": "For an agent session: a JSON list of objects with `type: outbound_app` and the members "
    "of `apps` when a backend mints one (RFC 9396).",
    "project_id": "Which project, where several trust the token's issuer.",
    "tenant_id": "The user's connection within this tenant, or which tenant of a machine's token.",
}
_NOT_KEPT = {"Pragma": "no-cache"}
_REQUIRED = ("grant_type", "subject_token", "subject_token_type")


def _documented_error(description: str) -> dict[str, Any]:
    return {"model": ExchangeErrorAnswer, "description": description}


@router.post(
    "/oauth2/v1/token",
    summary="Exchange a user's token for a provider's",
    response_model=ExchangeAnswer,
    responses={
        400: _documented_error("`error` says what is wrong (RFC 6749 section 5.2, RFC 8693 section 2.2.2)."),
        429: _documented_error("Too many requests. Obey `Retry-After` (seconds)."),
        502: _documented_error("The provider refuses the app, which its operator must correct, or this connection."),
        503: _documented_error("The provider, the issuer or the database is away. Obey `Retry-After` (seconds)."),
    },
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {
                "application/x-www-form-urlencoded": {
                    "schema": {
                        "type": "object",
                        "required": list(_REQUIRED),
                        "properties": {name: {"type": "string", "description": text} for name, text in _FIELDS.items()},
                    },
                    "example": {
                        "grant_type": GRANT_TYPE,
                        "subject_token": "eyJhbGciOi...",
                        "subject_token_type": ACCESS_TOKEN,
                        "audience": "google-contacts",
                    },
                }
            },
        }
    },
)
async def exchange_token(request: Request) -> Response:
    """Return the token that the subject's own fetch would return, by RFC 8693: the same rules and policies."""
    now = clock.now()
    try:
        try:
            form = _form(request, await request.body())
            principal = await _subject(request, form)
            if form.get("requested_token_type") == AGENT_SESSION:
                return JSONResponse(await mint_by_exchange(request, principal, form, now=now), headers=_NOT_KEPT)
            token = await exchange_subject_token(get_broker(request), principal, _wanted(form), now=now)
            if token.grant.access_token_type == CREDENTIALS_TYPE:
                raise OAuthError("invalid_target", "the app's credentials are several values, and no one token")
        except EvergrantError as error:
            note_limit(request, error)
            raise _translated(error) from error
    except OAuthError as error:
        headers = dict(_NOT_KEPT)
        if error.retry_after is not None:
            headers["Retry-After"] = str(error.retry_after)
        return JSONResponse({"error": error.error, "error_description": error.description}, error.status, headers)
    return JSONResponse(_body(token, now=now), headers=_NOT_KEPT)


def _form(request: Request, body: bytes) -> Mapping[str, str]:
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/x-www-form-urlencoded":
        raise OAuthError("invalid_request", "send a form: Content-Type: application/x-www-form-urlencoded")
    try:
        pairs = [pair for pair in parse_qsl(body.decode(), max_num_fields=50, errors="strict") if pair[1]]
    except ValueError:
        raise OAuthError("invalid_request", "the form cannot be read") from None
    form = dict(pairs)
    for name in form:
        if name in _FIELDS and sum(1 for key, _ in pairs if key == name) > 1:  # RFC 6749 section 3.2
            error = "invalid_target" if name in ("audience", "resource") else "invalid_request"
            raise OAuthError(error, f"send {name} once")
    if any("\x00" in value for value in form.values()):
        raise OAuthError("invalid_request", "a parameter contains the NUL character")
    if form.get("grant_type", GRANT_TYPE) != GRANT_TYPE:
        raise OAuthError("unsupported_grant_type", f"grant_type must be {GRANT_TYPE}")
    for name in _REQUIRED:
        if name not in form:
            raise OAuthError("invalid_request", f"{name} is required")
    if form["subject_token_type"] not in SUBJECTS:
        raise OAuthError("invalid_request", f"subject_token_type must be {' or '.join(SUBJECTS)}")
    if form.get("requested_token_type") == AGENT_SESSION:
        return form
    if form.get("requested_token_type", ACCESS_TOKEN) != ACCESS_TOKEN:
        raise OAuthError("invalid_request", f"requested_token_type must be {ACCESS_TOKEN} or {AGENT_SESSION}")
    if "actor_token" in form:
        raise OAuthError("invalid_request", f"actor_token is for requested_token_type={AGENT_SESSION} alone")
    if not form.get("audience") and not form.get("resource"):
        raise OAuthError("invalid_target", "say which app: audience is its id")
    return form


async def _subject(request: Request, form: Mapping[str, str]) -> Principal:
    token, project_id = form["subject_token"], form.get("project_id")
    if ":" in token:  # no JWT has one; and a management key is nobody's token
        raise AuthenticationFailed("The subject_token is not a JWT.")
    header = f"Bearer {project_id}:{token}" if project_id else f"Bearer {token}"
    principal = await recognised(request, header)
    if not principal.is_user or principal.session is not None:
        raise AuthenticationFailed("The subject_token is not a JWT.")
    return principal


def _wanted(form: Mapping[str, str]) -> ExchangeRequest:
    scopes = form.get("scope", "").split()
    return ExchangeRequest(
        audience=form.get("audience", ""),
        resource=form.get("resource", ""),
        scopes=tuple(scopes) if scopes else None,
        tenant_id=form.get("tenant_id", ""),
    )


def _body(token: Token, *, now: datetime) -> dict[str, Any]:
    view = token.grant
    body: dict[str, Any] = {
        "access_token": token.access_token.get_secret_value(),
        "issued_token_type": ACCESS_TOKEN,
        "token_type": view.access_token_type or "Bearer",
    }
    if view.expires_at is not None:
        body["expires_in"] = max(0, int((view.expires_at - now).total_seconds()))
    body["scope"] = " ".join(view.scopes)
    if view.details:
        body["details"] = view.details
    if token.carried is not None:
        body |= carried_members(token.carried)
    return body


def _translated(error: EvergrantError) -> OAuthError:
    """Find the OAuth error for one of ours. By RFC 8693 section 2.2.2, a bad subject_token is an invalid request."""
    match error:
        case AuthenticationFailed() | InvalidRequest():
            return OAuthError("invalid_request", error.message)
        case AppNotFound() | PermissionDenied():
            return OAuthError("invalid_target", error.message)
        case TokenNotFound() if "missingScopes" in error.details:
            return OAuthError("invalid_scope", error.message)
        case TokenNotFound():
            return OAuthError("invalid_grant", error.message)
        case UpstreamRejected():
            return OAuthError("server_error", error.message, status=502)
        case OperatorError():
            log.error("not set up correctly", exc_info=error)
            return OAuthError("server_error", OperatorError().message, status=500)
        case RateLimited():
            return OAuthError("temporarily_unavailable", error.message, status=429, retry_after=error.retry_after)
        case _ if error.status == 503:
            return OAuthError("temporarily_unavailable", error.message, status=503, retry_after=error.retry_after or 5)
        case _:
            return OAuthError("invalid_request", error.message, status=error.status)
