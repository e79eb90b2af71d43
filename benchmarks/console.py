"""How long do the console's pages and the lists' calls take among a million connections?

Prints each page's median and 99th percentile, and how far the median is from what a page may take. It ends by itself:

    python benchmarks/console.py --grants 1000000 --database postgresql --database sqlite
"""

import argparse
import asyncio
import sqlite3
import statistics
import sys
import time
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

import httpx2

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.databases import DATABASES, fresh_settings
from benchmarks.many import Many
from benchmarks.month import add_month
from benchmarks.seed import settle
from evergrant import clock
from evergrant.broker.grants.counts import recount
from evergrant.broker.operations.setup import InitResult, initialise, upgrade
from evergrant.broker.operators.roles import ADMIN
from evergrant.broker.operators.sessions import begin_session
from evergrant.broker.runtime.broker import own_database_url
from evergrant.broker.runtime.list_places import Place
from evergrant.db.engine import connect_postgresql
from evergrant.settings import Settings
from evergrant.web.app import create_app
from evergrant.web.console.desk import cookie_name

MEDIAN_MS, P99_MS = 50.0, 250.0
"""What a page may take."""
TIMES = 100
GRANT = "00000000000000000000000000000fff"
LONG = 1800
DEEP = "DEEP"
"""Stands for a place somewhere after the newest 800,000."""
PAGES = (
    "",
    "?p=7d",
    "?p=30d",
    "start",
    "apps",
    "apps/new",
    "apps/app-3",
    "apps/app-3/use",
    "apps/app-3/delete",
    "apps/app-3/connections",
    "apps/app-3/connections?state=reconnect",
    "apps/app-3/connections?state=retrying",
    "apps/app-3/activity",
    "apps/app-3/activity?p=30d",
    "connections",
    "connections?order=oldest",
    f"connections?at={DEEP}",
    f"connections?before={DEEP}",
    "connections?state=healthy",
    f"connections?state=healthy&at={DEEP}",
    "connections?state=app_refused",
    "connections?state=retrying",
    "connections?state=reconnect",
    "connections?state=unconfirmed",
    "connections?app=app-3",
    "connections?app=app-3&state=reconnect",
    "connections?app=app-3&state=healthy",
    "connections?tenant=tenant-7",
    "connections?tenant=tenant-7&state=reconnect",
    "connections?q=user-77",
    "connections?q=user-777777",
    "connections?q=user-",
    f"connections?q=user-&at={DEEP}",
    "connections?q=user-&order=oldest",
    "connections?q=user-&state=reconnect",
    "connections?q=user-&app=app-3",
    "connections?q=tenant-7",
    "connections?q=tenant-",
    "connections?q=subject-4095",
    "connections?q=nobody",
    f"connections?q={GRANT}",
    "connections/new",
    f"connections/{GRANT}",
    "people/user-4095",
    "keys",
    "keys/key1",
    "issuers",
    "policies",
    "webhooks",
    "webhooks/webhook1",
    "webhooks/webhook1?status=failed",
    "audit",
    "audit?at=50000",
    "audit?action=project.updated",
    "audit?action=grant.connected&actor=key:key3",
    "audit?user=user-77",
    "audit?app=app-3",
    "audit?user=user-77&action=project.updated",
    "health",
    "settings",
    "settings/branding",
    "settings/operators",
    "settings/delete",
)
"""What follows the project in a page's address."""
CALLS = (
    "tokens",
    f"token?id={GRANT}",
    f"token/events?id={GRANT}",
    "tokens?status=reauthorization_required",
    "tokens?status=pending",
    "tokens?status=active",
    "tokens?appId=app-3",
    "tokens?appId=app-3&status=reauthorization_required",
    "tokens?userId=user-4095",
    "tokens?tenantId=tenant-7",
    "tokens?order=newest&search=user-77",
    "counts",
    "activity?period=30d",
)

SPREAD = (
    "UPDATE grants SET tenant_id = 'tenant-' || ({n} % 500) WHERE {n} % 3 = 0",
    "UPDATE grants SET status = 'reauthorization_required', last_refresh_error = 'invalid_grant' WHERE {n} % 1000 = 3",
    "UPDATE grants SET status = 'pending' WHERE {n} % 50000 = 7",
    "UPDATE grants SET last_refresh_error = 'HTTP 503' WHERE {n} % 500 = 11 AND status = 'active'",
    "UPDATE grants SET last_refresh_error = 'HTTP 503' WHERE app_id = 'app-9' AND status = 'active'",
    "UPDATE grants SET token_sub = 'subject-' || {n} WHERE {n} % 2 = 1",
    """INSERT INTO grant_directory (project_id, grant_id, app_id, user_id, tenant_id, token_sub, consented_at)
    SELECT project_id, id, app_id, user_id, tenant_id, token_sub, consented_at FROM grants""",
)
"""Among so many healthy ones, some of all that pages look for; and one app whose provider is down."""


