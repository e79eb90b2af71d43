"""Providers that are known to be difficult: what they answer. Each test is one recorded peculiarity."""

import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.conformance.answer_overrides import LOST, but, says, says_in_a_form, then
from tests.conformance.conforming import World
from tests.infra.conformance_demands import AnswerOverride

CLOUD = "11223344-a1b2-3b33-c444-def123456789"


def seconds_left(token: dict[str, Any]) -> float:
    return float(token["accessTokenExpiry"]) - time.time()


# refresh tokens: none, the old one, or one that works once


def test_a_user_install_of_slack_has_no_token_at_the_top(everybody: World) -> None:
    user = everybody.connection("slack-user")
    authed = {"id": "U1", "scope": "users:read", "access_token": "xoxp-1", "token_type": "user"}
    then(user, "token", says({"ok": True, "app_id": "A1", "authed_user": authed, "team": {"id": "T1", "name": "Acme"}}))
    token = user.connected()
    assert (token["accessToken"], token["scopes"], token["accessTokenExpiry"]) == ("xoxp-1", ["users:read"], "")
    assert token["details"] == {"authedUserId": "U1", "teamId": "T1", "teamName": "Acme"}


def test_each_kind_of_slack_takes_its_own_of_two_tokens(everybody: World) -> None:
    authed = {"id": "U1", "scope": "users:read", "access_token": "xoxe.xoxp-1", "refresh_token": "xoxe-user"}
    both = but(ok=True, access_token="xoxe.xoxb-1", refresh_token="xoxe-bot", authed_user=authed)
    for entry_id, tokens in {
        "slack": ("xoxe.xoxb-1", "xoxe-bot"),
        "slack-user": ("xoxe.xoxp-1", "xoxe-user"),
    }.items():
        token = then(everybody.connection(entry_id), "token", both).connected()
        assert (token["accessToken"], token["refreshToken"]) == tokens


@pytest.mark.parametrize("entry_id", ["google", "spotify", "figma", "dropbox"])
def test_a_refresh_may_bring_no_refresh_token(everybody: World, entry_id: str) -> None:
    connection = everybody.connection(entry_id)
    before = connection.connected()["refreshToken"]
    assert connection.refreshed()["refreshToken"] == before
    assert connection.refreshed()["refreshToken"] == before


@pytest.mark.parametrize("entry_id", ["google", "linkedin"])
def test_a_connection_without_a_refresh_token_ends_and_says_so(everybody: World, entry_id: str) -> None:
    connection = then(everybody.connection(entry_id), "token", but(refresh_token=...))
    assert connection.connected()["hasRefreshToken"] is False
    connection.expire()
    assert connection.fetch().status_code == 404


@pytest.mark.parametrize("entry_id", ["atlassian", "xero", "airtable", "calendly", "box", "linear", "zoom"])
def test_a_refresh_token_that_works_once_is_replaced_each_time(everybody: World, entry_id: str) -> None:
    connection = everybody.connection(entry_id)
    seen = {connection.connected()["refreshToken"]}
    seen |= {connection.refreshed()["refreshToken"] for _ in range(3)}
    assert len(seen) == 4
    assert connection.provider.refusals == []


@pytest.mark.parametrize("entry_id", ["atlassian", "jira", "xero"])
def test_a_lost_answer_is_mended_while_the_old_refresh_token_still_works(everybody: World, entry_id: str) -> None:
    connection = everybody.connection(entry_id)
    connection.connected()
    then(connection, "refresh", LOST)
    connection.expire()
    assert connection.fetch().status_code == 503
    assert connection.refreshed()["accessToken"] == connection.provider.access_token
    assert connection.provider.refusals == []


def test_atlassian_ends_everything_when_an_old_refresh_token_comes_late(everybody: World) -> None:
    jira = everybody.connection("jira")
    jira.connected()
    then(jira, "refresh", LOST)
    jira.expire()
    assert jira.fetch().status_code == 503
    jira.provider.spent = dict.fromkeys(jira.provider.spent, time.time() - 601)
    assert jira.is_dead()


def test_quickbooks_refresh_token_changes_only_now_and_then(everybody: World) -> None:
    books = everybody.connection("quickbooks")
    first = books.connected()["refreshToken"]
    then(books, "refresh", but(refresh_token=first))
    assert books.refreshed()["refreshToken"] == first


# lifetimes


@pytest.mark.parametrize(
    ("entry_id", "changes"),
    [
        ("github", {"expires_in": ..., "refresh_token": ..., "refresh_token_expires_in": ...}),
        ("slack", {"expires_in": ..., "refresh_token": ...}),
        ("shopify", {"expires_in": ..., "refresh_token": ...}),
        ("notion", {"expires_in": ..., "refresh_token": None}),
        ("mailchimp", {"expires_in": 0, "scope": None}),
        ("stripe", {"scope": "read_only", "livemode": False}),
    ],
)
def test_a_token_may_have_no_end(everybody: World, entry_id: str, changes: dict[str, Any]) -> None:
    connection = then(everybody.connection(entry_id), "token", but(**changes))
    token = connection.connected()
    assert (token["accessTokenExpiry"], token["hasRefreshToken"]) == ("", False)
    assert connection.token(forceRefresh=True)["accessToken"] == token["accessToken"]


