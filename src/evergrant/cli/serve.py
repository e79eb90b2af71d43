"""The commands `evergrant serve` and `evergrant refresher`."""

import asyncio
import os

import click
import uvicorn

from evergrant import refresher as background
from evergrant.broker.setup import prepare
from evergrant.logs import configure_logging
from evergrant.settings import PREFIX, load_settings

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
    asyncio.run(prepare(settings, migrate=migrate))
    if no_refresher:
        os.environ[f"{PREFIX}REFRESHER"] = "false"  # for the worker processes, which read it from there
    uvicorn.run(
        "evergrant.web.app:create_app_from_environment",
        factory=True,
        host=host,
        port=port,
        workers=workers,
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=True,
        forwarded_allow_ips=settings.trusted_proxies,
        timeout_graceful_shutdown=DRAIN_SECONDS,
        timeout_worker_healthcheck=WORKER_SILENCE_SECONDS,
    )


@click.command()
@click.option("--migrate", is_flag=True, help="Bring a PostgreSQL schema up to date first. SQLite does so anyway.")
def refresher(migrate: bool) -> None:
    """Refresh and deliver webhooks in the background, without serving. Any number of these may run."""
    settings = load_settings()
    configure_logging(level=settings.log_level, style=settings.log_format)
    asyncio.run(prepare(settings, migrate=migrate))
    asyncio.run(background.run(settings))
