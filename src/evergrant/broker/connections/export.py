"""Exporting connections as CSV (RFC 4180), without their secrets, for spreadsheets and whoever asks for a list."""

import asyncio
import csv
import io
from collections.abc import AsyncIterator

from evergrant.broker.audit.record import Actor, actor, record
from evergrant.broker.connections.browsing import Wanted, browse
from evergrant.broker.connections.metadata import GrantMetadata
from evergrant.broker.runtime.broker import Broker
from evergrant.broker.runtime.principal import Principal

AT_ONCE = 500
COLUMNS = (
    "id",
    "appId",
    "userId",
    "tenantId",
    "externalIdentifier",
    "status",
    "scopes",
    "tokenSub",
    "accessTokenType",
    "hasRefreshToken",
    "connectedTime",
    "accessTokenExpiry",
    "lastRefreshTime",
    "lastRefreshError",
)
FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""What a cell begins with that spreadsheets run (OWASP: CSV injection)."""


async def export_connections(broker: Broker, principal: Principal, wanted: Wanted) -> AsyncIterator[str]:
    """Yield the lines of a CSV file with every connection that is wanted, some at a time.

    The audit log gets one record that says how many were given out, also where whoever reads them goes away early.

    Raises:
        PermissionDenied: as `browse`, before anything is yielded.
    """
    given, who = 0, actor.get()
    page = await browse(broker, principal, wanted, after=None, limit=AT_ONCE)
    try:
        yield _lines([list(COLUMNS)])
        while True:
            given += len(page.grants)
            yield _lines([_cells(grant) for grant in page.grants])
            if page.following is None:
                return
            page = await browse(broker, principal, wanted, after=page.following, limit=AT_ONCE)
    finally:
        # In a task of its own: what reads this may be cancelled, and the record is written all the same.
        await asyncio.shield(asyncio.create_task(_record(broker, principal, wanted, given, who)))


async def _record(broker: Broker, principal: Principal, wanted: Wanted, given: int, who: Actor) -> None:
    asked = {name: value for name, value in (("state", str(wanted.state or "")), ("search", wanted.search)) if value}
    async with broker.database.write() as session:
        await record(
            session,
            principal.project_id,
            "connections.exported",
            app_id=wanted.app_id,
            user_id=wanted.user_id,
            tenant_id=wanted.tenant_id,
            data={"count": given, **asked},
            who=who,
        )


def _cells(grant: GrantMetadata) -> list[str]:
    moments = (grant.consented_at, grant.expires_at, grant.last_refresh_time)
    return [
        grant.id,
        grant.app_id,
        grant.user_id,
        grant.tenant_id,
        grant.external_identifier,
        grant.status,
        " ".join(grant.scopes),
        grant.token_sub,
        grant.access_token_type,
        "true" if grant.has_refresh_token else "false",
        *(at.isoformat(timespec="seconds") if at is not None else "" for at in moments),
        grant.last_refresh_error,
    ]


def _lines(rows: list[list[str]]) -> str:
    written = io.StringIO()
    csv.writer(written).writerows([[_harmless(cell) for cell in row] for row in rows])
    return written.getvalue()


def _harmless(cell: str) -> str:
    """Return a cell that no spreadsheet runs as a formula."""
    return f"'{cell}" if cell.startswith(FORMULA) else cell
