"""`evergrant refresh`: how the background keeps up, and refreshing now."""

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from evergrant.broker.refresh import status
from evergrant.broker.runtime import breaker
from evergrant.practice.faults import instead
from evergrant.settings import Settings
from tests.cli.conftest import Done, Evergrant
from tests.conftest import Clock
from tests.infra.installation import APP_ID, Installation, installation, refreshes
from tests.infra.rows import dump, execute
from tests.infra.serving import environment_of
from tests.infra.waiting import PATIENCE, wait_until

USERS = ("alice", "bob", "carol")


@pytest.fixture
def here(settings: Settings, clock: Clock) -> Iterator[Installation]:
    """Three users are connected, and nothing refreshes by itself."""
    with installation(settings.model_copy(update={"refresher": False})) as running:
        for user in USERS:
            running.connected(user)
        yield running


def grants(here: Installation) -> dict[str, dict[str, Any]]:
    return {row["user_id"]: row for row in dump(here.settings)["grants"]}


def in_an_hour_from_now(settings: Settings) -> str:
    return "datetime('now', '+1 hour')" if settings.uses_sqlite else "now() + interval '1 hour'"


def test_what_is_due_is_refreshed_once(evergrant: Evergrant, here: Installation, clock: Clock) -> None:
    clock.advance(3601)
    done = evergrant(here.settings, "refresh", "run", "--json")
    assert (done.code, done.err) == (0, "")  # no bar where nobody looks
    assert done.json == {"refreshed": 3, "putOff": 0, "failed": [], "givenUp": [], "stopped": False}
    assert refreshes(here) == 3
    for row in grants(here).values():
        assert (row["token_version"], row["lease_owner"]) == (2, None)
    assert dump(here.settings)["grant_uses"] == []  # nobody has fetched them
    again = evergrant(here.settings, "refresh", "run")
    assert again.code == 0
    assert again.out.splitlines()[0].split() == ["refreshed", "0"]
    assert refreshes(here) == 3


def test_what_fell_due_long_ago_is_refreshed_as_well(evergrant: Evergrant, here: Installation, clock: Clock) -> None:
    clock.advance(2 * 86_400)
    execute(here.settings, "UPDATE grants SET next_refresh_at = NULL WHERE user_id = 'bob'")
    assert evergrant(here.settings, "refresh", "run", "--concurrency", "1", "--json").json["refreshed"] == 2
    assert {user: row["token_version"] for user, row in grants(here).items()} == {"alice": 2, "bob": 1, "carol": 2}


def test_a_dry_run_counts_by_app_and_endpoint_and_changes_nothing(
    evergrant: Evergrant, here: Installation, clock: Clock
) -> None:
    clock.advance(3601)
    later = in_an_hour_from_now(here.settings)
    execute(here.settings, f"UPDATE grants SET lease_owner = 'else', lease_until = {later} WHERE user_id = 'carol'")
    before = dump(here.settings)
    due = evergrant(here.settings, "refresh", "run", "--dry-run", "--json").json
    endpoint = f"{here.provider.url}/token"
    row = {"project": here.backend.project_id, "app": APP_ID, "endpoint": endpoint}
    assert due == [{**row, "refreshes": 2, "putOff": 0, "inFlight": 1}]
    assert endpoint in evergrant(here.settings, "refresh", "run", "--dry-run", "--all").out
    assert dump(here.settings) == before
    assert refreshes(here) == 0


def test_a_dry_run_of_everything_counts_what_is_not_due(evergrant: Evergrant, here: Installation) -> None:
    def planned(*arguments: str) -> int:
        (row,) = evergrant(here.settings, "refresh", "run", "--dry-run", "--json", *arguments).json
        return int(row["refreshes"])

    assert planned() == 0
    assert planned("--all") == 3


def test_everything_is_refreshed_once_whether_due_or_not(evergrant: Evergrant, here: Installation) -> None:
    here.backend.change_app(refreshPolicy="on_demand")
    assert evergrant(here.settings, "refresh", "run", "--json").json["refreshed"] == 0
    done = evergrant(here.settings, "refresh", "run", "--all", "--json")
    assert (done.code, done.json["refreshed"]) == (0, 3)
    assert refreshes(here) == 3
    assert dump(here.settings)["grant_uses"] == []  # nobody has fetched them


def test_who_is_being_refreshed_elsewhere_is_left_alone(evergrant: Evergrant, here: Installation) -> None:
    later = in_an_hour_from_now(here.settings)
    execute(here.settings, f"UPDATE grants SET lease_owner = 'else', lease_until = {later} WHERE user_id = 'bob'")
    assert evergrant(here.settings, "refresh", "run", "--all", "--json").json["refreshed"] == 2
    assert grants(here)["bob"]["token_version"] == 1
    assert grants(here)["bob"]["lease_owner"] == "else"


