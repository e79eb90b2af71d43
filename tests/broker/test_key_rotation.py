"""Rotating keys while serving."""

import base64
import os
import re
from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import SecretStr
from sqlalchemy import LargeBinary, event, select
from sqlalchemy.types import TypeDecorator

from evergrant.broker.grants.grants import owner_of, token_slot
from evergrant.broker.operations.key_rotation import (
    EVERYTHING_SEALED,
    RotationProgress,
    reseal,
    rewrap_data_keys,
    start_new_data_keys,
)
from evergrant.broker.runtime.broker import open_broker
from evergrant.crypto.keyring import data_key_id
from evergrant.db import Base, DataKeyRow, Grant
from evergrant.db.types import SealedBytes
from evergrant.errors import CannotOpenSealed
from evergrant.settings import Settings
from tests.conftest import Clock
from tests.infra.installation import Installation, installation


def new_key() -> str:
    return base64.b64encode(os.urandom(32)).decode()


def keys_of(settings: Settings) -> str:
    assert settings.master_keys is not None
    return settings.master_keys.get_secret_value()


@pytest.fixture
def here(settings: Settings, clock: Clock) -> Iterator[Installation]:
    with installation(settings.model_copy(update={"refresher": False})) as running:
        for user in ("alice", "bob"):
            running.connected(user)
        yield running


async def rotate(settings: Settings, clock: Clock) -> RotationProgress:
    async with open_broker(settings) as broker:
        await rewrap_data_keys(broker)
        clock.advance(1)
        await start_new_data_keys(broker, now=clock.now)
        return [progress async for progress in reseal(broker)][-1]


async def test_after_a_rotation_the_old_master_key_is_not_needed(here: Installation, clock: Clock) -> None:
    old, new = keys_of(here.settings), new_key()
    both = here.settings.model_copy(update={"master_keys": SecretStr(f"{new},{old}")})
    progress = await rotate(both, clock)
    assert progress.done == progress.total
    # two connections with access, refresh and id token each, the outcomes of their trips, and the app's client secret
    assert progress.resealed == 9

    only_new = here.settings.model_copy(update={"master_keys": SecretStr(new)})
    async with open_broker(only_new) as broker:
        async with broker.database.read() as session:
            grants = list(await session.scalars(select(Grant)))
            tokens = [grant.access_token for grant in grants if grant.access_token is not None]
            newest = (await broker.vault.newest_keys())[grants[0].project_id]
            wrapped_by = set(await session.scalars(select(DataKeyRow.master_key_id)))
        assert len(wrapped_by) == 1
        assert len(tokens) == 2
        assert {data_key_id(token) for token in tokens} == {newest}

    only_old = here.settings
    async with open_broker(only_old) as broker:
        slot = token_slot(owner_of(grants[0]), grants[0].id, "access_token")
        with pytest.raises(CannotOpenSealed, match="EVERGRANT_MASTER_KEYS lacks the key"):
            await broker.vault.open(slot, tokens[0])


async def test_a_server_goes_on_serving_through_a_rotation(here: Installation, clock: Clock) -> None:
    before = here.backend.token("alice")
    await rotate(here.settings, clock)
    assert here.backend.token("alice") == before
    after = here.backend.token("bob", options={"forceRefresh": True})
    assert here.backend.token("bob", options={"withRefreshToken": True})["accessToken"] == after["accessToken"]


async def test_an_interrupted_rotation_goes_on_where_it_stopped(here: Installation, clock: Clock) -> None:
    async with open_broker(here.settings) as broker:
        await start_new_data_keys(broker, now=clock.advance(1))
        async for progress in reseal(broker):
            if progress.resealed:
                break
        first = progress.resealed
        rest = [progress async for progress in reseal(broker)][-1]
        assert 0 < first < 7
        assert first + rest.resealed == 9
        assert [progress async for progress in reseal(broker)][-1].resealed == 0


async def test_tokens_that_were_refreshed_meanwhile_are_left_alone(here: Installation, clock: Clock) -> None:
    refreshed: list[str] = []

    def refresh_when_they_have_been_read(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if not refreshed and re.match(r"SELECT .*access_token.*\sFROM grants", statement, flags=re.DOTALL):
            refreshed.append(here.backend.token("alice", options={"forceRefresh": True})["accessToken"])

    async with open_broker(here.settings) as broker:
        await start_new_data_keys(broker, now=clock.advance(1))
        engine = broker.database.engine.sync_engine
        event.listen(engine, "after_cursor_execute", refresh_when_they_have_been_read)
        async for _ in reseal(broker):
            pass
    assert [here.backend.token("alice")["accessToken"]] == refreshed


async def test_a_missing_master_key_changes_nothing(here: Installation) -> None:
    wrong = here.settings.model_copy(update={"master_keys": SecretStr(new_key())})
    async with open_broker(wrong) as broker:
        with pytest.raises(CannotOpenSealed):
            await rewrap_data_keys(broker)
    assert here.backend.fetch("alice").status_code == 200


def test_every_sealed_column_takes_part() -> None:
    in_tables = {
        (table.name, column.name)
        for table in Base.metadata.tables.values()
        for column in table.columns
        if isinstance(column.type, SealedBytes)
    }
    rotated = {(sealed.table.__tablename__, name) for sealed in EVERYTHING_SEALED for name in sealed.columns}
    assert rotated == in_tables
    others = {
        f"{table.name}.{column.name}"
        for table in Base.metadata.tables.values()
        for column in table.columns
        if isinstance(column.type, LargeBinary) and not isinstance(column.type, TypeDecorator)
    }
    # digests, hashes, wrapped data keys, and pictures that everybody may see: nothing else is kept as bytes
    allowed = {"data_keys.wrapped", "app_logos.content", "branding.logo"}
    assert {name for name in others if not name.endswith(("digest", "hash"))} == allowed