def test_a_github_apps_token_ends_and_is_refreshed(everybody: World) -> None:
    github = then(everybody.connection("github"), "token", but(expires_in=28800, refresh_token_expires_in=15811200))
    assert 28700 < seconds_left(github.connected()) <= 28800
    assert github.refreshed()["accessToken"] == github.provider.access_token


def test_github_may_answer_with_a_form_and_commas(everybody: World) -> None:
    github = everybody.connection("github")
    answer = says_in_a_form(access_token="gho_16C7", scope="repo,gist", token_type="bearer")
    token = then(github, "token", answer).connected()
    assert (token["accessToken"], token["accessTokenType"], token["scopes"]) == ("gho_16C7", "Bearer", ["repo", "gist"])


def test_salesforce_is_asked_when_its_tokens_end_and_tells_where_it_is(everybody: World) -> None:
    salesforce = everybody.connection("salesforce")
    here = salesforce.provider.of_source("token")["instance_url"]
    elsewhere = here.replace("acme", "acme2")
    then(salesforce, "token", but(instance_url=here))
    then(salesforce, "introspection", but(exp=int(time.time()) + 43200))
    token = salesforce.connected()
    assert 43000 < seconds_left(token) <= 43200
    assert token["details"]["instance_url"] == here
    then(salesforce, "refresh", but(instance_url=elsewhere))
    then(salesforce, "introspection", says({"error": "unsupported_token_type"}, 403))
    token = salesforce.refreshed()
    assert 700 < seconds_left(token) <= 900  # the shortest that an org can have
    assert token["details"]["instance_url"] == elsewhere


def test_facebook_may_answer_with_a_form_that_says_expires(everybody: World) -> None:
    facebook = everybody.connection("facebook")
    token = then(facebook, "trade", says_in_a_form(access_token="EAAB-old", expires=5183944)).connected()
    assert token["accessToken"] == "EAAB-old"
    assert 5_100_000 < seconds_left(token) <= 5_184_000


def test_strava_says_twice_when_its_token_ends(everybody: World) -> None:
    strava = everybody.connection("strava")
    end = int(time.time()) + 21600
    then(strava, "token", but(expires_at=end, expires_in=21600, athlete={"id": 1234, "firstname": "Ada"}))
    token = strava.connected()
    assert (abs(int(token["accessTokenExpiry"]) - end) < 60, token["details"]) == (True, {"athleteId": "1234"})


def test_square_says_the_moment_in_words(everybody: World) -> None:
    end = datetime.now(UTC) + timedelta(days=30)
    square = then(everybody.connection("squareup"), "token", but(expires_at=end.strftime("%Y-%m-%dT%H:%M:%SZ")))
    assert abs(int(square.connected()["accessTokenExpiry"]) - end.timestamp()) < 60


def test_clover_says_the_moment_in_seconds(everybody: World) -> None:
    clover, end = everybody.connection("clover"), int(time.time()) + 1800
    then(clover, "token", but(access_token_expiration=end, refresh_token_expiration=end + 86400))
    token = clover.connected()
    assert (abs(int(token["accessTokenExpiry"]) - end) < 60, token["details"]) == (True, {"merchantId": "4242"})
    assert clover.refreshed()["accessToken"] == clover.provider.access_token
    assert clover.provider.calls("refresh")[0].path.endswith("/api.clover.com/oauth/v2/refresh")


def test_exact_online_is_never_asked_before_its_last_seconds(everybody: World) -> None:
    exact = then(everybody.connection("exact-online"), "token", but(expires_in="600"))
    before = exact.connected()["accessToken"]
    refused = exact.fetch(forceRefresh=True)
    assert (refused.status_code, 450 < int(refused.headers["retry-after"]) <= 572) == (503, True)
    assert exact.token(minimumSeconds=60)["accessToken"] == before
    assert exact.provider.calls("refresh") == []
    assert exact.refreshed()["accessToken"] != before
    assert exact.provider.refusals == []


# scopes, types, and what else is told