async def _spread(settings: Settings) -> None:
    url = own_database_url(settings)
    number = "CAST(substr(user_id, 6) AS integer)"
    moment = (
        "datetime('now', '-' || {n} || ' seconds') || '.000000'"
        if settings.uses_sqlite
        else ("now() - {n} * interval '1 second'")
    )
    statements = [f"UPDATE grants SET consented_at = {moment}", *SPREAD]
    written = [statement.format(n=number) for statement in statements]
    if settings.uses_sqlite:
        database = sqlite3.connect(url.database or "")
        for statement in written:
            database.execute(statement)
        database.commit()
        database.close()
        return
    connection = await connect_postgresql(url)
    try:
        for statement in written:
            await connection.execute(statement, timeout=LONG)
    finally:
        await connection.close()
    await settle(url)


async def fill(settings: Settings, grants: int) -> InitResult:
    """Fill an empty database."""
    await upgrade(settings)
    made = await initialise(settings)
    await Many(settings, made.project_id).grow(grants)
    await add_month(settings, made.project_id, grant_id=GRANT)
    await _spread(settings)
    return made


async def measure(settings: Settings, made: InitResult, times: int) -> list[tuple[str, list[float], int]]:
    """Return, by address, the milliseconds of each answer, and its size."""
    app = create_app(settings)
    async with app.router.lifespan_context(app):
        broker = app.state.broker
        await recount(broker, now=clock.now())
        cookie = await begin_session(
            broker, operator="benchmark", way="link", role=ADMIN, project_id=None, now=clock.now()
        )
        async with httpx2.AsyncClient(
            transport=httpx2.ASGITransport(app=app),
            base_url=settings.public_url,
            cookies={cookie_name(broker): cookie},
            headers={"Authorization": f"Bearer {made.project_id}:{made.management_key}"},
            timeout=120,
        ) as http:
            home = f"/console/{made.project_id}/"
            deep = str(Place(clock.now() - timedelta(days=10), GRANT))
            pages = [f"{home}{path}".replace("/?", "?").replace(DEEP, deep).rstrip("/") for path in PAGES]
            addresses = (*pages, *(f"/v1/mgmt/outbound/{path}" for path in CALLS))
            return [(address, *await _ask(http, address, times)) for address in addresses]


async def _ask(http: httpx2.AsyncClient, address: str, times: int) -> tuple[list[float], int]:
    spent, size = [], 0
    for _ in range(times):
        began = time.perf_counter()
        answer = await http.get(address)
        spent.append((time.perf_counter() - began) * 1000)
        answer.raise_for_status()
        size = len(answer.content)
        if sum(spent) > 1000 * LONG / 60:
            break  # it is slow, and that is known by now
    return spent[1:] or spent, size


def report(database: str, grants: int, found: Sequence[tuple[str, list[float], int]]) -> bool:
    """Print a table and return whether every page is as fast as it must be."""
    print(f"\n{database}, {grants:,} connections\n{'median ms':>10} {'p99 ms':>8} {'KB':>6}  address")
    fine = True
    for address, spent, size in found:
        median = statistics.median(spent)
        p99 = sorted(spent)[max(0, round(len(spent) * 0.99) - 1)]
        good = median < MEDIAN_MS and p99 < P99_MS
        fine = fine and good
        said = "PASS" if good else f"{median - MEDIAN_MS:+.0f} ms from the median, {p99 - P99_MS:+.0f} ms from the p99"
        path = address.split("/", 3)[-1]
        print(f"{median:10.1f} {p99:8.1f} {size / 1000:6.0f}  {path}  {said}")
    return fine


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--grants", type=int, default=1_000_000)
    parser.add_argument("--database", action="append", choices=DATABASES)
    parser.add_argument("--times", type=int, default=TIMES)
    arguments = parser.parse_args()
    fine = True
    for database in arguments.database or DATABASES:
        with fresh_settings(database, durable=False) as settings:
            changed = settings.model_copy(update={"refresher": False, "rate_limit_per_key": 0})
            made = asyncio.run(fill(changed, arguments.grants))
            found = asyncio.run(measure(changed, made, arguments.times))
        fine = report(database, arguments.grants, found) and fine
    return 0 if fine else 1


if __name__ == "__main__":
    sys.exit(main())
