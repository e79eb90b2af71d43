"""examples/agent as somebody runs it beside `make demo`: processes of their own, and a person with a browser."""

import os
import re
import subprocess
import sys
from pathlib import Path

import httpx2

from tests.infra.demo import Demo
from tests.infra.installation import Browser
from tests.infra.waiting import PATIENCE, wait_until

ROOT = Path(__file__).parents[2]


def test_the_example_connects_reads_and_writes_what_was_approved(tmp_path: Path) -> None:
    written = tmp_path / "example.log"
    with Demo(tmp_path) as demo:
        guide = demo.url()
        told = dict(re.findall(r"#  (evergrant|Project id|Management key) +(\S+)", demo.output()))
        assert httpx2.post(f"{guide}steps/create").status_code == 303
        command = httpx2.get(guide).text
        assert "examples/agent/backend.py" in command, "the guide does not say how"
        environment = os.environ | {
            "EVERGRANT": told["evergrant"],
            "PROJECT_ID": told["Project id"],
            "MANAGEMENT_KEY": told["Management key"],
            "PYTHONUNBUFFERED": "1",
        }
        with written.open("wb") as log:
            example = subprocess.Popen(
                [sys.executable, "examples/agent/backend.py", "--yes"],
                cwd=ROOT,
                env=environment,
                stdout=log,
                stderr=log,
            )
        try:
            link = re.compile(r"Open (http\S+)")
            wait_until(lambda: bool(link.search(written.read_text())) or example.poll() is not None, "it needs alice")
            found = link.search(written.read_text())
            assert found, written.read_text()
            browser = Browser()
            try:
                browser.open(browser.allow(browser.agree(found[1])))
            finally:
                browser.http.close()
            assert example.wait(timeout=PATIENCE) == 0, written.read_text()
        finally:
            example.kill()
            example.wait()
    lines = written.read_text().splitlines()
    assert lines[-1] == "agent     Done. You have 4 contacts now, the last one is Barbara Imaginary."
    assert len([line for line in lines if line.startswith("person    approved")]) == 1
    for secret in ("practice_at_", "practice_rt_", told["Management key"]):
        assert secret not in written.read_text()
