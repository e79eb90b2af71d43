"""`evergrant demo`: evergrant and the practice provider in one process, on loopback, gone when it ends."""

import asyncio
import base64
import contextlib
import ipaddress
import secrets
import signal
import socket
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx2
import uvicorn
from pydantic import SecretStr

from evergrant import clock
from evergrant.broker.apps.provider_client import CALLBACK_PATH
from evergrant.broker.operations.setup import InitResult, initialise
from evergrant.broker.operators.one_time_links import make_link
from evergrant.broker.runtime.broker import open_broker
from evergrant.broker.trials.practice import PracticeClient
from evergrant.errors import ConfigurationError
from evergrant.networks import is_loopback_host
from evergrant.practice.beside import practice_client
from evergrant.practice.guide import create_guide, create_practice_site
from evergrant.practice.provider import create_provider
from evergrant.settings import Settings
from evergrant.web.app import create_app
from evergrant.web.protocol import HTTP_OPTIONS

LINK_MINUTES = 60
"""How long the console's link can wait."""


async def run_demo(*, host: str, port: int, practice_port: int, data_dir: Path | None = None) -> None:
    """Serve the demo until SIGINT or SIGTERM, or until the task is cancelled.

    Args:
        host: a loopback address or `localhost`; nothing else is served, so nobody mistakes it for production.
        port: evergrant's; 0 takes a free one.
        practice_port: the guide's and the practice provider's; 0 takes a free one.
        data_dir: a folder to keep. Without it, a temporary one is used and deleted at the end.

    Raises:
        ConfigurationError: `host` is not loopback, or a port cannot be used; the message says what to change.
    """
    if not is_loopback_host(host):
        raise ConfigurationError(f"The demo serves this machine only: {host} is not a loopback address.")
    address = "127.0.0.1" if host == "localhost" else host
    with contextlib.ExitStack() as stack:
        ours = stack.enter_context(_listening(address, port, "--port"))
        theirs = stack.enter_context(_listening(address, practice_port, "--practice-port"))
        folder = data_dir or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="evergrant-demo-")))
        settings = _settings(public_url=_origin(ours), data_dir=folder, kept=data_dir is not None)
        origin = _origin(theirs)
        made = await initialise(settings, project_name="Demo", redirect_origins=[origin])
        link = await _console_link(settings)
        practice = practice_client(f"{origin}/provider", secrets.token_urlsafe(24), guide=f"{origin}/")
        # Neither proxies nor an operator's certificates have a say in loopback calls.
        async with httpx2.AsyncClient(trust_env=False) as http:
            site = _practice_site(origin=origin, made=made, practice=practice, http=http)
            ours_app = create_app(settings, practice=practice)
            async with _serving(ours_app, ours) as first, _serving(site, theirs) as second:
                with _told_to_stop() as stop:  # before anybody can read how to stop it
                    print(_welcome(link, origin, made, kept=data_dir), flush=True)
                    await _until_stopped(stop, first, second)


def _settings(*, public_url: str, data_dir: Path, kept: bool) -> Settings:
    # Everything an environment could set is set here: a demo must never open somebody's real database.
    return Settings(
        data_dir=data_dir,
        database_url=None,
        # A folder that is kept keeps its key; data that is deleted needs none on disk.
        master_keys=None if kept else SecretStr(base64.b64encode(secrets.token_bytes(32)).decode()),
        public_url=public_url,
        egress_allow=(ipaddress.ip_network("127.0.0.0/8"), ipaddress.ip_network("::1/128")),
        trusted_proxies="",
        refresher=True,
        bootstrap_project_id=None,
        bootstrap_management_key=None,
        bootstrap_redirect_origins=(),
        console=True,
        console_networks=(),
        log_level="warning",
        log_format="text",
    )


async def _console_link(settings: Settings) -> str:
    async with open_broker(settings) as broker:
        return await make_link(broker, minutes=LINK_MINUTES, now=clock.now())


def _practice_site(*, origin: str, made: InitResult, practice: PracticeClient, http: httpx2.AsyncClient) -> Any:
    provider = create_provider(
        issuer=practice.issuer,
        clients={practice.client_id: practice.client_secret},
        redirect_uris=[f"{made.public_url}{CALLBACK_PATH}/*"],
    )
    guide = create_guide(
        evergrant_url=made.public_url,
        project_id=made.project_id,
        management_key=made.management_key,
        origin=origin,
        provider=provider.state.provider,
        http=http,
    )
    return create_practice_site(guide=guide, provider=provider)


@contextlib.contextmanager
def _listening(address: str, port: int, option: str) -> Iterator[socket.socket]:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((address, port))
            listener.listen()
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            raise ConfigurationError(
                f"Port {port} on {address} cannot be used ({reason}): choose another with {option}."
            ) from None
        yield listener


def _origin(listener: socket.socket) -> str:
    address, port = listener.getsockname()[:2]
    return f"http://[{address}]:{port}" if ":" in address else f"http://{address}:{port}"


class _Server(uvicorn.Server):
    """uvicorn, without its signal handlers: two servers in one loop would fight over them."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.ready = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets=sockets)
        self.ready.set()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@contextlib.asynccontextmanager
async def _serving(app: Any, listener: socket.socket) -> AsyncIterator["asyncio.Task[None]"]:
    """Serve `app` while the block runs. The task ends early only when the server fails."""
    config = uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,
        server_header=False,
        lifespan="on",
        timeout_graceful_shutdown=3,
        **HTTP_OPTIONS,
    )
    server = _Server(config)
    task = asyncio.create_task(server.serve(sockets=[listener]))
    ready = asyncio.create_task(server.ready.wait())
    try:
        await asyncio.wait({task, ready}, return_when=asyncio.FIRST_COMPLETED)
        if not server.started:
            raise ConfigurationError("The demo could not start: the reason is in the lines above.")
        yield task
    finally:
        ready.cancel()
        server.should_exit = True
        await task


@contextlib.contextmanager
def _told_to_stop() -> Iterator[asyncio.Event]:
    """Return what is set when SIGINT or SIGTERM comes while the block runs."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    # Not on Windows, and not outside the main thread: there, asyncio cancels this task on Ctrl-C.
    with contextlib.suppress(NotImplementedError, RuntimeError, ValueError):
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, stop.set)
    try:
        yield stop
    finally:
        # Where there were no handlers, there are none to remove.
        with contextlib.suppress(NotImplementedError, RuntimeError, ValueError):
            for number in (signal.SIGINT, signal.SIGTERM):
                loop.remove_signal_handler(number)


async def _until_stopped(stop: asyncio.Event, *servers: "asyncio.Task[None]") -> None:
    stopped = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait({stopped, *servers}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        stopped.cancel()


def _welcome(link: str, origin: str, made: InitResult, *, kept: Path | None) -> str:
    end = f"Ctrl-C ends the demo; its data stays in {kept}" if kept else "Ctrl-C ends the demo and deletes its data"
    lines = [
        "",
        "evergrant DEMO - not for production",
        "",
        f"Start here      {link}",
        f"Only HTTP calls {origin}/",
        "",
        f"evergrant       {made.public_url}",
        f"Project id      {made.project_id}",
        f"Management key  {made.management_key}",
        "",
        end,
        "",
    ]
    width = max(map(len, lines)) + 4
    return "\n".join(["#" * (width + 2), *(f"#  {line.ljust(width - 2)}#" for line in lines), "#" * (width + 2)])
