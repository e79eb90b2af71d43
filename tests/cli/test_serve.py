"""`evergrant serve` as its operator starts it."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import httpx2
import pytest

from evergrant.settings import Settings
from tests.infra.installation import new_project
from tests.infra.serving import ServerProcess, environment_of, free_port
from tests.infra.waiting import PATIENCE, wait_until

SLOW_TO_IMPORT = """
import sys, time
if any("multiprocessing.spawn" in argument for argument in sys.orig_argv):
    time.sleep(6)  # longer than uvicorn waits for a worker by itself
"""


@pytest.mark.slow
def test_a_worker_that_is_slow_to_start_is_not_killed(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(SLOW_TO_IMPORT)
    environment = {"EVERGRANT_DATA_DIR": str(tmp_path / "data"), "PYTHONPATH": str(tmp_path)}
    with ServerProcess(environment, "--workers", "2", log=tmp_path / "serve.log") as server:
        assert " died" not in server.output()
        assert server.output().count("Started server process") >= 1


FETCHES = 'evergrant_fetch_seconds_count{outcome="not_found"} '


def fetch_often(url: str, credential: str) -> int:
    """Fetch what is not there, each time over a new connection, so that any worker may get it."""
    for _ in range(20):
        answer = httpx2.post(
            f"{url}/v1/mgmt/outbound/app/user/token/latest",
            json={"appId": "nothing", "userId": "alice"},
            headers={"Authorization": f"Bearer {credential}", "Connection": "close"},
            trust_env=False,
        )
        assert answer.status_code == 404
    return 20


def until_every_scrape_says(url: str, line: str) -> None:
    """Scrape until ten scrapes in a row, which reach any worker, say so."""

    def says() -> bool:
        return line in httpx2.get(f"{url}/metrics", headers={"Connection": "close"}, trust_env=False).text

    wait_until(lambda: all(says() for _ in range(10)), f"every scrape says {line}")


@pytest.mark.slow
def test_the_numbers_of_all_workers_add_up_and_outlive_a_worker(sqlite_url: str, tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path / "data", refresher=False)
    made = new_project(settings)
    environment = {**environment_of(settings), "TMPDIR": str(tmp_path)}
    with ServerProcess(environment, "--workers", "2", log=tmp_path / "serve.log") as server:
        total = fetch_often(server.url, f"{made.project_id}:{made.management_key}")
        until_every_scrape_says(server.url, f"{FETCHES}{total}.0")
        (folder,) = tmp_path.glob("evergrant-metrics-*")
        wait_until(lambda: len(list(folder.glob("*.json"))) == 2, "both workers have started")
        os.kill(min(int(file.stem) for file in folder.glob("*.json")), signal.SIGKILL)
        until_every_scrape_says(server.url, f"{FETCHES}{total}.0")
        total += fetch_often(server.url, f"{made.project_id}:{made.management_key}")
        until_every_scrape_says(server.url, f"{FETCHES}{total}.0")
    assert list(tmp_path.glob("evergrant-metrics-*")) == []


@pytest.mark.parametrize("token", ["", "what-prometheus-sends"])
def test_a_refresher_alone_tells_its_numbers_on_a_port_of_its_own(tmp_path: Path, token: str) -> None:
    port = free_port()
    environment = {k: v for k, v in os.environ.items() if not k.startswith("EVERGRANT_")}
    environment |= {"EVERGRANT_DATA_DIR": str(tmp_path), "EVERGRANT_REFRESHER": "false"}
    environment |= {"EVERGRANT_METRICS_TOKEN": token} if token else {}
    command = [sys.executable, "-m", "evergrant", "refresher", "--metrics-port", str(port)]
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    try:
        url = f"http://127.0.0.1:{port}"

        def is_ready() -> bool:
            assert process.poll() is None, (tmp_path / "log").read_text()
            try:
                return httpx2.get(f"{url}/readyz", trust_env=False).status_code == 200
            except httpx2.TransportError:
                return False

        wait_until(is_ready, "the refresher is ready")
        assert httpx2.get(f"{url}/metrics", trust_env=False).status_code == (401 if token else 200)
        told = httpx2.get(f"{url}/metrics", headers={"Authorization": f"Bearer {token or 'any'}"}, trust_env=False)
        assert "evergrant_refreshes_in_flight 0.0" in told.text
        assert httpx2.get(f"{url}/v1/mgmt/outbound/apps", trust_env=False).status_code == 404  # it serves nothing else
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=PATIENCE) in (0, -signal.SIGTERM)  # uvicorn passes the signal on when all is done
    assert "Application shutdown complete" in (tmp_path / "log").read_text()