def test_what_the_policy_does_not_want_is_put_off_without_a_call(
    evergrant: Evergrant, here: Installation, clock: Clock
) -> None:
    here.backend.change_app(refreshPolicy="on_demand")
    clock.advance(3601)
    done = evergrant(here.settings, "refresh", "run", "--json")
    assert (done.code, done.json["refreshed"], done.json["putOff"]) == (0, 0, 3)
    assert refreshes(here) == 0


def test_failures_are_told_by_reason_and_the_exit_code(evergrant: Evergrant, here: Installation, clock: Clock) -> None:
    clock.advance(3601)
    answers = here.provider.state.next_token_answers
    answers.extend([instead(500, "oops"), instead(400, {"error": "invalid_grant"})])
    done = evergrant(here.settings, "refresh", "run", "--json")
    assert (done.code, done.json["refreshed"]) == (1, 1)
    assert [entry["count"] for entry in done.json["failed"]] == [1, 1]
    assert any("500" in entry["reason"] for entry in done.json["failed"])
    assert refreshes(here) == 3  # each was tried once


def test_an_endpoint_that_fails_again_and_again_is_left(
    evergrant: Evergrant, here: Installation, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(breaker, "FAILURES_TO_OPEN", 2)
    clock.advance(3601)
    here.provider.state.next_token_answers.extend([instead(500, "oops")] * 3)
    done = evergrant(here.settings, "refresh", "run", "--concurrency", "1")
    assert done.code == 1
    assert f"Left the rest of {APP_ID}" in done.out
    assert refreshes(here) == 2
    assert sum(row["refresh_failures"] for row in grants(here).values()) == 2
    assert all(row["lease_owner"] is None for row in grants(here).values())


def test_a_grant_that_cannot_even_be_asked_for_is_tried_once(
    evergrant: Evergrant, here: Installation, clock: Clock
) -> None:
    clock.advance(3601)
    execute(here.settings, "UPDATE grants SET refresh_token = access_token WHERE user_id = 'bob'")
    done = evergrant(here.settings, "refresh", "run", "--json")
    assert (done.code, done.json["refreshed"]) == (1, 2)
    assert [entry["count"] for entry in done.json["failed"]] == [1]


def test_only_the_chosen_app_is_refreshed(evergrant: Evergrant, here: Installation, clock: Clock) -> None:
    here.backend.create_app({**here.provider.registration, "id": "other", "name": "Other"})
    here.connected("olga", appId="other")
    clock.advance(3601)
    chosen = ("--project", here.backend.project_id, "--app", "other")
    assert evergrant(here.settings, "refresh", "run", *chosen, "--json").json["refreshed"] == 1
    assert grants(here)["olga"]["token_version"] == 2
    assert grants(here)["alice"]["token_version"] == 1
    assert evergrant(here.settings, "refresh", "run", "--json").json["refreshed"] == 3  # of all apps


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["run", "--app", "nothing"], "no outbound app 'nothing'"),
        (["run", "--project", "Pnobody"], "no project 'Pnobody'"),
        (["status", "--project", "Pnobody"], "no project 'Pnobody'"),
    ],
)
def test_what_does_not_exist_is_told_in_one_line(
    evergrant: Evergrant, here: Installation, arguments: list[str], says: str
) -> None:
    done = evergrant(here.settings, "refresh", *arguments)
    assert (done.code, done.out) == (1, "")
    assert says in done.err
    assert done.err.count("\n") == 1


def test_ctrl_c_claims_no_more_and_finishes_what_is_in_flight(here: Installation) -> None:
    here.provider.state.held = True
    command = [sys.executable, "-m", "evergrant", "refresh", "run", "--all", "--concurrency", "1", "--json"]
    environment = {"PATH": "", **environment_of(here.settings)}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    wait_until(lambda: refreshes(here) == 1 or process.poll() is not None, "the first refresh is in flight")
    process.send_signal(signal.SIGINT)
    assert process.stderr is not None
    assert process.stderr.readline() == "Stopping when what is in flight has landed.\n"
    here.provider.state.held = False
    out, err = process.communicate(timeout=PATIENCE)
    told = json.loads(out)
    assert process.returncode == 130, err
    assert told["stopped"] is True
    assert told["refreshed"] == refreshes(here) < 3
    rows = grants(here).values()
    assert sum(row["token_version"] - 1 for row in rows) == refreshes(here)
    assert all(row["lease_owner"] is None for row in rows)


