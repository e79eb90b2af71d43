"""New, empty databases that are gone afterwards."""

import contextlib
import tempfile
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path

from evergrant.broker.runtime.broker import Broker
from evergrant.db.engine import connect_postgresql
from evergrant.settings import Settings
from tests.infra.postgres import PostgresServer
from tests.infra.settings import settings_on

DATABASES = ("postgresql", "sqlite")


@contextlib.contextmanager
def fresh_settings(database: str, *, durable: bool) -> Iterator[Settings]:
    """Settings on a new, empty database.

    `durable` lets PostgreSQL write as in production: every commit is on the disk before it is answered. SQLite does so
    anyway.
    """
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="evergrant-bench-"))
        url = None
        if database == "postgresql":
            server = PostgresServer()
            stack.callback(server.remove)
            server.start()
            configure(server, PRODUCTION if durable else BULK)
            url = server.create_database("benchmark")
        yield settings_on(url, Path(folder), log_level="warning")


SAFE = ("fsync", "synchronous_commit", "full_page_writes")
PRODUCTION = {
    **dict.fromkeys(SAFE, "on"),
    "autovacuum": "on",
    "shared_buffers": "256MB",
    "max_wal_size": "2GB",
}
BULK = {"autovacuum": "on", "shared_buffers": "512MB", "max_wal_size": "2GB", "maintenance_work_mem": "512MB"}


@contextlib.asynccontextmanager
async def make_durable(broker: Broker) -> AsyncIterator[None]:
    """Let PostgreSQL write as in production while the block runs, although it was started for filling."""
    url = broker.database.engine.url

    async def switch(names: Sequence[str], value: str) -> None:
        connection = await connect_postgresql(url)
        try:
            for name in names:
                await connection.execute(f"ALTER SYSTEM SET {name} = {value}")
            await connection.execute("SELECT pg_reload_conf()")
        finally:
            await connection.close()

    if broker.database.is_sqlite:
        yield
        return
    await switch(SAFE, "on")
    try:
        yield
    finally:
        await switch(SAFE, "off")


def configure(server: PostgresServer, configuration: dict[str, str]) -> None:
    """Set what the tests' server has otherwise, and start it again."""
    for name, value in configuration.items():
        server.execute(f"ALTER SYSTEM SET {name} = '{value}'")
    server.stop()
    server.start()
