"""Reading what was done: a period as hours or days, as a whole, and by app. Charts read this and count nothing."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Select, cast, func, literal, null, or_, select

from evergrant.broker.activity.writing import REFRESHER
from evergrant.broker.runtime.broker import Broker
from evergrant.broker.runtime.principal import Principal
from evergrant.broker.runtime.unwritten_activity import CALL_STEPS
from evergrant.db import Activity
from evergrant.db.types import UtcDateTime

HOUR, DAY = timedelta(hours=1), timedelta(days=1)
PERIODS: Mapping[str, tuple[timedelta, int]] = {"24h": (HOUR, 24), "7d": (DAY, 7), "30d": (DAY, 30)}
"""Each period's step, and how many there are."""
MOST_ROWS = 100_000
MOST = 0.95
"""The share of calls that "most" means."""


@dataclass(frozen=True, slots=True)
class Sum:
    """How often something happened, and how long it took in milliseconds: all together, and the longest."""

    n: int = 0
    ms_sum: int = 0
    ms_max: int = 0

    def __add__(self, other: "Sum") -> "Sum":
        """Put two together."""
        return Sum(self.n + other.n, self.ms_sum + other.ms_sum, max(self.ms_max, other.ms_max))

    @property
    def average(self) -> int | None:
        """The milliseconds that one took on average; None where there was none."""
        return round(self.ms_sum / self.n) if self.n else None


class Sums(defaultdict[str, Sum]):
    """Sums by counter; what was not counted is 0."""

    def __init__(self) -> None:
        super().__init__(Sum)

    def of(self, beginning: str) -> Sum:
        """Return the sum of all counters that begin so."""
        return sum((one for counter, one in self.items() if counter.startswith(beginning)), Sum())

    def parts(self, beginning: str) -> dict[str, int]:
        """Return how often, by what follows this beginning."""
        return {name.removeprefix(beginning): one.n for name, one in self.items() if name.startswith(beginning)}

    @property
    def within(self) -> int | None:
        """The milliseconds within which at least 95% of calls to token endpoints ended, rounded up to a step.

        None where there were none, or where more than 5% took longer than the longest step.
        """
        parts = self.parts("call:")
        wanted, seen = sum(parts.values()) * MOST, 0
        for step in CALL_STEPS:
            seen += parts.get(str(step), 0)
            if seen and seen >= wanted:
                return step
        return None


@dataclass(slots=True)
class Interval:
    """One hour or day."""

    start: datetime
    sums: Sums = field(default_factory=Sums)
    without_refresher: bool = False
    """Whether there is reason to believe that no refresher ran: then an empty bar means something else."""


@dataclass(frozen=True, slots=True)
class ActivityOf:
    """What was done within a period."""

    period: str
    steps: Sequence[Interval]
    by_app: Mapping[str, Sums]
    """Over the whole period. What belongs to no app is under the empty id."""
    total: Sums
    refresher_seen_at: datetime | None
    """When a refresher last showed itself within the period."""

    @property
    def is_empty(self) -> bool:
        """Whether nothing has happened; that a refresher is there is nothing."""
        return not any(one.n for counter, one in self.total.items() if counter != REFRESHER)


async def read_activity(
    broker: Broker, principal: Principal, period: str, *, app_id: str = "", now: datetime
) -> ActivityOf:
    """Return what was done within one of `PERIODS`, of a project or of one app; a minute may not be written yet.

    Who may see some apps only gets theirs.

    Raises:
        PermissionDenied: the app is not among them.
    """
    if app_id:
        principal.require_app(app_id)
    step, count = PERIODS[period]
    last = _floor(now, step)
    since = last - step * (count - 1)
    async with broker.database.browse() as session:
        rows = (await session.execute(_query(principal, app_id, since))).all()
    steps = {since + step * number: Interval(since + step * number) for number in range(count)}
    by_app: dict[str, Sums] = defaultdict(Sums)
    total, first, seen_at = Sums(), now, None
    for hour, app, counter, n, ms_sum, ms_max in rows:
        one = Sum(int(n), int(ms_sum), int(ms_max))  # PostgreSQL sums to numeric
        if counter is None:
            first = hour or now
        elif app is not None:
            by_app[app][counter] += one
            total[counter] += one
        elif (at := steps.get(_floor(hour, step))) is not None:
            at.sums[counter] += one
            if counter == REFRESHER:
                seen_at = max(seen_at or hour, hour + timedelta(milliseconds=ms_max))
    for at in steps.values():
        # Before the first count there is nothing to know, and of the present step too little.
        at.without_refresher = _floor(first, step) < at.start < last and not at.sums[REFRESHER].n
    return ActivityOf(period, list(steps.values()), by_app, total, seen_at)


def _query(principal: Principal, app_id: str, since: datetime) -> Select[Any]:
    """Return the statement for all that a period needs: by hour, by app, and since when there are counts at all."""
    of_project = Activity.project_id == principal.project_id
    which: list[ColumnElement[bool]] = [of_project, Activity.hour >= since]
    if app_id or principal.app_ids:
        apps = [app_id] if app_id else sorted(principal.app_ids)
        which.append(or_(Activity.app_id.in_(apps), Activity.counter == REFRESHER))
    sums = (func.sum(Activity.n), func.sum(Activity.ms_sum), func.max(Activity.ms_max))
    no_text, no_hour = cast(null(), Activity.app_id.type), cast(null(), UtcDateTime)
    by_hour = select(Activity.hour, no_text, Activity.counter, *sums).where(*which)
    by_app = select(no_hour, Activity.app_id, Activity.counter, *sums).where(*which)
    nothing = (literal(0), literal(0), literal(0))
    first = select(Activity.hour).where(of_project).order_by(Activity.hour).limit(1).subquery()
    both = by_hour.group_by(Activity.hour, Activity.counter).union_all(
        by_app.group_by(Activity.app_id, Activity.counter), select(first.c.hour, no_text, no_text, *nothing)
    )
    columns = both.subquery().c
    return select(*columns).limit(MOST_ROWS)


def _floor(at: datetime, step: timedelta) -> datetime:
    """Return the beginning of the hour or day, in UTC, in which a moment is."""
    at = at.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
    return at.replace(hour=0) if step == DAY else at