def test_status_tells_the_backlog_the_rate_and_the_errors(
    evergrant: Evergrant, here: Installation, clock: Clock
) -> None:
    def status(*arguments: str) -> Any:
        done = evergrant(here.settings, "refresh", "status", "--json", *arguments)
        assert done.code == 0, done.err
        return done.json

    quiet = status()
    assert (quiet["due"], quiet["overdue"], quiet["inFlight"], quiet["secondsToWorkOff"]) == (0, 0, 0, 0)
    assert quiet["journal"] == {"entries": 0, "broken": 0}
    clock.advance(3600 - 200)
    found = status()
    assert (found["due"], found["overdue"], found["secondsToWorkOff"]) == (3, 0, None)
    here.provider.state.next_token_answers.append(instead(500, "oops"))
    evergrant(here.settings, "refresh", "run")
    clock.advance(1)
    found = status("--project", here.backend.project_id)
    (app,) = found["apps"]
    assert (app["refreshedInTenMinutes"], app["failing"], app["reauthorizationRequired"]) == (2, 1, 0)
    assert "500" in app["commonestError"]
    assert app["health"] == "healthy"
    clock.advance(599)  # the failed one falls due again, and the rate is that of ten minutes
    found = status()
    assert (found["due"], found["overdue"], found["refreshedInTenMinutes"]) == (1, 1, 2)
    assert found["secondsToWorkOff"] == 300
    here.provider.state.next_token_answers.extend([instead(401, {"error": "invalid_client"})] * len(USERS))
    execute(here.settings, "UPDATE grants SET refresh_not_before = NULL")  # that pause goes by the database's clock
    evergrant(here.settings, "refresh", "run", "--all")
    assert status()["unhealthyApps"] == [APP_ID]
    clock.advance(3601)
    here.provider.state.next_token_answers.append(instead(400, {"error": "invalid_grant"}))
    execute(here.settings, "UPDATE grants SET refresh_not_before = NULL")
    evergrant(here.settings, "refresh", "run")
    assert status()["apps"][0]["reauthorizationRequired"] == 1
    assert status("--exact") == status()


def test_status_counts_who_is_being_refreshed(evergrant: Evergrant, here: Installation, clock: Clock) -> None:
    clock.advance(3601)
    later = in_an_hour_from_now(here.settings)
    execute(here.settings, f"UPDATE grants SET lease_owner = 'else', lease_until = {later} WHERE user_id = 'bob'")
    assert evergrant(here.settings, "refresh", "status", "--json").json["inFlight"] == 1


def test_status_names_the_processes_that_refresh_and_says_which_are_silent(
    evergrant: Evergrant, here: Installation
) -> None:
    assert evergrant(here.settings, "refresh", "status", "--json").json["holders"] == []
    assert "none has refreshed yet" in evergrant(here.settings, "refresh", "status").out
    past = "'2026-01-01 00:00:00.000000'"
    execute(here.settings, f"INSERT INTO holders VALUES ('{'a' * 16}', 'host:7', {past}, {past})")
    (holder,) = evergrant(here.settings, "refresh", "status", "--json").json["holders"]
    assert holder["name"] == "host:7"
    assert holder["silentSeconds"] > 86_400
    assert "host:7 (silent for" in evergrant(here.settings, "refresh", "status").out


def test_status_is_a_table_for_a_person(evergrant: Evergrant, here: Installation, clock: Clock) -> None:
    clock.advance(3601)
    out = evergrant(here.settings, "refresh", "status").out
    headings, row, *rest = out.splitlines()
    assert headings.split()[:5] == ["project", "app", "due", "overdue", "oldest"]
    assert row.split()[:3] == [here.backend.project_id, APP_ID, "3"]
    assert "backlog ends      not at this rate" in rest
    assert "sample" not in out


def test_of_very_many_connections_a_sample_is_projected_and_said_to_be(
    evergrant: Evergrant, here: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    evergrant(here.settings, "refresh", "run", "--all")
    monkeypatch.setattr(status, "SAMPLE", 2)
    for digit, user in enumerate(USERS, 1):
        execute(here.settings, f"DELETE FROM grant_directory WHERE user_id = '{user}'")  # it refers to the id
        execute(here.settings, f"UPDATE grants SET id = '{digit}0' || substr(id, 3) WHERE user_id = '{user}'")
    share = int(grants(here)["carol"]["id"][:12], 16) / 16**12  # two of three are in the first fifth of all ids
    found = evergrant(here.settings, "refresh", "status", "--json").json
    assert found["sampledShare"] == pytest.approx(share)
    assert found["refreshedInTenMinutes"] == round(2 / share) > 9
    assert "projected from a sample" in evergrant(here.settings, "refresh", "status").out
    assert evergrant(here.settings, "refresh", "status", "--exact", "--json").json["refreshedInTenMinutes"] == 3


def test_a_command_prints_no_ids_of_people(evergrant: Evergrant, here: Installation, clock: Clock) -> None:
    clock.advance(3601)
    outputs: list[Done] = [
        evergrant(here.settings, "refresh", *arguments)
        for arguments in (["status"], ["status", "--json"], ["run", "--dry-run"], ["run"])
    ]
    for done in outputs:
        assert not [user for user in USERS if user in done.out + done.err]
