"""What the rows tell: who refreshes, keys that are over, webhooks that fail, issuers that do not answer."""

import asyncio
from collections.abc import AsyncIterator
from datetime import datetime, timedelta

from sqlalchemy import func, or_, select
from sqlalchemy.ext.asyncio import AsyncSession

from evergrant.broker.operations.doctor_finding import Finding, listed, todo
from evergrant.broker.operations.doctor_replicas import disagreement
from evergrant.broker.projects.projects import closed_projects
from evergrant.db import Grant, GrantStatus, Holder, ManagementKey, OutboundApp, Project, TrustedIssuer, Webhook
from evergrant.db.engine import Database
from evergrant.errors import EvergrantError
from evergrant.oauth2.signed_token import read_jwks
from evergrant.oauth2.transport import Http, open_http
from evergrant.settings import Settings

LATE = timedelta(minutes=10)
ALIVE = timedelta(minutes=1)
SOON, OLD = timedelta(days=14), timedelta(days=365)
MOST_ISSUERS = 50
ISSUER_SECONDS = 10.0


async def examine_rows(database: Database, settings: Settings, *, now: datetime) -> AsyncIterator[Finding]:
    """Look at what is stored; `now` is the database's."""
    async with database.read() as session:
        findings = [
            await _refreshers(session, now=now),
            await _hosts(session, database, now=now),
            await disagreement(session, alive_since=now - ALIVE),
            await _keys(session, now=now),
            await _webhooks(session),
            await _refused_apps(session),
            await _redirect_origins(session),
            await _callbacks(session, settings),
        ]
        issuers = list(await session.scalars(select(TrustedIssuer).order_by(TrustedIssuer.id).limit(MOST_ISSUERS)))
    for finding in findings:
        yield finding
    async with open_http(settings.egress_allow, seconds=ISSUER_SECONDS) as http:
        for finding in await asyncio.gather(*(_issuer(http, issuer) for issuer in issuers)):
            yield finding


async def _refreshers(session: AsyncSession, *, now: datetime) -> Finding:
    first = (  # by the index of due grants, app by app
        select(func.min(Grant.next_refresh_at))
        .where(
            Grant.project_id == OutboundApp.project_id,
            Grant.app_id == OutboundApp.id,
            Grant.next_refresh_at <= now - LATE,
            Grant.status == GrantStatus.ACTIVE,
        )
        .scalar_subquery()
    )
    open_apps = select(OutboundApp.id, first.label("since")).where(OutboundApp.project_id.not_in(closed_projects()))
    late = [row for row in (await session.execute(open_apps)).all() if row.since is not None]
    alive = select(func.count()).select_from(Holder).where(Holder.beat_at > now - ALIVE)
    n = (await session.execute(alive)).scalar_one()
    if not late:
        return Finding("refreshers", True, f"nothing is late; {n} processes that have refreshed something are there")
    since = min(row.since for row in late)
    text = f"connections of {listed([row.id for row in late])} are due since {since:%Y-%m-%d %H:%M}"
    if not n:
        return Finding("refreshers", False, f"{text}, and nobody refreshes: start 'evergrant refresher'")
    return todo("refreshers", f"{text}: see 'evergrant refresh status', or start another 'evergrant refresher'")


async def _hosts(session: AsyncSession, database: Database, *, now: datetime) -> Finding:
    names = await session.scalars(select(Holder.name).where(Holder.beat_at > now - ALIVE))
    hosts = sorted({name.rpartition(":")[0] for name in names})
    if database.is_sqlite and len(hosts) > 1:
        text = f"{listed(hosts)} use one SQLite file, whose locks hold on one machine only: move to PostgreSQL"
        return Finding("hosts", False, text)
    return Finding("hosts", True, listed(hosts) if hosts else "nobody has refreshed anything yet")


async def _keys(session: AsyncSession, *, now: datetime) -> Finding:
    keys = list(await session.scalars(select(ManagementKey).where(ManagementKey.disabled.is_(False))))
    over = [key.id for key in keys if key.expires_at is not None and key.expires_at <= now]
    soon = [key.id for key in keys if key.expires_at is not None and now < key.expires_at <= now + SOON]
    old = [key.id for key in keys if key.expires_at is None and key.created_at < now - OLD]
    if over:
        return todo("management keys", f"over, so their callers get 401: {listed(over)}. Make new ones, or delete them")
    if soon:
        return todo("management keys", f"over within {SOON.days} days: {listed(soon)}. Replace them before")
    if old:
        return todo("management keys", f"older than {OLD.days} days: {listed(old)}. Replace them, see docs/keys.md")
    return Finding("management keys", True, str(len(keys)))


async def _webhooks(session: AsyncSession) -> Finding:
    trouble = or_(Webhook.failing_since.is_not(None), Webhook.disabled_reason != "")
    hooks = list(await session.scalars(select(Webhook).where(trouble).order_by(Webhook.id)))
    if hooks:
        off = [hook.id for hook in hooks if not hook.enabled]
        text = f"fail: {listed([hook.id for hook in hooks])}" + (f"; evergrant disabled {listed(off)}" if off else "")
        return todo("webhooks", f"{text}. Mend the receiver, enable it again and replay what it missed")
    return Finding("webhooks", True, "none fails")


async def _refused_apps(session: AsyncSession) -> Finding:
    ids = list(await session.scalars(select(OutboundApp.id).where(OutboundApp.unhealthy_since.is_not(None))))
    if ids:
        text = f"the provider refuses the client id or secret of {listed(ids)}"
        return todo("apps' registrations", f"{text}: correct them, and nobody has to connect again")
    return Finding("apps' registrations", True, "none is refused")


async def _redirect_origins(session: AsyncSession) -> Finding:
    projects = await session.scalars(select(Project).where(Project.closed_at.is_(None)))
    without = [project.id for project in projects if not project.redirect_origins]
    if without:
        text = f"none for {listed(without)}, so no link can lead back to an application"
        return todo("redirect origins", f"{text}: 'evergrant projects allow-redirect PROJECT ORIGIN'")
    return Finding("redirect origins", True, "every project has some")


async def _callbacks(session: AsyncSession, settings: Settings) -> Finding:
    registered = select(OutboundApp.id, OutboundApp.registered_redirect_uri)
    rows = await session.execute(registered.where(OutboundApp.registered_redirect_uri != ""))
    elsewhere = [row.id for row in rows if not row.registered_redirect_uri.startswith(f"{settings.public_url}/")]
    if elsewhere:
        text = f"{listed(elsewhere)} registered with another address than {settings.public_url}"
        return todo(
            "callbacks", f"{text}: set EVERGRANT_PUBLIC_URL alike everywhere, or the next connect registers anew"
        )
    return Finding("callbacks", True, "at the public URL")


async def _issuer(http: Http, issuer: TrustedIssuer) -> Finding:
    try:
        await read_jwks(http, issuer.jwks_url)
    except EvergrantError as error:
        text = f"{issuer.issuer}: {error.message} Its users' tokens are refused when our copy of its keys ends"
        return Finding("trusted issuers", False, f"{text}: correct {issuer.jwks_url}, or open the way to it")
    return Finding("trusted issuers", True, f"{issuer.issuer} shows its keys")
