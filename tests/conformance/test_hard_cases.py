"""Providers that are known to be difficult: who is asked, where, and with what. Each test is one recorded peculiarity.

That every provider gets exactly what its entry says is in test_every_entry.py; here is what the entry says it for.
"""

import base64
from typing import Any

import pytest

from tests.conformance.conforming import World
from tests.infra.scripted import Request


def the(calls: list[Request]) -> dict[str, Any]:
    """Return the parameters of the one call that there was."""
    (call,) = calls
    return call.params


def test_slack_asks_for_a_bots_and_a_users_scopes_apart(everybody: World) -> None:
    bot, user = everybody.connection("slack"), everybody.connection("slack-user")
    bot.connected()
    user.connected()
    assert the(bot.provider.calls("authorization"))["scope"] == "chat:write"
    assert the(user.provider.calls("authorization"))["user_scope"] == "users:read"
    assert "code_challenge" not in the(bot.provider.calls("authorization"))


def test_google_is_asked_for_offline_access_by_consent(everybody: World) -> None:
    google = everybody.connection("google")
    google.connected()
    asked = the(google.provider.calls("authorization"))
    assert (asked["access_type"], asked["prompt"]) == ("offline", "consent")


def test_microsofts_tenant_is_part_of_the_path_and_the_issuer_is_the_persons_own(everybody: World) -> None:
    microsoft = everybody.connection("microsoft")
    assert microsoft.connected()["tokenSub"]
    assert microsoft.provider.calls("token")[0].path.endswith("/organizations/oauth2/v2.0/token")


def test_microsoft_advertising_repeats_its_scope_at_every_refresh(everybody: World) -> None:
    ads = everybody.connection("microsoft-ads")
    ads.connected()
    ads.refreshed()
    assert "https://ads.microsoft.com/msads.manage" in the(ads.provider.calls("refresh"))["scope"]


def test_notion_wants_basic_and_json(everybody: World) -> None:
    notion = everybody.connection("notion")
    notion.connected()
    (redeemed,) = notion.provider.calls("token")
    assert redeemed.headers["authorization"].startswith("Basic ")
    assert redeemed.body.startswith(b"{")
    assert the(notion.provider.calls("authorization"))["owner"] == "user"


def test_dropbox_never_sees_an_empty_scope(everybody: World) -> None:
    dropbox = everybody.connection("dropbox")
    dropbox.provider.scopes = []
    dropbox.connected(overrides={"name": "Dropbox", "defaultScopes": []})
    asked = the(dropbox.provider.calls("authorization"))
    assert "scope" not in asked
    assert asked["token_access_type"] == "offline"
    assert dropbox.revoke() == "revoked"
    assert dropbox.provider.calls("revocation")[0].headers["authorization"].startswith("Bearer at-dropbox-")


def test_shopifys_shop_is_the_host_and_its_tokens_are_asked_to_end(everybody: World) -> None:
    shopify = everybody.connection("shopify")
    shopify.provider.callback_params = {"hmac": "f00d", "shop": "acme-shoes.myshopify.com", "timestamp": "1"}
    assert shopify.connected()["details"] == {"subdomain": "acme-shoes"}
    (redeemed,) = shopify.provider.calls("token")
    assert "/acme-shoes.myshopify.com/" in redeemed.path
    assert redeemed.params["expiring"] == "1"


@pytest.mark.parametrize("entry_id", ["airtable", "twitter-v2"])
def test_pkce_that_a_provider_demands_cannot_be_turned_off(everybody: World, entry_id: str) -> None:
    connection = everybody.connection(entry_id)
    refused = connection.create_app(overrides={"pkce": False})
    assert [entry["field"] for entry in refused.json()["details"]["fields"]] == ["pkce"]
    connection.connected()
    (redeemed,) = connection.provider.calls("token")
    assert redeemed.headers["authorization"].startswith("Basic ")
    assert redeemed.params["code_verifier"]


def test_reddit_sees_who_asks(everybody: World) -> None:
    reddit = everybody.connection("reddit")
    reddit.connected()
    reddit.refreshed()
    assert the(reddit.provider.calls("authorization"))["duration"] == "permanent"
    for call in (*reddit.provider.calls("token"), *reddit.provider.calls("refresh")):
        assert call.headers["user-agent"] == "server:client-reddit:1.0 (evergrant)"


