"""What the tokens are for: the contacts, and who the person is (RFC 6750, OpenID Connect Core 5.3)."""

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse, Response

from evergrant.practice.state import AccessToken, ProviderState, claims_about
from evergrant.practice.world import CONTACTS


def resource_routes(state: ProviderState) -> APIRouter:
    """Return `GET /api/contacts` and `GET /userinfo`."""
    router = APIRouter()

    @router.get("/api/contacts")
    async def contacts(request: Request) -> Response:
        token = _admit(state, request, {"contacts.readonly", "contacts"})
        if isinstance(token, Response):
            return token
        return JSONResponse({"owner": token.family.person.name, "contacts": CONTACTS}, headers=_PRIVATE)

    @router.get("/userinfo")
    async def userinfo(request: Request) -> Response:
        token = _admit(state, request, {"openid"})
        if isinstance(token, Response):
            return token
        person = token.family.person
        return JSONResponse({"sub": person.id, **claims_about(person, token.scopes)}, headers=_PRIVATE)

    return router


_PRIVATE = {"Cache-Control": "no-store"}


def _admit(state: ProviderState, request: Request, any_of: set[str]) -> AccessToken | Response:
    scheme, _, value = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() != "bearer":
        return _refuse(401)
    token = state.access_tokens.get(value)
    if token is None or not token.works:
        return _refuse(401, "invalid_token", "The access token is unknown, expired or revoked.")
    if not token.scopes & any_of:
        return _refuse(403, "insufficient_scope", f"Needs one of: {' '.join(sorted(any_of))}.")
    return token


def _refuse(status: int, error: str = "", description: str = "") -> Response:
    # A request without a token is told how to authenticate and no more (RFC 6750 section 3.1).
    challenge = 'Bearer realm="practice"'
    if error:
        challenge += f', error="{error}", error_description="{description}"'
    body = {"error": error or "unauthorized", "error_description": description or "Send a bearer token."}
    return JSONResponse(body, status, {"WWW-Authenticate": challenge, **_PRIVATE})
