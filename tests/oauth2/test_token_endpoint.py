"""Code exchange, refresh and revocation: what is sent, and what each failure becomes."""

import asyncio
import base64
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import timedelta
from email.utils import format_datetime
from typing import Any

import pytest
from pydantic import SecretStr

from evergrant.errors import (
    ConnectFailed,
    EvergrantError,
    ReauthorizationRequired,
    Trouble,
    UpstreamRejected,
    UpstreamUnavailable,
)
from evergrant.oauth2.authorization import CodeVerifier
from evergrant.oauth2.registration import ClientRegistration, ServerMetadata
from evergrant.oauth2.revocation import revoke
from evergrant.oauth2.token_endpoint import exchange_code, refresh
from evergrant.oauth2.token_response import TokenResponse
from evergrant.oauth2.transport import Http, open_http
from tests.conftest import Clock
from tests.infra.scripted import Request, ScriptedProvider, answer, json_answer
from tests.oauth2.network import LOOPBACK

TOKENS = json_answer(200, {"access_token": "at-1", "refresh_token": "rt-2", "expires_in": 3600})
VERIFIER = CodeVerifier.new()

Call = Callable[[], Awaitable[TokenResponse]]


@pytest.fixture
def refreshing(http: Http, server: ServerMetadata, client: ClientRegistration) -> Call:
    return lambda: refresh(http, server, client, refresh_token=SecretStr("refresh-token-1"))


@pytest.fixture
def exchanging(http: Http, server: ServerMetadata, client: ClientRegistration) -> Call:
    return lambda: exchange_code(
        http,
        server,
        client,
        code="the-code-1",
        redirect_uri="https://broker.example/cb",
        code_verifier=VERIFIER,
    )


# what is sent


async def test_a_code_is_redeemed_with_its_verifier_and_redirect_uri(
    exchanging: Call, provider: ScriptedProvider
) -> None:
    provider.answers(TOKENS)
    tokens = await exchanging()
    assert tokens.access_token.get_secret_value() == "at-1"
    request = provider.requests[0]
    assert (request.method, request.path, request.headers["accept"]) == ("POST", "/token", "application/json")
    assert sorted(request.pairs) == [
        ("client_id", "client-1"),
        ("client_secret", "client-secret-1"),
        ("code", "the-code-1"),
        ("code_verifier", VERIFIER.secret()),
        ("grant_type", "authorization_code"),
        ("redirect_uri", "https://broker.example/cb"),
    ]


async def test_a_refresh_sends_the_refresh_token_and_no_scope(refreshing: Call, provider: ScriptedProvider) -> None:
    provider.answers(TOKENS)
    await refreshing()
    assert sorted(provider.requests[0].pairs) == [
        ("client_id", "client-1"),
        ("client_secret", "client-secret-1"),
        ("grant_type", "refresh_token"),
        ("refresh_token", "refresh-token-1"),
    ]


async def test_scopes_and_resources_are_sent_when_asked_for(
    http: Http, server: ServerMetadata, client: ClientRegistration, provider: ScriptedProvider
) -> None:
    provider.answers(TOKENS)
    await refresh(http, server, client, refresh_token=SecretStr("rt"), scopes=("a", "b"), resources=("https://c",))
    await exchange_code(
        http,
        server,
        client,
        code="c",
        redirect_uri="",
        code_verifier=None,
        resources=("https://a", "https://b"),
    )
    first = provider.requests[0].pairs
    assert ("scope", "a b") in first
    assert [value for name, value in first if name == "resource"] == ["https://c"]
    second = provider.requests[1].pairs
    assert [value for name, value in second if name == "resource"] == ["https://a", "https://b"]
    assert {"redirect_uri", "code_verifier"}.isdisjoint(name for name, _ in second)


async def test_basic_credentials_are_form_encoded_before_they_are_joined(
    http: Http, server: ServerMetadata, client: ClientRegistration, provider: ScriptedProvider
) -> None:
    provider.answers(TOKENS)
    client = replace(client, client_id="id:1", client_secret=SecretStr("s %/é:+"), auth_method="client_secret_basic")
    await refresh(http, server, client, refresh_token=SecretStr("rt"))
    request = provider.requests[0]
    scheme, _, credentials = request.headers["authorization"].partition(" ")
    assert scheme == "Basic"
    assert base64.b64decode(credentials) == b"id%3A1:s%20%25%2F%C3%A9%3A%2B"
    assert {name for name, _ in request.pairs} == {"grant_type", "refresh_token"}


