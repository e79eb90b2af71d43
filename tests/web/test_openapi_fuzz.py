"""The OpenAPI document against the running server: no 5xx, no undocumented status, no answer off its schema."""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.infra.databases import settings_for
from tests.infra.installation import Installation, installation
from tests.infra.waiting import PATIENCE

CHECKS = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"


@pytest.fixture(scope="module", params=["postgresql"])
def fuzzed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """An installation with a connected user. On PostgreSQL, which minds what SQLite takes."""
    with settings_for(request, tmp_path_factory) as chosen, installation(chosen) as here:
        here.connected("alice")
        yield here


@pytest.mark.slow
def test_every_call_answers_as_documented(fuzzed: Installation, tmp_path: Path) -> None:
    # 502 and 503 are the fault of a provider, and made-up apps have such. They have to be documented all the same.
    allowed = 'not_a_server_error.expected-statuses = ["2xx", "3xx", "4xx", "502", "503"]'
    (tmp_path / "schemathesis.toml").write_text(f"[checks]\n{allowed}\n", encoding="utf-8")
    command = Path(sys.executable).with_name("schemathesis")
    run = subprocess.run(
        [
            command,
            "run",
            f"{fuzzed.url}/openapi.json",
            *("--header", f"Authorization: Bearer {fuzzed.backend.project_id}:{fuzzed.backend.management_key}"),
            # 800 kB, each template of which is what `templates/{id}` answers: to hold all to the schema takes seconds.
            *("--exclude-path", "/v1/mgmt/outbound/templates"),
            # What stands behind it is a provider's, and answers as that does.
            *("--exclude-path", "/v1/proxy/{appId}/{path}"),
            *("--checks", CHECKS),
            *("--phases", "examples,coverage,fuzzing"),
            *("--max-examples", "3", "--seed", "1", "--request-timeout", str(PATIENCE), "--no-color"),
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=10 * PATIENCE,
    )
    assert run.returncode == 0, run.stdout[-8000:] + run.stderr[-2000:]
    assert re.search(r"(\d{3,}) generated, \1 passed", run.stdout), run.stdout[-2000:]
