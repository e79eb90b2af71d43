"""An app's update: it changes what the operator says, and its grants without waiting for those being refreshed."""

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta

import pytest
from sqlalchemy import event, select, update

from evergrant.broker.apps import apps, replanning
from evergrant.broker.apps.apps import load_app, update_app
from evergrant.broker.apps.definition import AppDefinition, definition_as_stored
from evergrant.broker.refresh import lease
from evergrant.broker.runtime.broker import Broker, open_broker
from evergrant.db import Grant, OutboundApp
from evergrant.oauth2.protected_resource import Discovered
from evergrant.oauth2.registration import ServerMetadata
from evergrant.settings import Settings
from tests.conftest import Clock
from tests.infra.installation import APP_ID, Installation, installation

USERS = ("alice", "bob", "carol")


@pytest.fixture
def here(settings: Settings, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> Iterator[Installation]:
    monkeypatch.setattr(replanning, "PAUSES", (0.3, 0.3))
    monkeypatch.setattr(replanning, "BATCH", 2)
    with installation(settings.model_copy(update={"refresher": False})) as running:
        for user in USERS:
            running.connected(user)
        yield running


async def grants(broker: Broker) -> dict[str, Grant]:
    async with broker.database.read() as session:
        return {grant.user_id: grant for grant in await session.scalars(select(Grant))}


async def changed(broker: Broker, here: Installation, clock: Clock, **fields: object) -> OutboundApp:
    project_id = here.backend.project_id
    stored = definition_as_stored(await load_app(broker, project_id, APP_ID))
    return await update_app(broker, project_id, replace(stored, **fields), by=None, now=clock.now)  # type: ignore[arg-type]


async def test_a_registration_that_is_stored_during_an_update_survives_it(
    here: Installation, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    project_id = here.backend.project_id
    registered = {"client_id": "by-ourselves", "registered_redirect_uri": "https://evergrant.example.com/callback"}
    async with open_broker(here.settings) as broker:
        async with broker.database.write() as session:
            mine = update(OutboundApp).where(OutboundApp.id == APP_ID)
            dcr = {"use_dcr": True, "dcr_url": "https://idp.example.com/register"}
            await session.execute(mine.values(client_id="", client_secret=None, **dcr))
        before = await load_app(broker, project_id, APP_ID)

        async def discover(*_: object, **__: object) -> Discovered:
            """Answer after somebody has connected first, at another replica."""
            async with broker.database.write() as session:
                await session.execute(mine.values(registered))
            return Discovered(ServerMetadata(registration_endpoint="https://idp.example.com/register"))

        monkeypatch.setattr(apps, "discover_either", discover)
        sent = AppDefinition(
            id=APP_ID,
            name="Renamed",
            use_dcr=True,
            discovery_url="https://idp.example.com",
            authorization_url=before.authorization_url,
            token_url=before.token_url,
        )
        await update_app(broker, project_id, sent, by=None, now=clock.now)
        after = await load_app(broker, project_id, APP_ID)
    assert after.name == "Renamed"
    assert {name: getattr(after, name) for name in registered} == registered


async def test_every_grant_that_failed_is_tried_again_after_an_update(here: Installation, clock: Clock) -> None:
    async with open_broker(here.settings) as broker:
        async with broker.database.write() as session:
            later = clock.now + timedelta(minutes=30)
            await session.execute(update(Grant).values(refresh_failures=3, refresh_not_before=later))
        await changed(broker, here, clock, description="corrected")
        for grant in (await grants(broker)).values():
            assert (grant.refresh_failures, grant.refresh_not_before) == (0, None)


@pytest.mark.parametrize("lands", [True, False])
async def test_a_grant_that_is_being_refreshed_meanwhile_falls_due_earlier_too(
    here: Installation, clock: Clock, lands: bool
) -> None:
    here.backend.change_app(refreshPolicy="on_demand")
    landings: list[asyncio.Task[None]] = []
    async with open_broker(here.settings) as broker:
        async with broker.database.write() as session:
            await session.execute(update(Grant).values(next_refresh_at=None))
        leased = await lease.take(broker, here.backend.project_id, (await grants(broker))["alice"].id)
        assert leased is not None
        loop = asyncio.get_running_loop()

        def land_once(_connection: object, _cursor: object, statement: str, *_: object) -> None:
            """Land by the app as it was, when the update has come to the grants."""
            if lands and not landings and statement.startswith("UPDATE grants"):
                landings.append(loop.create_task(lease.release(broker, leased, next_refresh_at=None)))

        event.listen(broker.database.engine.sync_engine, "after_cursor_execute", land_once)
        await changed(broker, here, clock, refresh_policy="proactive")
        await asyncio.gather(*landings)
        found = await grants(broker)
    for grant in found.values():
        assert grant.next_refresh_at == grant.fresh_until


async def test_an_update_of_many_grants_holds_few_of_them_at_a_time(here: Installation, clock: Clock) -> None:
    """The rows that one transaction has locked are what a landing may have to wait for."""
    locked: list[int] = []
    async with open_broker(here.settings) as broker:
        async with broker.database.write() as session:
            await session.execute(update(Grant).values(refresh_failures=1))

        def note(_c: object, cursor: object, statement: str, *_: object) -> None:
            if statement.startswith("UPDATE grants"):
                locked.append(getattr(cursor, "rowcount", 0))

        event.listen(broker.database.engine.sync_engine, "after_cursor_execute", note)
        await changed(broker, here, clock, description="corrected")
    assert sum(locked) == len(USERS)
    assert max(locked) <= 2