@pytest.mark.parametrize("auth_method", ["none", "client_secret_post", "client_secret_basic"])
async def test_a_client_without_a_secret_only_names_itself(
    http: Http, server: ServerMetadata, client: ClientRegistration, provider: ScriptedProvider, auth_method: str
) -> None:
    provider.answers(TOKENS)
    client = replace(client, client_secret=None, auth_method=auth_method)
    await refresh(http, server, client, refresh_token=SecretStr("rt"))
    request = provider.requests[0]
    assert ("client_id", "client-1") in request.pairs
    assert "client_secret" not in request.form
    assert "authorization" not in request.headers


async def test_the_apps_own_parameters_are_added_and_replace_nothing(
    http: Http, server: ServerMetadata, client: ClientRegistration, provider: ScriptedProvider
) -> None:
    provider.answers(TOKENS)
    reserved = (
        "grant_type",
        "code",
        "refresh_token",
        "redirect_uri",
        "client_id",
        "client_secret",
        "code_verifier",
    )
    client = replace(
        client, token_params=(*((name, "evil") for name in reserved), ("audience", "api"), ("expiring", "1"))
    )
    await refresh(http, server, client, refresh_token=SecretStr("rt"))
    await exchange_code(http, server, client, code="c", redirect_uri="https://b/cb", code_verifier=VERIFIER)
    for request in provider.requests:
        assert "evil" not in [value for _, value in request.pairs]
        assert ("audience", "api") in request.pairs
        assert ("expiring", "1") in request.pairs


# what each answer becomes


@pytest.mark.parametrize("status", [200, 400, 401, 403, 405])
@pytest.mark.parametrize(
    "error",
    [
        "invalid_grant",
        "expired_token",
        "token_expired",
        "invalid_refresh_token",
        "bad_refresh_token",
        "token_revoked",
        "INVALID_GRANT",
    ],
)
async def test_a_dead_refresh_token_asks_for_the_user(
    refreshing: Call, provider: ScriptedProvider, status: int, error: str
) -> None:
    provider.answers(json_answer(status, {"error": error, "error_description": "Token is gone."}))
    with pytest.raises(ReauthorizationRequired) as dead:
        await refreshing()
    assert dead.value.message == f"Example: {error}: Token is gone. The user must connect again."
    assert dead.value.details["lastRefreshError"] == dead.value.message


@pytest.mark.parametrize(
    "body",
    [
        {"ok": False, "error": "invalid_refresh_token"},
        {"status": 400, "message": "Invalid refresh token"},
        {"success": False, "errors": [{"errorType": "invalid_grant", "message": "Refresh token invalid"}]},
        {"error": {"code": "token_expired", "message": "expired"}},
    ],
)
async def test_a_dead_refresh_token_is_recognised_in_providers_own_shapes(
    refreshing: Call, provider: ScriptedProvider, body: dict[str, object]
) -> None:
    provider.answers(json_answer(400, body))
    with pytest.raises(ReauthorizationRequired):
        await refreshing()


@pytest.mark.parametrize(
    ("status", "error"), [(400, "invalid_grant"), (200, "bad_verification_code"), (401, "expired_token")]
)
async def test_a_dead_code_ends_the_trip(exchanging: Call, provider: ScriptedProvider, status: int, error: str) -> None:
    provider.answers(json_answer(status, {"error": error, "error_description": "used"}))
    with pytest.raises(ConnectFailed, match=f"Example: {error}: used. Connect again.") as failed:
        await exchanging()
    assert failed.value.error == "invalid_grant"


async def test_a_form_encoded_error_inside_success_is_an_error(exchanging: Call, provider: ScriptedProvider) -> None:
    provider.answers(answer(200, b"error=bad_verification_code", "application/x-www-form-urlencoded"))
    with pytest.raises(ConnectFailed):
        await exchanging()


