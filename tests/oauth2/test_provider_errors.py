"""What servers really answer to a refresh and to a code, in their own places and words, and what it means."""

import json
from typing import Any

import pytest
from pydantic import SecretStr

from evergrant.errors import (
    ConnectFailed,
    EvergrantError,
    ReauthorizationRequired,
    Refusal,
    UpstreamRejected,
    UpstreamUnavailable,
)
from evergrant.oauth2.authorization import CodeVerifier
from evergrant.oauth2.quirks import DeadAnswer, Quirks
from evergrant.oauth2.registration import ClientRegistration, ServerMetadata
from evergrant.oauth2.revocation import revoke
from evergrant.oauth2.token_endpoint import exchange_code, refresh
from evergrant.oauth2.transport import Http
from tests.infra.scripted import ScriptedProvider, answer, json_answer

STANDARD_WORDS = (
    "The provided authorization grant (e.g., authorization code, resource owner credentials) or refresh token is "
    "invalid, expired, revoked, does not match the redirection URI used in the authorization request, or was issued "
    "to another client."
)
DEAD: dict[str, tuple[int, Any]] = {
    "a library that says invalid_request": (
        400,
        {"error": "invalid_request", "error_description": 'Invalid "refresh_token" in request.'},
    ),
    "node": (400, {"error": "invalid_grant", "error_description": "Invalid grant: refresh token is invalid"}),
    "node, by its class names": (400, {"name": "InvalidGrantError", "message": "Refresh token has expired"}),
    "NestJS": (400, {"statusCode": 400, "error": "Bad Request", "message": "invalid_grant"}),
    "Doorkeeper": (400, {"error": "invalid_grant", "error_description": STANDARD_WORDS}),
    "its words under another code": (400, {"error": "invalid_request", "error_description": STANDARD_WORDS}),
    "ORY": (401, {"error": "token_inactive", "error_description": "Token is inactive because it is expired."}),
    "Laravel Passport": (
        401,
        {
            "error": "invalid_request",
            "error_description": "The refresh token is invalid.",
            "hint": "Token has been revoked",
            "message": "The refresh token is invalid.",
        },
    ),
    "Django OAuth toolkit": (401, {"error": "invalid_grant"}),
    "a form's validation, by member": (422, {"errors": {"refresh_token": ["is invalid"]}}),
    "a form's validation, by name": (422, {"errors": [{"field": "refresh_token", "message": "has expired"}]}),
    "a serializer's": (400, {"refresh_token": ["Invalid token."]}),
    "a sentence about the grant": (400, {"error_description": "grant has expired"}),
    "a code of its own": (400, {"error": "authorization_revoked"}),
    "simplejwt": (401, {"detail": "Token is invalid or expired", "code": "token_not_valid"}),
    "Spring": (401, {"error": "invalid_token", "error_description": "Invalid refresh token (expired): abc"}),
    "Spring's own page": (
        400,
        {"status": 400, "error": "Bad Request", "message": "Invalid refresh token: 9f3c", "path": "/oauth/token"},
    ),
    "Salesforce": (400, {"error": "invalid_grant", "error_description": "expired access/refresh token"}),
    "Salesforce, in a list": (400, [{"message": "expired access/refresh token", "errorCode": "INVALID_GRANT"}]),
    "Slack": (200, {"ok": False, "error": "invalid_refresh_token"}),
    "Twitch": (400, {"status": 400, "message": "Invalid refresh token"}),
    "Fitbit": (400, {"errors": [{"errorType": "invalid_grant", "message": "no"}], "success": False}),
    "Apigee": (
        401,
        {
            "fault": {
                "faultstring": "Invalid Refresh Token",
                "detail": {"errorcode": "keymanagement.service.invalid_refresh_token"},
            }
        },
    ),
    "Apigee's policy": (401, {"ErrorCode": "invalid_request", "Error": "Refresh Token expired"}),
    "Supabase": (400, {"code": 400, "error_code": "refresh_token_not_found", "msg": "Not here"}),
    "a reuse": (400, {"code": "refresh_token_already_used", "message": "Already Used"}),
    "a list of codes": (400, {"error": ["invalid_grant"]}),
    "CamelCase": (400, {"error": "InvalidGrant"}),
    "capital members": (400, {"Error": "INVALID_GRANT", "ErrorDescription": "no"}),
    "a URN": (400, {"error": "urn:ietf:params:oauth:error:invalid_grant"}),
    "RFC 9457": (422, {"type": "https://errors.example/invalid-grant", "title": "No", "status": 422}),
    "a remark behind the code": (400, {"error": "invalid_grant: expired 3 days ago"}),
    "an object": (403, {"error": {"code": 403, "status": "DENIED", "message": "refresh_token does not exist"}}),
    "objects by field": (422, {"message": "no", "errors": {"refresh_token": ["The refresh token is not valid."]}}),
    "a session": (400, {"error": "access_denied", "error_description": "The session has expired"}),
    "a 404": (404, {"error": "not_found", "error_description": "Couldn't find refresh token"}),
    "unable to": (400, {"error": "bad", "error_description": "Unable to decode the supplied refresh token"}),
    "no longer": (400, {"msg": "This refreshToken is no longer valid"}),
    "unknown": (410, {"err": "gone", "detail": "unknown refresh_token"}),
    "expired and something required": (
        400,
        {"error": "bad_request", "message": "Refresh token expired. Re-authentication is required."},
    ),
    "a JSON text": (400, "invalid_grant"),
}
LATER: dict[str, tuple[int, Any]] = {
    "Zoho": (
        400,
        {
            "error": "Access Denied",
            "error_description": "You have made too many requests continuously. Please try again after some time.",
            "status": "failure",
        },
    ),
    "a limit of rate": (400, {"error": "access_denied", "error_description": "API rate limit exceeded"}),
    "a limit beside a code": (400, {"error": "invalid_grant", "error_description": "Rate limit exceeded"}),
    "throttling": (403, {"message": "Request was throttled. Expected available in 40 seconds."}),
    "Withings": (200, {"status": 601, "body": {}, "error": "Too many request"}),
    "try later": (400, {"error": "unknown_error", "error_description": "Please try again later"}),
    "retry": (400, {"error": "unknown_error", "error_description": "retry your request"}),
    "an outage in words": (400, {"error": "invalid_request", "error_description": "Temporarily unavailable"}),
    "no sentence about a token": (500, {"error": "invalid_request", "message": "Refresh token is invalid"}),
}
REFUSED: dict[str, tuple[int, Any, Refusal]] = {
    "the client": (401, {"error": "invalid_client"}, Refusal.CLIENT_UNKNOWN),
    "the client, about its token": (
        401,
        {"error": "invalid_client", "error_description": "Invalid token"},
        Refusal.CLIENT_UNKNOWN,
    ),
    "the client, in CamelCase": (400, {"error": "InvalidClient"}, Refusal.CLIENT_UNKNOWN),
    "a client's right": (
        400,
        {"error": "unauthorized_client", "error_description": "refresh token is invalid"},
        Refusal.CLIENT,
    ),
    "GitHub's client": (200, {"error": "incorrect_client_credentials"}, Refusal.CLIENT),
    "nothing": (401, {}, Refusal.UNSAID),
    "no more than the status": (401, {"error": "Unauthorized", "message": "Go away"}, Refusal.UNSAID),
    "a scope": (400, {"error": "invalid_scope", "error_description": "refresh token is invalid"}, Refusal.REQUEST),
    "a kind of grant": (400, {"error": "unsupported_grant_type"}, Refusal.REQUEST),
    "a missing parameter": (
        400,
        {"error": "invalid_request", "error_description": "Missing parameter: `refresh_token`"},
        Refusal.INVALID_REQUEST,
    ),
    "a required field": (
        422,
        {"message": "The refresh token field is required.", "errors": {"refresh_token": ["is required"]}},
        Refusal.UNCLEAR,
    ),
    "what must be there": (
        400,
        {"error": "invalid_request", "error_description": "A refresh_token must be provided, or it is invalid"},
        Refusal.INVALID_REQUEST,
    ),
    "nothing, called invalid": (
        400,
        {"error": "bad", "message": "Invalid refresh token: a refresh_token must be provided"},
        Refusal.UNCLEAR,
    ),
    "invalid or missing": (400, {"error": "bad", "message": "Invalid or missing refresh token"}, Refusal.UNCLEAR),
    "another token": (400, {"error": "bad", "message": "Invalid access token"}, Refusal.UNCLEAR),
    "the token's type": (400, {"error": "bad", "message": "Unknown token type"}, Refusal.UNCLEAR),
    "a kind of grant in words": (
        400,
        {"error": "bad", "message": "Refresh token grant type is not valid"},
        Refusal.UNCLEAR,
    ),
    "a page that is not there": (404, {"error": "not_found"}, Refusal.UNCLEAR),
    "a firm no": (403, {"error": "access_denied"}, Refusal.UNCLEAR),
}


