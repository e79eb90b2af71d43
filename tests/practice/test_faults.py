"""Scripted bad days of the practice provider, over a real connection."""

import time
from collections.abc import Callable, Iterator
from http.client import HTTPConnection
from urllib.parse import urlencode

import httpx2
import pytest

from evergrant.practice import faults
from evergrant.practice.faults import Fault
from evergrant.practice.provider import create_provider
from evergrant.practice.state import ProviderState
from evergrant.practice.world import PERSONS
from tests.infra.serving import LiveApp
from tests.infra.waiting import PATIENCE, wait_until


class Live:
    """A provider on a port, and a refresh token of it."""

    def __init__(self, server: LiveApp, provider: ProviderState) -> None:
        self.server, self.provider = server, provider
        self.token_url = f"{server.url}/token"
        self.family = provider.start_family(
            client_id="shop", person=PERSONS["practice-ada"], scopes=["openid", "contacts"]
        )
        self.refresh_token = provider.issue(self.family).refresh_token

    def refresh(self, *, token: str | None = None) -> httpx2.Response:
        form = {"grant_type": "refresh_token", "refresh_token": token or self.refresh_token}
        return httpx2.post(self.token_url, data=form, auth=("shop", "secret"), timeout=PATIENCE, trust_env=False)

    def refresh_and_hang_up(self) -> None:
        """Ask for a refresh, and be gone, as the provider knows, before the answer comes."""
        form = {"grant_type": "refresh_token", "refresh_token": self.refresh_token}
        connection = HTTPConnection("127.0.0.1", self.server.port, timeout=PATIENCE)
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        connection.request(
            "POST", "/token", urlencode(form | {"client_id": "shop", "client_secret": "secret"}), headers
        )
        wait_until(lambda: self.provider.on_the_wire == {self.family.id: 1}, "it is known whose answer is held back")
        connection.close()
        wait_until(lambda: not self.server.connections, "the provider knows that the caller is gone")


@pytest.fixture
def live() -> Iterator[Live]:
    app = create_provider(issuer="http://127.0.0.1", clients={"shop": "secret"}, redirect_uris=[])
    with LiveApp(app) as server:
        yield Live(server, app.state.provider)


def test_a_fault_is_used_once_and_then_the_provider_works_again(live: Live) -> None:
    live.provider.next_token_answers.append(faults.instead(429, {"error": "slow_down"}, headers={"Retry-After": "7"}))
    refused = live.refresh()
    assert (refused.status_code, refused.headers["retry-after"]) == (429, "7")
    assert live.provider.rotations == 0
    assert live.refresh().status_code == 200
    assert live.provider.token_calls == {"refresh_token": 2}


def test_an_edited_answer_lands_and_lacks_what_was_taken_out(live: Live) -> None:
    live.provider.next_token_answers.append(faults.edited(expires_in=None, refresh_token=None, scope=""))
    answer = live.refresh().json()
    assert answer.keys() == {"access_token", "token_type", "scope", "id_token"}
    assert answer["scope"] == ""
    assert live.provider.rotations == 1


def test_a_web_page_comes_instead_of_json(live: Live) -> None:
    live.provider.next_token_answers.append(faults.html())
    assert live.refresh().headers["content-type"].startswith("text/html")


@pytest.mark.parametrize("fault", [faults.dropped, faults.half_a_body])
def test_an_answer_is_lost_on_the_wire_after_the_rotation_landed(
    live: Live, fault: Callable[..., Fault], caplog: pytest.LogCaptureFixture
) -> None:
    live.provider.next_token_answers.append(fault())
    with pytest.raises(httpx2.RemoteProtocolError):
        live.refresh()
    assert live.provider.rotations == 1
    assert live.refresh().json()["error"] == "invalid_grant"
    assert live.provider.revoked_families == [live.family]
    assert not caplog.records


def test_a_connection_dropped_before_landing_leaves_the_refresh_token_good(live: Live) -> None:
    live.provider.next_token_answers.append(faults.dropped(lands=False))
    with pytest.raises(httpx2.RemoteProtocolError):
        live.refresh()
    assert live.refresh().status_code == 200


def test_a_slow_answer_has_landed_when_the_caller_gives_up(live: Live) -> None:
    live.provider.next_token_answers.append(faults.slow(PATIENCE))
    live.refresh_and_hang_up()
    wait_until(lambda: live.provider.rotations == 1, "the rotation has landed")


def test_every_call_can_be_made_to_take_its_time(live: Live) -> None:
    live.provider.token_latency = 0.2
    began = time.monotonic()
    assert live.refresh().status_code == 200
    assert time.monotonic() - began >= 0.2


def test_half_a_body_can_come_although_nothing_landed(live: Live) -> None:
    live.provider.next_token_answers.append(faults.half_a_body(lands=False))
    with pytest.raises(httpx2.RemoteProtocolError):
        live.refresh()
    assert live.refresh().status_code == 200


def test_held_answers_wait_and_it_is_known_whose_they_are_and_who_did_not_wait(live: Live) -> None:
    live.provider.held = True
    live.refresh_and_hang_up()
    assert (live.provider.rotations, live.provider.unheard) == (1, [])
    live.provider.held = False
    wait_until(lambda: not live.provider.on_the_wire[live.family.id], "the answer has been given")
    assert live.provider.unheard == [live.family]


def test_how_often_a_refresh_token_came_is_counted(live: Live) -> None:
    live.provider.next_token_answers.append(faults.instead(500))
    live.refresh()
    newer = live.refresh().json()["refresh_token"]
    live.refresh(token=newer)
    assert live.provider.presented == {live.refresh_token: 2, newer: 1}
    assert live.provider.unheard == []


def test_without_rotation_a_refresh_token_stays_good_and_no_other_comes(live: Live) -> None:
    live.provider.rotates = False
    for _ in range(2):
        assert "refresh_token" not in live.refresh().json()
    assert (live.provider.rotations, live.provider.revoked_families) == (0, [])


def test_a_repeat_is_forgiven_until_its_successor_is_used(live: Live) -> None:
    live.provider.forgives_repeats = True
    unheard_of = live.refresh().json()["refresh_token"]
    newest = live.refresh().json()["refresh_token"]
    assert live.refresh(token=newest).status_code == 200
    assert live.provider.revoked_families == []
    assert live.refresh(token=unheard_of).status_code == 400
    assert live.provider.revoked_families == [live.family]