@pytest.mark.parametrize(
    ("reply", "error"),
    [
        (json_answer(401, {"error": "invalid_client"}), "invalid_client"),
        (json_answer(400, {"error": "unauthorized_client"}), "unauthorized_client"),
        (json_answer(200, {"error": "incorrect_client_credentials"}), "incorrect_client_credentials"),
        (
            json_answer(200, {"ok": False, "error": "bad_client_secret", "access_token": "x"}),
            "bad_client_secret",
        ),
        (answer(401), "http_401"),
        (answer(401, b"<html>", "text/html"), "http_401"),
    ],
)
async def test_a_wrong_registration_is_the_operators_to_mend(
    refreshing: Call, provider: ScriptedProvider, reply: bytes, error: str
) -> None:
    provider.answers(reply)
    with pytest.raises(UpstreamRejected) as rejected:
        await refreshing()
    assert rejected.value.provider_error == error
    assert rejected.value.details == {"providerError": error}
    assert rejected.value.message.startswith("Example refuses this app")


@pytest.mark.parametrize(
    ("reply", "error"),
    [
        (json_answer(400, {"error": "unsupported_grant_type"}), "unsupported_grant_type"),
        (json_answer(400, {"error": "invalid_request"}), "invalid_request"),
        (json_answer(400, {"error": "invalid_scope"}), "invalid_scope"),
        (json_answer(404, {"error": "not_found"}), "not_found"),
        (json_answer(200, {"ok": False}), "not_ok"),
        (json_answer(404, {"detail": "no such route"}), "http_404"),
        (json_answer(400, {"code": 1007, "message": "bad key"}), "1007"),
    ],
)
async def test_a_refusal_without_a_clear_reason_blames_nobody(
    refreshing: Call, provider: ScriptedProvider, reply: bytes, error: str
) -> None:
    provider.answers(reply)
    with pytest.raises(UpstreamRejected) as rejected:
        await refreshing()
    assert rejected.value.provider_error == error
    assert rejected.value.message.startswith("Example refuses what was asked")


@pytest.mark.parametrize(
    "reply",
    [
        json_answer(429, {"access_token": "at-1"}),
        json_answer(429, {"error": "invalid_grant"}),
        json_answer(500, {"error": "invalid_grant"}),
        json_answer(503, {"error": "invalid_client"}),
        json_answer(400, {"error": "temporarily_unavailable"}),
        json_answer(400, {"error": "server_error"}),
        json_answer(400, {"error": "slow_down"}),
        json_answer(200, {"ok": False, "error": "ratelimited"}),
        json_answer(408, {"error": "invalid_request"}),
        json_answer(200, {}),
        json_answer(200, {"message": "hello"}),
        json_answer(200, {"access_token": ""}),
        answer(200, b'{"access_token":"at', "application/json"),
        answer(200, b"<html>maintenance</html>", "text/html"),
        answer(403, b"<html>firewall</html>", "text/html"),
        answer(403, b"Too many requests; wait=5", "text/plain"),
        answer(200),
        answer(204),
        json_answer(302, {"access_token": "at-1"}),
        json_answer(307, {"error": "invalid_grant"}),
        answer(502, b"<html>bad gateway</html>", "text/html"),
    ],
)
async def test_what_time_may_mend_is_tried_again_later(
    refreshing: Call, provider: ScriptedProvider, reply: bytes
) -> None:
    provider.answers(reply)
    with pytest.raises(UpstreamUnavailable):
        await refreshing()
    assert len(provider.requests) == 1


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize(
    ("where", "told"),
    [
        ("https://elsewhere.example/token", "https://elsewhere.example/token"),
        ("/v2/token?refresh_token=rt", "/v2/token"),
        ("https://elsewhere.example/rt-secret/", "https://elsewhere.example/[redacted]/"),
    ],
)
async def test_a_token_endpoint_that_has_moved_is_the_apps_to_follow(
    http: Http,
    server: ServerMetadata,
    client: ClientRegistration,
    provider: ScriptedProvider,
    *,
    status: int,
    where: str,
    told: str,
) -> None:
    provider.answers(json_answer(status, {"error": "moved"}, Location=where))
    with pytest.raises(UpstreamRejected) as raised:
        await refresh(http, server, client, refresh_token=SecretStr("rt-secret"))
    assert f"has moved to {told}. Redirects are not followed; update the app's URLs." in raised.value.message
    assert raised.value.provider_error == f"http_{status}"
    assert len(provider.requests) == 1, "the secret goes nowhere else"


