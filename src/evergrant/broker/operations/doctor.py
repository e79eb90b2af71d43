"""Checks of an installation, for `evergrant doctor`: each finding says what was looked at and how it is."""

import asyncio
import importlib.util
import os
import secrets
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from dataclasses import replace
from urllib.parse import urlsplit

from sqlalchemy import LargeBinary, func, select, type_coerce

from evergrant import clock
from evergrant.broker.apps.warnings import warnings_about
from evergrant.broker.operations.doctor_finding import Finding, todo
from evergrant.broker.operations.doctor_machine import examine_machine
from evergrant.broker.operations.doctor_postgresql import examine_postgresql
from evergrant.broker.operations.doctor_rows import examine_rows
from evergrant.broker.operations.doctor_settings import examine_settings
from evergrant.broker.operations.key_rotation import EVERYTHING_SEALED
from evergrant.broker.runtime.broker import load_keyring, open_database
from evergrant.broker.runtime.vault import unwrapped
from evergrant.catalog.loader import load_catalogue
from evergrant.catalog.template import Template
from evergrant.crypto.keyring import Keyring
from evergrant.crypto.kms.master_key import KEY_BYTES, MasterKey
from evergrant.crypto.sealed import Slot
from evergrant.db import DataKeyRow, OutboundApp
from evergrant.db.away import driver_says
from evergrant.db.engine import Database
from evergrant.db.read_replica import NotItsStandby, ReadReplica
from evergrant.db.types import database_now
from evergrant.errors import EvergrantError, Unavailable
from evergrant.settings import Settings

MAX_CLOCK_SKEW_SECONDS = 5.0


async def examine_installation(settings: Settings) -> AsyncIterator[Finding]:
    """Check everything that a start needs, in the order in which it would fail; then all else that can be told."""
    yield Finding("settings", True, "read")
    for finding in (*examine_settings(settings), *await asyncio.to_thread(lambda: [*examine_machine(settings)])):
        yield finding
    catalogue: Mapping[str, Template] | None = None
    try:
        catalogue = load_catalogue(settings.catalog_dir)
        yield Finding("app library", True, f"{len(catalogue)} templates")
    except EvergrantError as error:
        yield Finding("app library", False, error.message)
    keyring = None
    try:
        keyring = load_keyring(settings)
        yield Finding("master keys", True, f"{len(keyring.keys)}, the first is {keyring.first_id}")
    except EvergrantError as error:
        yield Finding("master keys", False, error.message)
    for number, key in enumerate(keyring.keys if keyring is not None else (), start=1):
        yield await _master_key(key, number)
    try:
        database = open_database(settings)
    except EvergrantError as error:
        yield Finding("database", False, error.message)
    else:
        try:
            async for finding in _database(database, keyring, catalogue, settings):
                yield finding
        finally:
            await database.dispose()
    yield await _public_url(settings)
    is_there = importlib.util.find_spec("mcp") is not None
    missing = "not installed: /mcp answers 500; agents' MCP clients need evergrant[mcp]"
    yield Finding("MCP server", True, "installed" if is_there else missing)


async def _database(
    database: Database, keyring: Keyring | None, catalogue: Mapping[str, Template] | None, settings: Settings
) -> AsyncIterator[Finding]:
    try:
        async with database.read() as session:
            theirs = (await session.execute(select(database_now()))).scalar_one()
        yield Finding("database", True, database.kind)
    except Unavailable as error:
        yield Finding("database", False, _why_away(error, settings))
        return
    if database.replica is not None:
        yield await _read_replica(database, database.replica)
    skew = abs((clock.now() - theirs).total_seconds())
    text = f"{skew:.1f} s from the database's"
    is_right = skew <= MAX_CLOCK_SKEW_SECONDS
    yield Finding(
        "clock", is_right, text if is_right else f"{text}: synchronise this machine's by NTP, or the database's"
    )
    try:
        await database.require_current_schema()
        yield Finding("migrations", True, "current")
    except EvergrantError as error:
        yield Finding("migrations", False, error.message)
        return
    if keyring is not None:
        yield await _data_keys(database, keyring)
        yield await _owners(database)
    if not database.is_sqlite:
        async for finding in examine_postgresql(database):
            yield finding
    async for finding in examine_rows(database, settings, now=theirs):
        yield finding
    if catalogue is not None:
        yield await _templates(database, catalogue)
    async with database.read() as session:
        apps = list(await session.scalars(select(OutboundApp).order_by(OutboundApp.project_id, OutboundApp.id)))
    for app in apps:
        template = catalogue.get(app.template_id) if catalogue is not None else None
        for warning in warnings_about(app, template, public_url=settings.public_url, today=clock.now().date()):
            text = f"{warning.text} (project {app.project_id})"
            yield Finding(f"app {app.id}", not warning.is_late, text, advice=True)


