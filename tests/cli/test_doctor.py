"""The doctor, on installations with many things wrong at once; tests/cli/test_commands.py has a good one."""

import ast
import re
import resource
import shutil
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy import column, insert, table, text, update

from evergrant import clock
from evergrant.broker.operations import doctor_machine, doctor_postgresql
from evergrant.broker.runtime.broker import load_keyring, open_broker, open_database, own_traits
from evergrant.broker.runtime.journal import Census, Journal
from evergrant.crypto.sealed import Sealed
from evergrant.db import Grant, Holder, ManagementKey, OutboundApp, TrustedIssuer, Webhook
from evergrant.db.grant import scope_key
from evergrant.settings import Settings
from tests.cli.conftest import Evergrant
from tests.infra.serving import environment_of
from tests.infra.settings import settings_on
from tests.infra.waiting import in_a_thread

ROOT = Path(__file__).parents[2]
AS_IT_IS = doctor_postgresql.asked
OPERATIONS = ROOT / "src/evergrant/broker/operations"


def states(findings: list[dict[str, Any]]) -> dict[str, str]:
    """Return how each check came out, the worst where it has several findings."""
    words: dict[str, str] = {}
    for one in findings:
        word = "WRONG" if not one["good"] else "todo" if one["advice"] else "ok"
        words[one["check"]] = max(word, words.get(one["check"], ""), key=["", "ok", "todo", "WRONG"].index)
    return words


def test_the_page_has_a_row_for_each_check_and_no_other() -> None:
    made = set[str]()
    for file in OPERATIONS.glob("doctor*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in ("Finding", "todo") and node.args:
                name = node.args[0]
                made.add(str(name.value) if isinstance(name, ast.Constant) else "app ID")
    rows = re.findall(r"^\| `([^`]+)` \|", (ROOT / "docs/doctor.md").read_text(), flags=re.MULTILINE)
    assert sorted(rows) == sorted(made)


def test_doctor_finds_what_is_unwise_in_settings_and_rows(
    evergrant: Evergrant, sqlite_url: str, data_dir: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    settings = settings_on(sqlite_url, data_dir)
    project = evergrant(settings, "init", "--json").json["projectId"]
    in_a_thread(_spoil(settings, project))
    data_dir.chmod(0o755)
    mounts = tmp_path / "mounts"
    mounts.write_text(f"/dev/sda / ext4 rw 0 0\nserver:/share /tmp nfs4 rw 0 0\nserver:/share {data_dir} nfs4 rw 0 0\n")
    monkeypatch.setattr(doctor_machine, "MOUNTS", mounts)
    monkeypatch.setattr(Journal, "census", lambda _: Census(2, 1.0, 0))
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1024))
    monkeypatch.setattr(resource, "getrlimit", lambda _: (1024, 1024))
    environment = environment_of(settings) | {
        "EVERGRANT_PUBLIC_URL": "https://localhost",
        "EVERGRANT_PUBLC_URL": "https://localhost",
        "EVERGRANT_EGRESS_ALLOW": "0.0.0.0/0",
        "EVERGRANT_TRUSTED_PROXIES": "10.0.0.0/255.0.0.0",
        "EVERGRANT_RATE_LIMIT_PER_KEY": "0",
        "EVERGRANT_CALL_RETENTION_DAYS": "0",
        "EVERGRANT_LOG_LEVEL": "debug",
        "EVERGRANT_BOOTSTRAP_PROJECT_ID": "Pshop",
        "EVERGRANT_BOOTSTRAP_MANAGEMENT_KEY": "change-me-change-me-change-me-change-me",
        "OTEL_TRACES_EXPORTER": "jaeger",
    }
    done = evergrant(environment, "doctor", "--json")
    found = states(done.json)
    wrong = {name for name, word in found.items() if word == "WRONG"}
    assert wrong == {
        *("bootstrap key", "egress", "traces", "disk", "file system", "journal"),
        *("refreshers", "trusted issuers"),
    }
    todo = {name for name, word in found.items() if word == "todo"}
    assert todo >= {
        *(
            "variables",
            "trusted proxies",
            "console",
            "metrics",
            "limits",
            "retention",
            "log",
            "data folder",
            "open files",
        ),
        *("management keys", "webhooks", "apps' registrations", "redirect origins", "callbacks", "app crm"),
    }
    assert "did you mean EVERGRANT_PUBLIC_URL?" in done.out
    assert done.code == 1


