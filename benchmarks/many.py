"""A table of very many grants, filled by the database itself. Their tokens are not sealed: nobody opens them."""

import contextlib
import sqlite3
from collections.abc import Sequence

import asyncpg

from benchmarks.seed import settle
from evergrant import clock
from evergrant.broker.runtime.broker import open_broker, own_database_url
from evergrant.db import OutboundApp
from evergrant.db.engine import connect_postgresql
from evergrant.settings import Settings

APPS = 20
BULK_SECONDS = 1200

SAME = """'{project}', {id}, 'app-' || (n % {apps}), 'user-' || n, '', '', '0123456789abcdef0123456789abcdef',
    '["read"]', '[]', 'active', '', '', {now}, {sealed}, 'Bearer', {sealed}, {later}, {later}, {later},
    '', 0, 1"""
COLUMNS = """project_id, id, app_id, user_id, tenant_id, external_identifier, scope_key, scopes, resources, status,
    token_sub, granted_by, consented_at, access_token, access_token_type, refresh_token, expires_at, fresh_until,
    next_refresh_at, last_refresh_error, refresh_failures, token_version"""
ENTER = """INSERT INTO grant_directory (project_id, grant_id, app_id, user_id, tenant_id, token_sub, consented_at)
    SELECT project_id, id, app_id, user_id, tenant_id, token_sub, consented_at FROM grants
    WHERE NOT EXISTS (SELECT 1 FROM grant_directory AS entered
        WHERE entered.project_id = grants.project_id AND entered.grant_id = grants.id)"""
# Due between one and two days from now, in no order.
SPREAD = "(86400 + n % 86400 * 7919 % 86400)"


