"""What does it cost to find due grants among very many that are not due? It must not grow with their number."""

import asyncio
import math
import os
import statistics
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass

from sqlalchemy import text

from benchmarks.databases import fresh_settings, make_durable
from benchmarks.fetch import progress
from benchmarks.many import APPS, Many
from benchmarks.plans import PlanReader
from evergrant import clock
from evergrant.broker.operations.setup import initialise, upgrade
from evergrant.broker.refresh.claims import ClaimQuota, claim_due_grants
from evergrant.broker.refresh.due_apps import OVERDUE, due_apps
from evergrant.broker.runtime.broker import Broker, open_broker
from evergrant.settings import Settings

BATCH = 16
BATCHES = 100
DUE = 1_920  # of each app a whole number of batches
LOOKS = 100
"""How often it is looked when nothing is due."""


@dataclass(frozen=True)
class Times:
    """Milliseconds."""

    median: float
    p95: float

    @classmethod
    def of(cls, seconds: Sequence[float]) -> "Times":
        ordered = sorted(seconds)
        return cls(statistics.median(ordered) * 1000, ordered[math.ceil(len(ordered) * 0.95) - 1] * 1000)


@dataclass(frozen=True)
class Found:
    """What finding costs in one database."""

    database: str
    grants: int
    look_ms: Times
    """Finding out that nothing is due."""
    claim_ms: Times
    """Finding an app with due grants and `BATCH` of them, and taking their leases, with the commit."""
    megabytes: float
    problem: str
    """How else than through its index the database finds them; empty when all is well."""


# The two functions of the product that find due grants are called here and nowhere else.
async def look(broker: Broker) -> None:
    await due_apps(broker, now=clock.now())


async def claim(broker: Broker) -> list[str]:
    now = clock.now()
    first, *_ = await due_apps(broker, now=now)
    is_overdue = first.since <= now - OVERDUE
    wanted = ClaimQuota(
        (first.project_id, first.app_id), due=0 if is_overdue else BATCH, overdue=BATCH if is_overdue else 0
    )
    return [claim.leased.grant.id for claim in await claim_due_grants(broker, [wanted], now=now)]


def measure_finding(database: str, sizes: Sequence[int]) -> Iterator[Found]:
    """Measure at every size in turn; the table grows in between."""
    if not sizes:
        return
    with fresh_settings(database, durable=False) as settings, asyncio.Runner() as runner:
        runner.run(upgrade(settings))
        project_id = runner.run(initialise(settings)).project_id
        many = Many(settings, project_id)
        for size in sizes:
            began = time.perf_counter()
            runner.run(many.grow(size))
            os.sync()  # or the measurement waits for what the filling has left to the system
            progress(f"{database}: {size:,} grants stored after {time.perf_counter() - began:.0f} s")
            yield runner.run(_measure(database, settings, many, size))


async def _measure(database: str, settings: Settings, many: Many, size: int) -> Found:
    async with open_broker(settings) as broker, make_durable(broker):
        looks = [await _timed(look, broker) for _ in range(LOOKS)]
        await many.make_due(DUE)
        plans = PlanReader(broker)
        with plans.recording():
            await look(broker)
            first = await claim(broker)
        await many.put_off(first)
        problem = await plans.problem()
        claims = []
        for _ in range(3 if problem else BATCHES):
            began = time.perf_counter()
            ids = await claim(broker)
            claims.append(time.perf_counter() - began)
            if len(ids) != BATCH:
                raise RuntimeError(f"{database}: {len(ids)} grants were claimed, not {BATCH}")
            await many.put_off(ids)
        await many.put_off()
        where = f"{database}, {size:,} grants: {problem}" if problem else ""
        return Found(database, size, Times.of(looks), Times.of(claims), await _megabytes(broker), where)


async def _timed(work: Callable[[Broker], Awaitable[object]], broker: Broker) -> float:
    began = time.perf_counter()
    await work(broker)
    return time.perf_counter() - began


async def _megabytes(broker: Broker) -> float:
    sqlite = "SELECT page_count * page_size FROM pragma_page_count, pragma_page_size"
    postgresql = "SELECT pg_total_relation_size('grants')"
    async with broker.database.read() as session:
        size = (await session.execute(text(sqlite if broker.database.is_sqlite else postgresql))).scalar_one()
    return float(size) / 1024**2


def table(found: Sequence[Found]) -> str:
    if not found:
        return ""
    lines = [
        f"| database | grants | look, median ms | p95 | claim {BATCH}, median ms | p95 | MB | plan |",
        "|---|---:|---:|---:|---:|---:|---:|---|",
    ]
    lines += [
        f"| {one.database} | {one.grants:,} | {one.look_ms.median:.2f} | {one.look_ms.p95:.2f} "
        f"| {one.claim_ms.median:.2f} | {one.claim_ms.p95:.2f} | {one.megabytes:,.0f} "
        f"| {'NOT BY THE INDEX' if one.problem else 'by the index'} |"
        for one in found
    ]
    lines += [
        "",
        f"{APPS} apps; {DUE:,} grants due, the others later. A look finds nothing; a claim looks first, and commits.",
    ]
    return "\n".join(lines)
