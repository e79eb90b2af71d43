"""The commands `evergrant serve` and `evergrant refresher`."""

import asyncio
import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import uvicorn

from evergrant import refresher as background
from evergrant.broker.operations.setup import prepare_database
from evergrant.logs import configure_logging
from evergrant.settings import PREFIX, Settings, load_settings, share_folder_with_workers
from evergrant.web.app import create_refresher_app
from evergrant.web.protocol import HTTP_OPTIONS

if sys.platform == "win32":
    LOOP_FACTORY = None
else:
    import uvloop

    LOOP_FACTORY = uvloop.new_event_loop  # as uvicorn chooses for the server; a third of a refresh is the event loop's
DRAIN_SECONDS = 45
"""How long a stop waits for requests in flight; refreshes in flight are waited for after that."""
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
    settings = load_settings()
    configure_logging(level=settings.log_level, style=settings.log_format)
    asyncio.run(prepare_database(settings, migrate=migrate))
    if no_refresher:
        os.environ[f"{PREFIX}REFRESHER"] = "false"  # for the worker processes, which read it from there
    with _shared_metrics_folder(workers):
        _listen(
            "evergrant.web.app:create_app_from_environment",
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
    if metrics_port is None:
        with asyncio.Runner(loop_factory=LOOP_FACTORY) as runner:
            runner.run(background.run(settings))
    else:
        refreshing = settings.model_copy(update={"refresher": True})
        _listen(create_refresher_app(refreshing), settings, host=metrics_host, port=metrics_port)


def _listen(app: Any, settings: Settings, **options: Any) -> None:
    """Serve until SIGTERM or SIGINT."""
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
