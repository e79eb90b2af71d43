"""Landing: storing what a provider answered. From the answer on it exists nowhere else, so nothing may stop this.

First its tokens are sealed, with what was reserved before the call. Then it is written to the journal on disk, and then
to the row, again and again for as long as this process lives. What a crash leaves in the journal lands later: see
`replay`.
"""

import logging
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from sqlalchemy import update

from evergrant import clock
from evergrant.broker.apps.provider_client import ProviderClient
from evergrant.broker.audit.record import OURSELVES, actor
from evergrant.broker.grants.grants import alive, load_grant
from evergrant.broker.grants.lifetimes import lifetime
from evergrant.broker.grants.schedule import next_refresh
from evergrant.broker.refresh.answer_columns import columns_of_answer
from evergrant.broker.refresh.attempt import RefreshAttempt
from evergrant.broker.refresh.storing import only_essential, store_entry
from evergrant.broker.refresh.until_stored import until_stored
from evergrant.broker.revocations.late_answers import revoke_late_answer
from evergrant.broker.runtime.broker import Broker
from evergrant.broker.runtime.journal_entry import Entry
from evergrant.broker.runtime.vault import Sealer
from evergrant.db import Grant, OutboundApp
from evergrant.errors import Unavailable, UpstreamUnavailable
from evergrant.oauth2 import follow_up
from evergrant.oauth2.quirks import Quirks
from evergrant.oauth2.token_response import TokenResponse

log = logging.getLogger(__name__)

WHOLE_TRIES = 2
"""So often an answer is tried whole. Then each other try is without what may be odd in it."""


@dataclass(frozen=True, slots=True)
class AnswerInHand:
    """A provider's answer, sealed and in the journal, whose row is not written yet."""

    entry: Entry
    file: Path | None
    """Its file in the journal; None where that could not be written."""

    @classmethod
    async def take(cls, broker: Broker, entry: Entry) -> "AnswerInHand":
        """Put an answer into the journal: the first thing that is done with one, and it does not fail."""
        try:
            file = await broker.journal.keep(entry)
        except (TypeError, ValueError):  # a mistake of ours in what is worked out beside the tokens
            log.exception("a part of a provider's answer was left out", extra={"grant": entry.grant_id})
            entry = only_essential(entry)
            file = await broker.journal.keep(entry)
        if file is None:
            broker.metrics.journal_failures.inc()
        return cls(entry, file)

    async def land(self, broker: Broker) -> bool:
        """Write the row, and return True; False where that is out of date, or what it belongs to is gone.

        Raises:
            Unavailable: this process stops before the database has taken it, and the journal has it.
        """

        async def store(refusals: int) -> bool:
            odd = refusals >= WHOLE_TRIES and refusals % 2 == 0
            return await store_entry(broker, only_essential(self.entry) if odd else self.entry)

        if self.file is None:
            return await until_stored(broker, store)
        landed = None
        try:
            async with broker.landings.until_let_go():
                landed = await until_stored(broker, store)
        except TimeoutError:
            raise Unavailable from None
        finally:
            if landed is None:
                broker.journal.leave(self.entry, self.file)
        if not await broker.journal.drop(self.entry, self.file):
            broker.metrics.journal_failures.inc()
        return landed


async def take_in_hand(
    broker: Broker, attempt: RefreshAttempt, answer: TokenResponse, sealer: Sealer, *, fetched: bool, seconds: float
) -> AnswerInHand:
    """Seal the answer to a refresh and put it into the journal. Nothing in it, and no database, can stop that.

    `fetched` tells that somebody is waiting for the token, so that the grant counts as used; `seconds`, how long the
    provider took.
    """
    grant, who = attempt.leased.grant, actor.get()
    event = {
        "actor": "" if who is OURSELVES else who.name,
        "data": {"why": attempt.why, "ms": round(seconds * 1000), "rotated": answer.refresh_token is not None},
    }
    values = columns_of_answer(broker, attempt, answer, sealer, fetched=fetched, now=clock.now())
    owner = attempt.leased.owner
    entry = Entry(grant.project_id, grant.id, owner, grant.token_version, values, audit={"event": event})
    return await AnswerInHand.take(broker, entry)


async def land(broker: Broker, attempt: RefreshAttempt, answer: AnswerInHand) -> Grant:
    """Store a provider's answer on the row that it was asked for, and release the lease.

    Raises:
        UpstreamUnavailable: somebody else holds the row now and has not finished: ours was not stored.
        Unavailable: as `AnswerInHand.land`.
    """
    grant, values = attempt.leased.grant, answer.entry.values
    if await answer.land(broker):
        for name, value in values.items():
            setattr(grant, name, value)
        return grant
    await revoke_late_answer(broker, answer.entry, app=attempt.app)
    current = alive(await load_grant(broker, grant.project_id, grant.id))
    if current.access_token == values["access_token"]:
        return current  # it was stored, but the database went away before it could say so
    # Somebody took the lease over while we were away (a stopped process, a paused machine) and was faster, or the user
    # reconnected. What is there now is newer than what we asked with, so ours must not overwrite it.
    log.warning("a refresh came back after its lease was lost", extra={"grant": grant.id, "app": grant.app_id})
    if current.token_version > grant.token_version:
        return current
    raise UpstreamUnavailable("Another process is refreshing this connection.", retry_after=1)


async def ask_for_lifetime(
    broker: Broker,
    app: OutboundApp,
    provider: ProviderClient,
    answer: TokenResponse,
    landed: Grant,
    *,
    used_at: datetime,
) -> Grant:
    """Ask how long a landed token lives whose answer does not tell, where the provider can be asked; note it if so.

    The note may be lost: the token is there, and nothing here may keep it from who waits for it.
    """
    if answer.expires_in:
        return landed
    try:
        seconds = await follow_up.introspected(broker.http, provider.client, answer.access_token, provider.quirks)
        return (
            landed
            if seconds is None
            else await _correct_lifetime(broker, app, provider.quirks, landed, seconds, used_at=used_at)
        )
    except Exception:
        log.exception("a token's lifetime could not be noted", extra={"grant": landed.id, "app": app.id})
        return landed


async def _correct_lifetime(
    broker: Broker, app: OutboundApp, quirks: Quirks, landed: Grant, seconds: int, *, used_at: datetime
) -> Grant:
    """Note that a landed token has `seconds` left."""
    now = clock.now()
    times = lifetime(seconds, now=now, margin_seconds=quirks.refresh_margin)
    due = next_refresh(
        app,
        times.due,
        used_at=used_at,
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
    async with broker.database.write() as session:
        return (await session.execute(statement)).scalar_one_or_none() or landed
