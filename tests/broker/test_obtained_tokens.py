"""Tokens that evergrant obtains by itself: fetched, renewed, refused; and nothing of it ends a connection."""

import logging
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from evergrant.broker.refresh import failures
from tests.conftest import Clock
from tests.infra.rows import rows
from tests.infra.scripted import answer, json_answer
from tests.infra.sources import KEY, OTHER_KEY, Sources, claims_of, key_file, nothing_asked, obtaining, tokens
from tests.infra.waiting import wait_until

LIFETIME = 3600


@pytest.fixture(scope="module", params=["sqlite"])
def shared(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sources]:
    with obtaining(request, tmp_path_factory) as sources:
        yield sources


@pytest.fixture
def sources(shared: Sources, monkeypatch: pytest.MonkeyPatch) -> Sources:
    """Its provider gives tokens; a broker that tries again at once."""
    monkeypatch.setattr(failures, "ON_DEMAND_PAUSE", (0.0, 0.0))
    shared.provider.requests.clear()
    shared.provider.routes.clear()
    shared.provider.answers(lambda _: tokens())
    return shared


def row_of(sources: Sources, user: str) -> dict[str, Any]:
    (row,) = [row for row in rows(sources.here.settings, "grants") if row["user_id"] == user]
    return row


def is_well(sources: Sources, app_id: str) -> bool:
    (app,) = [row for row in rows(sources.here.settings, "outbound_apps") if row["id"] == app_id]
    return app["unhealthy_since"] is None


def test_an_app_s_own_client_gets_tokens_for_each_connection_and_gets_new_ones(sources: Sources, clock: Clock) -> None:
    app = sources.app()
    (user,) = sources.connected(app)
    first = sources.token(app, user)
    assert first == sources.token(app, user)
    clock.advance(LIFETIME + 1)
    assert sources.token(app, user) != first
    assert (
        sources.provider.forms_at("/token")
        == [{"grant_type": "client_credentials", "scope": "read", "client_id": "ours", "client_secret": "app-secret"}]
        * 2
    )


def test_a_connection_s_own_client_stands_in_and_authenticates_as_the_app_says(sources: Sources) -> None:
    app = sources.app("client", tokenEndpointAuthMethod="client_secret_basic")
    users = sources.connected(app, *({"client_id": f"own-{n}", "client_secret": "s"} for n in "12"))
    for user in users:
        sources.token(app, user)
    sent = [request.headers["authorization"] for request in sources.provider.requests_to("/token")]
    assert sent == ["Basic b3duLTE6cw==", "Basic b3duLTI6cw=="]  # own-1:s, own-2:s


def test_a_key_file_signs_for_its_robot_and_is_sent_nowhere(sources: Sources, clock: Clock) -> None:
    app = sources.app("robot")
    (user,) = sources.connected(app, {"key_file": key_file()})
    sources.token(app, user)
    (form,) = sources.provider.forms_at("/token")
    now = int(clock.now.timestamp())
    assert claims_of(form.pop("assertion")) == {
        "iss": "robot-1",
        "aud": f"{sources.provider.url}/token",
        "scope": "read",
        "iat": now,
        "exp": now + 300,
    }
    assert form == {"grant_type": "urn:ietf:params:oauth:grant-type:jwt-bearer"}


REFUSED: dict[str, tuple[str, Any, int]] = {
    "invalid_client": ("client", (401, {"error": "invalid_client"}), 502),
    "invalid_grant": ("robot", (400, {"error": "invalid_grant", "error_description": "Expired: invalid iat"}), 502),
    "too many": ("client", json_answer(429, {"error": "slow_down"}, Retry_After="1"), 503),
    "a 500": ("robot", answer(500, b"oops"), 503),
    "a web page": ("client", answer(502, b"<html>no</html>", "text/html"), 503),
}
OWN_CLIENT = {"client_id": "own", "client_secret": "a-secret-of-its-own"}


@pytest.mark.parametrize(("template", "refusal", "status"), REFUSED.values(), ids=REFUSED)
def test_a_refusal_of_one_connection_s_credentials_ends_nothing_and_is_nobody_else_s(
    sources: Sources, template: str, refusal: Any, status: int
) -> None:
    app = sources.app(template)
    (user,) = sources.connected(app, {"client": OWN_CLIENT, "robot": {"key_file": key_file()}}[template])
    before = row_of(sources, user)
    sources.provider.answers(refusal)
    refused = sources.fetch(app, user)
    assert refused.status_code == status, refused.text
    if status == 502:
        assert "refuses this connection's credentials" in refused.json()["message"]
        assert "upload others" in refused.json()["message"]
    after = row_of(sources, user)
    assert (after["status"], after["refresh_token"]) == ("active", before["refresh_token"])
    assert after["interrupted_at"] is None
    assert is_well(sources, app)
    sources.provider.answers(lambda _: tokens())
    wait_until(lambda: sources.fetch(app, user).status_code == 200, "the credentials are good again")
    assert "refresh_token" not in {form["grant_type"] for form in sources.provider.forms_at("/token")}


