"""Waiting for a grant that another process is refreshing: by looking, until its row moves on or its lease is free."""

from collections.abc import Collection, Mapping
from datetime import timedelta
from functools import partial
from typing import NamedTuple

from sqlalchemy import RowMapping, case, select
from sqlalchemy.sql.expression import tuple_

from evergrant.broker.grants.grants import alive, load_grant
from evergrant.broker.refresh import lease, takeover
from evergrant.broker.refresh.lease import LeasedGrant
from evergrant.broker.runtime.broker import Broker
from evergrant.broker.runtime.holder import longest_silence
from evergrant.db import Grant, GrantStatus
from evergrant.db.types import database_now
from evergrant.errors import UpstreamUnavailable

LONGEST_RETRY_AFTER = 30
"""Seconds: a holder that seemed dead may come back any moment."""


class Turn(NamedTuple):
    """What can be seen of a grant that somebody else holds."""

    token_version: int
    status: str
    is_free: bool
    free_in_seconds: float | None
    """When others may take the lease of a holder that is gone; None where it is there, as far as we can tell."""


async def wait_for_turn(broker: Broker, project_id: str, grant_id: str, *, seen_version: int) -> LeasedGrant | Grant:
    """Return the grant as soon as it has newer tokens than `seen_version`, or else its lease as soon as that is free.

    Raises:
        TokenNotFound, ReauthorizationRequired: it is gone, or dead.
        UpstreamUnavailable: its holder is not to be seen; with the seconds until others may take over.
        Unavailable: the database is away.
    """
    look = partial(_see, broker)
    while True:
        turn = await broker.lease_looks.next((project_id, grant_id), look)
        if turn is None or turn.status == GrantStatus.REAUTHORIZATION_REQUIRED or turn.token_version > seen_version:
            grant = alive(await load_grant(broker, project_id, grant_id))
            if grant.token_version > seen_version:
                return grant
        elif turn.is_free:
            if (leased := await lease.take(broker, project_id, grant_id)) is not None:
                return leased
        elif turn.free_in_seconds:
            raise UpstreamUnavailable(
                "The process that was refreshing this connection is gone. Another takes it over when it has had time to"
                " come back.",
                retry_after=max(1, min(LONGEST_RETRY_AFTER, round(turn.free_in_seconds + 0.5))),
            )


async def _see(broker: Broker, keys: Collection[tuple[str, str]]) -> Mapping[tuple[str, str], Turn]:
    query = select(
        Grant.project_id,
        Grant.id,
        Grant.token_version,
        Grant.status,
        Grant.lease_until,
        takeover.beat_of_holder().label("beat_at"),
        case((Grant.access_token.is_not(None), Grant.expires_at), else_=database_now()).label("works_until"),
        takeover.is_free_for(broker).label("is_free"),
        database_now().label("at"),
    ).where(tuple_(Grant.project_id, Grant.id).in_(keys))
    async with broker.database.read() as session:
        rows = (await session.execute(query)).mappings().all()
    return {
        (row["project_id"], row["id"]): Turn(
            row["token_version"], row["status"], row["is_free"], _free_in_seconds(broker, row)
        )
        for row in rows
    }


def _free_in_seconds(broker: Broker, row: RowMapping) -> float | None:
    at, lease_until, beat_at = row["at"], row["lease_until"], row["beat_at"]
    if lease_until is None or not broker.holder.is_steady:
        return None  # where the database was away until now, the holder has not had time to show itself
    seen_until = lease_until if beat_at is None else beat_at + timedelta(seconds=longest_silence(broker.pace))
    if at <= seen_until:
        return None
    return takeover.seconds_until_takeover(
        at=at,
        lease_until=lease_until,
        beat_at=beat_at,
        works_until=row["works_until"],
        patience=takeover.patience_with_holders(broker.pace, broker.settings.takeover_seconds),
    )
