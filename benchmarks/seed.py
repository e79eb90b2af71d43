"""A project with one app and any number of connected users, each with really sealed tokens."""

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from pydantic import SecretStr
from sqlalchemy import insert
from sqlalchemy.engine import URL

from evergrant import clock
from evergrant.broker.grants.grants import new_grant_id, token_slot
from evergrant.broker.operations.setup import initialise, upgrade
from evergrant.broker.runtime.broker import Broker, open_broker
from evergrant.crypto.sealed import Sealed, Slot
from evergrant.db import Grant, GrantStatus, OutboundApp
from evergrant.db.engine import connect_postgresql
from evergrant.db.grant import scope_key
from evergrant.db.grant_reader import OwnerKey
from evergrant.settings import Settings

APP_ID = "benchmark"
SCOPES = ["contacts.readonly", "openid"]
CLIENT_ID = "evergrant"
CLIENT_SECRET = "the provider's secret for evergrant"
ACCESS_TOKEN_LENGTH = 180  # about what Google's and Microsoft's opaque tokens have
BATCH = 20_000


@dataclass(frozen=True)
class Seeded:
    """What a caller of the filled database needs."""

    project_id: str
    management_key: str
    seconds: float


def user_id(number: int) -> str:
    return f"user-{number}"


def access_token(number: int) -> str:
    return f"access-token-of-user-{number}-".ljust(ACCESS_TOKEN_LENGTH, "x")


def refresh_token(number: int) -> str:
    return f"refresh-token-of-user-{number}"


async def seed(settings: Settings, grants: int, *, token_url: str = "") -> Seeded:
    """Fill an empty database with `grants` users' tokens that stay fresh for a day, refreshed at `token_url`."""
    began = time.perf_counter()
    await upgrade(settings)
    made = await initialise(settings)
    now = clock.now()
    async with open_broker(settings) as broker:
        secret = await broker.vault.seal(
            Slot(made.project_id, "outbound_apps", "client_secret", APP_ID), SecretStr(CLIENT_SECRET)
        )
        async with broker.database.write() as session:
            session.add(
                OutboundApp(
                    project_id=made.project_id,
                    id=APP_ID,
                    name="Benchmark",
                    client_id=CLIENT_ID,
                    client_secret=secret,
                    token_url=token_url,
                    created_at=now,
                    updated_at=now,
                )
            )
        await add_grants(broker, made.project_id, range(grants))
        if not broker.database.is_sqlite:
            await settle(broker.database.engine.url)
    return Seeded(made.project_id, made.management_key, time.perf_counter() - began)


async def add_grants(broker: Broker, project_id: str, users: range) -> None:
    """Store the tokens of these users."""
    now = clock.now()
    store = _into_sqlite if broker.database.is_sqlite else _into_postgresql
    for first in range(users.start, users.stop, BATCH):
        numbers = range(first, min(first + BATCH, users.stop))
        # Sealed before storing: the vault may have to write, and SQLite has one writer at a time.
        tokens = [await _sealed(broker, project_id, number) for number in numbers]
        await store(broker, list(_rows(project_id, numbers, tokens, now=now)))


async def _sealed(broker: Broker, project_id: str, number: int) -> tuple[str, Sealed, Sealed]:
    grant_id, owner = new_grant_id(), OwnerKey(project_id, APP_ID, user_id(number), "", "")
    access = await broker.vault.seal(token_slot(owner, grant_id, "access_token"), SecretStr(access_token(number)))
    refresh = await broker.vault.seal(token_slot(owner, grant_id, "refresh_token"), SecretStr(refresh_token(number)))
    return grant_id, access, refresh


def _rows(
    project_id: str, numbers: range, tokens: list[tuple[str, Sealed, Sealed]], *, now: datetime
) -> Iterator[dict[str, Any]]:
    same = {
        "project_id": project_id,
        "app_id": APP_ID,
        "tenant_id": "",
        "external_identifier": "",
        "scope_key": scope_key(SCOPES),
        "scopes": SCOPES,
        "status": GrantStatus.ACTIVE.value,
        "granted_by": "",
        "consented_at": now,
        "access_token_type": "Bearer",
        "expires_at": now + timedelta(days=1, minutes=5),
        "fresh_until": now + timedelta(days=1),
        "next_refresh_at": now + timedelta(days=1),
        "last_refresh_error": "",
        "refresh_failures": 0,
        "token_version": 1,
    }
    for number, (grant_id, access, refresh) in zip(numbers, tokens, strict=True):
        yield same | {
            "id": grant_id,
            "user_id": user_id(number),
            "token_sub": f"subject-{number}",
            "access_token": access,
            "refresh_token": refresh,
        }


async def _into_sqlite(broker: Broker, rows: list[dict[str, Any]]) -> None:
    async with broker.database.write() as session:
        await (await session.connection()).execute(insert(Grant), rows)


async def _into_postgresql(broker: Broker, rows: list[dict[str, Any]]) -> None:
    columns = list(rows[0])
    records = [tuple(_for_copy(row[column]) for column in columns) for row in rows]
    connection = await connect_postgresql(broker.database.engine.url)
    try:
        await connection.copy_records_to_table("grants", columns=columns, records=records)
    finally:
        await connection.close()


def _for_copy(value: Any) -> Any:
    match value:
        case Sealed():
            return value.ciphertext
        case list():
            return json.dumps(value)
        case _:
            return value


async def settle(url: URL) -> None:
    """Do now what autovacuum would do in the middle of a measurement."""
    connection = await connect_postgresql(url)
    try:
        await connection.execute("VACUUM (ANALYZE) grants", timeout=600)
        await connection.execute("CHECKPOINT", timeout=600)
    finally:
        await connection.close()