class Many:
    """Grants without number, in one project and `apps` apps."""

    def __init__(self, settings: Settings, project_id: str, *, apps: int = APPS) -> None:
        self._settings = settings
        self._project_id = project_id
        self._apps = apps
        self._url = own_database_url(settings)
        self._stored = 0
        self._has_apps = False

    async def grow(self, size: int) -> None:
        """Let there be `size` grants, none of them due."""
        if not self._has_apps:
            await self._create_apps()
            self._has_apps = True
        if size == self._stored:
            return
        if self._settings.uses_sqlite:
            self._grow_sqlite(size)
        else:
            await self._grow_postgresql(size)
        self._stored = size

    async def _create_apps(self) -> None:
        now = clock.now()
        async with open_broker(self._settings) as broker, broker.database.write() as session:
            for number in range(self._apps):
                name = f"app-{number}"
                app = {"project_id": self._project_id, "id": name, "name": name, "client_id": "evergrant"}
                where = f"https://provider-{number}.example.com/token"
                session.add(OutboundApp(**app, token_url=where, created_at=now, updated_at=now))

    async def _grow_postgresql(self, size: int) -> None:
        values = SAME.format(
            project=self._project_id,
            apps=self._apps,
            id="lpad(to_hex(n), 32, '0')",
            now="now()",
            later=f"now() + {SPREAD} * interval '1 second'",
            sealed="decode(repeat(md5(n::text), 2), 'hex')",
        )
        numbers = f"generate_series({self._stored + 1}, {size}) AS n"
        await self._insert("grants", f"INSERT INTO grants ({COLUMNS}) SELECT {values} FROM {numbers}")
        await settle(self._url)

    async def _insert(self, table: str, insert: str) -> None:
        """Insert very many rows into a table of PostgreSQL."""
        connection = await connect_postgresql(self._url)
        try:
            # Indexes are built faster afterwards, and nobody need look up the same 20 apps ten million times.
            await connection.execute("SET session_replication_role = replica; SET maintenance_work_mem = '512MB'")
            indexes = await connection.fetch(
                "SELECT indexname, indexdef FROM pg_indexes WHERE tablename = $1 AND indexname LIKE 'ix%'", table
            )
            for statement in (
                *(f"DROP INDEX {index['indexname']}" for index in indexes),
                insert,
                *(index["indexdef"] for index in indexes),
            ):
                await connection.execute(statement, timeout=BULK_SECONDS)
        finally:
            await connection.close()

    def _grow_sqlite(self, size: int) -> None:
        values = SAME.format(
            project=self._project_id,
            apps=self._apps,
            id="printf('%032x', n)",
            now="datetime('now') || '.000000'",
            later=f"datetime('now', {SPREAD} || ' seconds') || '.000000'",
            sealed="randomblob(32)",
        )
        numbers = (
            f"WITH RECURSIVE s(n) AS (SELECT {self._stored + 1} UNION ALL SELECT n + 1 FROM s WHERE n < {size}) "
            f"INSERT INTO grants ({COLUMNS}) SELECT {values} FROM s"
        )
        self._insert_sqlite("grants", numbers)

    def _insert_sqlite(self, table: str, insert: str) -> None:
        """Insert very many rows into a table of SQLite."""
        with contextlib.closing(sqlite3.connect(self._url.database or "", isolation_level=None)) as database:
            found = "SELECT name, sql FROM sqlite_master WHERE tbl_name = ? AND type = 'index' AND sql <> ''"
            indexes = database.execute(found, [table]).fetchall()
            for pragma in ("journal_mode = OFF", "synchronous = OFF", "cache_size = -500000"):
                database.execute(f"PRAGMA {pragma}")
            for statement in (
                "BEGIN",
                *(f"DROP INDEX {name}" for name, _ in indexes),
                insert,
                *(sql for _, sql in indexes),
                "COMMIT",
            ):
                database.execute(statement)
            database.execute("PRAGMA journal_mode = WAL")

    async def enter(self) -> None:
        """Enter all grants in the directory, as a connect does; or the first refresher would, in its spare time."""
        if self._settings.uses_sqlite:
            self._insert_sqlite("grant_directory", ENTER)
            return
        await self._insert("grant_directory", ENTER)

    async def make_due(self, count: int) -> None:
        """Make `count` of them due, of all apps and from all over the table."""
        step = self._stored // count
        while step % 2 == 0 or step % 5 == 0:  # or some apps would have none
            step -= 1
        ids = [f"{number * step:032x}" for number in range(1, count + 1)]
        await self._update(
            ids, sqlite="datetime('now', '-10 seconds') || '.000000'", postgresql="now() - interval '10 s'"
        )

    async def put_off(self, ids: Sequence[str] = ()) -> None:
        """Do what a landing does to these grants, as far as finding is concerned; without any, to all that are due."""
        await self._update(ids, sqlite="datetime('now', '+1 day') || '.000000'", postgresql="now() + interval '1 day'")

    async def _update(self, ids: Sequence[str], *, sqlite: str, postgresql: str) -> None:
        statement = (
            "UPDATE grants SET next_refresh_at = {}, lease_owner = NULL, lease_until = NULL WHERE project_id = {} "
        )
        if self._settings.uses_sqlite:
            statement = statement.format(sqlite, "?")
            database = sqlite3.connect(self._url.database or "", isolation_level=None, timeout=30)
            try:
                database.execute("BEGIN")
                if ids:
                    database.executemany(f"{statement} AND id = ?", [(self._project_id, one) for one in ids])
                else:
                    apps = [f"app-{number}" for number in range(self._apps)]
                    due = f"{statement} AND app_id = ? AND next_refresh_at <= datetime('now')"
                    database.executemany(due, [(self._project_id, app) for app in apps])
                database.execute("COMMIT")
            finally:
                database.close()
            return
        connection: asyncpg.Connection = await connect_postgresql(self._url)
        try:
            if ids:
                some = statement.format(postgresql, "$1") + "AND id = ANY($2)"
                await connection.execute(some, self._project_id, list(ids), timeout=BULK_SECONDS)
            else:
                due = statement.format(postgresql, "$1") + "AND next_refresh_at <= now()"
                await connection.execute(due, self._project_id, timeout=BULK_SECONDS)
        finally:
            await connection.close()
