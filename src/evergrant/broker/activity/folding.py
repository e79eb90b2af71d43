"""Folding days that are over: the counts of a day's hours become one row each, so that a month is quick to read.

Charts ask for hours of the last day only. A month by the hour would be 24 times as many rows to add up for a page.
"""

from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import delete, select
from sqlalchemy.dialects import postgresql, sqlite

from evergrant.broker.activity.writing import AT_ONCE, REFRESHER, adding_up
from evergrant.broker.runtime.broker import Broker
from evergrant.db import Activity

HOURS_KEPT = 2
"""Today and the day before are kept by the hour."""
DAYS_LOOKED_AT = 7
"""So many days before these are folded. What is written later still stays as it is, and counts all the same."""


async def fold_days(broker: Broker, *, now: datetime) -> int:
    """Fold what is older than yesterday into the first hour of its day, and return how many rows have gone.

    Raises:
        Unavailable: the database is away; the rest is folded the next time.
    """
    today = now.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    folded = 0
    for ago in range(HOURS_KEPT, HOURS_KEPT + DAYS_LOOKED_AT):
        day = today - timedelta(days=ago)
        there = select(Activity.project_id).distinct().where(Activity.hour.in_(_later_hours(day)))
        async with broker.database.read() as session:
            projects = sorted(await session.scalars(there))
        for project_id in projects:
            folded += await _fold(broker, project_id, day)
    return folded


def _later_hours(day: datetime) -> list[datetime]:
    return [day + timedelta(hours=n) for n in range(1, 24)]


async def _fold(broker: Broker, project_id: str, day: datetime) -> int:
    taken = (
        delete(Activity)
        .where(Activity.project_id == project_id, Activity.hour.in_(_later_hours(day)))
        .returning(Activity.hour, Activity.app_id, Activity.counter, Activity.n, Activity.ms_sum, Activity.ms_max)
    )
    sums: dict[tuple[str, str], dict[str, Any]] = {}
    async with broker.database.write() as session:
        rows = (await session.execute(taken.execution_options(synchronize_session=False))).all()
        for hour, app_id, counter, n, ms_sum, ms_max in rows:
            of = {"project_id": project_id, "hour": day, "app_id": app_id, "counter": counter}
            one = sums.setdefault((app_id, counter), {**of, "n": 0, "ms_sum": 0, "ms_max": 0})
            one["n"] += n
            one["ms_sum"] += ms_sum
            # A refresher's is when it was last seen, from the beginning of the row's hour.
            since = (hour - day) // timedelta(milliseconds=1) if counter == REFRESHER else 0
            one["ms_max"] = max(one["ms_max"], since + ms_max)
        insert_into = sqlite.insert if broker.database.is_sqlite else postgresql.insert
        # In the order of their keys, as replicas write.
        found = [sums[key] for key in sorted(sums)]
        for start in range(0, len(found), AT_ONCE):
            insert = insert_into(Activity).values(found[start : start + AT_ONCE])
            await session.execute(adding_up(insert))
    return len(rows)