async def test_a_provider_that_hangs_is_tried_again_later(
    server: ServerMetadata, client: ClientRegistration, provider: ScriptedProvider
) -> None:
    provider.answers(_hang)
    async with open_http(LOOPBACK, seconds=0.1) as http:
        with pytest.raises(UpstreamUnavailable):
            await refresh(http, server, client, refresh_token=SecretStr("rt"))
    assert len(provider.requests) == 1


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("7", 7),
        ("0", 1),
        ("1.5", 2),
        ("9" * 400, 3600),
        ("9" * 400 + ".5", 3600),
        ("soon", None),
        ("-5", None),
        ("1e9", None),
        ("inf", None),
        ("", None),
        ("\u0667", None),
    ],
)
async def test_retry_after_in_seconds_is_obeyed_within_an_hour(
    refreshing: Call, provider: ScriptedProvider, header: str, seconds: int | None
) -> None:
    provider.answers(json_answer(429, {}, Retry_After=header))
    with pytest.raises(UpstreamUnavailable) as later:
        await refreshing()
    assert later.value.provider_retry_after == seconds


@pytest.mark.parametrize(("offset", "seconds"), [(90, 90), (-90, 1), (86400, 3600)])
async def test_retry_after_as_a_date_is_obeyed_within_an_hour(
    refreshing: Call, provider: ScriptedProvider, clock: Clock, offset: int, seconds: int
) -> None:
    at = format_datetime(clock.now + timedelta(seconds=offset), usegmt=True)
    provider.answers(json_answer(503, {}, Retry_After=at))
    with pytest.raises(UpstreamUnavailable) as later:
        await refreshing()
    assert later.value.provider_retry_after == seconds
    assert later.value.retry_after == seconds


@pytest.mark.parametrize(
    ("date", "seconds"),
    [
        ("Fri, 31 Dec 9999 23:59:59 GMT", 3600),
        ("Fri, 31 Dec 9999 23:59:59 -2359", 3600),
        ("Mon, 01 Jan 0001 00:00:00 +2359", 1),
        ("Mon, 01 Jan 99999999999999999999999 00:00:00 GMT", None),
        ("Wed, 26 Nov 2026 04:30:00 +99999999999999999999", None),
        ("Wed, 99 Nov 2026 99:99:99 GMT", None),
        (", , , : : :", None),
        ("Wed", None),
    ],
)
async def test_an_absurd_date_costs_nothing_but_itself(
    refreshing: Call, provider: ScriptedProvider, date: str, seconds: int | None
) -> None:
    provider.answers(json_answer(429, {}, Retry_After=date))
    with pytest.raises(UpstreamUnavailable) as later:
        await refreshing()
    assert later.value.provider_retry_after == seconds


@pytest.mark.parametrize(
    ("answered", "trouble"),
    [
        ((429, {}), Trouble.LIMIT),
        ((429, {"error": "invalid_grant"}), Trouble.LIMIT),
        ((400, {"error": "rate_limit_exceeded"}), Trouble.LIMIT),
        ((403, {"error": {"message": "You have made too many requests.", "code": 4}}), Trouble.LIMIT),
        ((503, {"error": "slow_down"}), Trouble.LIMIT),
        ((503, {}), Trouble.SILENCE),
        ((500, {"error": "server_error"}), Trouble.SILENCE),
        ((400, {"error": "temporarily_unavailable"}), Trouble.SILENCE),
    ],
)
async def test_being_asked_too_much_is_told_from_being_down(
    refreshing: Call, provider: ScriptedProvider, answered: Any, trouble: Trouble
) -> None:
    provider.answers(json_answer(*answered))
    with pytest.raises(UpstreamUnavailable) as later:
        await refreshing()
    assert later.value.trouble is trouble


