"""Sealing the call log: each batch of calls is one record in the audit log's chain, so that the chain covers all calls.

`calls.sealed` carries a digest over all that the batch's rows say. Whoever changes, removes or adds a row has to change
that record, and breaks the chain. `calls.pruned` tells up to which record the calls are gone, and is written with their
deletion; a project that was shredded has no calls any more.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC
from typing import Any

from sqlalchemy import ScalarSelect, func, select
from sqlalchemy.ext.asyncio import AsyncSession

from evergrant.broker.audit.record import OURSELVES, record
from evergrant.broker.runtime.broker import Broker
from evergrant.crypto.opaque import new_id
from evergrant.db import AuditEvent, CallRecord

SEALED = "calls.sealed"
CALLS_PRUNED = "calls.pruned"
SHREDDED = "project.shredded"
_TABLE = CallRecord.__table__
_SAID = (
    "project_id",
    "id",
    "at",
    "kind",
    "app_id",
    "user_id",
    "tenant_id",
    "grant_id",
    "actor",
    "agent",
    "act",
    "session_id",
    "remote_address",
    "method",
    "base",
    "path",
    "status",
    "source",
    "code",
    "bytes_sent",
    "bytes_received",
    "ms",
    "attempts",
    "policy",
    "approval_id",
)
"""The columns that a digest covers, in its order. It stays as it is: what is sealed was sealed like this."""
AT_ONCE = 2_000
"""How many calls are read at once to be compared."""
CallRow = Mapping[str, Any]


def new_batch() -> str:
    """Return the id of a new batch."""
    return new_id()


async def seal_calls(session: AsyncSession, project_id: str, batch: str, rows: Sequence[CallRow], **more: int) -> None:
    """Seal the rows of a batch, as the last statement of the transaction that writes them. There is at least one."""
    data = {"batch": batch, **summary_of(rows), **{name: n for name, n in more.items() if n}}
    await record(session, project_id, SEALED, data=data, who=OURSELVES)


def summary_of(rows: Iterable[CallRow]) -> dict[str, Any]:
    """Return what a record says of a batch: how many rows, the first and the last by their ids, and the digest."""
    ordered = sorted(rows, key=lambda row: row["id"])
    lines = hashlib.sha256()
    for row in ordered:
        said = [
            row[name].astimezone(UTC).isoformat(timespec="microseconds") if name == "at" else row[name]
            for name in _SAID
        ]
        lines.update(json.dumps(said, separators=(",", ":")).encode() + b"\n")
    first, last = (ordered[0]["id"], ordered[-1]["id"]) if ordered else ("", "")
    return {"count": len(ordered), "first": first, "last": last, "sha256": lines.hexdigest()}


@dataclass(frozen=True, slots=True)
class SealedLog:
    """The call log at one moment, and what the audit log says of it."""

    rows: int
    """Calls in batches."""
    head: int
    """The last record of the audit log at that moment."""
    pruned: int
    """Calls that were sealed up to this record are gone."""
    is_shredded: bool


async def sealed_log(session: AsyncSession, project_id: str) -> SealedLog:
    """Read it, all in one statement, so that it is one moment."""
    of_project = AuditEvent.project_id == project_id
    query = select(
        select(func.count()).where(CallRecord.project_id == project_id, CallRecord.batch != "").scalar_subquery(),
        select(func.max(AuditEvent.sequence)).where(of_project).scalar_subquery(),
        *_what_is_gone(project_id),
    )
    rows, head, pruned, shredded = (await session.execute(query)).one()
    return SealedLog(rows, head or 0, pruned or 0, bool(shredded))


async def calls_pruned(session: AsyncSession, project_id: str) -> tuple[int, bool]:
    """Return up to which record a project's calls are gone, and whether all are, because it was shredded."""
    pruned, shredded = (await session.execute(select(*_what_is_gone(project_id)))).one()
    return pruned or 0, bool(shredded)