async def refreshed(http: Http, server: ServerMetadata, client: ClientRegistration, quirks: Quirks) -> EvergrantError:
    """Return what a refresh raises."""
    with pytest.raises(EvergrantError) as failed:
        await refresh(http, server, client, refresh_token=SecretStr("refresh-token-1"), quirks=quirks)
    return failed.value


@pytest.mark.parametrize("reply", DEAD.values(), ids=DEAD)
async def test_a_dead_refresh_token_is_told_in_many_ways(
    http: Http, server: ServerMetadata, client: ClientRegistration, provider: ScriptedProvider, reply: tuple[int, Any]
) -> None:
    provider.answers(json_answer(*reply))
    assert isinstance(await refreshed(http, server, client, Quirks()), ReauthorizationRequired)


@pytest.mark.parametrize("body", [b"invalid_grant", b"  invalid_grant\n", b"Invalid refresh token", b"InvalidGrant"])
async def test_a_dead_refresh_token_is_told_without_any_form(
    http: Http, server: ServerMetadata, client: ClientRegistration, provider: ScriptedProvider, body: bytes
) -> None:
    provider.answers(answer(400, body, "text/plain"))
    assert isinstance(await refreshed(http, server, client, Quirks()), ReauthorizationRequired)


@pytest.mark.parametrize("body", [b"Bad Request", b"<p>invalid_grant</p>", b"x" * 400 + b" refresh token expired", b""])
async def test_other_text_tells_nothing(
    http: Http, server: ServerMetadata, client: ClientRegistration, provider: ScriptedProvider, body: bytes
) -> None:
    provider.answers(answer(400, body, "text/plain"))
    assert isinstance(await refreshed(http, server, client, Quirks()), UpstreamUnavailable)