@pytest.mark.parametrize("error", ["invalid_client", "invalid_grant"])
def test_an_app_s_client_that_is_refused_is_the_app_s_fault_until_it_is_corrected(
    sources: Sources, clock: Clock, error: str
) -> None:
    app = sources.app()
    (user,) = sources.connected(app)
    sources.provider.answers((401, {"error": error}))
    refused = sources.fetch(app, user).json()
    assert f"refuses this app: {error}. Correct the app's settings." in refused["message"]
    assert not is_well(sources, app)
    assert row_of(sources, user)["status"] == "active"
    sources.provider.answers(lambda _: tokens())
    clock.advance(60)
    assert sources.token(app, user)
    assert is_well(sources, app)
    assert {form["grant_type"] for form in sources.provider.forms_at("/token")} == {"client_credentials"}


def test_several_connections_in_a_row_that_are_refused_are_the_app_s_fault(sources: Sources) -> None:
    app = sources.app("client")
    users = sources.connected(app, *({"client_id": f"own-{n}", "client_secret": "s"} for n in "123"))
    sources.provider.answers((401, {"error": "invalid_client"}))
    blamed = []
    for user in users:
        sources.fetch(app, user)
        blamed.append(not is_well(sources, app))
    assert blamed == [False, False, True]


def test_a_key_that_signs_nothing_is_its_connection_s_fault_and_nothing_is_sent(sources: Sources) -> None:
    app = sources.app("robot")
    (user,) = sources.connected(app, {"key_file": key_file().replace("BEGIN", "END")})
    with nothing_asked(sources.provider):
        refused = sources.fetch(app, user)
    assert refused.status_code == 502
    assert (
        "the private key, in PEM or as a JWK, of at most 4,096 bits, that signs by RS256 is needed"
        in refused.json()["message"]
    )
    assert is_well(sources, app)


def test_a_forced_token_is_a_new_one_and_many_at_once_cost_one_call(sources: Sources, clock: Clock) -> None:
    app = sources.app("signed", signingKey=KEY.as_pem(private=True).decode(), clientId="ours")
    (user,) = sources.connected(app)
    first = sources.token(app, user)
    clock.advance(10)
    forced = {"options": {"forceRefresh": True}}
    with ThreadPoolExecutor(20) as pool:
        found = set(pool.map(lambda _: sources.token(app, user, **forced), range(20)))
    assert len(found) == 1
    assert first not in found
    assertions = [form["assertion"] for form in sources.provider.forms_at("/token")]
    assert [claims_of(each)["iss"] for each in assertions] == ["ours"] * 2


def test_credentials_that_a_provider_repeats_stand_in_no_error_and_no_log(
    sources: Sources, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    app = sources.app("client")
    (user,) = sources.connected(app, {"client_id": "own", "client_secret": "very-secret-0123456789"})
    sources.provider.answers(
        lambda request: (400, {"error": "invalid_request", "error_description": f"bad {request.form['client_secret']}"})
    )
    told = sources.fetch(app, user).text + str(row_of(sources, user)["last_refresh_error"]) + caplog.text
    assert "bad " in told
    assert "very-secret" not in told
    robots = sources.app("robot")
    (robot,) = sources.connected(robots, {"key_file": key_file(OTHER_KEY)})
    sources.provider.answers(
        lambda request: (400, {"error": "invalid_grant", "error_description": f"bad {request.form['assertion']}"})
    )
    signature = sources.provider.requests[-1].form.get("assertion", "none").rpartition(".")[2]
    assert signature not in sources.fetch(robots, robot).text


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "a kind that needs a template": ({"appType": "login"}, "templateId"),
    "a template of another kind": ({"templateId": "robot"}, "appType"),
    "an address for the browser": ({"authorizationUrl": "https://idp.example.com/authorize"}, "authorizationUrl"),
    "a refresh token's rest": ({"refreshTokenIdleSeconds": 7200}, "refreshTokenIdleSeconds"),
}


@pytest.mark.parametrize(("fields", "field"), WRONG.values(), ids=WRONG)
def test_an_app_has_what_its_kind_can_have(sources: Sources, fields: dict[str, Any], field: str) -> None:
    definition = {
        "name": "Wrong",
        "appType": "client_credentials",
        "clientId": "ours",
        "tokenUrl": f"{sources.provider.url}/token",
    }
    refused = sources.here.backend.post("app/create", {**definition, **fields})
    assert refused.status_code == 400
    assert [each["field"] for each in refused.json()["details"]["fields"]] == [field]


def test_a_test_of_an_app_asks_for_a_token_where_it_can(sources: Sources) -> None:
    def checks(app: str) -> dict[str, bool]:
        found = sources.here.backend.post("app/test", {"id": app})
        assert found.status_code == 200, found.text
        return {check["name"]: check["good"] for check in found.json()["checks"]}

    own, incomplete = sources.app(), sources.app(clientSecret="")
    assert checks(own) == {"definition": True, "token": True}
    assert checks(incomplete) == {"definition": False}
    with nothing_asked(sources.provider):
        assert checks(sources.app("robot")) == {"definition": True, "credentials": True}
    sources.provider.answers((401, {"error": "invalid_client"}))
    assert checks(own) == {"definition": True, "client": False}


def test_nobody_connects_in_the_browser_what_takes_credentials(sources: Sources) -> None:
    answered = sources.here.backend.post("app/connect", {"appId": sources.app(), "userId": "ada"})
    assert answered.status_code == 400
    assert "takes credentials: upload them" in answered.json()["message"]
