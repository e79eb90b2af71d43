"""Whose fault a refused refresh is: the user's consent has ended, the provider refuses the app, or nobody knows yet."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import httpx2
import pytest

from tests.infra.installation import Installation
from tests.infra.people import someone
from tests.infra.rows import execute, expire, rows
from tests.infra.scripted import Answer, Request, ScriptedProvider, answer, serving

UNCLEAR = (400, {"error": "E42", "error_description": "Not possible (trace 7f3a9)."})


@dataclass
class Server(ScriptedProvider):
    """A token endpoint that refreshes every token but those of `refused`, and knows which ones it has issued."""

    refused: dict[str, Answer] = field(default_factory=dict)
    """Answers by user."""
    to_strangers: Answer = (400, {"error": "invalid_grant"})
    """What a refresh token gets that nobody has issued."""
    everybody: Answer = None
    """What everybody gets, where it is set."""
    asked: list[str] = field(default_factory=list)
    """Who has refreshed; `stranger` for a token that nobody has issued."""

    def __post_init__(self) -> None:
        self.routes["/token"] = self._token

    def _token(self, request: Request) -> Answer:
        token = request.form["refresh_token"]
        user = token.removeprefix("rt-") if token.startswith("rt-") else "stranger"
        self.asked.append(user)
        if self.everybody is not None:
            return self.everybody
        if user == "stranger":
            return self.to_strangers
        return self.refused.get(user, {"access_token": f"at-{len(self.asked)}", "expires_in": 3600})


@dataclass
class People:
    """Users of one app at one server."""

    here: Installation
    server: Server
    app_id: str
    webhook_id: str
    """Of one that wants to know about apps only."""

    def connected(self) -> str:
        """Return a user with a refresh token, and no access token yet."""
        user = someone()
        body = {"appId": self.app_id, "userId": user, "refreshToken": f"rt-{user}"}
        uploaded = self.here.backend.post("app/user/oauthtoken/upload", body)
        assert uploaded.status_code == 200, uploaded.text
        return user

    def fetch(self, user: str) -> httpx2.Response:
        """Fetch, when the pause after a failure is over."""
        execute(self.here.settings, f"UPDATE grants SET refresh_not_before = NULL WHERE user_id = '{user}'")
        return self.here.backend.post("app/user/token/latest", {"appId": self.app_id, "userId": user})

    def works(self, user: str) -> bool:
        """Let a user's token end, and see whether a refresh brings another."""
        expire(self.here.settings, user)
        return self.fetch(user).status_code == 200

    def health(self) -> str:
        return str(self.here.backend.app(self.app_id)["health"]["status"])

    def told(self) -> list[str]:
        """Return which events there have been about the app, in their order."""
        found = sorted(rows(self.here.settings, "webhook_deliveries"), key=lambda row: str(row["id"]))
        return [str(row["event_type"]) for row in found if row["webhook_id"] == self.webhook_id]

    def is_ended(self, fetched: httpx2.Response) -> bool:
        return fetched.status_code == 404 and fetched.json()["details"]["reason"] == "reauthorization_required"


@pytest.fixture
def people(here: Installation) -> Iterator[People]:
    with serving(Server()) as server:
        app_id = here.backend.new_app(server.registration(""), refreshPolicy="on_demand")
        about_apps = {"url": f"{server.url}/hook", "eventTypes": ["app.unhealthy", "app.recovered"]}
        made = here.backend.post("webhook/create", about_apps).raise_for_status().json()
        yield People(here, server, app_id, made["webhook"]["id"])


def is_the_grants(fetched: httpx2.Response) -> bool:
    """Tell whether it is a refusal that blames nobody."""
    code = fetched.json()["errorCode"]
    return (fetched.status_code, code) == (502, "E111506") and "correct the app" not in fetched.text.lower()


def is_the_apps(fetched: httpx2.Response) -> bool:
    """Tell whether it is a refusal that the operator must mend."""
    return fetched.status_code == 502 and "Correct the app's settings" in fetched.json()["errorMessage"]


WORDS: dict[str, Any] = {
    "a library's words": (
        400,
        {"error": "invalid_request", "error_description": 'Invalid "refresh_token" in request.'},
    ),
    "a list": (400, {"error": ["invalid_grant"]}),
    "CamelCase": (400, {"error": "InvalidGrant"}),
    "401": (401, {"error": "invalid_token"}),
    "plain text": answer(400, b"invalid_grant", "text/plain"),
    "Apigee": (401, {"fault": {"faultstring": "Invalid Refresh Token", "detail": {"errorcode": "oauth.v2.x"}}}),
    "Passport": (401, {"error": "invalid_request", "error_description": "The refresh token is invalid."}),
    "Spring": (400, {"status": 400, "error": "Bad Request", "message": "Invalid refresh token: 9f3c"}),
}