@pytest.mark.parametrize("status", [400, 401, 200, 500])
@pytest.mark.parametrize("error", ["invalid_grant", "invalid_client", "refresh-token-1"])
@pytest.mark.parametrize("auth_method", ["client_secret_post", "client_secret_basic"])
async def test_a_provider_that_echoes_our_secrets_does_not_get_them_into_a_message(
    http: Http,
    server: ServerMetadata,
    client: ClientRegistration,
    provider: ScriptedProvider,
    status: int,
    error: str,
    auth_method: str,
) -> None:
    basic = base64.b64encode(b"client-1:client-secret-1").decode()
    echo = f"\x1b refresh-token-1 client-secret-1 {basic} " + "x" * 400
    provider.answers(json_answer(status, {"error": error, "error_description": echo}))
    with pytest.raises(EvergrantError) as failed:
        await refresh(
            http,
            server,
            replace(client, auth_method=auth_method),
            refresh_token=SecretStr("refresh-token-1"),
        )
    shown = f"{failed.value.message} {failed.value.details} {vars(failed.value)}"
    assert "refresh-token-1" not in shown
    assert "client-secret-1" not in shown
    assert auth_method == "client_secret_post" or basic not in shown
    assert "\\x1b" not in shown
    assert len(failed.value.message) < 500


async def test_a_code_and_its_verifier_are_not_echoed(exchanging: Call, provider: ScriptedProvider) -> None:
    provider.answers(
        json_answer(400, {"error": "invalid_grant", "error_description": f"the-code-1 {VERIFIER.secret()}"})
    )
    with pytest.raises(ConnectFailed) as failed:
        await exchanging()
    assert "the-code-1" not in failed.value.message
    assert VERIFIER.secret() not in failed.value.message


# revocation


async def test_a_token_is_revoked_as_the_client(
    http: Http, server: ServerMetadata, client: ClientRegistration, provider: ScriptedProvider
) -> None:
    provider.answers(answer(200, b"whatever"))
    await revoke(http, server, client, token=SecretStr("rt-1"), token_type_hint="refresh_token")
    request = provider.requests[0]
    assert request.path == "/revoke"
    assert sorted(request.pairs) == [
        ("client_id", "client-1"),
        ("client_secret", "client-secret-1"),
        ("token", "rt-1"),
        ("token_type_hint", "refresh_token"),
    ]


@pytest.mark.parametrize("error", ["invalid_token", "invalid_grant", "token_revoked"])
async def test_a_token_that_is_dead_already_counts_as_revoked(
    http: Http, server: ServerMetadata, client: ClientRegistration, provider: ScriptedProvider, error: str
) -> None:
    provider.answers(json_answer(400, {"error": error}))
    await revoke(http, server, client, token=SecretStr("rt-1"), token_type_hint="refresh_token")


@pytest.mark.parametrize(
    ("reply", "kind"),
    [
        (json_answer(400, {"error": "unsupported_token_type"}), UpstreamRejected),
        (json_answer(401, {"error": "invalid_client"}), UpstreamRejected),
        (json_answer(503, {}), UpstreamUnavailable),
        (answer(302, Location="/"), UpstreamUnavailable),
    ],
)
async def test_a_revocation_that_fails_says_whose_turn_it_is(
    http: Http,
    server: ServerMetadata,
    client: ClientRegistration,
    provider: ScriptedProvider,
    reply: bytes,
    kind: type[EvergrantError],
) -> None:
    provider.answers(reply)
    with pytest.raises(kind):
        await revoke(http, server, client, token=SecretStr("rt-1"), token_type_hint="refresh_token")


async def test_a_provider_without_a_revocation_endpoint_is_not_called(
    http: Http, server: ServerMetadata, client: ClientRegistration, provider: ScriptedProvider
) -> None:
    with pytest.raises(UpstreamRejected, match="no revocation endpoint"):
        await revoke(
            http,
            replace(server, revocation_endpoint=""),
            client,
            token=SecretStr("rt"),
            token_type_hint="refresh_token",
        )
    assert provider.requests == []


async def _hang(request: Request) -> None:
    await asyncio.sleep(60)
