"""`evergrant serve` with nothing there yet: on one's own machine it makes what is needed, and prints the way in."""

import re
from pathlib import Path

import httpx2
import pytest
from pydantic import SecretStr

from evergrant.broker.operations.setup import is_first_run
from evergrant.settings import Settings
from tests.infra.serving import ServerProcess
from tests.infra.waiting import wait_until

LINK = re.compile(r"^Open (http://127\.0\.0\.1:\d+/console/enter/\S+)$", re.MULTILINE)


def test_the_first_start_prints_one_link_that_works_and_the_second_none(tmp_path: Path) -> None:
    environment = {"EVERGRANT_DATA_DIR": str(tmp_path / "data"), "EVERGRANT_REFRESHER": "false"}
    # Two processes, one of which the link's page comes from, and any of them what follows.
    with ServerProcess(environment, "--workers", "2", log=tmp_path / "first.log") as server:
        wait_until(lambda: "\nOpen " in server.output() or server.output().startswith("Open "), "it prints the link")
        [link] = LINK.findall(server.output())
        assert link.startswith(server.url)
        with httpx2.Client(trust_env=False) as browser:
            assert "Welcome to My project" in browser.get(link).text
            assert browser.post(link, headers={"Sec-Fetch-Site": "same-origin"}).status_code == 303
            home = browser.get(f"{server.url}/console").headers["location"]
            start = browser.get(server.url + browser.get(server.url + home).headers["location"])
            assert start.status_code == 200
            # Its memory is in one process.
            assert "Try with the practice provider" not in start.text
    with ServerProcess(environment, log=tmp_path / "second.log") as server:
        assert httpx2.get(f"{server.url}/practice/", trust_env=False).status_code == 200
    assert LINK.findall((tmp_path / "second.log").read_text()) == []


@pytest.mark.parametrize(
    "changes",
    [
        {"public_url": "https://evergrant.example.com"},
        {"database_url": SecretStr("postgresql://evergrant@db/evergrant")},
        {"bootstrap_project_id": "Pshop", "bootstrap_management_key": SecretStr("k" * 40)},
    ],
)
def test_elsewhere_a_start_makes_nothing_that_was_not_asked_for(tmp_path: Path, changes: dict[str, object]) -> None:
    at_home = Settings(data_dir=tmp_path / "new")
    assert is_first_run(at_home)
    assert not is_first_run(Settings(data_dir=tmp_path / "new", **changes))  # type: ignore[arg-type]  # by name
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "something").touch()
    assert not is_first_run(Settings(data_dir=tmp_path / "used"))
