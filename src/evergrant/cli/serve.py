"""The commands `evergrant serve` and `evergrant refresher`."""

import asyncio
import contextlib
import gc
import os
import sys
import tempfile
import threading
from collections.abc import Iterator
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.request import ProxyHandler, build_opener

import click
import uvicorn

from evergrant import clock
from evergrant import refresher as background
from evergrant.broker.audit.record import Actor, actor
from evergrant.broker.operations.setup import is_first_run, make_first_project, prepare_database
from evergrant.broker.operators.one_time_links import make_link
from evergrant.broker.runtime.broker import open_broker
from evergrant.logs import configure_logging
from evergrant.networks import is_loopback_host
from evergrant.settings import PREFIX, Settings, load_settings, share_folder_with_workers
from evergrant.tracing import start_tracing
from evergrant.web.protocol import HTTP_OPTIONS

if sys.platform == "win32":
    LOOP_FACTORY = None
else:
    import uvloop

    LOOP_FACTORY = uvloop.new_event_loop  # as uvicorn chooses for the server; a third of a refresh is the event loop's
DRAIN_SECONDS = 45
"""How long a stop waits for requests in flight; refreshes in flight are waited for after that."""
FIRST_LINK_MINUTES = 60
"""How long the link of a first run can wait."""
LOOK_AGAIN_SECONDS = 0.1
WORKER_SILENCE_SECONDS = 30
"""How long a worker may say nothing before it is killed. uvicorn's 5 s is less than a start takes on a busy machine,
and killing a worker that is only paused kills the refreshes that it has in flight."""


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", default=8420, show_default=True, help="Port to listen on.")
@click.option("--workers", default=1, show_default=True, type=click.IntRange(1, 64), help="Server processes.")
@click.option("--no-refresher", is_flag=True, help="Serve only; 'evergrant refresher' runs somewhere else.")
@click.option("--migrate", is_flag=True, help="Bring a PostgreSQL schema up to date first. SQLite does so anyway.")
def serve(host: str, port: int, workers: int, no_refresher: bool, migrate: bool) -> None:
    """Serve the API and the connect pages, and refresh in the background."""
    at_home = is_loopback_host(host)
    if at_home and port:  # browsers on this machine find it there, unless somebody says otherwise
        os.environ.setdefault(f"{PREFIX}PUBLIC_URL", f"http://127.0.0.1:{port}")
    settings = load_settings()
    configure_logging(level=settings.log_level, style=settings.log_format)
    is_first = at_home and is_first_run(settings)
    asyncio.run(prepare_database(settings, migrate=migrate))
    if no_refresher:
        os.environ[f"{PREFIX}REFRESHER"] = "false"  # for the worker processes, which read it from there
    # The practice provider has its memory in one process.
    has_practice = at_home and settings.is_loopback_trial and workers == 1
    with _shared_metrics_folder(workers), _first_link(settings, host, port) if is_first else contextlib.nullcontext():
        _listen(
            f"evergrant.{'practice.beside' if has_practice else 'web.app'}:create_app_from_environment",
            settings,
            factory=True,
            host=host,
            port=port,
            workers=workers,
            timeout_worker_healthcheck=WORKER_SILENCE_SECONDS,
        )


@click.command()
@click.option("--migrate", is_flag=True, help="Bring a PostgreSQL schema up to date first. SQLite does so anyway.")
@click.option("--metrics-port", type=click.IntRange(1, 65535), help="Answer /metrics and health checks on this port.")
@click.option("--metrics-host", default="127.0.0.1", show_default=True, help="Address to listen on for them.")
def refresher(migrate: bool, metrics_port: int | None, metrics_host: str) -> None:
    """Refresh and deliver webhooks in the background, without serving. Any number of these may run."""
    settings = load_settings()
    configure_logging(level=settings.log_level, style=settings.log_format)
    asyncio.run(prepare_database(settings, migrate=migrate))
    start_tracing()
    if metrics_port is None:
        with asyncio.Runner(loop_factory=LOOP_FACTORY) as runner:
            runner.run(background.run(settings))
    else:
        from evergrant.web.app import create_refresher_app  # a refresher without a port does without all pages

        refreshing = settings.model_copy(update={"refresher": True})
        _listen(create_refresher_app(refreshing), settings, host=metrics_host, port=metrics_port)


@contextlib.contextmanager
def _first_link(settings: Settings, host: str, port: int) -> Iterator[None]:
    """Make the first project, and print the way in as soon as the server answers."""

    async def first_run() -> str:
        actor.set(Actor("cli"))
        async with open_broker(settings) as broker:
            await make_first_project(broker)
            return await make_link(broker, minutes=FIRST_LINK_MINUTES, now=clock.now())

    link, over = asyncio.run(first_run()), threading.Event()

    def tell() -> None:
        while not over.wait(LOOK_AGAIN_SECONDS):
            if _answers(host, port):
                click.echo(f"Open {link}")
                return

    threading.Thread(target=tell, daemon=True).start()
    try:
        yield
    finally:
        over.set()


def _answers(host: str, port: int) -> bool:
    address = f"[{host}]" if ":" in host else host
    try:
        with build_opener(ProxyHandler({})).open(f"http://{address}:{port}/readyz", timeout=5) as answer:
            return bool(answer.status == 200)
    except (OSError, HTTPException):  # an HTTPError is an OSError
        return False


def _listen(app: Any, settings: Settings, **options: Any) -> None:
    """Serve until SIGTERM or SIGINT."""
    gc.disable()  # until the application has started
    uvicorn.run(
        app,
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=True,
        forwarded_allow_ips=settings.trusted_proxies,
        timeout_graceful_shutdown=DRAIN_SECONDS,
        **HTTP_OPTIONS,
        **options,
    )


@contextlib.contextmanager
def _shared_metrics_folder(workers: int) -> Iterator[None]:
    """Give several workers a folder in which their metrics add up, whichever of them a scrape reaches."""
    if workers == 1:
        yield
        return
    with tempfile.TemporaryDirectory(prefix="evergrant-metrics-", ignore_cleanup_errors=True) as folder:
        share_folder_with_workers(Path(folder))
        yield
