"""Providers that are known to be difficult: how they say no. Each case is one recorded peculiarity."""

import pytest

from tests.conformance.answer_overrides import says, says_in_a_form, then
from tests.conformance.conforming import World
from tests.infra.conformance_demands import AnswerOverride


@pytest.mark.parametrize(
    ("entry_id", "answer"),
    [
        ("slack", says({"ok": False, "error": "bad_redirect_uri"})),
        ("github", says_in_a_form(error="bad_verification_code", error_description="It has expired.")),
        ("github", says({"error": "incorrect_client_credentials"})),
        ("tiktok-personal", says({"error": "invalid_request", "error_description": "Code is expired.", "log_id": "2"})),
        ("tiktok-ads", says({"code": 40110, "message": "Auth_code is expired", "data": {}})),
        ("withings", says({"status": 503, "body": {}, "error": "Invalid Params: invalid code"})),
        ("wechat", says({"errcode": 40029, "errmsg": "invalid code"})),
    ],
)
def test_an_error_may_come_with_status_200(everybody: World, entry_id: str, answer: AnswerOverride) -> None:
    connection = then(everybody.connection(entry_id), "token", answer)
    back = connection.connect()
    assert back["outboundStatus"] == "failed", back
    assert connection.provider.complaints == []
    assert connection.fetch().status_code == 404


@pytest.mark.parametrize(
    ("entry_id", "role", "answer"),
    [
        ("slack", "refresh", says({"ok": False, "error": "invalid_refresh_token"})),
        ("slack-user", "refresh", says({"ok": False, "error": "token_revoked"})),
        ("google", "refresh", says({"error": "invalid_grant", "error_description": "Token has been expired."}, 400)),
        ("github", "refresh", says({"error": "bad_refresh_token"})),
        (
            "facebook",
            "trade",
            says({"error": {"message": "Error validating", "type": "OAuthException", "code": 190}}, 400),
        ),
        ("instagram", "trade", says({"error": {"message": "Session", "type": "OAuthException", "code": 190}}, 400)),
        ("twitch", "refresh", says({"status": 400, "message": "Invalid refresh token"}, 400)),
        ("wechat", "refresh", says({"errcode": 42002, "errmsg": "refresh_token expired"})),
        ("wechat", "refresh", says({"errcode": 40030, "errmsg": "invalid refresh_token"})),
        (
            "tiktok-personal",
            "refresh",
            says({"error": "invalid_grant", "error_description": "Revoked.", "log_id": "2"}),
        ),
        (
            "atlassian",
            "refresh",
            says({"error": "unauthorized_client", "error_description": "refresh_token is invalid"}, 403),
        ),
        (
            "salesforce",
            "refresh",
            says({"error": "invalid_grant", "error_description": "expired access/refresh token"}, 400),
        ),
        (
            "stripe-app",
            "refresh",
            says({"error": "invalid_grant", "error_description": "Refresh token was used."}, 400),
        ),
        (
            "strava",
            "refresh",
            says(
                {
                    "message": "Bad Request",
                    "errors": [{"resource": "RefreshToken", "field": "refresh_token", "code": "invalid"}],
                },
                400,
            ),
        ),
        (
            "hubspot",
            "refresh",
            says(
                {"status": "BAD_REFRESH_TOKEN", "error": "invalid_request", "message": "missing or unknown token"}, 400
            ),
        ),
        ("zoom", "refresh", says({"reason": "Invalid Token!", "error": "invalid_request"}, 400)),
        ("zoho", "refresh", says({"error": "invalid_code"})),
        ("reddit", "refresh", says({"message": "Bad Request", "error": 400}, 400)),
        (
            "exact-online",
            "refresh",
            says({"error": "unauthorized_client", "error_description": "Old refresh token used."}, 401),
        ),
        (
            "exact-online",
            "refresh",
            says({"error": "invalid_request", "error_description": "The refresh token expired at 10/11/2022."}, 400),
        ),
        (
            "shopify",
            "refresh",
            says(
                {"error": "invalid_request", "error_description": "This request requires an active refresh_token"}, 401
            ),
        ),
        (
            "twitter-v2",
            "refresh",
            says({"error": "invalid_request", "error_description": "Value passed for the token was invalid."}, 400),
        ),
        ("withings", "refresh", says({"status": 503, "body": {}, "error": "Invalid Params: invalid refresh_token"})),
        (
            "squareup",
            "refresh",
            says(
                {"errors": [{"category": "AUTHENTICATION_ERROR", "code": "UNAUTHORIZED", "detail": "Not found"}]}, 401
            ),
        ),
        ("basecamp", "refresh", says({"error": "authorization_expired"}, 400)),
        ("basecamp", "refresh", says("This Basecamp ID rekeyed its deadbolt.", 401)),
        ("orcid", "refresh", says({"error": "invalid_request", "error_description": "Parent token is disabled"}, 400)),
        ("klaviyo-oauth", "refresh", says({"error": "invalid_grant_type"}, 400)),
        ("weibo", "refresh", says({"error": "expired_token", "error_code": 21327, "error_description": "token"}, 400)),
    ],
)
def test_a_dead_refresh_token_is_understood(everybody: World, entry_id: str, role: str, answer: AnswerOverride) -> None:
    connection = everybody.connection(entry_id)
    connection.connected()
    then(connection, role, answer, answer, answer)
    assert connection.is_dead()
    assert connection.provider.complaints == []


@pytest.mark.parametrize(
    ("entry_id", "role", "answer"),
    [
        ("slack", "refresh", says({"ok": False, "error": "ratelimited"})),
        ("github", "refresh", says({"error": "incorrect_client_credentials"})),
        ("facebook", "trade", says({"error": {"message": "Limit", "type": "OAuthException", "code": 4}}, 403)),
        ("withings", "refresh", says({"status": 601, "body": {}, "error": "Too many request"})),
    ],
)
def test_what_is_no_death_is_not_taken_for_one(
    everybody: World, entry_id: str, role: str, answer: AnswerOverride
) -> None:
    connection = everybody.connection(entry_id)
    connection.connected()
    then(connection, role, answer)
    connection.expire()
    assert connection.fetch().status_code in (502, 503)
    assert connection.refreshed()["accessToken"] == connection.provider.access_token
