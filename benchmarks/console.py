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
from pathlib import Path

import httpx2

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.databases import DATABASES, fresh_settings
from benchmarks.many import Many
from benchmarks.seed import settle
from evergrant import clock
from evergrant.broker.grants.counts import recount
from evergrant.broker.operations.setup import initialise, upgrade
from evergrant.broker.operators.roles import ADMIN
from evergrant.broker.operators.sessions import begin_session
from evergrant.db.engine import connect_postgresql, database_url
from evergrant.settings import Settings
from evergrant.web.app import create_app
from evergrant.web.console.desk import cookie_name

MEDIAN_MS, P99_MS = 50.0, 250.0
"""What a page may take."""
TIMES = 100
GRANT = "00000000000000000000000000000fff"
LONG = 1800
PAGES = (
    "",
    "connections",
    "connections?order=oldest",
    "connections?state=healthy",
    "connections?state=app_refused",
    "connections?state=retrying",
    "connections?state=reconnect",
    "connections?app=app-3",
    "connections?app=app-3&state=reconnect",
    "connections?tenant=tenant-7",
    "connections?q=user-77",
    "connections?q=user-",
    "connections?q=nobody",
    f"connections?q={GRANT}",
    f"connections/{GRANT}",
    "apps/app-3/connections",
    "people/user-4095",
)
"""What follows the project in a page's address."""
CALLS = (
    "tokens",
    "tokens?status=reauthorization_required",
    "tokens?status=pending",
    "tokens?appId=app-3",
    "tokens?userId=user-4095",
    "tokens?tenantId=tenant-7",
    "tokens?order=newest&search=user-77",
    "counts",
)

SPREAD = (
    "UPDATE grants SET tenant_id = 'tenant-' || ({n} % 500) WHERE {n} % 3 = 0",
    "UPDATE grants SET status = 'reauthorization_required', last_refresh_error = 'invalid_grant' WHERE {n} % 1000 = 3",
    "UPDATE grants SET status = 'pending' WHERE {n} % 50000 = 7",
    "UPDATE grants SET last_refresh_error = 'HTTP 503' WHERE {n} % 500 = 11 AND status = 'active'",
    "UPDATE outbound_apps SET unhealthy_since = created_at, unhealthy_reason = 'invalid_client' WHERE id = 'app-5'",
    """INSERT INTO grant_directory (project_id, grant_id, app_id, user_id, tenant_id, token_sub, consented_at)
    SELECT project_id, id, app_id, user_id, tenant_id, token_sub, consented_at FROM grants""",
)
"""Among so many healthy ones, some of all that pages look for."""


async def _spread(settings: Settings) -> None:
    configured = settings.database_url.get_secret_value() if settings.database_url else None
    url = database_url(configured, Path(settings.data_dir))
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


async def measure(settings: Settings, grants: int, times: int) -> list[tuple[str, list[float], int]]:
    """Fill a database and return, by address, the milliseconds of each answer, and its size."""
    await upgrade(settings)
    made = await initialise(settings)
    await Many(settings, made.project_id).grow(grants)
    await _spread(settings)
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
            pages = [f"/console/{made.project_id}/{path}".rstrip("/") for path in PAGES]
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
            found = asyncio.run(measure(changed, arguments.grants, arguments.times))
        fine = report(database, arguments.grants, found) and fine
    return 0 if fine else 1


if __name__ == "__main__":
    sys.exit(main())
