"""A fresh, migrated database per test: migrated once, then copied."""

import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from evergrant.db.engine import database_url, make_engine
from evergrant.db.schema import upgrade_database
from evergrant.settings import Settings
from tests.infra.postgres import PostgresServer
from tests.infra.settings import settings_on
from tests.infra.waiting import in_a_thread

TEMPLATE = "evergrant_template"


def migrate(url: str) -> None:
    """Bring the database at `url` to the newest schema, with the migrations that operators run."""

    async def upgrade() -> None:
        engine = make_engine(database_url(url, Path()))
        try:
            await upgrade_database(engine)
        finally:
            await engine.dispose()

    in_a_thread(upgrade())


@contextmanager
def fresh_postgres_database(server: PostgresServer, *, template: str = TEMPLATE) -> Iterator[str]:
    """Copy the migrated template; the copy is dropped at the end."""
    name = f"t_{uuid.uuid4().hex}"
    yield server.create_database(name, template=template)
    server.drop_database(name)


def fresh_sqlite_database(migrated: Path, folder: Path) -> str:
    """Copy the migrated file to where `Settings` without a database URL looks for it in `folder`."""
    target = folder / "evergrant.db"
    target.write_bytes(migrated.read_bytes())
    return f"sqlite:///{target}"


@contextmanager
def settings_for(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, **changes: Any
) -> Iterator[Settings]:
    """Settings without a refresher, for tests that share them, on a fresh database of `request.param`'s kind."""
    data_dir = tmp_path_factory.mktemp("data")
    with ExitStack() as stack:
        if request.param == "sqlite":
            url = fresh_sqlite_database(request.getfixturevalue("migrated_sqlite_file"), data_dir)
        else:
            url = stack.enter_context(fresh_postgres_database(request.getfixturevalue("postgres_server")))
        yield settings_on(url, data_dir, refresher=False, **changes)
