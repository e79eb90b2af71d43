"""Leafing through the audit log: a page at a time, newest first, and never longer than an index is quick.

One filter is answered by its own index. Several together walk along one of them: so far, and no further at once.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import ColumnElement, literal_column, select
from sqlalchemy.ext.asyncio import AsyncSession

from evergrant.broker.audit.record import OURSELVES
from evergrant.broker.audit.sealed_calls import SEALED
from evergrant.broker.runtime.broker import Broker
from evergrant.db import AuditEvent

PAGE = 30
STRETCH = 50_000
"""How many records one page of several filters looks at."""
NO_RECORD = 2**62


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
        seals_between = self.actor == OURSELVES.name and not self.action
        return seals_between or sum(map(bool, (self.action, self.actor, self.user_id, self.app_id))) > 1


@dataclass(frozen=True, slots=True)
class AuditPage:
    """Some records, newest first."""

    events: Sequence[AuditEvent]
    older: int
    """Where the next page begins; 0 where there is none."""
    looked_back_to: AuditEvent | None = None
    """Where the search has stopped although there are older records, because it had looked at enough."""


async def browse_records(broker: Broker, project_id: str, wanted: AuditFilter, *, before: int = 0) -> AuditPage:
    """Return the records that fit and are older than number `before`; 0 for the newest. Costs three statements at most.

    Seals of the call log are among them only where they are asked for by their action.
    With several filters a page may have few records, or none, and yet an `older`: then it has looked at 50,000.
    """
    conditions = _equalities(wanted)
    async with broker.database.browse() as session:
        first, last = await _bounds(session, project_id, wanted)
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


def is_told() -> ColumnElement[bool]:
    """Leave out the seals of the call log, of which there may be one a second: in the words of their index."""
    return AuditEvent.action != literal_column(f"'{SEALED}'")


def _equalities(wanted: AuditFilter) -> list[ColumnElement[bool]]:
    pairs = ((AuditEvent.action, wanted.action), (AuditEvent.actor, wanted.actor))
    found: list[ColumnElement[bool]] = [column == value for column, value in pairs if value]
    if not wanted.action:
        found.append(is_told())
    for column, value in ((AuditEvent.user_id, wanted.user_id), (AuditEvent.app_id, wanted.app_id)):
        if value:  # said in so many words, because the indexes leave out what is empty
            found += [column == value, column != literal_column("''")]
    return found


async def _bounds(session: AsyncSession, project_id: str, wanted: AuditFilter) -> tuple[int, int]:
    """Return the numbers of the first and the last record of the period; the first is the greater where it has none."""
    query = select(AuditEvent.sequence).where(AuditEvent.project_id == project_id).limit(1)
    last, first = query.order_by(AuditEvent.sequence.desc()), query.order_by(AuditEvent.sequence)
    if wanted.until is not None:
        last = query.where(AuditEvent.occurred_at <= wanted.until).order_by(AuditEvent.occurred_at.desc())
    if wanted.since is not None:
        first = query.where(AuditEvent.occurred_at >= wanted.since).order_by(AuditEvent.occurred_at)
    found = (await session.execute(select(first.scalar_subquery(), last.scalar_subquery()))).one()
    return found[0] or NO_RECORD, found[1] or 0
