"""Scopes as Google, Microsoft, GitHub and Shopify really write them in their answers."""

from collections.abc import Callable
from typing import Any

import pytest

from tests.conformance.answer_overrides import but, then
from tests.conformance.conforming import Connection, World
from tests.infra.people import someone

GOOGLE = ["google", "google-mail"]
"""One whose scopes are words, and one whose are addresses."""
MICROSOFT = [
    "azure-devops",
    "microsoft",
    "microsoft-ads",
    "microsoft-dynamics",
    "microsoft-power-bi",
    "microsoft-teams",
]
"""Some of Graph, some of other APIs."""
GRAPH = "https://graph.microsoft.com/"
OPENID = ("openid", "profile", "email", "offline_access")
Spelling = Callable[[list[str]], list[str]]


def as_google(scopes: list[str]) -> list[str]:
    """Write the two short names long, in an order of its own."""
    long = {name: f"https://www.googleapis.com/auth/userinfo.{name}" for name in ("email", "profile")}
    return sorted(long.get(scope, scope) for scope in scopes)


def as_microsoft(scopes: list[str]) -> list[str]:
    """Leave out `offline_access` and the address of Graph, write each in one case, and add the usual three."""
    graph = [scope.removeprefix(GRAPH) for scope in scopes if scope not in OPENID]
    proper = [
        scope if "://" in scope else ".".join(word[:1].upper() + word[1:] for word in scope.split("."))
        for scope in graph
    ]
    usual = [] if any("://" in scope for scope in proper) else ["profile", "email", "User.Read"]
    return list(dict.fromkeys([*(["openid"] if "openid" in scopes else []), *usual, *proper]))


def as_microsoft_with_addresses(scopes: list[str]) -> list[str]:
    """The same with the address of Graph in front of its scopes."""
    return [s if s in OPENID or "://" in s else GRAPH + s for s in as_microsoft(scopes)]


def asked_and_answered(connection: Connection, scopes: list[str], spelling: Spelling) -> None:
    """Connect with these scopes and fetch by them, before and after a refresh whose answer has the same spelling."""
    answered = but(scope=" ".join(spelling(scopes)))
    then(connection, "token", answered)
    then(connection, "refresh", answered, answered)
    connection.provider.scopes = scopes
    back = connection.connect(overrides={"name": someone(), "defaultScopes": scopes})
    assert back["outboundStatus"] == "connected", back
    for _ in range(2):
        token = fetched(connection, scopes)
        assert token["accessToken"] == connection.provider.access_token
        assert token["scopes"][: len(scopes)] == scopes
        connection.expire()
    refused = by_scopes(connection, [*scopes, "something.Else"])
    assert refused.status_code == 404
    assert refused.json()["details"]["missingScopes"] == ["something.Else"]


def by_scopes(connection: Connection, scopes: list[str]) -> Any:
    wanted = {"appId": connection.app_id, "userId": connection.user, "scopes": scopes}
    return connection.here.backend.post("app/user/token", wanted)


def fetched(connection: Connection, scopes: list[str]) -> dict[str, Any]:
    answer = by_scopes(connection, scopes)
    assert answer.status_code == 200, answer.text
    token: dict[str, Any] = answer.json()["token"]
    return token


@pytest.mark.parametrize("entry_id", GOOGLE)
def test_googles_long_names_are_the_short_ones(everybody: World, entry_id: str) -> None:
    connection = everybody.connection(entry_id)
    asked_and_answered(connection, list(dict.fromkeys([*connection.provider.scopes, "email", "profile"])), as_google)


@pytest.mark.parametrize("spelling", [as_microsoft, as_microsoft_with_addresses])
@pytest.mark.parametrize("entry_id", MICROSOFT)
def test_microsoft_answers_in_a_spelling_of_its_own(everybody: World, entry_id: str, spelling: Spelling) -> None:
    connection = everybody.connection(entry_id)
    asked_and_answered(connection, list(connection.provider.scopes), spelling)


@pytest.mark.parametrize("entry_id", MICROSOFT)
def test_microsoft_may_be_asked_in_another(everybody: World, entry_id: str) -> None:
    connection = everybody.connection(entry_id)
    asked = [s if s in OPENID or "://" in s else GRAPH + s.lower() for s in connection.provider.scopes]
    asked_and_answered(connection, asked, as_microsoft)


