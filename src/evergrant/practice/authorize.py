"""The authorization endpoint: the consent page and the way back to the client (RFC 6749 section 4.1)."""

import re
import secrets
from collections.abc import Mapping
from urllib.parse import urlencode, urlsplit

from fastapi import APIRouter, Request
from fastapi.responses import RedirectResponse
from starlette.datastructures import ImmutableMultiDict
from starlette.responses import Response

from evergrant.practice.pages import page
from evergrant.practice.state import PendingAuthorization, ProviderState
from evergrant.practice.world import DEFAULT_SCOPES, PERSONS, SCOPES

# BASE64URL-ENCODE(SHA256(...)) is always this long (RFC 7636 section 4.2).
CODE_CHALLENGE = re.compile(r"[A-Za-z0-9_-]{43}")


class _Refusal(Exception):
    """An error that the client is told by redirect (RFC 6749 section 4.1.2.1)."""

    def __init__(self, error: str, description: str) -> None:
        super().__init__(description)
        self.error = error
        self.description = description


def authorize_routes(state: ProviderState) -> APIRouter:
    """Return `GET /authorize` and the form behind its page."""
    router = APIRouter()
    base = urlsplit(state.issuer).path

    @router.get("/authorize")
    async def authorize(request: Request) -> Response:
        query = request.query_params
        client_id, redirect_uri = _only(query, "client_id"), _only(query, "redirect_uri")
        # Where these two are wrong, a redirect would lead to whoever wrote the link (RFC 6749 4.1.2.1).
        if client_id not in state.clients:
            return _problem(base, "This application is not registered here", "client_id is missing or unknown.")
        if not state.may_return_to(redirect_uri):
            return _problem(
                base,
                "This application may not send you there",
                "redirect_uri is missing, or not exactly one that was registered.",
            )
        try:
            wanted = _read(query, client_id, redirect_uri)
        except _Refusal as refusal:
            answer = {"error": refusal.error, "error_description": refusal.description}
            return _back(state, redirect_uri, _only(query, "state"), answer)
        ticket = secrets.token_urlsafe(24)
        state.waiting[ticket] = wanted
        # No form-action: browsers apply it to every redirect after the form too, and those lead to the
        # client, and from there wherever the client likes.
        return page(
            "authorize.html",
            base=base,
            client_id=client_id,
            ticket=ticket,
            persons=PERSONS.values(),
            preselected=_preselected(wanted.login_hint),
            scopes=[(scope, SCOPES[scope]) for scope in SCOPES if scope in wanted.scopes],
            returns_to=urlsplit(redirect_uri).netloc,
        )

    @router.post("/authorize/decision")
    async def decision(request: Request) -> Response:
        form = await request.form()
        wanted = state.waiting.pop(str(form.get("ticket", "")), None)
        if wanted is None:
            return _problem(
                base, "This page was already used", "Go back to the application and start connecting again."
            )
        person = PERSONS.get(str(form.get("person", "")))
        granted = wanted.scopes.intersection(map(str, form.getlist("scope")))
        if form.get("decision") != "allow" or person is None or not granted:
            answer = {"error": "access_denied", "error_description": "The person said no."}
        else:
            answer = {"code": state.new_code(wanted, person=person, scopes=granted)}
        return _back(state, wanted.redirect_uri, wanted.state, answer)

    return router


def _read(query: ImmutableMultiDict[str, str], client_id: str, redirect_uri: str) -> PendingAuthorization:
    twice = sorted({name for name in query if len(query.getlist(name)) > 1} - {"resource"})
    if twice:
        raise _Refusal("invalid_request", f"More than once: {', '.join(twice)}.")
    if query.get("response_type") != "code":
        error = "unsupported_response_type" if query.get("response_type") else "invalid_request"
        raise _Refusal(error, "response_type must be code.")
    if query.get("response_mode", "query") != "query":
        raise _Refusal("invalid_request", "response_mode must be query.")
    if query.get("code_challenge_method") != "S256" or not CODE_CHALLENGE.fullmatch(query.get("code_challenge", "")):
        raise _Refusal("invalid_request", "PKCE with code_challenge_method S256 is required.")
    scopes = frozenset(query.get("scope", "").split()) or DEFAULT_SCOPES
    if not scopes <= SCOPES.keys():
        raise _Refusal("invalid_scope", f"Known scopes are {', '.join(SCOPES)}.")
    if "none" in query.get("prompt", "").split():
        raise _Refusal("interaction_required", "Somebody has to choose a person here.")
    return PendingAuthorization(
        client_id=client_id,
        redirect_uri=redirect_uri,
        scopes=scopes,
        code_challenge=query["code_challenge"],
        state=query.get("state"),
        nonce=query.get("nonce"),
        offline=query.get("access_type") != "online",
        login_hint=query.get("login_hint", ""),
    )


def _only(query: ImmutableMultiDict[str, str], name: str) -> str:
    values = query.getlist(name)
    return values[0] if len(values) == 1 else ""


def _preselected(login_hint: str) -> str:
    hinted = (person.id for person in PERSONS.values() if login_hint in (person.id, person.email))
    return next(hinted, next(iter(PERSONS)))


def _back(state: ProviderState, redirect_uri: str, client_state: str | None, answer: Mapping[str, str]) -> Response:
    # `iss` on errors too (RFC 9207 section 2).
    fields = {**answer, **({"state": client_state} if client_state else {}), "iss": state.issuer}
    separator = "&" if urlsplit(redirect_uri).query else "?"
    return RedirectResponse(f"{redirect_uri}{separator}{urlencode(fields)}", 303, {"Cache-Control": "no-store"})


def _problem(base: str, title: str, text: str) -> Response:
    return page("problem.html", status=400, form_action="'none'", base=base, title=title, text=text)