async def _spoil(settings: Settings, project: str) -> None:
    now = clock.now()
    async with open_broker(settings) as broker, broker.database.write() as session:
        session.add(
            OutboundApp(
                project_id=project,
                id="crm",
                name="CRM",
                created_at=now,
                updated_at=now,
                unhealthy_since=now,
                skip_consent_page=True,
                registered_redirect_uri="https://old.example.com/callback",
            )
        )
        await session.flush()
        late = {"consented_at": now, "next_refresh_at": now - timedelta(hours=1), "scope_key": scope_key(["x"])}
        session.add(Grant(project_id=project, id="g1", app_id="crm", user_id="alice", scopes=["x"], **late))
        await session.execute(update(ManagementKey).values(expires_at=now - timedelta(days=1)))
        hook = {"project_id": project, "id": "w1", "url": "https://hooks.example.com", "created_at": now}
        session.add(Webhook(**hook, secret=Sealed(b"x" * 40), failing_since=now))
        issuer = {"project_id": project, "id": "i1", "audience": "us", "created_at": now}
        session.add(TrustedIssuer(**issuer, issuer="https://id.example.com", jwks_url="http://127.0.0.1:9/keys"))


def test_doctor_finds_that_postgresql_forgets_is_full_and_is_not_tidied(
    evergrant: Evergrant, postgresql_url: str, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = settings_on(postgresql_url, data_dir)
    in_a_thread(_untidy(settings))
    monkeypatch.setattr(doctor_postgresql, "FULL", 0.0)
    with monkeypatch.context() as patch:
        patch.setattr(doctor_postgresql, "asked", AS_IT_IS)  # the tests' servers really are so
        found = states(evergrant(settings, "doctor", "--json").json)
        assert (found["durability"], found["autovacuum"]) == ("WRONG", "WRONG")
    done = evergrant(settings, "doctor", "--json")
    found = states(done.json)
    assert (found["durability"], found["connections"], found["autovacuum"]) == ("ok", "WRONG", "todo")
    assert (found["standbys"], found["line"]) == ("ok", "ok")
    monkeypatch.setattr(doctor_postgresql, "FULL", 1.0)
    monkeypatch.setattr(doctor_postgresql, "PER_PROCESS", 10_000)
    assert states(evergrant(settings, "doctor", "--json").json)["connections"] == "todo"


def test_doctor_says_which_setting_differs_between_which_processes(
    evergrant: Evergrant, settings: Settings, data_dir: Path
) -> None:
    evergrant(settings, "init")
    assert replicas(evergrant, settings) == ("ok", "0 processes that refresh agree")
    in_a_thread(_show(settings, "one:1"))
    in_a_thread(_show(settings, "old:7", is_old=True))
    assert replicas(evergrant, settings) == ("ok", "1 processes that refresh agree")
    in_a_thread(_show(settings.model_copy(update={"catalog_dir": data_dir}), "two:2", library="x = 1"))
    word, said = replicas(evergrant, settings)
    assert (word, "EVERGRANT_CATALOG_DIR: one:1 unlike two:2" in said) == ("todo", True)
    in_a_thread(_show(settings.model_copy(update={"public_url": "https://other.example.com"}), "three:3"))
    word, said = replicas(evergrant, settings)
    assert (word, "EVERGRANT_PUBLIC_URL: one:1, two:2 unlike three:3" in said) == ("WRONG", True)
    assert "other.example.com" not in said


def replicas(evergrant: Evergrant, settings: Settings) -> tuple[str, str]:
    found = evergrant(settings, "doctor", "--json").json
    return states(found)["replicas"], next(one["text"] for one in found if one["check"] == "replicas")


async def _show(settings: Settings, name: str, *, is_old: bool = False, library: str = "") -> None:
    """Show a process as its heartbeat does; where it `is_old`, as the version before does, which knows no traits."""
    if library and settings.catalog_dir:
        (settings.catalog_dir / "own.toml").write_text(library)
    row = {"id": name, "name": name, "started_at": clock.now(), "beat_at": clock.now()}
    if not is_old:
        row["traits"] = own_traits(settings, load_keyring(settings))
    known = table("holders", *(column(one.name, one.type) for one in Holder.__table__.columns))  # without its defaults
    database = open_database(settings)
    try:
        async with database.write() as session:
            await session.execute(insert(known).values(row))
    finally:
        await database.dispose()


async def _untidy(settings: Settings) -> None:
    async with open_broker(settings) as broker, broker.database.write() as session:
        await session.execute(text("ALTER TABLE grants SET (autovacuum_enabled = false)"))
        now = clock.now()
        session.add(Holder(id="h" * 16, name="machine:1", started_at=now, beat_at=now))
