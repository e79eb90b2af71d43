"""Grants that came back from a backup: their refresh tokens may be spent, and are tried by evidence.

A provider that rotates refresh tokens takes a spent one for stolen. The consent of that grant is lost anyway, but an
app that sends hundreds of spent tokens may be blocked. So the background leaves restored grants alone, but for a few of
each app: one at first, one more at a time for each that the provider accepts, none once it refuses one. Whoever waits
for a grant always gets it tried.

How many an app may have tried at once stands on its row, and who is being tried is who has a due time: all processes
see the same.
"""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, and_, delete, exists, func, or_, select, tuple_, update
from sqlalchemy.ext.asyncio import AsyncSession

from evergrant import clock
from evergrant.app_types import AppType
from evergrant.broker.projects.projects import closed_projects
from evergrant.broker.runtime.broker import Broker
from evergrant.catalog.template import Template
from evergrant.db import Grant, GrantStatus, Holder, OutboundApp, WebhookDelivery
from evergrant.errors import Unavailable

VERSIONS_APART = 2**20
"""By so much a restored row's version is above all of its earlier life, which it may have in common with journals."""
AHEAD = timedelta(minutes=1)
"""So long before a token stops being fresh its grant is tried."""
IN_TRIAL = timedelta(hours=1)
"""What is due within this time is being tried: no failed try is put off for longer."""
AT_ONCE_AT_MOST = 1_000
RESTORED = (
    " The connection came back from a backup, and the refresh token in it was most likely used since: the one that the "
    "provider gave for it is lost."
)


async def mark_restored(session: AsyncSession, catalogue: Mapping[str, Template], *, now: datetime) -> dict[str, int]:
    """Mark what a restored database holds as what it is, and return how many grants of each project are in doubt.

    In doubt is every grant whose refresh token may have been used since the backup. Those of providers whose refresh
    tokens stay the same are not. Nobody holds any lease, and nothing was interrupted.
    """
    in_doubt = and_(
        Grant.status == GrantStatus.ACTIVE,
        Grant.refresh_token.is_not(None),
        ~exists().where(OutboundApp.project_id == Grant.project_id, OutboundApp.id == Grant.app_id, _keeps(catalogue)),
    )
    free: dict[str, Any] = {"lease_owner": None, "lease_until": None}
    await session.execute(update(Grant).values(**free, interrupted_at=None))
    await session.execute(update(WebhookDelivery).where(WebhookDelivery.lease_owner.is_not(None)).values(free))
    await session.execute(delete(Holder))
    await session.execute(
        update(Grant)
        .where(in_doubt)
        .values(restored_at=now, next_refresh_at=None, token_version=Grant.token_version + VERSIONS_APART)
        .execution_options(synchronize_session=False)
    )
    restored = (Grant.status == GrantStatus.ACTIVE, Grant.restored_at.is_not(None))
    its_app = (OutboundApp.project_id == Grant.project_id, OutboundApp.id == Grant.app_id)
    await session.execute(
        update(OutboundApp)
        .where(exists().where(*its_app, *restored))
        .values(restored_pace=1)
        .execution_options(synchronize_session=False)
    )
    counts = await session.execute(
        select(Grant.project_id, func.count().label("number")).where(*restored).group_by(Grant.project_id)
    )
    return {row.project_id: row.number for row in counts}


def _keeps(catalogue: Mapping[str, Template]) -> ColumnElement[bool]:
    """Return the condition that an app's connections have nothing that is used up.

    They have credentials, or the provider, as the app library has it, never rotates refresh tokens.
    """
    stable = [(t.id, t.token_endpoint) for t in catalogue.values() if t.refresh_token_rotation == "stable"]
    obtained = [kind for kind in AppType if kind.is_obtained]
    return or_(OutboundApp.app_type.in_(obtained), tuple_(OutboundApp.template_id, OutboundApp.token_url).in_(stable))


async def let_some_be_tried(broker: Broker) -> int:
    """Let the background take up as many restored grants of each app as it may try at once; return how many are new.

    Raises:
        Unavailable: the database is away.
    """
    query = select(OutboundApp.project_id, OutboundApp.id).where(
        OutboundApp.restored_pace > 0, OutboundApp.project_id.not_in(closed_projects())
    )
    async with broker.database.read() as session:
        apps = (await session.execute(query)).all()
    begun = 0
    for project_id, app_id in apps:
        begun += await _let_some_of(broker, project_id, app_id, now=clock.now())
    return begun


async def _let_some_of(broker: Broker, project_id: str, app_id: str, *, now: datetime) -> int:
    mine = (Grant.project_id == project_id, Grant.app_id == app_id, Grant.status == GrantStatus.ACTIVE)
    restored = (*mine, Grant.restored_at.is_not(None))
    waits = (*restored, Grant.next_refresh_at.is_(None), Grant.fresh_until <= now + AHEAD)
    async with broker.database.read() as session:
        if (await session.execute(select(Grant.id).where(*waits).limit(1))).first() is None:
            if (await session.execute(select(Grant.id).where(*restored).limit(1))).first() is None:
                await _set_pace(broker, project_id, app_id, None)
            return 0
    async with broker.database.write() as session:
        # One process at a time: else each would let as many in.
        app = select(OutboundApp.restored_pace).where(OutboundApp.project_id == project_id, OutboundApp.id == app_id)
        pace = (await session.execute(app.with_for_update(key_share=True))).scalar_one_or_none() or 0
        in_trial = select(func.count()).where(*restored, Grant.next_refresh_at <= now + IN_TRIAL)
        room = min(pace - (await session.execute(in_trial)).scalar_one(), AT_ONCE_AT_MOST)
        if room <= 0:
            return 0
        first = select(Grant.id).where(*waits).order_by(Grant.fresh_until).limit(room).with_for_update(skip_locked=True)
        let_in = await session.execute(
            update(Grant)
            .where(*mine, Grant.id.in_(select(first.cte("first"))))  # looked up once, or it could let more in
            .values(next_refresh_at=now)
            .returning(Grant.id)
            .execution_options(synchronize_session=False)
        )
        return len(let_in.all())


async def note_unspent(broker: Broker, app: OutboundApp) -> None:
    """Note that the provider took a restored grant's refresh token: one more of the app may be tried at once."""
    await _set_pace(broker, app.project_id, app.id, OutboundApp.restored_pace + 1)


async def note_spent(broker: Broker, app: OutboundApp) -> None:
    """Note that the provider refused a restored grant's refresh token: the background tries no others of the app."""
    if app.restored_pace != 0:
        await _set_pace(broker, app.project_id, app.id, 0)


async def _set_pace(broker: Broker, project_id: str, app_id: str, pace: int | ColumnElement[int | None] | None) -> None:
    """Set how many of an app's restored grants may be tried at once; without the database, the next evidence does."""
    statement = (
        update(OutboundApp)
        .where(OutboundApp.project_id == project_id, OutboundApp.id == app_id, OutboundApp.restored_pace.is_not(None))
        .values(restored_pace=pace)
        .execution_options(synchronize_session=False)
    )
    try:
        async with broker.database.write() as session:
            await session.execute(statement)
    except Unavailable as error:
        broker.database_health.note_away(error)
