"""Writing down what processes have counted, and forgetting it after three months."""

import logging
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import cast

from sqlalchemy import Table, bindparam, case, delete, or_, select, tuple_, update
from sqlalchemy.dialects import postgresql, sqlite

from evergrant import clock
from evergrant.broker.projects.projects import closed_projects
from evergrant.broker.runtime.broker import Broker
from evergrant.broker.runtime.unwritten_activity import HOUR, CountKey, Tally
from evergrant.db import Activity, Project, TrustedIssuer
from evergrant.errors import Unavailable

log = logging.getLogger(__name__)

KEPT = timedelta(days=90)
AT_ONCE = 500
"""How many rows one statement writes or forgets."""
REFRESHER = "refresher"


async def write_activity(broker: Broker) -> None:
    """Add what this process has counted to what is written. Called about once a minute; a crash loses no more.

    Raises:
        Unavailable: the database is away; what is left is written the next time.
    """
    taken = broker.activity.take()
    # In the order of their keys: replicas add to the same rows at the same time.
    keys = sorted(taken)
    for part in (keys[start : start + AT_ONCE] for start in range(0, len(keys), AT_ONCE)):
        try:
            await _add(broker, {key: taken[key] for key in part})
        except Unavailable:
            broker.activity.give_back(taken)
            raise
        except Exception:
            log.exception("counts cannot be written down and are dropped", extra={"of": part[0][0]})
        for key in part:
            del taken[key]
    await _write_issuers(broker)


async def _add(broker: Broker, counts: Mapping[CountKey, Tally]) -> None:
    names = [one.key for one in _NOTED]
    rows = [
        (project_id, datetime.fromtimestamp(hour * HOUR, UTC), app_id, counter, t.n, round(t.ms_sum), round(t.ms_max))
        for (project_id, hour, app_id, counter), t in counts.items()
    ]
    async with broker.database.write() as session:
        add = _ADD[broker.database.engine.dialect.name]
        await session.execute(add, [dict(zip(names, row, strict=True)) for row in rows])


def adding_up(add: sqlite.Insert | postgresql.Insert) -> sqlite.Insert | postgresql.Insert:
    """Let an insert into `Activity` add to the rows that are there already."""
    new = add.excluded
    sums = {
        "n": Activity.n + new.n,
        "ms_sum": Activity.ms_sum + new.ms_sum,
        "ms_max": case((Activity.ms_max > new.ms_max, Activity.ms_max), else_=new.ms_max),
    }
    return add.on_conflict_do_update(index_elements=list(Activity.__table__.primary_key), set_=sums)


_TABLE = cast(Table, Activity.__table__)
_NOTED = [bindparam(f"noted_{one.name}", type_=one.type) for one in _TABLE.columns]
# Of projects that are there: one that is deleted meanwhile must not take the others' counts with it.
_KNOWN = select(*_NOTED).where(Project.id == bindparam("noted_project_id"), Project.closed_at.is_(None))
_ADD = {
    "sqlite": adding_up(sqlite.insert(_TABLE).from_select(list(_TABLE.columns), _KNOWN)),
    "postgresql": adding_up(postgresql.insert(_TABLE).from_select(list(_TABLE.columns), _KNOWN)),
}
"""For one count. It is executed for many: a statement that has many has to be made anew each time, which takes long."""


async def _write_issuers(broker: Broker) -> None:
    """Store which key signed the last token of each issuer, unless another process has seen a later one."""
    seen = sorted(broker.activity.issuers.items())
    if not seen:
        return
    async with broker.database.write() as session:
        for (project_id, issuer_id), last in seen:
            earlier = or_(TrustedIssuer.last_seen_at.is_(None), TrustedIssuer.last_seen_at < last.at)
            await session.execute(
                update(TrustedIssuer)
                .where(TrustedIssuer.project_id == project_id, TrustedIssuer.id == issuer_id, earlier)
                .values(last_kid=last.kid, last_seen_at=last.at)
                .execution_options(synchronize_session=False)
            )
    for key, last in seen:
        if broker.activity.issuers.get(key) is last:
            del broker.activity.issuers[key]


async def note_refresher(broker: Broker) -> None:
    """Count for each project that a refresher is here, so that a chart can tell an idle hour from one without any."""
    is_open = Project.id.not_in(closed_projects())
    async with broker.database.read() as session:
        projects = list(await session.scalars(select(Project.id).where(is_open).order_by(Project.id)))
    into_the_hour = clock.now().timestamp() % HOUR
    for project_id in projects:
        broker.activity.note(project_id, "", REFRESHER, into_the_hour * 1000)


async def prune_activity(broker: Broker, *, now: datetime) -> int:
    """Forget counts that are older than three months, and those of projects that were deleted. Returns how many."""
    key = tuple_(*Activity.__table__.primary_key)
    of_nobody = Activity.project_id.in_(select(Project.id).where(Project.shredded_at.is_not(None)))
    old = select(*Activity.__table__.primary_key).where(or_(Activity.hour < now - KEPT, of_nobody)).limit(AT_ONCE)
    forgotten, gone = 0, AT_ONCE
    while gone == AT_ONCE:
        async with broker.database.write() as session:
            statement = delete(Activity).where(key.in_(old)).returning(Activity.counter)
            gone = len((await session.execute(statement.execution_options(synchronize_session=False))).all())
        forgotten += gone
    return forgotten
