"""An operator with the database rewrites what the audit log says of them: it is found out."""

import asyncio
from typing import Any

import pytest
from sqlalchemy import delete, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from evergrant.broker.audit.record import hash_of
from evergrant.broker.runtime.broker import open_broker
from evergrant.db import AuditEvent
from evergrant.settings import Settings
from tests.cli.conftest import Evergrant
from tests.infra.installation import Backend, installation

TAMPERED = 5
"""The record that the operator would rather not have."""


async def change(session: AsyncSession) -> None:
    """Let somebody else have done it, and work its own hash out anew."""
    record = (await session.scalars(select(AuditEvent).where(AuditEvent.sequence == TAMPERED))).one()
    record.actor = "key:innocent"
    record.hash = hash_of(record)


async def remove(session: AsyncSession) -> None:
    """Let it never have been, and close the gap in the numbers."""
    await session.execute(delete(AuditEvent).where(AuditEvent.sequence == TAMPERED))
    await session.execute(
        update(AuditEvent).where(AuditEvent.sequence > TAMPERED).values(sequence=AuditEvent.sequence - 1)
    )


async def insert(session: AsyncSession) -> None:
    """Let something have been that was not, with a hash that continues the one before it."""
    records = list(await session.scalars(select(AuditEvent).order_by(AuditEvent.sequence.desc())))
    for record in records:
        if record.sequence >= TAMPERED:
            record.sequence += 1
            await session.flush()
    after, before = (next(r for r in records if r.sequence == n) for n in (TAMPERED + 1, TAMPERED - 1))
    columns = {column.name: getattr(after, column.name) for column in AuditEvent.__table__.columns}
    made_up = AuditEvent(**{**columns, "sequence": TAMPERED, "actor": "key:innocent", "previous_hash": before.hash})
    made_up.hash = hash_of(made_up)
    session.add(made_up)


async def swap(session: AsyncSession) -> None:
    """Let two things have happened in the other order."""
    first, second = await session.scalars(
        select(AuditEvent).where(AuditEvent.sequence.in_((TAMPERED, TAMPERED + 1))).order_by(AuditEvent.sequence)
    )
    first.data, second.data = second.data, first.data
    first.action, second.action = second.action, first.action
    first.hash, second.hash = hash_of(first), hash_of(second)


def make_some_records(backend: Backend) -> None:
    """Do what an operator does, ten times."""
    for number in range(10):
        backend.create_app({"name": f"App {number}"})


@pytest.mark.parametrize("tampering", [change, remove, insert, swap])
def test_a_record_that_was_changed_removed_made_up_or_moved_is_found(
    settings: Settings, evergrant: Evergrant, tampering: Any
) -> None:
    with installation(settings.model_copy(update={"refresher": False})) as here:
        make_some_records(here.backend)
    done = evergrant(settings, "audit", "verify", "--json")
    (told,) = done.json
    assert (done.code, told["problem"]) == (0, "")  # control
    assert told["records"] > 10

    async def tamper() -> None:
        async with open_broker(settings) as broker, broker.database.write() as session:
            await tampering(session)

    asyncio.run(tamper())
    done = evergrant(settings, "audit", "verify", "--json")
    (told,) = done.json
    assert done.code == 1
    assert told["records"] in (TAMPERED - 1, TAMPERED, TAMPERED + 1), "all before it is intact"
    assert told["problem"]


def test_whoever_calls_cannot_write_a_record_in_evergrants_own_name(settings: Settings) -> None:
    with installation(settings.model_copy(update={"refresher": False})) as here:
        event = {"type": "info", "actorId": "a", "tenantId": "t", "data": {"appId": "practice"}}
        for action in ("app.deleted", "key.created", "grant.connected"):
            forged = {**event, "action": action}
            assert here.backend.http.post("/v1/mgmt/audit/event", json=forged).status_code == 400, action
        own = {**event, "action": "shop.order"}
        assert here.backend.http.post("/v1/mgmt/audit/event", json=own).status_code == 200  # control