@pytest.mark.parametrize("reply", LATER.values(), ids=LATER)
async def test_being_held_back_is_no_refusal(
    http: Http, server: ServerMetadata, client: ClientRegistration, provider: ScriptedProvider, reply: tuple[int, Any]
) -> None:
    provider.answers(json_answer(*reply))
    assert isinstance(await refreshed(http, server, client, Quirks()), UpstreamUnavailable)


@pytest.mark.parametrize(("status", "body", "refusal"), REFUSED.values(), ids=REFUSED)
async def test_what_is_not_about_the_token_ends_nothing(
    http: Http,
    server: ServerMetadata,
    client: ClientRegistration,
    provider: ScriptedProvider,
    status: int,
    body: Any,
    refusal: Refusal,
) -> None:
    provider.answers(json_answer(status, body))
    error = await refreshed(http, server, client, Quirks())
    assert isinstance(error, UpstreamRejected)
    assert error.refusal is refusal


@pytest.mark.parametrize(
    ("known", "status", "body", "is_dead"),
    [
        (DeadAnswer("gone"), 404, {"error": "Gone"}, True),
        (DeadAnswer("gone", status=410), 404, {"error": "gone"}, False),
        (DeadAnswer("gone", "forever"), 400, {"error": "gone", "error_description": "Gone FOREVER."}, True),
        (DeadAnswer("gone", "forever"), 400, {"error": "gone", "error_description": "For now."}, False),
        (DeadAnswer(description="forever"), 400, {"error": "unauthorized_client", "message": "forever"}, True),
        (DeadAnswer("gone"), 500, {"error": "gone"}, False),
        (DeadAnswer("7"), 400, {"error": {"type": "T", "code": 7}}, True),
    ],
)
async def test_an_entrys_own_words_count_first(
    http: Http,
    server: ServerMetadata,
    client: ClientRegistration,
    provider: ScriptedProvider,
    known: DeadAnswer,
    status: int,
    body: Any,
    is_dead: bool,
) -> None:
    provider.answers(json_answer(status, body))
    error = await refreshed(http, server, client, Quirks(dead_refresh_token=(known,)))
    assert isinstance(error, ReauthorizationRequired) == is_dead


