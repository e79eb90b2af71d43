"""Who asks too much is told to wait, and nobody else notices."""

import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx2
import pytest
from sqlalchemy import Engine, event

from evergrant.settings import Settings
from tests.infra.installation import Installation, installation


@pytest.fixture
def here(settings: Settings) -> Iterator[Installation]:
    """A key may ask twice a second, an address once; what is saved up is ten times that."""
    limits = {"refresher": False, "rate_limit_per_key": 2, "rate_limit_per_address": 1}
    with installation(settings.model_copy(update=limits)) as running:
        yield running


@pytest.fixture
def backend_key(here: Installation) -> str:
    """A management key that was never used."""
    body = {"name": "fresh", "permissions": ["apps:read"]}
    return str(here.backend.http.put("/v1/mgmt/managementkey", json=body).json()["cleartext"])


@pytest.fixture
def lookups() -> Iterator[list[str]]:
    """The queries for management keys."""
    seen: list[str] = []

    def note(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if "FROM management_keys" in statement:
            seen.append(statement)

    event.listen(Engine, "before_cursor_execute", note)
    yield seen
    event.remove(Engine, "before_cursor_execute", note)


def is_limited(answer: httpx2.Response, *, limit: int) -> bool:
    body = answer.json() if answer.headers["content-type"] == "application/json" else {"errorCode": "E130429"}
    return (
        (answer.status_code, body["errorCode"]) == (429, "E130429")
        and int(answer.headers["retry-after"]) >= 1
        and answer.headers["x-ratelimit-limit"] == str(limit)
        and answer.headers["x-ratelimit-remaining"] == "0"
    )


def until_limited(ask: Callable[[], httpx2.Response]) -> list[httpx2.Response]:
    """Ask until the answer is 429; a slow machine is allowed more, because it lets more time pass."""
    answers = [ask()]
    while answers[-1].status_code != 429 and len(answers) < 500:
        answers.append(ask())
    return answers


def test_a_key_that_asks_too_much_waits_and_then_goes_on(here: Installation) -> None:
    answers = until_limited(lambda: here.backend.get("apps"))
    assert answers[0].status_code == 200
    assert is_limited(answers[-1], limit=2)

    def another_call_after_too_many() -> httpx2.Response:
        until_limited(lambda: here.backend.get("apps"))
        return here.backend.http.put("/v1/mgmt/managementkey", json={"name": "other", "permissions": ["apps:read"]})

    assert until_limited(another_call_after_too_many)[-1].status_code == 429, "the calls share one limit"
    time.sleep(1.1)
    assert here.backend.get("apps").status_code == 200


def test_wrong_credentials_wait_after_too_many_and_right_ones_do_not(
    here: Installation, lookups: list[str], backend_key: str
) -> None:
    with httpx2.Client(base_url=here.url, trust_env=False) as http:
        path = "/v1/mgmt/outbound/apps"

        def ask(key: str) -> httpx2.Response:
            return http.get(path, headers={"Authorization": f"Bearer {here.backend.project_id}:{key}"})

        answers = until_limited(lambda: ask("a guess that is as long as a key is"))
        assert answers[0].status_code == 401
        assert is_limited(answers[-1], limit=1)
        form = {
            "grant_type": "urn:ietf:params:oauth:grant-type:token-exchange",
            "subject_token": "eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJhIn0.c2ln",
            "subject_token_type": "urn:ietf:params:oauth:token-type:access_token",
            "audience": "practice",
        }
        exchanged = until_limited(lambda: http.post("/oauth2/v1/token", data=form))[-1]
        assert (exchanged.status_code, exchanged.json()["error"]) == (429, "temporarily_unavailable")
        assert exchanged.headers["retry-after"] == exchanged.headers["x-ratelimit-reset"]
        assert (exchanged.headers["x-ratelimit-limit"], exchanged.headers["x-ratelimit-remaining"]) == ("1", "0")
        assert ask(backend_key).status_code == 200, "its first use comes in the middle of the flood"
        lookups.clear()
        assert ask("too short").status_code in (401, 429)
        assert lookups == [], "no key is so short"


def test_every_answer_says_what_is_left_of_the_limit(here: Installation) -> None:
    good, bad = here.backend.get("apps"), here.backend.get("app/there-is-none")
    for answer in (good, bad, here.backend.fetch("nobody")):
        said = [answer.headers[f"x-ratelimit-{name}"] for name in ("limit", "remaining", "reset")]
        assert (said[0], said[2]) == ("2", "0")
        assert 0 <= int(said[1]) <= 2
    limited = until_limited(lambda: here.backend.get("apps"))
    remaining = [int(answer.headers["x-ratelimit-remaining"]) for answer in limited]
    assert (remaining[0], remaining[-1]) == (2, 0)
    assert limited[-1].headers["x-ratelimit-reset"] == limited[-1].headers["retry-after"]
    assert "x-ratelimit-limit" not in httpx2.get(f"{here.url}/healthz", trust_env=False).headers


def test_pages_for_browsers_are_limited_by_address(here: Installation) -> None:
    with httpx2.Client(base_url=here.url, trust_env=False) as http:
        answers = until_limited(lambda: http.get("/connect/some-ticket-that-nobody-made"))
    assert answers[0].status_code in (400, 404)
    assert is_limited(answers[-1], limit=1)
    assert "text/html" in answers[-1].headers["content-type"]


def test_without_limits_nobody_waits(settings: Settings) -> None:
    limits = {"refresher": False, "rate_limit_per_key": 0, "rate_limit_per_user": 0, "rate_limit_per_address": 0}
    with installation(settings.model_copy(update=limits)) as running:
        assert {running.backend.get("apps").status_code for _ in range(60)} == {200}
