"""The application factory."""

import asyncio
import contextlib
import gc
import signal
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from types import FrameType

from fastapi import FastAPI
from fastapi.telemetry import TelemetryConfig
from starlette.types import ASGIApp, Receive, Scope, Send

from evergrant import __version__
from evergrant.broker.operations.metrics import Exposition
from evergrant.broker.runtime.broker import open_broker
from evergrant.broker.trials.practice import PracticeClient
from evergrant.broker.webhooks.delivery import deliver_until
from evergrant.chores import AT_THE_END, OF_A_PROCESS, OF_A_SERVER, do_a_last_time, do_until
from evergrant.logs import configure_logging
from evergrant.refresher import refresh_until
from evergrant.settings import Settings, folder_of_workers, load_settings
from evergrant.tracing import start_tracing, stop_tracing
from evergrant.web import (
    accounts,
    approve,
    client_metadata,
    connect,
    cors,
    documentation,
    embed,
    errors,
    health,
    home,
    login,
    logos,
    metrics,
    protected_resource,
    static_files,
    theme,
)
from evergrant.web.api import accounts as api_accounts
from evergrant.web.api import (
    activity,
    app_check,
    approvals,
    apps,
    audit,
    branding,
    calls,
    connection_details,
    connections,
    credentials,
    exchange,
    first_steps,
    license_tier,
    logo_uploads,
    management_keys,
    policies,
    projects,
    sessions,
    templates,
    tokens,
    trials,
    trusted_issuers,
    uploads,
    webhook_deliveries,
    webhooks,
)
from evergrant.web.api import connect as api_connect
from evergrant.web.console.router import router as console_router
from evergrant.web.mcp.routes import ROUTES as MCP_ROUTES
from evergrant.web.middleware import RequestMiddleware
from evergrant.web.plain import PlainCalls
from evergrant.web.protocol import STREAMED
from evergrant.web.proxy import Proxy
from evergrant.web.proxy_document import proxy_paths
from evergrant.web.traced import traced

NO_TELEMETRY: TelemetryConfig = {"tracing": False, "metrics": False, "logs": False, "auto_configure": False}
"""FastAPI's own spans have paths and queries, with the secrets of links and callbacks; ours are in `traced`."""


def create_app(
    settings: Settings, *, workers_folder: Path | None = None, practice: PracticeClient | None = None
) -> FastAPI:
    """Make the application. The store opens when it starts.

    `workers_folder` is where the processes of one server add up what they count; None where there is but this one.
    `practice` is evergrant's registration at the practice provider that runs beside it; None where there is none.
    """
    app = PlainFirst(
        title="evergrant",
        version=__version__,
        summary="A self-hosted outbound-apps broker: consent once, get a working token every time.",
        lifespan=_lifespan(settings, workers_folder),
        docs_url=None,  # ours are in `documentation`
        redoc_url=None,
        openapi_url="/openapi.json",
        telemetry=NO_TELEMETRY,
        redirect_slashes=False,  # such a redirect leads where the Host header says
    )
    app.state.practice = practice
    errors.install(app)
    _add_middleware(app, settings)
    places = {"public_url": settings.public_url, "trusted_proxies": settings.trusted_proxies}
    app.streamed, app.fetches = Proxy(**places), PlainCalls(tokens.CALLS, **places)
    # Their routes as they are: to include a router would make each of them again (see `routing`). Those of fetches are
    # here for the document.
    for router in (
        tokens.router,
        apps.router,
        templates.router,
        uploads.router,
        credentials.router,
        connections.router,
        connection_details.router,
        activity.router,
        calls.router,
        app_check.router,
        trials.router,
        first_steps.router,
        api_connect.router,
        api_accounts.router,
        trusted_issuers.router,
        policies.router,
        approvals.router,
        projects.router,
        branding.router,
        logo_uploads.router,
        exchange.router,
        management_keys.router,
        sessions.router,
        audit.router,
        webhook_deliveries.router,  # first: its paths are no ids of webhooks
        webhooks.router,
        license_tier.router,
        connect.router,
        login.router,
        approve.router,
        protected_resource.router,
        accounts.router,
        embed.router,
        client_metadata.router,
        health.router,
        metrics.router,
        documentation.router,
        theme.router,
        logos.router,
        home.router,
        static_files.router,
    ):
        app.router.routes.extend(router.routes)
    app.router.routes.extend(MCP_ROUTES)
    app.router.routes.extend(console_router.routes)
    app.router.routes.extend(cors.PREFLIGHTS)
    app.openapi = lambda: documentation.openapi_document(  # type: ignore[method-assign]  # FastAPI's documented way to extend it
        app, user_calls=tokens.PATHS, paths=proxy_paths()
    )
    return app