def test_deel_sees_the_redirect_address_at_a_refresh_too(everybody: World) -> None:
    deel = everybody.connection("deel")
    deel.connected()
    deel.refreshed()
    assert the(deel.provider.calls("refresh"))["redirect_uri"] == deel.provider.callback


def test_quickbooks_is_of_no_use_without_its_company(everybody: World) -> None:
    books = everybody.connection("quickbooks")
    books.provider.callback_params = {"realmId": ""}
    back = books.connect()
    assert (back["outboundStatus"], "realmId" in back["errDescription"]) == ("failed", True)
    assert books.provider.calls("token") == []
    books.provider.callback_params = {"realmId": "9130357"}
    assert books.connect_again()["outboundStatus"] == "connected"
    assert books.token()["details"] == {"realmId": "9130357"}


def test_zoho_redeems_and_refreshes_where_the_persons_account_is(everybody: World) -> None:
    zoho = everybody.connection("zoho")
    zoho.connected()
    zoho.refreshed()
    zoho.revoke()
    for role in ("token", "refresh", "revocation"):
        assert "/accounts.zoho.eu/" in zoho.provider.calls(role)[0].path


def test_zoho_cannot_send_a_secret_to_a_strange_server(everybody: World) -> None:
    zoho = everybody.connection("zoho")
    zoho.provider.callback_params = {"accounts-server": zoho.provider.base + "/accounts.zoho.evil"}
    back = zoho.connect()
    assert (back["outboundStatus"], "accounts_server" in back["errDescription"]) == ("failed", True)
    assert zoho.provider.calls("token") == []


def test_stripe_ends_an_account_by_its_id(everybody: World) -> None:
    stripe = everybody.connection("stripe")
    token = stripe.connected()
    assert (token["accessTokenExpiry"], token["hasRefreshToken"]) == ("", False)
    assert stripe.revoke() == "revoked"
    assert the(stripe.provider.calls("revocation"))["stripe_user_id"] == token["details"]["stripe_user_id"]


def test_a_stripe_app_is_known_by_its_secret_key_alone(everybody: World) -> None:
    stripe = everybody.connection("stripe-app")
    stripe.connected()
    (redeemed,) = stripe.provider.calls("token")
    assert redeemed.headers["authorization"] == f"Bearer {stripe.provider.client_secret}"
    assert set(redeemed.params) == {"grant_type", "code"}


def test_facebook_trades_its_tokens_at_the_graphs_version(everybody: World) -> None:
    facebook = everybody.connection("facebook")
    facebook.connected()
    facebook.refreshed()
    first, second = facebook.provider.calls("trade")
    assert first.path.endswith("/graph.facebook.com/v26.0/oauth/access_token")
    assert [call.params["grant_type"] for call in (first, second)] == ["fb_exchange_token"] * 2
    assert first.params["fb_exchange_token"] != second.params["fb_exchange_token"]


@pytest.mark.parametrize(("entry_id", "prefix"), [("instagram", "ig"), ("threads", "th")])
def test_a_short_token_becomes_a_long_one_that_renews_itself(everybody: World, entry_id: str, prefix: str) -> None:
    connection = everybody.connection(entry_id)
    connection.connected()
    connection.refreshed()
    first, second = (call.params for call in connection.provider.calls("trade"))
    assert (first["grant_type"], second["grant_type"]) == (f"{prefix}_exchange_token", f"{prefix}_refresh_token")
    assert "client_secret" in first
    assert "client_secret" not in second
    assert connection.provider.calls("refresh") == []


def test_tiktok_calls_a_client_a_key_everywhere(everybody: World) -> None:
    tiktok = everybody.connection("tiktok-personal")
    tiktok.provider.scopes = ["user.info.basic", "video.list"]
    tiktok.connected(overrides={"name": "TikTok", "defaultScopes": tiktok.provider.scopes})
    tiktok.refreshed()
    tiktok.revoke()
    assert the(tiktok.provider.calls("authorization"))["scope"] == "user.info.basic,video.list"
    for role in ("authorization", "token", "refresh", "revocation"):
        (call,) = tiktok.provider.calls(role)
        assert call.params["client_key"] == "client-tiktok-personal"
        assert "client_id" not in call.params


