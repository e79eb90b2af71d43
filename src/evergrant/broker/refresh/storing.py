"""Storing one answer: on the row that it was got with, or as a row of its own where none was there before."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any, cast

from sqlalchemy import Insert, Update, bindparam, case, exists, insert, null, select, update
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from evergrant import clock
from evergrant.broker.apps.apps import load_app
from evergrant.broker.apps.destinations import digest_of
from evergrant.broker.audit.record import Actor, record
from evergrant.broker.grants.directory import enter
from evergrant.broker.grants.events import EVENTS, RECORD_EVENT, TIDY_EVERY, GrantEventKind, event_row, record_event
from evergrant.broker.grants.grants import lock_app
from evergrant.broker.grants.replacing import is_of_same_owner, replace_earlier, until_as_read
from evergrant.broker.refresh.answer_columns import ESSENTIAL
from evergrant.broker.refresh.restored import VERSIONS_APART
from evergrant.broker.revocations.replaced import prepare_replacement
from evergrant.broker.runtime.broker import Broker
from evergrant.broker.runtime.journal_entry import Entry
from evergrant.broker.runtime.vault import Vault
from evergrant.crypto.sealed import Sealed
from evergrant.db import AuditEvent, DataKeyRow, Grant, GrantStatus
from evergrant.db.grant import GRANTS
from evergrant.errors import AppNotFound

CAN_BE_MISSING = frozenset(
    {"access_token_type", "id_token", "refresh_token_expires_at", "details", "token_sub", "token_sub_problem"}
)
"""What a new row may lack and still be of use."""
CLOCKS_DIFFER = timedelta(hours=1)
"""Clocks of two machines differ by less."""


def only_essential(entry: Entry) -> Entry:
    """Return an entry without what may keep a database from taking it and what a grant works without."""
    if entry.seen_version:
        kept = {name: value for name, value in entry.values.items() if name in ESSENTIAL}
        return replace(entry, values=kept, audit=None)
    kept = {name: value for name, value in entry.values.items() if name not in CAN_BE_MISSING}
    return replace(entry, values=kept)


async def store_entry(broker: Broker, entry: Entry) -> bool:
    """Write an answer down and return True; False where it is out of date, or where it belongs is gone.

    It may be done any number of times, in any order, and by several processes at once.

    Raises:
        Unavailable: the database is away.
        SQLAlchemyError: it does not take this.
    """
    return await (_store_on_row(broker, entry) if entry.seen_version else _store_as_new(broker, entry))


async def _store_on_row(broker: Broker, entry: Entry) -> bool:
    """Write an answer onto the row that it was got with.

    Whether the lease is still ours does not decide that: it may have been taken over by somebody who has got nothing
    yet, or a database that failed over may have forgotten it. Nobody else has this answer.
    """
    values: dict[str, object] = {f"new_{name}": value for name, value in entry.values.items()}
    values |= {"project": entry.project_id, "grant": entry.grant_id, "seen": entry.seen_version}
    values["holder"] = entry.lease_owner
    names, event = tuple(sorted(entry.values)), _event_of(entry)
    landed = False
    if event is not None and not broker.database.is_sqlite:
        async with broker.database.write_landing_at_once() as connection:
            stored = await connection.execute(_landing_with_event(names), values | _as_parameters(event))
            landed = stored.one_or_none() is not None
    if not landed:  # on PostgreSQL it is out of date by now, or of before a restore
        async with broker.database.write_landing() as connection:
            stored = await connection.execute(_landing(names), values)
            landed = stored.one_or_none() is not None or await _store_on_restored(connection, entry)
            if landed and event is not None:
                await connection.execute(RECORD_EVENT, event)
    if landed and entry.seen_version % TIDY_EVERY == 0:
        broker.timelines.note_long([entry.key])
    return landed


def _event_of(entry: Entry) -> dict[str, Any] | None:
    """Return what the grant's timeline says of a refresh, as a row; None where an entry says nothing."""
    if (event := entry.event) is None:
        return None
    at, data = entry.values.get("last_refresh_time"), event.get("data")
    return event_row(
        entry.project_id,
        entry.grant_id,
        GrantEventKind.REFRESHED,
        at=at if isinstance(at, datetime) else clock.now(),
        actor=str(event.get("actor", "")),
        data=data if isinstance(data, dict) else {},
    )


