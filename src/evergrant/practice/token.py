"""The token and revocation endpoints, with rotation and reuse detection (RFC 6749, 7009, 7636, 9700)."""

import asyncio
import base64
import binascii
import hashlib
import secrets
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl, unquote_plus

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse, Response

from evergrant import clock
from evergrant.practice.machines import JWT_BEARER, issue_for_assertion, issue_for_itself, presented_by
from evergrant.practice.refusal import Refusal
from evergrant.practice.state import ProviderState, Tokens

HELD_POLL_SECONDS = 0.01
"""How often an answer that is kept back looks whether it may go."""


def token_routes(state: ProviderState) -> APIRouter:
    """Return `POST /token` and `POST /revoke`."""
    router = APIRouter()

    @router.post("/token")
    async def token(request: Request) -> Response:
        body, authorization = await request.body(), request.headers.get("Authorization", "")
        sent = dict(parse_qsl(body.decode("utf-8", "replace")))
        state.token_calls[sent.get("grant_type", "")] += 1

        def work() -> Response:
            try:
                return _success(state, _grant(state, _form(request, body), authorization))
            except Refusal as refusal:
                state.token_errors[refusal.error] += 1
                return refusal.answer()

        with state.answering(presented_by(sent)) as family:
            if state.next_token_answers:
                return await state.next_token_answers.popleft().play(work)
            answer = work()
            if state.token_latency:
                await asyncio.sleep(state.token_latency)
            while state.held:  # noqa: ASYNC110  # tests set it from another thread, where no event can be set
                await asyncio.sleep(HELD_POLL_SECONDS)
            if family is not None and await request.is_disconnected():
                state.unheard.append(family)
            return answer

    @router.post("/revoke")
    async def revoke(request: Request) -> Response:
        body, authorization = await request.body(), request.headers.get("Authorization", "")
        try:
            _revoke(state, _form(request, body), authorization)
        except Refusal as refusal:
            return refusal.answer()
        return Response(headers={"Cache-Control": "no-store"})

    return router


def _grant(state: ProviderState, form: Mapping[str, str], authorization: str) -> Tokens:
    if form.get("grant_type") == JWT_BEARER:  # who signs needs no other proof (RFC 7523 section 2.1)
        return issue_for_assertion(state, form)
    client_id = _authenticate(state, form, authorization)
    match form.get("grant_type"):
        case "client_credentials":
            return issue_for_itself(state, form, client_id)
        case "authorization_code":
            return _redeem_code(state, form, client_id)
        case "refresh_token":
            return _rotate(state, form, client_id)
        case None | "":
            raise Refusal("invalid_request", "grant_type is missing.")
        case _:
            raise Refusal("unsupported_grant_type", "Use authorization_code, refresh_token or client_credentials.")


def _redeem_code(state: ProviderState, form: Mapping[str, str], client_id: str) -> Tokens:
    code = state.codes.get(form.get("code", ""))
    if code is None or code.request.client_id != client_id:
        raise Refusal("invalid_grant", "The code is unknown.")
    if code.redeemed:
        # Somebody else holds it as well: what it bought is not safe any more (RFC 6749 section 4.1.2).
        state.code_replays += 1
        if code.family is not None:
            code.family.revoked_because = "code replay"
        raise Refusal("invalid_grant", "The code was already used.")
    code.redeemed = True
    if clock.now() >= code.expires_at:
        raise Refusal("invalid_grant", "The code has expired.")
    if form.get("redirect_uri") != code.request.redirect_uri:
        raise Refusal("invalid_grant", "redirect_uri is not the one of the authorization request.")
    digest = hashlib.sha256(form.get("code_verifier", "").encode()).digest()
    if base64.urlsafe_b64encode(digest).rstrip(b"=").decode() != code.request.code_challenge:
        raise Refusal("invalid_grant", "code_verifier does not match the code_challenge.")
    code.family = state.start_family(client_id=client_id, person=code.person, scopes=code.scopes)
    return state.issue(code.family, with_refresh_token=code.request.offline, nonce=code.request.nonce)


