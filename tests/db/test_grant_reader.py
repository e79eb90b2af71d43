"""The hot row's own reader answers what a session answers: on both databases, whatever the columns and their order."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from sqlalchemy import insert

from evergrant.crypto.sealed import Sealed
from evergrant.db import Grant, OutboundApp, Project, grant_reader
from evergrant.db.engine import Database, make_engine
from evergrant.db.engine import database_url as parsed
from evergrant.db.grant import scope_key
from evergrant.db.grant_reader import GrantReader, GrantView, OwnerKey, open_grant_reader

NOW = datetime(2026, 11, 26, 12, 30, 15, 123_456, tzinfo=UTC)
SCOPES = ["contacts.readonly", "openid"]
OWNER = OwnerKey("Pshop", "practice", "alice", "", "")
FULL: dict[str, Any] = {
    "scopes": SCOPES,
    "resources": ["https://api.example.com/"],
    "details": {"region": "eu", "host": "größer.example"},
    "token_sub": "subject",
    "granted_by": "admin",
    "access_token": Sealed(b"\x00access"),
    "access_token_type": "DPoP",
    "refresh_token": Sealed(b"\xffrefresh"),
    "id_token": Sealed(b"id"),
    "expires_at": NOW + timedelta(hours=1),
    "fresh_until": NOW + timedelta(minutes=55),
    "last_refresh_time": NOW - timedelta(hours=1),
    "last_refresh_error": "It failed once.",
    "token_version": 7,
}
EMPTY: dict[str, Any] = {"scopes": SCOPES}


@asynccontextmanager
async def stored(url: str, columns: dict[str, Any]) -> AsyncIterator[tuple[GrantReader, Grant]]:
    """One grant with these columns: the reader, and the row as a session reads it."""
    database = Database(make_engine(parsed(url, Path())))
    reader = open_grant_reader(parsed(url, Path()))
    try:
        async with database.write() as session:
            session.add(Project(id="Pshop", name="Shop", redirect_origins=[], created_at=NOW))
            await session.flush()
            session.add(OutboundApp(project_id="Pshop", id="practice", name="Practice", created_at=NOW, updated_at=NOW))
            await session.flush()
            row = {**OWNER._asdict(), "id": "g1", "scope_key": scope_key(SCOPES), "consented_at": NOW, **columns}
            await session.execute(insert(Grant).values(**row))
        async with database.read() as session:
            grant = await session.get(Grant, ("Pshop", "g1"))
        assert grant is not None
        yield reader, grant
    finally:
        await reader.aclose()
        await database.engine.dispose()


@pytest.mark.parametrize("columns", [FULL, EMPTY], ids=["every column", "only what must be"])
async def test_the_reader_answers_what_a_session_answers(database_url: str, columns: dict[str, Any]) -> None:
    async with stored(database_url, columns) as (reader, grant):
        expected = GrantView.of(grant)
        assert await reader.latest(OWNER) == expected
        assert await reader.by_scopes(OWNER, scope_key(SCOPES)) == expected
        for name, value in columns.items():
            assert getattr(expected, name, value) == value


async def test_instants_are_aware_and_in_utc(database_url: str) -> None:
    async with stored(database_url, FULL) as (reader, _):
        view = await reader.latest(OWNER)
        assert view is not None
        for moment in (view.expires_at, view.fresh_until, view.last_refresh_time):
            assert moment is not None
            assert moment.utcoffset() == timedelta(0)


async def test_who_has_no_grant_gets_none(database_url: str) -> None:
    async with stored(database_url, FULL) as (reader, _):
        assert await reader.latest(OWNER._replace(user_id="bob")) is None
        assert await reader.by_scopes(OWNER, scope_key(["other"])) is None


async def test_those_who_ask_at_once_each_get_their_own(database_url: str) -> None:
    async with stored(database_url, FULL) as (reader, grant):
        expected, key = GrantView.of(grant), scope_key(SCOPES)
        others = [reader.by_scopes(OWNER._replace(user_id=f"user {number}"), key) for number in range(100)]
        hung_up = asyncio.ensure_future(reader.by_scopes(OWNER, key))
        await asyncio.sleep(0)
        hung_up.cancel()
        found = await asyncio.gather(reader.by_scopes(OWNER, key), *others, reader.by_scopes(OWNER, key))
        assert (found[0], found[-1], set(found[1:-1])) == (expected, expected, {None})


class OtherView(NamedTuple):
    """Other columns than today's, in another order: some of each kind inserted before and between."""

    refresh_not_before: datetime | None
    details: dict[str, str]
    id: str
    id_token: Sealed | None
    consented_at: datetime
    resources: list[str]
    expires_at: datetime | None
    access_token: Sealed | None
    scopes: list[str]


async def test_a_column_can_be_inserted_anywhere(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grant_reader, "GrantView", OtherView)
    async with stored(database_url, FULL) as (reader, grant):
        view = await reader.latest(OWNER)
        assert view is not None
        assert view._asdict() == {name: getattr(grant, name) for name in OtherView._fields}
