"""The manual run: refreshing apps' connections now, once, because an operator asks for it.

It goes the way of the background refresher: leases, the endpoints' limits and breakers, and the policies. But an
endpoint whose breaker opens is left for this time, instead of being tried again and again while somebody waits.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from sqlalchemy import ColumnElement, or_, select
from sqlalchemy.orm import load_only

from evergrant.app_types import AppType
from evergrant.broker.grants.last_used import last_use
from evergrant.broker.grants.schedule import WANTED_BY, is_wanted
from evergrant.broker.projects.projects import closed_projects, load_project
from evergrant.broker.refresh import lease, takeover
from evergrant.broker.refresh.claimed import refresh_or_put_off
from evergrant.broker.refresh.claims import ClaimQuota, claim_due_grants
from evergrant.broker.refresh.refresh import ClaimedGrant, refresh_grant
from evergrant.broker.runtime.broker import Broker
from evergrant.broker.runtime.endpoints import Endpoint
from evergrant.broker.runtime.worker_pool import WorkerPool
from evergrant.db import Grant, GrantStatus, OutboundApp
from evergrant.errors import AppNotFound, EvergrantError, Unavailable

log = logging.getLogger(__name__)

PAGE = 500
POLL_SECONDS = 0.5
"""How often is looked whether a provider that lets us ask only so much lets us ask more."""


@dataclass
class RunResult:
    """How many grants a run refreshed, put off and failed to refresh, and which apps it gave up."""

    refreshed: int = 0
    put_off: int = 0
    """Due, but not wanted by their app's policy, or because nobody has fetched them for long."""
    failed: Counter[str] = field(default_factory=Counter)
    """Failed refreshes by error message."""
    given_up: list[str] = field(default_factory=list)
    """Apps that were left, because their token endpoint failed again and again."""

    @property
    def done(self) -> int:
        """How many have been worked on."""
        return self.refreshed + self.put_off + self.failed.total()


@dataclass(frozen=True, slots=True)
class RunPlan:
    """What a run would do for one app."""

    app: OutboundApp
    calls: int
    """Refreshes that would be asked of its token endpoint."""
    put_off: int
    held: int
    """Grants whose lease somebody else holds: they are being refreshed."""


async def chosen_apps(broker: Broker, *, project_id: str | None, app_id: str | None) -> list[OutboundApp]:
    """Return the apps whose connections can be refreshed: of one project or all, of one id or all.

    Raises:
        NotFound: there is no such project.
        AppNotFound: there is no such app.
    """
    in_use = (OutboundApp.app_type != AppType.API_KEY, OutboundApp.project_id.not_in(closed_projects()))
    query = select(OutboundApp).where(*in_use).order_by(OutboundApp.project_id, OutboundApp.id)
    async with broker.database.read() as session:
        if project_id is not None:
            query = query.where(OutboundApp.project_id == (await load_project(session, project_id)).id)
        if app_id is not None:
            query = query.where(OutboundApp.id == app_id)
        apps = list(await session.scalars(query))
    if app_id is not None and not apps:
        raise AppNotFound(f"There is no outbound app '{app_id}' with connections to refresh.")
    return apps


async def plan(broker: Broker, app: OutboundApp, *, everything: bool, now: datetime) -> RunPlan:
    """Return what a run would do for an app. Changes nothing; reads each grant's dates, and no token."""
    calls = put_off = held = 0
    query = (
        select(Grant, takeover.is_free_for(broker).label("is_free"), last_use().label("used_at"))
        .options(load_only(*WANTED_BY, raiseload=True))
        .where(*_candidates(app, everything=everything, began=now))
        .execution_options(yield_per=PAGE)
    )
    async with broker.database.read() as session:
        async for grant, is_free, used_at in await session.stream(query):
            if not is_free:
                held += 1
            elif everything or is_wanted(
                app,
                grant,
                used_at=used_at,
                idle_after=broker.settings.idle_after,
                now=now,
            ):
                calls += 1
            else:
                put_off += 1
    return RunPlan(app, calls, put_off, held)