def _rotate(state: ProviderState, form: Mapping[str, str], client_id: str) -> Tokens:
    token = state.refresh_tokens.get(form.get("refresh_token", ""))
    if token is None or token.family.client_id != client_id:
        raise Refusal("invalid_grant", "The refresh token is unknown.")
    repeated = state.refresh_tokens.get(token.successor)
    if state.forgives_repeats and repeated is not None and not repeated.spent:
        repeated.spent, token.spent = True, False
    if token.spent and not token.family.revoked:
        # One of two holders is a thief, nobody can tell which: both are locked out (RFC 9700 section 4.14.2).
        state.reuse_detections += 1
        token.family.revoked_because = "refresh token reuse"
    if token.family.revoked:
        raise Refusal("invalid_grant", f"The consent was revoked: {token.family.revoked_because}.")
    scopes = frozenset(form.get("scope", "").split()) or token.family.scopes
    if not scopes <= token.family.scopes:
        raise Refusal("invalid_scope", "A refresh cannot ask for more than was granted.")
    # No nonce: it belongs to the sign-in, which a refresh is not (OpenID Connect Core section 12.2).
    tokens = state.issue(token.family, scopes=scopes, with_refresh_token=state.rotates)
    if tokens.refresh_token is not None:
        token.spent, token.successor = True, tokens.refresh_token
        state.rotations += 1
    return tokens


def _success(state: ProviderState, tokens: Tokens) -> Response:
    body: dict[str, Any] = {
        "access_token": tokens.access_token,
        "token_type": "Bearer",
        "expires_in": state.access_token_seconds,
        "scope": " ".join(sorted(tokens.scopes)),
    }
    if tokens.refresh_token is not None:
        body["refresh_token"] = tokens.refresh_token
    if tokens.id_token is not None:
        body["id_token"] = tokens.id_token
    return JSONResponse(body, headers={"Cache-Control": "no-store", "Pragma": "no-cache"})


def _revoke(state: ProviderState, form: Mapping[str, str], authorization: str) -> None:
    client_id = _authenticate(state, form, authorization)
    if not form.get("token"):
        raise Refusal("invalid_request", "token is missing.")
    refresh_token = state.refresh_tokens.get(form["token"])
    access_token = state.access_tokens.get(form["token"])
    found = refresh_token or access_token
    if found is None:
        return  # There is nothing left to do, which is what the client wants (RFC 7009 section 2.2).
    if found.family.client_id != client_id:
        raise Refusal("invalid_grant", "The token belongs to another client.")
    if refresh_token is not None:
        refresh_token.family.revoked_because = refresh_token.family.revoked_because or "revoked by the client"
    elif access_token is not None:
        access_token.revoked = True


def _form(request: Request, body: bytes) -> dict[str, str]:
    if request.headers.get("Content-Type", "").split(";")[0].strip() != "application/x-www-form-urlencoded":
        raise Refusal("invalid_request", "Send application/x-www-form-urlencoded.")
    pairs = parse_qsl(body.decode("utf-8", "replace"), keep_blank_values=True)
    form = dict(pairs)
    if len(form) != len(pairs):
        raise Refusal("invalid_request", "A parameter was sent more than once.")
    return form


def _authenticate(state: ProviderState, form: Mapping[str, str], authorization: str) -> str:
    """Return the client's id, by client_secret_basic or client_secret_post (RFC 6749 section 2.3.1)."""
    by_header = authorization[:6].lower() == "basic "
    if by_header:
        if "client_secret" in form:
            raise Refusal("invalid_request", "Authenticate in the header or in the body, not in both.")
        try:
            pair = base64.b64decode(authorization[6:], validate=True).decode()
        except (binascii.Error, UnicodeDecodeError):
            pair = ""
        client_id, _, secret = (unquote_plus(part) for part in pair.partition(":"))
    else:
        client_id, secret = form.get("client_id", ""), form.get("client_secret", "")
    machine = state.machines.get(client_id)
    expected = machine.secret or None if machine is not None else state.clients.get(client_id)
    if expected is None or not secrets.compare_digest(secret.encode(), expected.encode()):
        raise Refusal("invalid_client", "Client authentication failed.", status=401, challenge=by_header)
    return client_id
