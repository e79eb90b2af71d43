"""What versions before ours left in a database."""

import asyncio
import os
import secrets
from datetime import timedelta

from sqlalchemy import select, update

from evergrant.broker.operations.key_rotation import EVERYTHING_SEALED
from evergrant.broker.runtime.broker import Broker, load_keyring, open_broker
from evergrant.broker.runtime.places import slot_in
from evergrant.crypto.keyring import DataKey
from evergrant.crypto.sealed import Slot
from evergrant.db import DataKeyRow
from evergrant.settings import Settings


def seal_as_before_owners_were_bound(settings: Settings) -> None:
    """Seal everything of the only project under a data key that binds no owner, and take the other data keys away."""

    async def run() -> None:
        (master, *_) = load_keyring(settings).keys
        async with open_broker(settings) as broker:
            async with broker.database.write() as session:
                ours = list(await session.scalars(select(DataKeyRow).order_by(DataKeyRow.created_at)))
                key, key_id, project_id = os.urandom(32), secrets.token_hex(8), ours[0].project_id
                place = Slot(project_id, "data_keys", "wrapped", key_id)
                session.add(
                    DataKeyRow(
                        project_id=project_id,
                        id=key_id,
                        master_key_id=master.id,
                        wrapped=await master.wrap(place, key),
                        binds_owner=False,
                        created_at=ours[-1].created_at + timedelta(microseconds=1),
                    )
                )
            await _seal_again(broker, DataKey(key_id, key, binds_owner=False))
            async with broker.database.write() as session:
                for row in ours:
                    await session.delete(await session.get_one(DataKeyRow, (row.project_id, row.id)))

    asyncio.run(run())


async def _seal_again(broker: Broker, key: DataKey) -> None:
    for sealed in EVERYTHING_SEALED:
        async with broker.database.write() as session:
            for row in await session.execute(sealed.read()):
                slots = {name: slot_in(sealed.name, row, name) for name in sealed.columns if getattr(row, name)}
                values = {
                    name: key.seal(slot, (await broker.vault.open(slot, getattr(row, name))).get_secret_value())
                    for name, slot in slots.items()
                }
                if values:
                    which = sealed.column("project_id") == row.project_id, sealed.column("id") == row.id
                    await session.execute(update(sealed.table).where(*which).values(values))
