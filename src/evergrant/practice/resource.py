"""What the tokens are for: the contacts, and who the person is (RFC 6750, OpenID Connect Core 5.3)."""

import json
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse, Response

from evergrant.practice.state import AccessToken, ProviderState, claims_about
from evergrant.practice.world import CONTACTS


def resource_routes(state: ProviderState) -> APIRouter:
    """Return `GET` and `POST /api/contacts`, and `GET /userinfo`."""
    router = APIRouter()

    @router.get("/api/contacts")
    async def contacts(request: Request) -> Response:
        token = _admit(state, request, {"contacts.readonly", "contacts"})
        if isinstance(token, Response):
            return token
        person = token.family.person
        known = [*CONTACTS, *state.added_contacts[person.id]]
        return JSONResponse({"owner": person.name, "contacts": known}, headers=_PRIVATE)

    @router.post("/api/contacts")
    async def add_contact(request: Request) -> Response:
        token = _admit(state, request, {"contacts"})
        if isinstance(token, Response):
            return token
        contact = _contact(await request.body())
        if contact is None:
            body = {"error": "invalid_contact", "error_description": f"Send JSON with texts: {', '.join(_FIELDS)}."}
            return JSONResponse(body, 400, _PRIVATE)
        added = state.added_contacts[token.family.person.id]
        if len(added) >= MOST_ADDED:
            body = {"error": "full", "error_description": f"Nobody can add more than {MOST_ADDED} contacts."}
            return JSONResponse(body, 409, _PRIVATE)
        added.append(contact)
        return JSONResponse(contact, 201, _PRIVATE)

    @router.get("/userinfo")
    async def userinfo(request: Request) -> Response:
        token = _admit(state, request, {"openid"})
        if isinstance(token, Response):
            return token
        person = token.family.person
        return JSONResponse({"sub": person.id, **claims_about(person, token.scopes)}, headers=_PRIVATE)

    return router


MOST_ADDED = 100
_FIELDS = ("name", "email", "phone")
_PRIVATE = {"Cache-Control": "no-store"}


def _contact(body: bytes) -> dict[str, str] | None:
    try:
        sent: Any = json.loads(body)
    except ValueError:
        return None
    if not isinstance(sent, dict) or not sent.get("name"):
        return None
    contact = {name: sent.get(name, "") for name in _FIELDS}
    good = all(isinstance(value, str) and len(value) <= 200 for value in contact.values())
    return contact if good and sent.keys() <= contact.keys() else None


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
