"""App health: whether the provider accepts the app's registration, noted on the app and told to webhooks."""

from sqlalchemy import ColumnElement, update
from sqlalchemy.ext.asyncio import AsyncSession

from evergrant import clock
from evergrant.broker.runtime.broker import Broker
from evergrant.broker.webhooks.outbox import EventType, emit
from evergrant.db import OutboundApp
from evergrant.errors import Unavailable


async def note_unhealthy(broker: Broker, app: OutboundApp, reason: str) -> bool:
    """Note that the provider refuses the registration, and tell whether that is news; else the reason is renewed.

    If the database is away, the note is lost and the next refusal makes it.
    """
    try:
        async with broker.database.write() as session:
            turned = (
                update(OutboundApp)
                .where(*_this_app(app.project_id, app.id), OutboundApp.unhealthy_since.is_(None))
                .values(unhealthy_since=clock.now(), unhealthy_reason=reason)
                .returning(OutboundApp.id)
                .execution_options(synchronize_session=False)
            )
            if (await session.execute(turned)).one_or_none() is not None:
                about = {"appId": app.id, "reason": reason}
                await emit(session, app.project_id, EventType.APP_UNHEALTHY, about)
                return True
            await session.execute(
                update(OutboundApp)
                .where(*_this_app(app.project_id, app.id), OutboundApp.unhealthy_reason != reason)
                .values(unhealthy_reason=reason)
                .execution_options(synchronize_session=False)
            )
    except Unavailable as error:
        broker.database_health.note_away(error)
    return False


async def note_healthy(broker: Broker, app: OutboundApp) -> None:
    """Note that the provider accepts the registration again. If the database is away, the next success notes it."""
    try:
        async with broker.database.write() as session:
            await clear_unhealthy(session, app.project_id, app.id, reason="refreshed")
    except Unavailable as error:
        broker.database_health.note_away(error)


async def clear_unhealthy(session: AsyncSession, project_id: str, app_id: str, *, reason: str) -> None:
    """Mark an app as healthy, in the caller's transaction.

    `reason`: a token was `refreshed`, or the app was `updated` or `registered` anew and has yet to show itself.
    """
    turned = (
        update(OutboundApp)
        .where(*_this_app(project_id, app_id), OutboundApp.unhealthy_since.is_not(None))
        .values(unhealthy_since=None, unhealthy_reason="")
        .returning(OutboundApp.id)
        .execution_options(synchronize_session=False)
    )
    if (await session.execute(turned)).one_or_none() is not None:
        await emit(session, project_id, EventType.APP_RECOVERED, {"appId": app_id, "reason": reason})


def _this_app(project_id: str, app_id: str) -> tuple[ColumnElement[bool], ColumnElement[bool]]:
    return OutboundApp.project_id == project_id, OutboundApp.id == app_id
