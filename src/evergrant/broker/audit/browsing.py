"""Leafing through the audit log: a page at a time, newest first, and never longer than an index is quick.

One filter is answered by its own index. Several together walk along one of them: so far, and no further at once.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import ColumnElement, literal_column, select
from sqlalchemy.ext.asyncio import AsyncSession

from evergrant.broker.runtime.broker import Broker
from evergrant.db import AuditEvent

PAGE = 30
STRETCH = 50_000
"""How many records one page of several filters looks at."""


@dataclass(frozen=True, kw_only=True)
class AuditFilter:
    """Which records; an empty field does not limit."""

    action: str = ""
    actor: str = ""
    user_id: str = ""
    app_id: str = ""
    since: datetime | None = None
    until: datetime | None = None

    @property
    def is_empty(self) -> bool:
        """Whether every record fits."""
        return self == AuditFilter()

    @property
    def is_several(self) -> bool:
        """Whether no index alone answers it."""
        return sum(map(bool, (self.action, self.actor, self.user_id, self.app_id))) > 1


@dataclass(frozen=True, slots=True)
class AuditPage:
    """Some records, newest first."""

    events: Sequence[AuditEvent]
    older: int
    """Where the next page begins; 0 where there is none."""
    looked_back_to: AuditEvent | None = None
    """Where the search has stopped although there are older records, because it had looked at enough."""


async def browse_records(broker: Broker, project_id: str, wanted: AuditFilter, *, before: int = 0) -> AuditPage:
    """Return the records that fit and are older than number `before`; 0 for the newest. Costs four statements at most.

    With several filters a page may have few records, or none, and yet an `older`: then it has looked at 50,000.
    """
    conditions = _equalities(wanted)
    async with broker.database.read() as session:
        last = await _last_sequence(session, project_id, until=wanted.until)
        first = await _first_sequence(session, project_id, since=wanted.since) if wanted.since else 1
        top = min(before - 1, last) if before else last
        bottom = max(first, top - STRETCH + 1) if wanted.is_several else first
        query = (
            select(AuditEvent)
            .where(AuditEvent.project_id == project_id, AuditEvent.sequence.between(bottom, top), *conditions)
            .order_by(AuditEvent.sequence.desc())
            .limit(PAGE + 1)
        )
        events = list(await session.scalars(query))
        if len(events) > PAGE:
            return AuditPage(events[:PAGE], events[PAGE - 1].sequence)
        stopped = await session.get(AuditEvent, (project_id, bottom)) if bottom > first else None
    return AuditPage(events, bottom if stopped is not None else 0, stopped)


def _equalities(wanted: AuditFilter) -> list[ColumnElement[bool]]:
    pairs = ((AuditEvent.action, wanted.action), (AuditEvent.actor, wanted.actor))
    found: list[ColumnElement[bool]] = [column == value for column, value in pairs if value]
    for column, value in ((AuditEvent.user_id, wanted.user_id), (AuditEvent.app_id, wanted.app_id)):
        if value:  # said in so many words, because the indexes leave out what is empty
            found += [column == value, column != literal_column("''")]
    return found


async def _last_sequence(session: AsyncSession, project_id: str, *, until: datetime | None) -> int:
    """Return the number of the last record, or of the last at `until` or before; 0 where there is none."""
    query = select(AuditEvent.sequence).where(AuditEvent.project_id == project_id).limit(1)
    if until is None:
        query = query.order_by(AuditEvent.sequence.desc())
    else:
        query = query.where(AuditEvent.occurred_at <= until).order_by(AuditEvent.occurred_at.desc())
    return (await session.execute(query)).scalar_one_or_none() or 0


async def _first_sequence(session: AsyncSession, project_id: str, *, since: datetime) -> int:
    """Return the number of the first record at `since` or after; one that no record has where there is none."""
    query = (
        select(AuditEvent.sequence)
        .where(AuditEvent.project_id == project_id, AuditEvent.occurred_at >= since)
        .order_by(AuditEvent.occurred_at)
        .limit(1)
    )
    found = (await session.execute(query)).scalar_one_or_none()
    return found if found is not None else await _last_sequence(session, project_id, until=None) + 1