def _what_is_gone(project_id: str) -> tuple[ScalarSelect[Any], ScalarSelect[Any]]:
    of_project = AuditEvent.project_id == project_id
    pruned = (
        select(AuditEvent.data["sequence"].as_integer())
        .where(of_project, AuditEvent.action == CALLS_PRUNED)
        .order_by(AuditEvent.sequence.desc())
        .limit(1)
    )
    shredded = select(func.count()).where(of_project, AuditEvent.action == SHREDDED)
    return pruned.scalar_subquery(), shredded.scalar_subquery()


@dataclass(slots=True)
class CallsCheck:
    """A walk along the chain, as far as calls are concerned: it is shown each record, in their order."""

    broker: Broker
    project_id: str
    log: SealedLog
    verified: int = 0
    """Calls that are as they were sealed."""
    problem: str = ""
    broken: AuditEvent | None = None
    """The record whose calls do not fit."""
    _expected: int = 0
    _waiting: list[AuditEvent] = field(default_factory=list)

    async def show(self, event: AuditEvent) -> None:
        """Take a record note of: its calls are compared once there are enough to be read at once."""
        if event.action != SEALED or self.log.is_shredded or event.sequence <= self.log.pruned:
            return
        if event.sequence <= self.log.head:
            self._expected += int(event.data["count"])
        self._waiting.append(event)
        if sum(int(one.data["count"]) for one in self._waiting) >= AT_ONCE or len(self._waiting) >= AT_ONCE // 10:
            await self._compare()

    async def end(self) -> None:
        """Compare what is left, and whether there are calls that no record has sealed."""
        await self._compare()
        if not self.problem and not self.log.is_shredded and self._expected != self.log.rows:
            more = self.log.rows - self._expected
            self.problem = f"the call log has {abs(more):,} {'more' if more > 0 else 'fewer'} calls than were sealed"
            if more > 0 and (stranger := await self._unsealed()):
                self.problem += f"; one of them is {stranger}"

    async def _compare(self) -> None:
        waiting, self._waiting = self._waiting, []
        if self.problem or not waiting:
            return
        async with self.broker.database.read() as session:
            self.broken, self.problem = await first_difference(session, self.project_id, waiting)
        if self.broken is None:
            self.verified += sum(int(event.data["count"]) for event in waiting)

    async def _unsealed(self) -> str:
        """Find a call whose batch no record has sealed. It takes its time: something is wrong, and this says what."""
        last = ""
        async with self.broker.database.read() as session:
            while True:
                batches = (
                    select(CallRecord.batch, func.min(CallRecord.id).label("call_id"))
                    .where(CallRecord.project_id == self.project_id, CallRecord.batch > last)
                    .group_by(CallRecord.batch)
                    .order_by(CallRecord.batch)
                    .limit(AT_ONCE)
                )
                found = {row.batch: row.call_id for row in await session.execute(batches)}
                if not found:
                    return ""
                named = AuditEvent.data["batch"].as_string()
                known = await session.scalars(
                    select(named).where(
                        AuditEvent.project_id == self.project_id,
                        AuditEvent.action == SEALED,
                        AuditEvent.sequence > self.log.pruned,
                        named.in_(found),
                    )
                )
                if strangers := found.keys() - set(known):
                    return str(found[min(strangers)])
                last = max(found)


async def first_difference(
    session: AsyncSession, project_id: str, seals: Sequence[AuditEvent]
) -> tuple[AuditEvent | None, str]:
    """Compare the calls of some batches with what their records say.

    Returns the first record that does not fit and what is wrong with its calls; None and nothing where all fit.
    """
    batches = [event.data["batch"] for event in seals]
    query = select(_TABLE).where(_TABLE.c.project_id == project_id, _TABLE.c.batch.in_(batches))
    rows: dict[str, list[CallRow]] = {batch: [] for batch in batches}
    for row in (await session.execute(query)).mappings():
        rows[row["batch"]].append(dict(row))
    for event in seals:
        said, found = event.data, summary_of(rows[event.data["batch"]])
        if all(said[name] == found[name] for name in found):
            continue
        where = f"of the calls {said['first']} to {said['last']}, sealed by record {event.sequence},"
        less = said["count"] - found["count"]
        if less == 0:
            return event, f"{where} one or more are not what was written"
        return event, f"{where} {abs(less):,} {'are missing' if less > 0 else 'were added'}"
    return None, ""