async def _store_on_restored(connection: AsyncConnection, entry: Entry) -> bool:
    """Write an answer of before a restore onto its row, where it is newer than what the backup had, and can be opened.

    The row gets no version of its earlier life: from here on, nothing else of that may land.
    """
    columns, seen = GRANTS.c, entry.seen_version
    is_older = columns.token_version.between(seen + 1, seen + VERSIONS_APART)
    if not isinstance(token := entry.values.get("access_token"), Sealed):
        return False
    its_key = Vault.key_of(token)
    key = select(DataKeyRow.id).where(DataKeyRow.project_id == entry.project_id, DataKeyRow.id == its_key)
    values = dict(entry.values) | {"token_version": columns.token_version + 1, "restored_at": None}
    stored = await connection.execute(
        update(GRANTS)
        .where(
            columns.project_id == entry.project_id,
            columns.id == entry.grant_id,
            columns.status == GrantStatus.ACTIVE,
            columns.restored_at.is_not(None),
            is_older,
            key.exists(),
        )
        .values(values)
        .returning(columns.id)
    )
    return stored.one_or_none() is not None


@lru_cache(maxsize=64)
def _landing(names: tuple[str, ...]) -> Update:
    """Return the statement that stores these columns. It is built once, which costs more than running it."""
    columns = GRANTS.c
    ours = columns.lease_owner == bindparam("holder")
    return (
        update(GRANTS)
        .where(
            columns.project_id == bindparam("project"),
            columns.id == bindparam("grant"),
            columns.token_version == bindparam("seen"),
            columns.status == GrantStatus.ACTIVE,
        )
        .values(
            {
                **{name: bindparam(f"new_{name}") for name in names},
                # Whoever took the lease over meanwhile keeps it, and finds the newer tokens on the row.
                "lease_owner": case((ours, null()), else_=columns.lease_owner),
                "lease_until": case((ours, null()), else_=columns.lease_until),
            }
        )
        .returning(columns.id)
    )


def _as_parameters(event: Mapping[str, object]) -> dict[str, object]:
    return {f"event_{name}": value for name, value in event.items()}


@lru_cache(maxsize=64)
def _landing_with_event(names: tuple[str, ...]) -> Insert:
    """Return the same with what the timeline says of it: one statement, so one trip to the database (PostgreSQL)."""
    landed = _landing(names).cte("landed")
    values = [bindparam(f"event_{column.name}", type_=column.type) for column in EVENTS.c]
    return (
        insert(EVENTS)
        .from_select([column.name for column in EVENTS.c], select(*values).select_from(landed))
        .returning(EVENTS.c.id)
    )


@until_as_read
async def _store_as_new(broker: Broker, entry: Entry) -> bool:
    """Make the row that an answer is for, in the place of those that it replaces.

    Whatever its app is like by now; but where its credentials go to another place, that must not get this one too.
    """
    grant = Grant(project_id=entry.project_id, id=entry.grant_id, **entry.values)
    audit = cast(dict[str, Any], entry.audit)
    try:
        app = await load_app(broker, entry.project_id, grant.app_id)
    except AppNotFound:
        return False
    replacement = await prepare_replacement(broker, app, grant, uploaded=True, now=clock.now())
    async with broker.database.write() as session:
        try:
            current = await lock_app(session, entry.project_id, grant.app_id)
        except AppNotFound:
            return False
        if entry.destinations not in ("", digest_of(broker.catalogue, current)):
            return False
        if await _is_out_of_date(session, grant, audit):
            return False
        session.add(grant)
        await session.flush()
        await enter(session, grant)
        await record_event(
            session,
            entry.project_id,
            grant.id,
            GrantEventKind.UPLOADED,
            at=grant.consented_at,
            actor=audit["actor"],
            data={"from": audit["remote_address"], "verified": True},
        )
        await replace_earlier(session, grant, replacement)
        await record(
            session,
            entry.project_id,
            audit["action"],
            app_id=grant.app_id,
            user_id=grant.user_id,
            tenant_id=grant.tenant_id,
            data=audit["data"],
            who=Actor(audit["actor"], audit["remote_address"]),
        )
    return True


async def _is_out_of_date(session: AsyncSession, grant: Grant, audit: dict[str, Any]) -> bool:
    """Tell whether a grant was stored before, even if it is gone again, or the owner has connected since."""
    since: datetime = grant.consented_at - CLOCKS_DIFFER
    was_stored = exists().where(
        AuditEvent.project_id == grant.project_id,
        AuditEvent.occurred_at >= since,
        AuditEvent.action == audit["action"],
        AuditEvent.data["grantId"].as_string() == grant.id,
    )
    has_connected = exists().where(
        *is_of_same_owner(grant),
        Grant.scope_key == grant.scope_key,
        Grant.status == GrantStatus.ACTIVE,
        Grant.refresh_token.is_not(None),
        Grant.consented_at > grant.consented_at,
    )
    return bool((await session.execute(select(was_stored | has_connected))).scalar_one())