def test_googles_and_microsofts_own_defaults_can_be_fetched(everybody: World) -> None:
    """The first thing that a newcomer does."""
    for entry_id, spelling in (("google", as_google), ("microsoft", as_microsoft)):
        connection = everybody.connection(entry_id)
        then(connection, "token", but(scope=" ".join(spelling(connection.provider.scopes))))
        connection.connected()
        fetched(connection, connection.provider.scopes)


def test_microsofts_default_scope_stands_for_those_that_the_answer_names(everybody: World) -> None:
    connection = everybody.connection("microsoft")
    asked_and_answered(connection, ["openid", "offline_access", f"{GRAPH}.default"], lambda _: ["openid", "Mail.Read"])


def test_a_scope_of_another_microsoft_api_is_another_scope(everybody: World) -> None:
    connection = then(everybody.connection("microsoft"), "token", but(scope="openid User.Read Mail.Read"))
    connection.connected()
    refused = by_scopes(connection, ["https://outlook.office.com/Mail.Read"])
    assert refused.json()["details"]["missingScopes"] == ["https://outlook.office.com/Mail.Read"]


@pytest.mark.parametrize(
    ("entry_id", "asked", "answered"),
    [
        ("github", ["user", "user:email", "read:org"], "user,read:org"),
        ("github", ["repo", "public_repo", "admin:org", "read:org"], "repo,admin:org"),
        ("shopify", ["read_products", "write_products", "read_orders"], "write_products,read_orders"),
    ],
)
def test_what_a_greater_scope_contains_is_not_missing(
    everybody: World, entry_id: str, asked: list[str], answered: str
) -> None:
    connection = then(everybody.connection(entry_id), "token", but(scope=answered))
    connection.provider.scopes = asked
    connection.connect(overrides={"name": someone(), "defaultScopes": asked})
    assert set(fetched(connection, asked)["scopes"]) == set(asked)


@pytest.mark.parametrize("entry_id", ["google", "microsoft"])
def test_without_a_refresh_token_the_scope_that_asks_for_one_is_missing(everybody: World, entry_id: str) -> None:
    connection = everybody.connection(entry_id)
    asked = [*connection.provider.scopes, "offline_access"]
    named = " ".join(scope for scope in asked if scope != "offline_access")
    then(connection, "token", but(scope=named, refresh_token=...))
    connection.provider.scopes = list(dict.fromkeys(asked))
    connection.connect(overrides={"name": someone(), "defaultScopes": connection.provider.scopes})
    refused = by_scopes(connection, asked)
    assert refused.json()["details"] == {"missingScopes": ["offline_access"], "refusedScopes": ["offline_access"]}


def test_a_scope_with_a_variable_is_sent_and_kept_filled_in_and_found_by_either_form(everybody: World) -> None:
    connection = everybody.connection("microsoft-dynamics")
    then(connection, "token", but(scope=...))  # as it was asked for
    connection.connected()  # the provider wants the filled form
    written, filled = connection.provider.entry["default_scopes"], connection.provider.scopes
    assert "https://{environment}.dynamics.com/user_impersonation" in written
    assert "https://contoso.crm4.dynamics.com/user_impersonation" in filled
    app = connection.here.backend.http.get("/v1/mgmt/outbound/app/" + connection.app_id).json()["app"]
    assert app["defaultScopes"] == written
    for scopes in (written, filled):
        assert fetched(connection, scopes)["scopes"] == filled
    connection.expire()
    assert fetched(connection, written)["scopes"] == filled
    other = ["https://fabrikam.crm4.dynamics.com/user_impersonation"]
    assert by_scopes(connection, other).json()["details"]["missingScopes"] == other


def test_a_scope_can_only_have_variables_that_somebody_gives(everybody: World) -> None:
    connection = everybody.connection("microsoft-dynamics")
    refused = connection.create_app(overrides={"name": someone(), "defaultScopes": ["https://{shop}.example.com/read"]})
    assert refused.status_code == 400
    assert "{shop} is not a variable of the app's template" in refused.text
