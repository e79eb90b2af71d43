"""The audit log: who did what. Append-only, and each record carries the hash of the one before it.

A record is written in the transaction of what it tells about, as its last statement: both happen or neither does, and
on PostgreSQL, where records of a project wait for each other, nobody waits for anything else while holding that place.
"""

import hashlib
import json
from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from evergrant import clock
from evergrant.db import AuditEvent

GENESIS = bytes(32)
"""What stands for "the hash before" in a project's first record."""


@dataclass(frozen=True, slots=True)
class Actor:
    """Who is acting: `key:<id>`, `session:<id>`, `user:<id>`, `tenant:<id>`, `cli` or `evergrant`, and from where."""

    name: str
    remote_address: str = ""
    agent: str = ""
    """The agent that acts for them, where a credential says so; a record has it in its data."""


known_actor = lru_cache(maxsize=1024)(Actor)
"""Makes an actor, or finds it again: the hot path has the same few."""
OURSELVES = Actor("evergrant")
actor: ContextVar[Actor] = ContextVar("actor", default=OURSELVES)
"""Set by the faces when they know who is asking; the background refresher acts as evergrant itself."""


async def record(
    session: AsyncSession,
    project_id: str,
    action: str,
    *,
    app_id: str = "",
    user_id: str = "",
    tenant_id: str = "",
    data: Mapping[str, Any] | None = None,
    who: Actor | None = None,
) -> None:
    """Append a record, as the last statement of the caller's transaction. Nothing secret goes into `data`.

    `who` is for what is written down on somebody's behalf; otherwise it is whoever is acting now.
    """
    if session.get_bind().dialect.name == "postgresql":
        place = func.hashtextextended(f"evergrant audit {project_id}", 0)
        await session.execute(select(func.pg_advisory_xact_lock(place)))
    last = (
        await session.execute(
            select(AuditEvent.sequence, AuditEvent.hash)
            .where(AuditEvent.project_id == project_id)
            .order_by(AuditEvent.sequence.desc())
            .limit(1)
        )
    ).one_or_none()
    who = who or actor.get()
    event = AuditEvent(
        project_id=project_id,
        sequence=last.sequence + 1 if last else 1,
        occurred_at=clock.now(),
        action=action,
        actor=who.name,
        remote_address=who.remote_address,
        app_id=app_id,
        user_id=user_id,
        tenant_id=tenant_id,
        data={**(data or {}), **({"agent": who.agent} if who.agent else {})},
        previous_hash=last.hash if last else GENESIS,
    )
    event.hash = hash_of(event)
    session.add(event)
    await session.flush()


def hash_of(event: AuditEvent) -> bytes:
    """Return the hash that a record must carry: over all it says and the hash of the record before it."""
    said = [
        event.project_id,
        event.sequence,
        _instant(event.occurred_at),
        event.action,
        event.actor,
        event.remote_address,
        event.app_id,
        event.user_id,
        event.tenant_id,
        event.data,
    ]
    text = json.dumps(said, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(event.previous_hash + text.encode()).digest()


def _instant(at: datetime) -> str:
    return at.astimezone(UTC).isoformat(timespec="microseconds")