def test_tiktok_ads_has_names_of_its_own(everybody: World) -> None:
    ads = everybody.connection("tiktok-ads")
    ads.connected()
    assert set(the(ads.provider.calls("token"))) >= {"app_id", "secret", "auth_code"}
    assert the(ads.provider.calls("authorization"))["app_id"] == "client-tiktok-ads"


def test_linear_asks_again_which_workspace(everybody: World) -> None:
    linear = everybody.connection("linear")
    assert set(linear.connected()["details"]) == {"organizationId", "organizationKey"}
    assert the(linear.provider.calls("authorization"))["prompt"] == "consent"


def test_figma_refreshes_elsewhere(everybody: World) -> None:
    figma = everybody.connection("figma")
    before = figma.connected()["refreshToken"]
    assert figma.refreshed()["refreshToken"] == before  # the answer has none
    assert figma.provider.calls("refresh")[0].path.endswith("/api.figma.com/v1/oauth/refresh")


@pytest.mark.parametrize(
    ("entry_id", "host"), [("gitlab", "gitlab.example.com"), ("salesforce", "acme.my.salesforce.com")]
)
def test_a_host_of_ones_own_is_asked(everybody: World, entry_id: str, host: str) -> None:
    connection = everybody.connection(entry_id)
    connection.connected()
    assert f"/{host}/" in connection.provider.calls("token")[0].path


def test_square_lets_people_choose_their_account(everybody: World) -> None:
    square = everybody.connection("squareup")
    square.connected()
    asked = the(square.provider.calls("authorization"))
    assert (asked["session"], "code_challenge" in asked) == ("false", False)


def test_amazons_token_server_is_the_regions(everybody: World) -> None:
    amazon = everybody.connection("amazon")
    amazon.connected()
    assert "/api.amazon.co.jp/" in amazon.provider.calls("token")[0].path


def test_a_selling_partners_code_has_another_name(everybody: World) -> None:
    amazon = everybody.connection("amazon-selling-partner")
    assert amazon.connected()["details"]["selling_partner_id"]
    asked = the(amazon.provider.calls("authorization"))
    assert asked["application_id"].startswith("amzn1.sp.solution.")


def test_apple_answers_by_a_post_and_sees_a_secret_of_ten_minutes(everybody: World) -> None:
    apple = everybody.connection("apple")
    apple.provider.callback_params = {"user": '{"name": {"firstName": "Ada"}}'}
    apple.connected()
    apple.refreshed()
    assert the(apple.provider.calls("authorization"))["response_mode"] == "form_post"
    first, second = (apple.provider.calls(role)[0].params["client_secret"] for role in ("token", "refresh"))
    assert first != second  # each is made for its request


def test_ebay_sees_a_name_in_place_of_our_address(everybody: World) -> None:
    ebay = everybody.connection("ebay")
    ebay.connected()
    for role in ("authorization", "token"):
        assert the(ebay.provider.calls(role))["redirect_uri"] == "Acme-AcmeApp-PRD-abc-defghi"
    pair = base64.b64decode(ebay.provider.calls("token")[0].headers["authorization"].removeprefix("Basic "))
    assert pair.startswith(b"client-ebay:")


def test_withings_is_told_what_to_do(everybody: World) -> None:
    withings = everybody.connection("withings")
    withings.connected()
    withings.refreshed()
    for role in ("token", "refresh"):
        assert the(withings.provider.calls(role))["action"] == "requesttoken"


def test_vk_gets_its_device_back(everybody: World) -> None:
    vk = everybody.connection("vk")
    vk.provider.callback_params = {"device_id": ""}
    assert vk.connect()["outboundStatus"] == "failed"
    assert vk.provider.calls("token") == []
    vk.provider.callback_params = {}
    assert vk.connect_again()["outboundStatus"] == "connected"
    vk.refreshed()
    for role in ("token", "refresh"):
        assert the(vk.provider.calls(role))["device_id"] == vk.provider.values["device_id"]
    assert vk.provider.complaints == []