def _why_away(error: Unavailable, settings: Settings) -> str:
    if not settings.uses_sqlite:
        text = f"it does not answer or refuses us: {driver_says(error)}"
        return f"{text}. See that PostgreSQL runs, and that EVERGRANT_DATABASE_URL names it, its database and a role"
    if not settings.data_dir.exists():
        text = f"there is none in {settings.data_dir}: 'evergrant serve' makes it, and a master key"
        return f"{text}; or set EVERGRANT_DATA_DIR"
    return f"the file in {settings.data_dir} cannot be read: {driver_says(error)}. Let this user read and write there"


async def _templates(database: Database, catalogue: Mapping[str, Template]) -> Finding:
    """Find apps whose template is gone, and with it the quirks of their provider."""
    query = select(OutboundApp.template_id, OutboundApp.id).where(OutboundApp.template_id != "")
    async with database.read() as session:
        rows = (await session.execute(query.order_by(OutboundApp.id))).all()
    gone = [f"{app_id} ({template_id})" for template_id, app_id in rows if template_id not in catalogue]
    if gone:
        return Finding("apps' templates", False, f"gone, so put them back or change the app: {', '.join(gone)}")
    return Finding("apps' templates", True, f"{len(rows)} apps have one, all are there")


async def _master_key(key: MasterKey, number: int) -> Finding:
    """Let a master key wrap something, and see that it opens in its place and in no other."""
    text = f"{key.id} ({key.name})"
    place = Slot("doctor", "data_keys", "wrapped", secrets.token_hex(8))
    tried = os.urandom(KEY_BYTES)
    try:
        wrapped = await key.wrap(place, tried)
        if await key.unwrap(place, wrapped) != tried:
            return Finding("master key", False, f"{text} unwraps something else than it wrapped")
    except EvergrantError as error:
        return Finding("master key", False, f"{text}: {error.message}")
    with suppress(EvergrantError):
        await key.unwrap(replace(place, row_id="moved"), wrapped)
        return Finding("master key", False, f"{text} does not heed associated data: use a key of the type aes256-gcm96")
    return Finding("master key", True, f"{text} wraps and unwraps{' and is the first' if number == 1 else ''}")


async def _owners(database: Database) -> Finding:
    """Tell how much was sealed by earlier versions, and opens for whomever its row names."""
    unbound = 0
    async with database.read() as session:
        ids = list(await session.scalars(select(DataKeyRow.id).where(DataKeyRow.binds_owner.is_(False))))
        keys = [bytes.fromhex(key_id) for key_id in ids]
        for sealed in EVERYTHING_SEALED if keys else ():
            for name in sealed.columns:
                # Behind the version's byte, each value has the id of its data key.
                key_of_value = func.substr(type_coerce(sealed.column(name), LargeBinary), 2, len(keys[0]))
                query = select(func.count()).select_from(sealed.table).where(key_of_value.in_(keys))
                unbound += (await session.execute(query)).scalar_one()
    if not unbound:
        return Finding("owners", True, "what is sealed opens for its owner only")
    text = f"{unbound} values were sealed by an earlier version, without their owner: run 'evergrant keyring rotate'"
    return todo("owners", text)


async def _read_replica(database: Database, replica: ReadReplica) -> Finding:
    meanwhile = "the primary answers lists meanwhile"
    try:
        async with database.read() as session:
            behind = await replica.bytes_behind(session)
    except NotItsStandby as error:
        return Finding("read replica", False, error.message)
    except Unavailable:
        return todo("read replica", f"EVERGRANT_DATABASE_READ_URL: it does not answer; {meanwhile}")
    if behind:
        return todo("read replica", f"{behind} bytes of the log behind the primary; {meanwhile}")
    return Finding("read replica", True, "has everything that is committed")


async def _data_keys(database: Database, keyring: Keyring) -> Finding:
    async with database.read() as session:
        rows = list(await session.scalars(select(DataKeyRow)))
    try:
        for row in rows:
            await unwrapped(keyring, row)
    except EvergrantError as error:
        return Finding("data keys", False, error.message)
    return Finding("data keys", True, f"{len(rows)}, all open")


async def _public_url(settings: Settings) -> Finding:
    host = urlsplit(settings.public_url).hostname or ""
    try:
        await asyncio.get_running_loop().getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError:
        return Finding(
            "public URL", False, f"{settings.public_url}: the name does not resolve from here; correct it, or your DNS"
        )
    kind = "plain http, for loopback trials only" if settings.is_loopback_trial else "https"
    return Finding("public URL", True, f"{settings.public_url} ({kind})")
