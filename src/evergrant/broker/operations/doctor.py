"""Checks of an installation, for `evergrant doctor`: each finding says what was looked at and how it is."""

import asyncio
import socket
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from sqlalchemy import select

from evergrant import clock
from evergrant.broker.apps.warnings import warnings_about
from evergrant.broker.runtime.broker import load_keyring, open_database
from evergrant.broker.runtime.vault import unwrapped
from evergrant.catalog.loader import load_catalogue
from evergrant.catalog.template import Template
from evergrant.crypto.keyring import Keyring
from evergrant.db import DataKeyRow, OutboundApp
from evergrant.db.engine import Database
from evergrant.db.types import database_now
from evergrant.errors import CannotOpenSealed, EvergrantError
from evergrant.settings import Settings

MAX_CLOCK_SKEW_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Finding:
    """The outcome of one check."""

    what: str
    good: bool
    text: str
    advice: bool = False
    """Nothing is wrong, but something should be changed while that is so."""


async def examine_installation(settings: Settings) -> AsyncIterator[Finding]:
    """Check everything that a start needs, in the order in which it would fail."""
    yield Finding("settings", True, "read")
    catalogue: Mapping[str, Template] | None = None
    try:
        catalogue = load_catalogue(settings.catalog_dir)
        yield Finding("app library", True, f"{len(catalogue)} templates")
    except EvergrantError as error:
        yield Finding("app library", False, error.message)
    keyring = None
    try:
        keyring = load_keyring(settings)
        yield Finding("master keys", True, f"the first is {keyring.first_id}")
    except EvergrantError as error:
        yield Finding("master keys", False, error.message)
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
    if settings.egress_allow:
        opened = ", ".join(str(network) for network in settings.egress_allow)
        yield Finding("egress", True, f"providers may also be in {opened}")


async def _database(
    database: Database, keyring: Keyring | None, catalogue: Mapping[str, Template] | None, settings: Settings
) -> AsyncIterator[Finding]:
    try:
        async with database.read() as session:
            theirs = (await session.execute(select(database_now()))).scalar_one()
        yield Finding("database", True, database.kind)
    except EvergrantError as error:
        yield Finding("database", False, error.message)
        return
    skew = abs((clock.now() - theirs).total_seconds())
    yield Finding("clock", skew <= MAX_CLOCK_SKEW_SECONDS, f"{skew:.1f} s from the database's")
    try:
        await database.require_current_schema()
        yield Finding("migrations", True, "current")
    except EvergrantError as error:
        yield Finding("migrations", False, error.message)
        return
    if keyring is not None:
        yield await _data_keys(database, keyring)
    if catalogue is not None:
        yield await _templates(database, catalogue)
    async with database.read() as session:
        apps = list(await session.scalars(select(OutboundApp).order_by(OutboundApp.project_id, OutboundApp.id)))
    for app in apps:
        template = catalogue.get(app.template_id) if catalogue is not None else None
        for warning in warnings_about(app, template, public_url=settings.public_url, today=clock.now().date()):
            text = f"{warning.text} (project {app.project_id})"
            yield Finding(f"app {app.id}", not warning.is_late, text, advice=True)


async def _templates(database: Database, catalogue: Mapping[str, Template]) -> Finding:
    """Find apps whose template is gone, and with it the quirks of their provider."""
    query = select(OutboundApp.template_id, OutboundApp.id).where(OutboundApp.template_id != "")
    async with database.read() as session:
        rows = (await session.execute(query.order_by(OutboundApp.id))).all()
    gone = [f"{app_id} ({template_id})" for template_id, app_id in rows if template_id not in catalogue]
    if gone:
        return Finding("apps' templates", False, f"gone, so put them back or change the app: {', '.join(gone)}")
    return Finding("apps' templates", True, f"{len(rows)} apps have one, all are there")


async def _data_keys(database: Database, keyring: Keyring) -> Finding:
    async with database.read() as session:
        rows = list(await session.scalars(select(DataKeyRow)))
    try:
        for row in rows:
            unwrapped(keyring, row)
    except CannotOpenSealed as error:
        return Finding("data keys", False, error.message)
    return Finding("data keys", True, f"{len(rows)}, all open")


async def _public_url(settings: Settings) -> Finding:
    host = urlsplit(settings.public_url).hostname or ""
    try:
        await asyncio.get_running_loop().getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError:
        return Finding("public URL", False, f"{settings.public_url}: the name does not resolve from here")
    kind = "plain http, for loopback trials only" if settings.is_loopback_trial else "https"
    return Finding("public URL", True, f"{settings.public_url} ({kind})")
