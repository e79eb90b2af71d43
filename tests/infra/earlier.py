"""What versions before ours left in a database."""

import asyncio
import os
import secrets
from datetime import timedelta

from sqlalchemy import select

from evergrant.broker.operations.key_rotation import reseal
from evergrant.broker.runtime.broker import load_keyring, open_broker
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
                key_id, project_id = secrets.token_hex(8), ours[0].project_id
                place = Slot(project_id, "data_keys", "wrapped", key_id)
                session.add(
                    DataKeyRow(
                        project_id=project_id,
                        id=key_id,
                        master_key_id=master.id,
                        wrapped=await master.wrap(place, os.urandom(32)),
                        binds_owner=False,
                        created_at=ours[-1].created_at + timedelta(microseconds=1),
                    )
                )
            async for _ in reseal(broker):
                pass
            async with broker.database.write() as session:
                for row in ours:
                    await session.delete(await session.get_one(DataKeyRow, (row.project_id, row.id)))

    asyncio.run(run())