@pytest.mark.parametrize("reply", WORDS.values(), ids=WORDS)
def test_a_dead_refresh_token_is_its_users_and_nobody_elses_affair(people: People, reply: Answer) -> None:
    ann, bob = people.connected(), people.connected()
    people.server.refused[ann] = reply
    assert people.is_ended(people.fetch(ann))
    assert people.health() == "ok"
    assert people.works(bob)
    assert people.is_ended(people.fetch(ann))
    assert people.server.asked == [ann, bob], "once, and no one else was asked about it"


INVALID_CLIENT = 401, {"error": "invalid_client", "error_description": "Invalid refresh token"}


def test_a_client_that_never_worked_and_is_refused_is_the_operators_and_costs_no_consent(people: People) -> None:
    ann, bob = people.connected(), people.connected()
    people.server.refused[ann] = people.server.to_strangers = INVALID_CLIENT
    for _ in range(2):
        assert is_the_apps(people.fetch(ann))
    assert people.health() == "unhealthy"
    del people.server.refused[ann]
    assert people.works(ann)
    assert people.works(bob)
    assert people.health() == "ok"


def test_a_client_that_worked_is_refused_when_everybody_is(people: People) -> None:
    users = [people.connected() for _ in range(5)]
    assert people.works(users[0])
    people.server.everybody = INVALID_CLIENT
    refused = [people.fetch(user) for user in users[1:]]
    assert [is_the_apps(one) for one in refused] == [False, False, True, True]
    assert all(is_the_grants(one) for one in refused[:2])
    assert people.health() == "unhealthy"
    people.server.everybody = None
    assert all(people.works(user) for user in users)
    assert people.health() == "ok"


def test_a_client_that_worked_is_refused_when_all_that_it_has_are(people: People) -> None:
    ann = people.connected()
    assert people.works(ann)
    expire(people.here.settings, ann)
    people.server.everybody = INVALID_CLIENT
    assert is_the_apps(people.fetch(ann))
    assert people.health() == "unhealthy"


@pytest.mark.parametrize(
    "refusal", [INVALID_CLIENT, (403, {"error": "access_denied"}), (400, {"error": "unauthorized_client"})], ids=str
)
def test_one_users_refusal_and_anothers_success_do_not_turn_an_app_to_and_fro(people: People, refusal: Answer) -> None:
    ann, bob = people.connected(), people.connected()
    assert people.works(bob)
    people.server.refused[ann] = refusal
    people.server.to_strangers = 400, {"error": "something_else"}
    for _ in range(4):
        assert is_the_grants(people.fetch(ann))
        assert people.works(bob)
    assert people.told() == []


def test_users_who_are_always_refused_do_not_turn_an_app_to_and_fro_either(people: People) -> None:
    """Several in a row can be a coincidence after all; each time that it was, it takes twice as many."""
    good, *bad = [people.connected() for _ in range(9)]
    assert people.works(good)
    people.server.refused = dict.fromkeys(bad, INVALID_CLIENT)
    for _ in range(2):
        for four in (bad[:4], bad[4:]):
            for user in four:
                people.fetch(user)
            assert people.works(good)
    assert people.told() == ["app.unhealthy", "app.recovered"], "once, and no more"


def test_what_another_process_has_found_out_of_an_app_counts_here_too(people: People) -> None:
    users = [people.connected() for _ in range(4)]
    assert people.works(users[0])
    people.server.everybody = INVALID_CLIENT
    now = "strftime('%Y-%m-%d %H:%M:%f', 'now')" if people.here.settings.uses_sqlite else "now()"
    found_out = f"UPDATE outbound_apps SET unhealthy_since = {now}, unhealthy_reason = 'x'"
    execute(people.here.settings, f"{found_out} WHERE id = '{people.app_id}'")
    assert is_the_apps(people.fetch(users[1]))


def test_a_refusal_by_a_server_that_takes_any_other_token_ends_the_consent(people: People) -> None:
    ann, bob = people.connected(), people.connected()
    people.server.refused[ann] = 404, {"error": "not_found"}
    people.server.to_strangers = {"access_token": "at-made-up", "expires_in": 3600}
    assert people.is_ended(people.fetch(ann))
    assert people.health() == "ok"
    assert people.works(bob)


def test_what_any_bad_token_is_told_ends_a_consent_while_others_work(people: People) -> None:
    ann, bob = people.connected(), people.connected()
    people.server.refused[ann] = UNCLEAR
    people.server.to_strangers = 400, {"error": "E42", "error_description": "Not possible (trace 01bb2)."}
    assert people.works(bob)
    fetched = people.fetch(ann)
    assert people.is_ended(fetched)
    assert "E42" in fetched.json()["details"]["lastRefreshError"]
    assert people.health() == "ok"
    assert people.works(bob)
    assert people.server.asked.count("stranger") == 1