@pytest.mark.parametrize(
    ("entry_id", "answer", "scopes"),
    [
        ("twitch", {"scope": ["user:read:email", "channel:read:polls"]}, ["user:read:email", "channel:read:polls"]),
        ("mailchimp", {"scope": None}, []),
        ("strava", {"scope": "read,activity:read_all"}, ["read", "activity:read_all"]),
        ("bitbucket", {"scope": ..., "scopes": "account team"}, ["account", "team"]),
        ("instagram", {"permissions": "instagram_business_basic"}, ["instagram_business_basic"]),
        ("google", {"scope": "openid email"}, ["openid", "email"]),
    ],
)
def test_scopes_come_in_many_forms(everybody: World, entry_id: str, answer: dict[str, Any], scopes: list[str]) -> None:
    assert then(everybody.connection(entry_id), "token", but(**answer)).connected()["scopes"] == scopes


def test_instagram_may_answer_inside_a_list(everybody: World) -> None:
    instagram = everybody.connection("instagram")
    inside = {"access_token": "IGAA-short", "user_id": "178", "permissions": "instagram_business_basic"}
    then(instagram, "token", says({"data": [inside]}))
    instagram.provider.access_token = "IGAA-short"
    back = instagram.connect()
    assert back["outboundStatus"] == "connected", back
    assert instagram.provider.calls("trade")[0].params["access_token"] == "IGAA-short"


@pytest.mark.parametrize("kind", ["User Access Token", "bearer", "", None])
def test_a_strange_type_of_token_is_a_bearer(everybody: World, kind: str | None) -> None:
    ebay = then(everybody.connection("ebay"), "token", but(token_type=kind))
    assert ebay.connected()["accessTokenType"] == "Bearer"


def test_discord_tells_more_than_tokens(everybody: World) -> None:
    more = {"guild": {"id": "80351110224678912", "roles": []}, "webhook": {"url": "https://discord.com/api/webhooks/x"}}
    token = then(everybody.connection("discord"), "token", but(**more)).connected()
    assert token["details"] == {"guildId": "80351110224678912"}  # and not the webhook, which is a credential


@pytest.mark.parametrize(
    ("entry_id", "answer", "details"),
    [
        ("jira", [{"id": CLOUD, "url": "https://acme.atlassian.net"}], {"cloudId": CLOUD}),
        ("xero", [{"tenantId": "45e4708e", "tenantName": "Acme"}], {"tenantId": "45e4708e"}),
        ("mailchimp", {"dc": "us6", "api_endpoint": "https://us6.api.mailchimp.com"}, {"dc": "us6"}),
        (
            "docusign",
            {"accounts": [{"account_id": CLOUD, "base_uri": "https://na3.docusign.net"}]},
            {"accountId": CLOUD},
        ),
    ],
)
def test_what_calls_need_is_looked_up_once(
    everybody: World, entry_id: str, answer: Any, details: dict[str, str]
) -> None:
    connection = then(everybody.connection(entry_id), "context", says(answer))
    assert connection.connected()["details"].items() >= details.items()
    if connection.provider.has_refresh_tokens:
        assert connection.refreshed()["details"].items() >= details.items()
    assert len(connection.provider.calls("context")) == 1


@pytest.mark.parametrize("answer", [says([]), says({}, 500), says({"detail": "no"}, 401), says("x")])
def test_a_connection_is_made_even_if_the_lookup_fails(everybody: World, answer: AnswerOverride) -> None:
    assert "details" not in then(everybody.connection("jira"), "context", answer).connected()


def test_tiktok_ads_answers_inside_data(everybody: World) -> None:
    ads = everybody.connection("tiktok-ads")
    inside = {"access_token": "tt-ads", "advertiser_ids": ["70000001", "70000002"], "scope": [4, 11]}
    token = then(ads, "token", says({"code": 0, "message": "OK", "request_id": "2", "data": inside})).connected()
    assert (token["accessToken"], token["accessTokenExpiry"]) == ("tt-ads", "")
    assert token["details"] == {"advertiserId": "70000001"}


def test_withings_answers_inside_a_body(everybody: World) -> None:
    withings = everybody.connection("withings")
    inside = {"userid": "363", "access_token": "w-1", "refresh_token": "w-2", "scope": "user.info,user.metrics"}
    answer = {"status": 0, "body": {**inside, "expires_in": 10800, "token_type": "Bearer"}}
    token = then(withings, "token", says(answer)).connected()
    assert (token["accessToken"], token["refreshToken"]) == ("w-1", "w-2")
    assert (token["scopes"], token["details"]) == (["user.info", "user.metrics"], {"userId": "363"})


def test_calendly_tells_whose_it_is(everybody: World) -> None:
    more = {"owner": "https://api.calendly.com/users/AAA", "organization": "https://api.calendly.com/organizations/B"}
    assert then(everybody.connection("calendly"), "token", but(**more)).connected()["details"] == more


def test_what_revokes_refresh_tokens_only_is_not_called_without_one(everybody: World) -> None:
    zoho = then(everybody.connection("zoho"), "token", but(refresh_token=...))
    zoho.connected()
    assert zoho.revoke() == "unsupported"
    assert zoho.provider.calls("revocation") == []
