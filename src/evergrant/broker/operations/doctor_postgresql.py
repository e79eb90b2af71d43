"""What PostgreSQL tells of itself: durability, room for connections, vacuuming, and the line to it."""

from collections.abc import AsyncIterator
from typing import Any

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from evergrant.broker.operations.doctor_finding import Finding, todo
from evergrant.db.engine import Database
from evergrant.networks import is_loopback_host

PER_PROCESS = 39
"""What one process opens at most: 20 for transactions, 10 for landings, 8 for fetches, 1 for its heartbeat."""
FULL = 0.8
MUST_BE_ON = ("fsync", "full_page_writes", "synchronous_commit")
MANY_DEAD, DEAD_SHARE = 10_000, 0.3
_ASKED = text(
    """SELECT current_setting('fsync') AS fsync, current_setting('full_page_writes') AS full_page_writes,
    current_setting('synchronous_commit') AS synchronous_commit, current_setting('autovacuum') AS autovacuum,
    current_setting('synchronous_standby_names') AS synchronous, current_setting('max_connections')::int AS most,
    (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend') AS used,
    (SELECT count(*) FROM pg_stat_replication) AS standbys,
    (SELECT count(*) FROM holders WHERE beat_at > now() - interval '1 minute') AS holders,
    (SELECT coalesce(reloptions::text, '') FROM pg_class WHERE oid = 'grants'::regclass) AS options,
    (SELECT n_dead_tup FROM pg_stat_user_tables WHERE relid = 'grants'::regclass) AS dead,
    (SELECT n_live_tup FROM pg_stat_user_tables WHERE relid = 'grants'::regclass) AS live,
    (SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()) AS is_encrypted"""
)


async def examine_postgresql(database: Database) -> AsyncIterator[Finding]:
    """Look at the server."""
    async with database.engine.connect() as connection:
        row = await asked(connection)
    for finding in (_durability(row), _standbys(row), _connections(row, database), _vacuum(row), _line(row, database)):
        yield finding


async def asked(connection: AsyncConnection) -> Any:
    """Return all that is looked at, as one row."""
    return (await connection.execute(_ASKED)).one()


def _durability(row: Any) -> Finding:
    off = [name for name in MUST_BE_ON if getattr(row, name) == "off"]
    if off:
        text = f"{', '.join(off)} is off: a power cut takes rotated refresh tokens back, and with them consents"
        return Finding("durability", False, f"{text}. Set it to on in postgresql.conf")
    return Finding("durability", True, "commits are on the disk")


def _standbys(row: Any) -> Finding:
    if row.standbys and not row.synchronous:
        text = f"{row.standbys} standbys, none synchronous: a failover loses the last refresh tokens"
        return todo("standbys", f"{text}. Set synchronous_standby_names, see docs/failover.md")
    return Finding("standbys", True, str(row.standbys))


def _connections(row: Any, database: Database) -> Finding:
    is_pooled = bool(database.servers and database.servers.is_pooled)
    said = f"{row.used} of {row.most} in use, {row.holders} processes" + (" behind a connection pooler" * is_pooled)
    if row.used > FULL * row.most:
        return Finding("connections", False, f"{said}: raise max_connections, or put PgBouncer before the database")
    if row.holders * PER_PROCESS > row.most and not is_pooled:
        text = f"{said}, which may want {row.holders * PER_PROCESS}: raise max_connections to that"
        return todo("connections", f"{text}, or put PgBouncer before the database")
    return Finding("connections", True, said)


def _vacuum(row: Any) -> Finding:
    if row.autovacuum == "off":
        text = "autovacuum is off: refreshes leave dead rows, and looking for what is due takes ever longer"
        return Finding("autovacuum", False, f"{text}. Set it to on in postgresql.conf")
    if "autovacuum_vacuum_scale_factor" not in row.options or "autovacuum_enabled=false" in row.options:
        remedy = "ALTER TABLE grants SET (autovacuum_enabled = true, autovacuum_vacuum_scale_factor = 0.02)"
        return todo("autovacuum", f"the settings of the table grants are gone: {remedy}")
    if (row.dead or 0) > max(MANY_DEAD, DEAD_SHARE * (row.live or 0)):
        text = f"{row.dead} dead rows in grants: VACUUM grants, and look for a transaction that has been open for long"
        return todo("autovacuum", text)
    return Finding("autovacuum", True, "keeps up")


def _line(row: Any, database: Database) -> Finding:
    url = database.engine.url
    named = url.query.get("host", ())  # several servers, or the folder of a socket
    hosts = [url.host] if url.host else ",".join([named] if isinstance(named, str) else named).split(",")
    is_near = all(not host or host.startswith("/") or is_loopback_host(host.partition(":")[0]) for host in hosts)
    if not row.is_encrypted and not is_near:
        text = "the line is not encrypted: write ?sslmode=verify-full in EVERGRANT_DATABASE_URL"
        return todo("line", text)
    return Finding("line", True, "encrypted" if row.is_encrypted else "on this machine")