@pytest.mark.parametrize(
    "body",
    [
        {"error": "invalid_request", "error_description": "Code is expired."},
        {"error": "invalid_request", "error_description": "The authorization code is invalid or has expired"},
        {"error": ["invalid_grant"]},
        {"code": 40110, "ok": False, "message": "Auth_code is expired"},
    ],
)
async def test_a_dead_code_is_told_in_many_ways(
    http: Http, server: ServerMetadata, client: ClientRegistration, provider: ScriptedProvider, body: Any
) -> None:
    provider.answers(json_answer(400, body))
    with pytest.raises(ConnectFailed) as failed:
        await exchange_code(http, server, client, code="c", redirect_uri="https://b/cb", code_verifier=None)
    assert failed.value.error == "invalid_grant"


async def test_a_verifier_that_is_refused_is_no_dead_code(
    http: Http, server: ServerMetadata, client: ClientRegistration, provider: ScriptedProvider
) -> None:
    provider.answers(json_answer(400, {"error": "invalid_request", "error_description": "Invalid code verifier"}))
    verifier = CodeVerifier.new()
    with pytest.raises(UpstreamRejected, match="Correct the app's settings"):
        await exchange_code(http, server, client, code="c", redirect_uri="https://b/cb", code_verifier=verifier)


@pytest.mark.parametrize("secret", ["grant", "invalid", "_", "invalid_grant"])
async def test_a_secret_that_is_part_of_a_code_does_not_hide_it(
    http: Http, server: ServerMetadata, client: ClientRegistration, provider: ScriptedProvider, secret: str
) -> None:
    provider.answers(json_answer(400, {"error": "invalid_grant"}))
    with pytest.raises(ReauthorizationRequired) as dead:
        await refresh(http, server, client, refresh_token=SecretStr(secret))
    assert secret not in json.dumps([dead.value.message.replace("[redacted]", ""), dead.value.provider_error])
    with pytest.raises(ConnectFailed) as failed:
        await exchange_code(http, server, client, code=secret, redirect_uri="https://b/cb", code_verifier=None)
    assert failed.value.error == "invalid_grant"
    await revoke(http, server, client, token=SecretStr(secret), token_type_hint="refresh_token")


async def test_two_answers_that_differ_in_numbers_only_are_the_same(
    http: Http, server: ServerMetadata, client: ClientRegistration, provider: ScriptedProvider
) -> None:
    def says(status: int, words: str) -> bytes:
        return json_answer(status, {"error": "nope", "error_description": words, "trace_id": words[-4:]})

    provider.answers(
        says(400, "Not allowed for refresh-token-1 at 12:07:33, id 'a b 7'"),
        says(400, "Not allowed for refresh-token-1 at 12:08:01, id 'c 8'"),
        says(400, "Not allowed at all"),
        says(403, "Not allowed at all"),
    )
    seen = []
    for _ in range(4):
        error = await refreshed(http, server, client, Quirks())
        assert isinstance(error, UpstreamRejected)
        seen.append(error.fingerprint)
    assert seen[0] == seen[1]
    assert len(set(seen)) == 3
