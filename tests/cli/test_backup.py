"""`evergrant backup`, `evergrant restore` and `evergrant projects delete`, as an operator sees them."""

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import Connection

from evergrant import clock
from evergrant.db.engine import database_url as with_driver
from evergrant.db.engine import make_engine
from evergrant.db.schema import migrations_folder
from evergrant.db.sqlite_file import copy_database
from evergrant.settings import Settings
from tests.cli.conftest import Evergrant
from tests.conftest import Clock
from tests.infra.rows import rows

VERSION_BEFORE = "0007"


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_a_backup_of_an_earlier_version_is_brought_up_to_date(
    evergrant: Evergrant, settings: Settings, tmp_path: Path
) -> None:
    old, file = tmp_path / "old.db", tmp_path / "backup.db"

    def upgrade(connection: Connection) -> None:
        config = Config()
        config.set_main_option("script_location", str(migrations_folder()))
        config.attributes["connection"] = connection
        command.upgrade(config, VERSION_BEFORE)

    async def make() -> None:
        engine = make_engine(with_driver(f"sqlite:///{old}", tmp_path))
        async with engine.begin() as connection:
            await connection.run_sync(upgrade)
            await connection.exec_driver_sql("INSERT INTO projects VALUES ('P1', 'One', '[]', '2026-01-31 00:00:00')")
        await engine.dispose()

    asyncio.run(make())
    copy_database(old, file, taken_at=clock.now())
    assert evergrant(settings, "restore", str(file)).code == 0
    (project,) = evergrant(settings, "projects", "list", "--json").json
    assert project["name"] == "One"


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_a_restore_into_an_empty_folder_says_what_nobody_can_know(
    evergrant: Evergrant, settings: Settings, project: str, tmp_path: Path
) -> None:
    file, elsewhere = tmp_path / "backup.db", tmp_path / "elsewhere"
    assert evergrant(settings, "backup", str(file)).code == 0
    there = settings.model_copy(update={"data_dir": elsewhere, "database_url": None})
    done = evergrant(there, "restore", str(file))
    assert (done.code, "--shredded" in done.err) == (0, True)
    assert [p["id"] for p in evergrant(there, "projects", "list", "--json").json] == [project]
    assert (elsewhere / "evergrant.db").stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_a_database_that_cannot_be_read_any_more_is_set_aside_with_all_that_belongs_to_it(
    evergrant: Evergrant, settings: Settings, project: str, tmp_path: Path
) -> None:
    file, database = tmp_path / "backup.db", settings.data_dir / "evergrant.db"
    assert evergrant(settings, "backup", str(file)).code == 0
    for end in ("", "-wal"):
        Path(f"{database}{end}").write_text("the disk is broken" * 1000)
    assert evergrant(settings, "restore", str(file)).code == 0
    assert [p["id"] for p in evergrant(settings, "projects", "list", "--json").json] == [project]
    kept = sorted(path.name.partition("Z")[2] for path in settings.data_dir.glob("evergrant.db.replaced-*"))
    assert kept == ["", "-wal"]


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_a_backup_may_have_any_name_and_is_the_file_that_is_looked_at(
    evergrant: Evergrant, settings: Settings, project: str, tmp_path: Path, clock: Clock
) -> None:
    for name in ("50%.db", "a%62.db", "what?.db", "no#1.db", "a b.db"):
        assert evergrant(settings, "backup", str(tmp_path / name)).code == 0
        assert evergrant(settings, "restore", str(tmp_path / name)).code == 0, name
        at_once = evergrant(settings, "restore", str(tmp_path / name))
        assert (at_once.code, "try again in a second" in at_once.err) == (1, True)
        clock.advance(1)
    assert evergrant(settings, "backup", str(tmp_path / "ab.db")).code == 0
    (tmp_path / "a%62.db").write_text("no backup, but SQLite's URLs would call the other one so")
    refused = evergrant(settings, "restore", str(tmp_path / "a%62.db"))
    assert (refused.code, "is not a whole backup" in refused.err) == (1, True)
    assert [p["id"] for p in evergrant(settings, "projects", "list", "--json").json] == [project]


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
@pytest.mark.parametrize("taken_at", ["'yesterday'", "1", "x'00'"])
def test_a_backup_that_does_not_say_when_it_was_taken_changes_nothing(
    evergrant: Evergrant, settings: Settings, project: str, tmp_path: Path, taken_at: str
) -> None:
    file = tmp_path / "backup.db"
    assert evergrant(settings, "backup", str(file)).code == 0
    with closing(sqlite3.connect(file, isolation_level=None)) as connection:
        connection.execute(f"UPDATE evergrant_backup SET taken_at = {taken_at}")
    refused = evergrant(settings, "restore", str(file))
    assert (refused.code, "is not a whole backup" in refused.err) == (1, True)
    assert [p["id"] for p in evergrant(settings, "projects", "list", "--json").json] == [project]


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_a_project_that_was_deleted_before_the_backup_is_not_told_of_again(
    evergrant: Evergrant, settings: Settings, project: str, tmp_path: Path
) -> None:
    file = tmp_path / "backup.db"
    assert evergrant(settings, "projects", "delete", project, "--yes").code == 0
    assert evergrant(settings, "backup", str(file)).code == 0
    done = evergrant(settings, "restore", str(file))
    assert (done.code, "was deleted since" in done.out) == (0, False)
    actions = [row["action"] for row in rows(settings, "audit_events")]
    assert actions.count("project.shredded") == 1


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_a_restored_log_tells_of_it_and_goes_on(
    evergrant: Evergrant, settings: Settings, project: str, tmp_path: Path
) -> None:
    file = tmp_path / "backup.db"
    evergrant(settings, "backup", str(file))
    evergrant(settings, "keys", "create", "--name", "since")
    assert evergrant(settings, "restore", str(file)).code == 0
    records = evergrant(settings, "audit", "search", "--json").json
    assert [record["action"] for record in records] == ["project.restored", "key.created", "project.created"]
    assert records[0]["data"]["connectionsInDoubt"] == 0
    assert records[0]["actor"] == "cli"
    assert evergrant(settings, "audit", "verify").code == 0
    with closing(sqlite3.connect(settings.data_dir / "evergrant.db")) as connection:
        assert not connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'evergrant_backup'").fetchone()


