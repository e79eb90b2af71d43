"""What dead processes of this data folder left behind: their answers land first, then their leases are given back.

That is the fast way out of a crash. Where it is not open, because the folder is lost or could not be written, others
take the leases over by the clock.
"""

import asyncio
import logging
from collections.abc import Sequence

from sqlalchemy import bindparam, delete, select, update

from evergrant.broker.refresh.replay import START_SECONDS, replay_journal
from evergrant.broker.runtime.broker import Broker
from evergrant.broker.runtime.holder import longest_silence
from evergrant.broker.runtime.holder_files import HOLDERS_FOLDER, HeldLease, dead_holders
from evergrant.db import Holder
from evergrant.db.grant import GRANTS
from evergrant.db.types import database_now

log = logging.getLogger(__name__)


async def give_back_left_behind(broker: Broker) -> int:
    """Land and give back what dead processes of the data folder held, and return how many leases that were.

    Raises:
        Unavailable: the database is away; what is left stays for the next time.
    """
    given_back = 0
    for dead in dead_holders(broker.settings.data_dir / HOLDERS_FOLDER):
        if not dead.is_certain and await _beats(broker, dead.id):
            continue  # on another machine, where our file system's locks may not count
        await replay_journal(broker)
        waiting = {(entry.project_id, entry.grant_id) for _, entry in await broker.journal.read()}
        free = [lease for lease in dead.leases if lease[:2] not in waiting]
        given_back += await _give_back(broker, free)
        if len(free) == len(list(dead.leases)):
            async with broker.database.write_bare() as connection:
                await connection.execute(delete(Holder).where(Holder.id == dead.id))
            dead.forget()
    return given_back


async def give_back_at_start(broker: Broker) -> None:
    """Do so before anything is served, if the database lets that be done soon; it is done again later."""
    try:
        async with asyncio.timeout(START_SECONDS):
            await give_back_left_behind(broker)
    except Exception:
        log.exception("what dead processes held could not be given back at the start")


async def _beats(broker: Broker, holder_id: str) -> bool:
    beats = select(Holder.id).where(
        Holder.id == holder_id, Holder.beat_at > database_now(-longest_silence(broker.pace))
    )
    async with broker.database.read() as session:
        return (await session.execute(beats)).one_or_none() is not None


async def _give_back(broker: Broker, leases: Sequence[HeldLease]) -> int:
    columns = GRANTS.c
    statement = (
        update(GRANTS)
        .where(
            columns.project_id == bindparam("project"),
            columns.id == bindparam("grant"),
            columns.lease_owner == bindparam("holder"),
        )
        .values(lease_owner=None, lease_until=None, interrupted_at=database_now())
        .returning(columns.id)
    )
    given = 0
    for project_id, grant_id, owner in leases:
        async with broker.database.write_bare() as connection:
            found = await connection.execute(statement, {"project": project_id, "grant": grant_id, "holder": owner})
            given += found.one_or_none() is not None
    if given:
        log.warning("gave back what a process held that is dead", extra={"leases": given})
    return given
