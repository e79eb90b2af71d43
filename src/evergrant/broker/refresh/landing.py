"""Landing: storing what a provider answered. From the answer on it exists nowhere else, so nothing may stop this.

First it is sealed, then written to the journal on disk, then to the row, again and again while the database is away.
What a crash leaves in the journal is landed at the next start.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from functools import lru_cache
from typing import TypeVar

from sqlalchemy import Update, bindparam, case, null, update

from evergrant import clock
from evergrant.broker.apps.quirks import scope_words
from evergrant.broker.apps.variables import allowed_captures, template_of
from evergrant.broker.grants.granted_scopes import granted_anew
from evergrant.broker.grants.grants import alive, load_grant, seal_answer
from evergrant.broker.grants.lifetimes import lifetime
from evergrant.broker.grants.schedule import next_refresh, used_at
from evergrant.broker.refresh.attempt import RefreshAttempt
from evergrant.broker.runtime.broker import Broker
from evergrant.broker.runtime.journal import Entry
from evergrant.db import Grant, GrantStatus
from evergrant.db.grant import GRANTS
from evergrant.errors import Unavailable, UpstreamUnavailable
from evergrant.oauth2.token_response import TokenResponse

log = logging.getLogger(__name__)

T = TypeVar("T")

PAUSE = (0.1, 2.0)
"""Seconds between two tries: at first, and at most."""
GIVE_UP_SECONDS = 300.0
"""How long a landing is tried again while the database is away. After that, the journal has it."""


async def land(broker: Broker, attempt: RefreshAttempt, answer: TokenResponse, *, fetched: bool) -> Grant:
    """Store a provider's answer on the row that it was asked for, and release the lease.

    `fetched` tells that somebody is waiting for the token, so that the grant counts as used.

    Raises:
        UpstreamUnavailable: somebody else holds the row now and has not finished: ours was not stored.
        Unavailable: the database was away for too long; the journal lands the answer later.
    """
    grant = attempt.leased.grant
    values = await until_stored(broker, lambda: _columns_to_store(broker, attempt, answer, fetched=fetched))
    entry = Entry(grant.project_id, grant.id, attempt.leased.owner, grant.token_version, values)
    file = await asyncio.to_thread(broker.journal.write, entry)
    landed = await until_stored(broker, lambda: _store_answer(broker, entry))
    await asyncio.to_thread(broker.journal.forget, file)
    if landed:
        for name, value in values.items():
            setattr(grant, name, value)
        return grant
    # Somebody took the lease over while we were away (a stopped process, a paused machine) and was faster, or the user
    # reconnected. What is there now is newer than what we asked with, so ours must not overwrite it.
    log.warning("a refresh came back after its lease was lost", extra={"grant": grant.id, "app": grant.app_id})
    current = alive(await load_grant(broker, grant.project_id, grant.id))
    if current.token_version > grant.token_version:
        return current
    raise UpstreamUnavailable("Another process is refreshing this connection.", retry_after=1)


async def _columns_to_store(
    broker: Broker, attempt: RefreshAttempt, answer: TokenResponse, *, fetched: bool
) -> dict[str, object]:
    grant, now = attempt.leased.grant, clock.now()
    tokens = await seal_answer(
        broker,
        grant.project_id,
        grant.id,
        answer,
        quirks=attempt.provider.quirks,
        refreshed=grant,
        now=now,
    )
    values: dict[str, object] = {
        "access_token": tokens.access_token,
        "access_token_type": tokens.access_token_type,
        "expires_at": tokens.lifetime.expires_at,
        "fresh_until": tokens.lifetime.fresh_until,
        "refresh_token_expires_at": tokens.refresh_token_expires_at,
        "next_refresh_at": tokens.lifetime.due,
        "last_refresh_time": now,
        "last_refresh_error": "",
        "refresh_failures": 0,
        "refresh_not_before": None,
        "interrupted_at": None,
        "token_version": grant.token_version + 1,
    }
    if fetched:
        values["last_fetched_at"] = now
    if tokens.refresh_token is not None:  # none returned keeps the old one (RFC 6749 section 6)
        values["refresh_token"] = tokens.refresh_token
    if tokens.id_token is not None:
        values["id_token"] = tokens.id_token

    def due() -> dict[str, object]:
        at = next_refresh(
            attempt.app,
            tokens.lifetime.due,
            used_at=now if fetched else used_at(grant),
            refreshed_at=now,
            ends_at=tokens.refresh_token_expires_at,
            idle_after=broker.settings.idle_after,
            now=now,
        )
        return {"next_refresh_at": at}

    def details() -> dict[str, object]:
        known = {**grant.details, **allowed_captures(template_of(broker, attempt.app), answer.captured)}
        return {} if known == grant.details else {"details": known}

    def scopes() -> dict[str, object]:
        if tokens.scopes is None:
            return {}
        words, with_id_token = scope_words(broker, attempt.app), tokens.id_token is not None
        return granted_anew(words, grant, tokens.scopes, with_id_token=with_id_token).answered_columns()

    for part in (due, details, scopes):
        try:
            values |= part()
        except Exception:  # the tokens exist nowhere else: what is only worked out beside them must not lose them
            extra = {"grant": grant.id, "app": grant.app_id, "part": part.__name__}
            log.exception("a part of a provider's answer was left out", extra=extra)
    return values


async def correct_lifetime(broker: Broker, attempt: RefreshAttempt, landed: Grant, seconds: int) -> Grant:
    """Note that a landed token has `seconds` left, where the provider told that afterwards. The note may be lost."""
    now = clock.now()
    times = lifetime(seconds, now=now, margin_seconds=attempt.provider.quirks.refresh_margin)
    due = next_refresh(
        attempt.app,
        times.due,
        used_at=used_at(landed),
        refreshed_at=now,
        ends_at=landed.refresh_token_expires_at,
        idle_after=broker.settings.idle_after,
        now=now,
    )
    statement = (
        update(Grant)
        .where(
            Grant.project_id == landed.project_id,
            Grant.id == landed.id,
            Grant.token_version == landed.token_version,
        )
        .values(expires_at=times.expires_at, fresh_until=times.fresh_until, next_refresh_at=due)
        .returning(Grant)
        .execution_options(synchronize_session=False)
    )
    try:
        async with broker.database.write() as session:
            return (await session.execute(statement)).scalar_one_or_none() or landed
    except Unavailable:
        return landed


async def until_stored(broker: Broker, attempt: Callable[[], Awaitable[T]]) -> T:
    """Make a write, again and again while the database is away, and return what it returned.

    Raises:
        Unavailable: it was away for `GIVE_UP_SECONDS`.
    """
    pause, loop = PAUSE[0], asyncio.get_running_loop()
    deadline = loop.time() + GIVE_UP_SECONDS
    while True:
        try:
            return await attempt()
        except Unavailable:
            if loop.time() > deadline:
                log.critical("gave up storing a provider's answer")
                raise
            log.warning("cannot store a provider's answer yet", exc_info=True)
            broker.metrics.landings_retried.inc()
            await asyncio.sleep(pause)
            pause = min(pause * 2, PAUSE[1])


async def replay_journal(broker: Broker, *, older_than_seconds: float = 0.0) -> int:
    """Land what the journal holds, and return how much that was.

    An answer lands on the row that it was got with and on no other: if the row has moved on, or the consent has ended,
    it is forgotten. Several processes may do this at once, and while the one that wrote an entry is still trying.

    Raises:
        Unavailable: the database is away; the entries stay.
    """
    landed = 0
    for file, entry in list(broker.journal.entries(older_than=time.time() - older_than_seconds)):
        done = await _store_answer(broker, entry)
        broker.journal.forget(file)
        landed += done
        what = "landed a refresh from the journal" if done else "the journal held a refresh that is out of date"
        log.warning(what, extra={"grant": entry.grant_id, "project": entry.project_id})
    return landed


async def _store_answer(broker: Broker, entry: Entry) -> bool:
    """Write an answer onto the row that it was got with, and return True; False where the row has moved on, or is gone.

    Whether the lease is still ours does not decide that: it may have been taken over by somebody who has got nothing
    yet, or a database that failed over may have forgotten it. Nobody else has this answer.
    """
    values = {f"new_{name}": value for name, value in entry.values.items()}
    which = {"project": entry.project_id, "grant": entry.grant_id, "seen": entry.seen_version}
    statement = _landing(tuple(sorted(entry.values)))
    async with broker.database.write_bare() as connection:
        stored = await connection.execute(statement, {**values, **which, "holder": entry.lease_owner})
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