def test_what_was_revoked_since_a_backup_does_not_live_again_with_it(
    evergrant: Evergrant, settings: Settings, project: str
) -> None:
    assert evergrant(settings, "apps", "create", "--template", "openai").code == 0
    mint = ("sessions", "create", "--user", "ada", "--app", "openai", "--agent", "helper")
    assert evergrant(settings, *mint).code == 0
    assert len(evergrant(settings, "sessions", "list", "--status", "active", "--json").json) == 1
    assert evergrant(settings, "restore", "--mark-only").code == 0
    assert evergrant(settings, "sessions", "list", "--status", "active", "--json").json == []
    assert len(evergrant(settings, "sessions", "list", "--status", "revoked", "--json").json) == 1


def test_a_restore_says_what_to_give_it(evergrant: Evergrant, settings: Settings, tmp_path: Path) -> None:
    for arguments in ((), (str(tmp_path / "x"), "--mark-only")):
        done = evergrant(settings, "restore", *arguments)
        assert (done.code, "--mark-only" in done.err) == (1, True)


def test_a_project_that_nobody_knows_is_not_marked_as_deleted(
    evergrant: Evergrant, settings: Settings, project: str
) -> None:
    done = evergrant(settings, "restore", "--mark-only", "--shredded", project, "--shredded", "P-unknown")
    assert (done.code, done.err) == (1, "evergrant: there is no project 'P-unknown' in the backup\n")
    assert len(rows(settings, "data_keys")) == 1


def test_the_command_line_closes_a_project_first_where_providers_are_to_be_told(
    evergrant: Evergrant, settings: Settings, project: str
) -> None:
    done = evergrant(settings, "projects", "delete", project, "--yes", "--revoke-first", "--within", "2")
    assert (done.code, f"{project} is closed" in done.out) == (0, True)
    (shown,) = evergrant(settings, "projects", "deletion", project, "--json").json
    assert (shown["shredded"], shown["dataKeys"], bool(shown["shredAtTheLatest"])) == ("", 1, True)
    assert evergrant(settings, "projects", "delete", project, "--yes", "--revoke-first").code == 1, "it is under way"
    refused = evergrant(settings, "projects", "allow-redirect", project, "https://app.example.com")
    assert refused.err == f"evergrant: Project '{project}' was deleted.\n"
    assert evergrant(settings, "projects", "delete", project, "--yes").code == 0, "at once after all"
    (shown,) = evergrant(settings, "projects", "deletion", project, "--json").json
    assert shown["dataKeys"] == 0
    assert evergrant(settings, "projects", "delete", "P-unknown", "--yes").code == 1