class ManualRun:
    """One run: claims as slots come free, until there is nothing left or `stop` is set."""

    def __init__(
        self,
        broker: Broker,
        *,
        everything: bool,
        at_once: int,
        stop: asyncio.Event,
        tell: Callable[[int], None],
        now: datetime,
    ) -> None:
        """Prepare a run.

        Args:
            broker: the runtime.
            everything: whether to refresh what is not due, too.
            at_once: how many calls at each token endpoint.
            stop: ends the run when it is set; what is in flight finishes first.
            tell: is called with the number of grants that have been worked on since the last call.
            now: the moment of the run: what falls due later, or was refreshed since, is left alone.
        """
        self._broker = broker
        self._everything = everything
        self._at_once = at_once
        self._stop = stop
        self._tell = tell
        self._now = now
        self._pages: dict[tuple[str, str], str] = {}
        """How far each app has been read, where everything is wanted."""
        self._seen: set[tuple[str, str]] = set()
        self._pool: WorkerPool[Endpoint] = WorkerPool(
            most=broker.settings.refresh_concurrency, most_per_key=self._at_once
        )
        self._outcome = RunResult()

    async def run(self, apps: Sequence[OutboundApp]) -> RunResult:
        """Refresh these apps' grants. Those that fall due meanwhile, or again, are left to the background.

        Raises:
            Unavailable: the database is away; what is in flight is finished first.
        """
        queue = list(apps)
        try:
            while queue and not self._stop.is_set():
                queue = [app for app in queue if await self._begin_some(app)]
                if queue:  # not for ever: what the provider lets a client ask grows by itself
                    await self._pool.wait_for_slot(self._stop, seconds=POLL_SECONDS)
        finally:
            await self._pool.drain()
        return self._outcome

    async def _begin_some(self, app: OutboundApp) -> bool:
        """Fill an app's free slots, and return whether it may have more."""
        endpoint = self._broker.endpoints.of(app)
        if endpoint.is_open:
            self._outcome.given_up.append(app.id)
            return False
        room = min(self._pool.room_for(endpoint), endpoint.room_for(app.client_id))
        several = min(self._at_once, endpoint.most_for(app.client_id)) // 4
        if room <= 0 or self._stop.is_set() or (endpoint in self._pool.by_key and room < several):
            return True
        claims = await (self._claim_any(app, room) if self._everything else self._claim_due(app, room))
        begun = 0
        for claim in claims:
            key = claim.leased.grant.project_id, claim.leased.grant.id
            if key in self._seen:  # it could neither be refreshed nor put off, and comes back
                await lease.release(self._broker, claim.leased)
                continue
            self._seen.add(key)
            self._pool.start(endpoint, self._refresh(claim))
            begun += 1
        return begun > 0

    async def _claim_due(self, app: OutboundApp, count: int) -> list[ClaimedGrant]:
        # As of the beginning: what fails falls due again later, and would be tried over and over.
        key = app.project_id, app.id
        claims = await claim_due_grants(self._broker, [ClaimQuota(key, due=count, overdue=0)], now=self._now)
        if len(claims) < count:
            late = ClaimQuota(key, due=0, overdue=count - len(claims))
            claims += await claim_due_grants(self._broker, [late], now=self._now)
        return claims

    async def _claim_any(self, app: OutboundApp, count: int) -> list[ClaimedGrant]:
        """Take the next leases in the order of ids, leaving out grants that somebody refreshed since the run began."""
        claims: list[ClaimedGrant] = []
        key = app.project_id, app.id
        while len(claims) < count:
            query = (
                select(Grant.id)
                .where(*_candidates(app, everything=True, began=self._now), Grant.id > self._pages.get(key, ""))
                .order_by(Grant.id)
                .limit(count - len(claims))
            )
            async with self._broker.database.read() as session:
                ids = list(await session.scalars(query))
            if not ids:
                break
            self._pages[key] = ids[-1]
            for grant_id in ids:
                try:
                    leased = await lease.take(self._broker, app.project_id, grant_id)
                except Unavailable:
                    if claims:
                        return claims  # rather than leave their leases to run out
                    raise
                if leased is None:
                    continue  # somebody is at it
                if (leased.grant.last_refresh_time or leased.grant.consented_at) > self._now:
                    await lease.release(self._broker, leased)
                    continue
                claims.append(ClaimedGrant(leased, app))
        return claims

    async def _refresh(self, claim: ClaimedGrant) -> None:
        grant = claim.leased.grant
        try:
            if self._everything:
                await refresh_grant(
                    self._broker, grant.project_id, grant.id, seen_version=grant.token_version, claim=claim
                )
                self._outcome.refreshed += 1
            elif await refresh_or_put_off(self._broker, claim, now=self._now):
                self._outcome.refreshed += 1
            else:
                self._outcome.put_off += 1
        except EvergrantError as error:
            self._outcome.failed[error.message] += 1
        except Exception:
            log.exception("a refresh broke", extra={"grant": grant.id, "app": grant.app_id})
            self._outcome.failed["A bug: the log has more."] += 1
        finally:
            self._tell(1)


def _candidates(app: OutboundApp, *, everything: bool, began: datetime) -> list[ColumnElement[bool]]:
    of_app = [Grant.project_id == app.project_id, Grant.app_id == app.id, Grant.status == GrantStatus.ACTIVE]
    if not everything:
        return [*of_app, Grant.next_refresh_at <= began]
    not_since = or_(Grant.last_refresh_time.is_(None), Grant.last_refresh_time <= began)
    return [*of_app, Grant.refresh_token.is_not(None), not_since]
