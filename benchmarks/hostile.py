"""What do providers that answer without end cost evergrant, and those who call it meanwhile?

Sixteen apps at once have a token endpoint that never ends its answer, of one kind after the other. Meanwhile somebody
else asks /healthz and fetches a token. The attacker is a process of its own, and everything stays on loopback and in a
temporary folder. It takes a minute and ends by itself.
"""

import argparse
import asyncio
import json
import multiprocessing
import statistics
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # so that the file can be run by its path

from benchmarks.fetch import cpu_seconds
from benchmarks.seed import APP_ID, SCOPES, seed, user_id
from tests.infra.hostile import floods
from tests.infra.installation import Backend
from tests.infra.scripted import ScriptedProvider, serving
from tests.infra.serving import ServerProcess, environment_of, free_port
from tests.infra.settings import settings_on

AT_ONCE = 16
ROUNDS = 3
QUIET_SECONDS = 3.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.parse_args()
    port = free_port()
    attacker = multiprocessing.get_context("spawn").Process(target=attack, args=(port,), daemon=True)
    attacker.start()
    try:
        with tempfile.TemporaryDirectory(prefix="evergrant-hostile-") as folder:
            print(json.dumps({"cpus": multiprocessing.cpu_count(), "at once": AT_ONCE, "rounds": ROUNDS}))
            measure(Path(folder), f"http://127.0.0.1:{port}")
    finally:
        attacker.terminate()
        attacker.join(timeout=10)


def attack(port: int) -> None:
    provider = ScriptedProvider(routes={f"/{kind}": flood for kind, flood in enumerate(floods().values())})
    with serving(provider, port=port):
        time.sleep(600)


def measure(folder: Path, attacker: str) -> None:
    settings = settings_on(None, folder, rate_limit_per_key=0)
    seeded = asyncio.run(seed(settings, 100))
    with ServerProcess(environment_of(settings), "--no-refresher", log=folder / "evergrant.log") as evergrant:
        backend = Backend(evergrant.url, seeded.project_id, seeded.management_key)
        for kind, name in enumerate(floods()):
            fields = {"name": name, "clientId": "c", "clientSecret": "s", "defaultScopes": ["files"]}
            urls = {"authorizationUrl": f"{attacker}/authorize", "tokenUrl": f"{attacker}/{kind}"}
            backend.create_app({"id": f"app-{kind}", **fields, **urls})
        print(f"{'answer':28}{'seconds':>9}{'CPU s':>8}{'RSS +MB':>9}", end="")
        print(f"{'healthz ms: median':>20}{'worst':>8}{'fetch worst':>13}")
        watch(backend, evergrant.pid, "(nobody attacks)", None)
        for kind, name in enumerate(floods()):
            watch(backend, evergrant.pid, name, f"app-{kind}")
        backend.http.close()


def watch(backend: Backend, pid: int, name: str, app_id: str | None) -> None:
    """Have others ask while sixteen answers come, and print how they fared."""
    before, cpu, began = resident(pid), cpu_seconds(pid), time.perf_counter()
    highest = before
    healthz: list[float] = []
    fetches: list[float] = []
    with ThreadPoolExecutor(AT_ONCE) as callers:
        answers = [callers.submit(upload, backend, app_id) for _ in range(AT_ONCE * ROUNDS)] if app_id else []
        done = threading.Event()
        while not done.is_set():
            for times, path in ((healthz, "/healthz"), (fetches, "")):
                at = time.perf_counter()
                answer = backend.http.get(path) if path else backend.fetch(user_id(1), appId=APP_ID, scopes=SCOPES)
                times.append((time.perf_counter() - at) * 1000)
                assert answer.status_code == 200, answer.text
            highest = max(highest, resident(pid))
            time.sleep(0.005)
            if all(one.done() for one in answers) and (answers or time.perf_counter() - began > QUIET_SECONDS):
                done.set()
    assert all(answer.result() >= 500 for answer in answers)
    seconds = time.perf_counter() - began
    print(
        f"{name:28}{seconds:9.2f}{cpu_seconds(pid) - cpu:8.2f}{highest - before:9.1f}"
        f"{statistics.median(healthz):20.1f}{max(healthz):8.1f}{max(fetches):13.1f}",
        flush=True,
    )


def upload(backend: Backend, app_id: str) -> int:
    tokens = {"refreshToken": "rt", "scopes": ["files"], "verifyRefresh": True}
    return backend.post("app/user/oauthtoken/upload", {"appId": app_id, "userId": "mallory", **tokens}).status_code


def resident(pid: int) -> float:
    """Return the memory that a process has, in MB."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * 4096 / 1e6


if __name__ == "__main__":
    main()