class PlainFirst(FastAPI):
    """An application whose hot calls are answered before the framework's own layers, which cost more than the calls."""

    fetches: PlainCalls
    streamed: ASGIApp

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] == "http":
            if self.fetches.takes(scope):
                scope["app"] = self
                await self.fetches(scope, receive, send)
                return
            if scope["raw_path"].startswith(STREAMED):
                scope["app"] = self
                await self.streamed(scope, receive, send)
                return
        await super().__call__(scope, receive, send)


def _add_middleware(app: FastAPI, settings: Settings) -> None:
    app.add_middleware(
        RequestMiddleware,
        on_bug=errors.bug,
        public_url=settings.public_url,
        trusted_proxies=settings.trusted_proxies,
    )


def create_refresher_app(settings: Settings) -> FastAPI:
    """Make the application of `evergrant refresher --metrics-port`: it refreshes, and tells only how that goes."""
    app = FastAPI(
        lifespan=_lifespan(settings),
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        telemetry=NO_TELEMETRY,
        redirect_slashes=False,
    )
    errors.install(app)
    _add_middleware(app, settings)
    for router in (health.router, metrics.router):
        app.router.routes.extend(router.routes)
    return app


def _lifespan(
    settings: Settings, workers_folder: Path | None = None
) -> Callable[[FastAPI], AbstractAsyncContextManager[None]]:
    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        stop = asyncio.Event()
        async with (
            open_broker(settings) as broker,
            contextlib.aclosing(Exposition(broker, workers_folder)) as exposition,
        ):
            app.state.broker, app.state.exposition = broker, exposition
            tasks = [
                asyncio.create_task(do_until(broker, (*OF_A_PROCESS, *OF_A_SERVER), stop)),
                asyncio.create_task(exposition.share_until(stop)),
            ]
            if settings.refresher:
                tasks += [asyncio.create_task(work(broker, stop)) for work in (refresh_until, deliver_until)]
            _settle_memory()
            try:
                with _told_of_sigterm(broker.stop_waiting):
                    yield
            finally:
                stop.set()
                broker.stop_waiting()
                await asyncio.gather(do_a_last_time(broker, AT_THE_END), *tasks)
                await stop_tracing()

    return lifespan


def create_app_from_environment() -> ASGIApp:
    """Make the application in a worker process of `evergrant serve`."""
    settings = load_settings()
    configure_logging(level=settings.log_level, style=settings.log_format)
    return with_traces(create_app(settings, workers_folder=folder_of_workers()))


def with_traces(app: FastAPI) -> ASGIApp:
    """Begin with traces, where they are wanted, and return the application with a span for each request."""
    start_tracing()
    return traced(app, plain=tokens.PATHS, streamed=STREAMED)


@contextlib.contextmanager
def _told_of_sigterm(tell: Callable[[], None]) -> Iterator[None]:
    """Call `tell` as soon as SIGTERM comes, beside whatever else is done then.

    The server tells its application only when the last request is answered, and there may be some that wait for a
    database that is away.
    """
    before, loop = signal.getsignal(signal.SIGTERM), asyncio.get_running_loop()
    if threading.current_thread() is not threading.main_thread() or not callable(before):
        yield
        return

    def told(number: int, frame: FrameType | None) -> None:
        loop.call_soon_threadsafe(tell)
        before(number, frame)

    signal.signal(signal.SIGTERM, told)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _settle_memory() -> None:
    """Take what the start made out of the collector's sight, and let it run less often: that halves the p99.

    Where `evergrant serve` starts, the collector is off until now, and there is next to nothing for it to find.
    """
    if gc.isenabled():
        gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)
    gc.enable()
