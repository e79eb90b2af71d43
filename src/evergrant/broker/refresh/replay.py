"""What the journal holds lands later: at the next start, when the database is back, and before any other call.

An answer lands on the row that it was got with and on no other: if the row has moved on, or the consent has ended, it
is forgotten. Several processes may do this at once, and while the one that wrote an entry is still trying.
"""

import asyncio
import logging
import time
from contextlib import suppress
from pathlib import Path

from evergrant.broker.refresh.entry_check import flaw_of, without_unknown_columns
from evergrant.broker.refresh.storing import only_essential, store_entry
from evergrant.broker.revocations.late_answers import revoke_late_answer
from evergrant.broker.runtime.broker import Broker
from evergrant.broker.runtime.journal_entry import Entry
from evergrant.db import Grant
from evergrant.errors import Unavailable

log = logging.getLogger(__name__)

START_SECONDS = 10.0
"""A start waits for the journal so long at most. What has not landed then does so later, and before another call."""


async def replay_journal(broker: Broker, *, older_than_seconds: float = 0.0) -> int:
    """Land what the journal holds, but for what this process is landing anyway; return how much that was.

    What cannot land now stays. What never can is put aside for the operator. Neither stops anything.
    """
    landed = 0
    for file, entry in await broker.journal.read(older_than=time.time() - older_than_seconds):
        try:
            landed += await _land_entry(broker, file, entry)
        except Unavailable as error:
            broker.database_health.note_away(error)
            break
        except Exception as error:  # noqa: BLE001 - whatever it is, it stops nothing else
            extra = {"grant": entry.grant_id, "file": str(file), "error": type(error).__name__}
            log.warning("the database refuses a journal entry, which stays", extra=extra)
    return landed


async def replay_at_start(broker: Broker) -> None:
    """Land what the journal holds before anything is served, if the database lets that be done soon."""
    with suppress(TimeoutError):
        async with asyncio.timeout(START_SECONDS):
            await replay_journal(broker)


async def settle_waiting(broker: Broker, grant: Grant) -> bool:
    """Land what the journal has for a grant before its provider is called; True if the row is a newer one now.

    Raises:
        Unavailable: it cannot land now. The refresh token on the row is spent, and nobody may send it.
    """
    newer = False
    for file, entry in await broker.journal.waiting_for(grant.project_id, grant.id):
        try:
            newer |= await _land_entry(broker, file, entry)
        except Unavailable:
            raise
        except Exception as error:
            raise Unavailable from error
    return newer


async def _land_entry(broker: Broker, file: Path, entry: Entry) -> bool:
    """Land one entry and forget it; False if it is out of date, or can never land.

    Raises:
        Unavailable: the database is away.
        SQLAlchemyError: it takes not even what is essential.
    """
    extra = {"grant": entry.grant_id, "project": entry.project_id}
    known = without_unknown_columns(entry)
    if flaw := flaw_of(known):
        log.error("a journal entry can never land and is put aside", extra={**extra, "file": str(file), "why": flaw})
        await broker.journal.set_aside(entry, file)
        return False
    try:
        landed = await store_entry(broker, known)
    except Unavailable:
        raise
    except Exception:  # noqa: BLE001 - what is odd in it must not keep the tokens out
        landed = await store_entry(broker, only_essential(known))
    if not landed:
        await revoke_late_answer(broker, known)
    if not await broker.journal.drop(entry, file):
        broker.metrics.journal_failures.inc()
    what = "landed a refresh from the journal" if landed else "the journal held a refresh that is out of date"
    log.warning(what, extra=extra)
    return landed