def test_what_every_token_is_told_ends_nothing_while_none_works(people: People) -> None:
    users = [people.connected() for _ in range(4)]
    people.server.everybody = UNCLEAR
    assert is_the_grants(people.fetch(users[0]))
    assert is_the_grants(people.fetch(users[0])), "one user, however often"
    assert is_the_grants(people.fetch(users[1]))
    assert people.health() == "ok"
    assert is_the_apps(people.fetch(users[2])), "three of them in a row, and none that works"
    assert people.health() == "unhealthy"
    people.server.everybody = None
    assert all(people.works(user) for user in users)
    assert people.health() == "ok"


def test_a_provider_that_turns_everybody_away_costs_no_more_than_the_first_consents(people: People) -> None:
    """What looks like a dead token twice is, the third time in a row, taken for what it is."""
    users = [people.connected() for _ in range(6)]
    assert people.works(users[0])
    people.server.everybody = UNCLEAR
    fetched = [people.fetch(user) for user in users[1:]]
    assert [people.is_ended(one) for one in fetched] == [True, True, False, False, False]
    assert is_the_apps(fetched[2])


def test_an_only_user_whose_refusals_nobody_else_shares_makes_the_app_suspect(people: People) -> None:
    ann = people.connected()
    people.server.everybody = UNCLEAR
    assert is_the_apps(people.fetch(ann))
    assert people.health() == "unhealthy"


def test_a_client_that_the_provider_knows_is_not_blamed_for_its_only_user(people: People) -> None:
    ann = people.connected()
    people.server.refused[ann] = 403, {"error": "access_denied", "error_description": "Ann is on holiday"}
    for _ in range(2):
        assert is_the_grants(people.fetch(ann))
    assert people.health() == "ok"
    assert people.server.asked.count("stranger") == 1, "the provider's answer is remembered for a while"
    del people.server.refused[ann]
    assert people.works(ann)


def test_a_401_without_a_reason_is_the_apps_unless_it_works_for_others(people: People) -> None:
    ann, bob = people.connected(), people.connected()
    people.server.refused[ann] = 401, {}
    people.server.to_strangers = 401, {"message": "Unauthorized"}
    assert is_the_apps(people.fetch(ann))
    assert people.health() == "unhealthy"
    assert people.works(bob)
    assert people.health() == "ok"
    assert is_the_grants(people.fetch(ann))
    assert people.health() == "ok"
    assert people.works(bob)


def test_an_update_of_the_app_is_no_proof_that_it_works(people: People) -> None:
    ann, bob = people.connected(), people.connected()
    assert people.works(bob)
    app = people.here.backend.app(people.app_id)
    people.here.backend.post("app/update", {"app": {**app, "clientSecret": "another secret"}}).raise_for_status()
    people.server.everybody = UNCLEAR
    assert is_the_grants(people.fetch(ann))
    assert people.server.asked.count("stranger") == 1


def test_being_held_back_is_neither_the_users_nor_the_operators_fault(people: People) -> None:
    ann = people.connected()
    words = "You have made too many requests continuously. Please try again after some time."
    people.server.refused[ann] = 400, {"error": "Access Denied", "error_description": words}
    assert (people.fetch(ann).status_code, people.health()) == (503, "ok")
    del people.server.refused[ann]
    assert people.works(ann)


@pytest.mark.parametrize("secret", ["grant", "client"])
def test_a_secret_that_is_part_of_an_error_code_changes_nothing(people: People, secret: str) -> None:
    ann, bob = people.connected(), people.connected()
    app = people.here.backend.app(people.app_id)
    people.here.backend.post("app/update", {"app": {**app, "clientSecret": secret}}).raise_for_status()
    people.server.refused = {ann: (400, {"error": "invalid_grant"}), bob: (401, {"error": "invalid_client"})}
    ended, refused = people.fetch(ann), people.fetch(bob)
    assert people.is_ended(ended)
    assert is_the_apps(refused)
    assert f"invalid_{secret}" not in ended.text + refused.text


def test_the_test_of_an_app_understands_the_same_words(people: People) -> None:
    people.server.routes["/authorize"] = {}
    people.server.to_strangers = WORDS["a library's words"]
    checks = people.here.backend.post("app/test", {"id": people.app_id}).json()["checks"]
    (client,) = [check for check in checks if check["name"] == "client"]
    assert (client["good"], client["text"]) == (True, "The provider accepts the client id and secret.")
