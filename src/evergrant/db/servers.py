"""The PostgreSQL servers that the database's URL names, and connections to the one of them that takes writes."""

import asyncio
import logging
import re
import socket
from collections import deque
from typing import Literal, NamedTuple
from weakref import WeakSet

import asyncpg
from sqlalchemy.engine import URL

from evergrant.errors import ConfigurationError

log = logging.getLogger(__name__)

SETTING = "EVERGRANT_DATABASE_URL"
"""Where the URL comes from, when nothing else is said."""
CONNECT_SECONDS = 5.0
"""How long one server may take to let us in."""
NEXT_SECONDS = 0.5
"""How long the first of several servers has before the next one is tried beside it."""
COMMAND_SECONDS = 30.0
"""How long a statement may take where nothing else is said."""
SILENT_SECONDS = 6
"""How long a server's machine may acknowledge nothing before a connection to it counts as lost."""
PROBE_SECONDS = 2
"""How often a machine is asked for a sign of life where nothing else is sent."""

Pooler = Literal["auto", "none", "transaction"]
"""What is between us and PostgreSQL: see `Settings.database_pooler`."""

_HOST_LIST = re.compile(r"^([^:/?#]+://(?:[^/?#]*@)?)([^/?#@]*,[^/?#@]*)([/?#].*)?$")
_FOR_WRITES = ("read-write", "primary")
_OPTIONS = [
    ("SO_KEEPALIVE", socket.SOL_SOCKET, 1),
    ("TCP_KEEPIDLE", socket.IPPROTO_TCP, PROBE_SECONDS),
    ("TCP_KEEPINTVL", socket.IPPROTO_TCP, PROBE_SECONDS),
    ("TCP_KEEPCNT", socket.IPPROTO_TCP, SILENT_SECONDS // PROBE_SECONDS),
    ("TCP_USER_TIMEOUT", socket.IPPROTO_TCP, SILENT_SECONDS * 1000),
]
"""What is set on a connection's socket, as far as the machine knows it."""


class Host(NamedTuple):
    """One server of several."""

    name: str
    port: int


class ReadOnlyServer(ConnectionError):
    """The server takes no writes: it is a standby, or was told not to."""


def with_hosts_as_parameter(configured: str) -> str:
    """Move a list of hosts (`postgresql://one:5432,two:5432/name`), which SQLAlchemy cannot read, into a parameter."""
    match = _HOST_LIST.match(configured)
    if match is None:
        return configured
    before, hosts, after = match[1], match[2], match[3] or ""
    path, mark, query = after.partition("?")
    return f"{before}{path or '/'}?host={hosts}{'&' + query if mark and query else ''}"


def hosts_of(url: URL, setting: str = SETTING) -> list[Host]:
    """Return the servers that a URL names, in its order; an empty list where it names one, or leaves it to asyncpg.

    Several are in `host`, with their ports or with those in `port`: one each, or one for all.

    Raises:
        ConfigurationError: a host has no name, a port is no number, or there are not as many ports as hosts.
    """
    names = _listed(url, "host")
    if len(names) < 2:
        return []
    ports = _listed(url, "port") or ["5432"]
    if len(ports) == 1:
        ports *= len(names)
    if len(ports) != len(names):
        raise ConfigurationError(f"{setting}: give one port for all hosts, or one for each")
    return [_host(name, port, setting) for name, port in zip(names, ports, strict=True)]


def _listed(url: URL, name: str) -> list[str]:
    value = url.query.get(name, ())
    return [part.strip() for each in ([value] if isinstance(value, str) else value) for part in each.split(",")]


def _host(text: str, port: str, setting: str) -> Host:
    if not text.startswith("/"):  # the folder of a Unix socket has no port in its name
        match = re.fullmatch(r"(\[[^\]]+\]|[^:]+)(?::(\d+))?", text)
        text, port = (match[1].strip("[]"), match[2] or port) if match else ("", port)
    if not text or not port.isdecimal():
        raise ConfigurationError(f"{setting}: write several hosts as postgresql://one:5432,two:5432/name")
    return Host(text, int(port))


class Servers:
    """Makes every connection of this process to its database on PostgreSQL, or to a standby of it."""

    def __init__(self, url: URL, pooler: Pooler = "auto", *, setting: str = SETTING) -> None:
        """Take the URL apart; of a `setting` other than the database's own, no server has to take writes."""
        hosts = hosts_of(url, setting)
        wanted = url.query.get("target_session_attrs", "any")
        if setting == SETTING and wanted not in ("any", *_FOR_WRITES):
            raise ConfigurationError(f"{setting}: evergrant needs a server that takes writes: read-write")
        self._must_write = setting == SETTING and (len(hosts) > 1 or wanted in _FOR_WRITES)
        self._hosts: list[Host | None] = [*hosts] or [None]
        plain = url.set(drivername="postgresql").difference_update_query(
            ["target_session_attrs", *(["host", "port"] if hosts else [])]
        )
        self._dsn = plain.render_as_string(hide_password=False)
        self.is_pooled: bool | None = {"auto": None, "none": False, "transaction": True}[pooler]
        """Whether a pooler is between, so that two statements may meet two servers; None until it is known."""
        self._connections: WeakSet[asyncpg.Connection] = WeakSet()

    async def connect(self, *, command_timeout: float | None = COMMAND_SECONDS) -> asyncpg.Connection:
        """Open a connection; where the database's URL names several servers, to one that takes writes.

        The one that did so last is asked first, and the next ones beside it when it does not answer at once.

        Raises:
            asyncpg.PostgresError: a server refuses us.
            OSError: none can be reached in time, or none takes writes.
        """
        connection = await self._first(command_timeout)
        self._connections.add(connection)
        return connection

    def cut(self) -> None:
        """Cut every connection off, so that what hangs on one fails at once: the database was found to be away."""
        for connection in list(self._connections):
            connection.terminate()

    async def _first(self, command_timeout: float | None) -> asyncpg.Connection:
        if len(self._hosts) == 1:
            return await self._open(self._hosts[0], command_timeout)
        waiting, error = deque(self._hosts), None
        tries: dict[asyncio.Task[asyncpg.Connection], Host | None] = {}
        try:
            while waiting or tries:
                if waiting:
                    host = waiting.popleft()
                    tries[asyncio.create_task(self._open(host, command_timeout))] = host
                pause = NEXT_SECONDS if waiting else None
                done, _ = await asyncio.wait(tries, timeout=pause, return_when=asyncio.FIRST_COMPLETED)
                if not done:  # so that who comes next does not wait for it, also when the caller has no more time
                    self._hosts = [*(other for other in self._hosts if other != host), host]
                for task in done:
                    best = tries.pop(task)
                    if (error := task.exception()) is None:
                        self._hosts = [best, *(host for host in self._hosts if host != best)]
                        return task.result()
        finally:
            for task in tries:
                task.add_done_callback(_close)
                task.cancel()
        raise error or ReadOnlyServer  # the one that took longest to fail

    async def _open(self, host: Host | None, command_timeout: float | None) -> asyncpg.Connection:
        keeps_statements = not self.is_pooled
        connection = await asyncpg.connect(
            self._dsn,
            **({"host": host.name, "port": host.port} if host else {}),
            target_session_attrs="any",  # we look for ourselves, because asyncpg does it in a way that a pooler breaks
            timeout=CONNECT_SECONDS,
            command_timeout=command_timeout,
            # Without a cache, asyncpg sends a statement and its values in one go, which stays together behind a pooler.
            statement_cache_size=100 if keeps_statements else 0,
        )
        try:
            _watch(connection)
            if self._must_write or self.is_pooled is None:
                await self._examine(connection)
        except BaseException:
            connection.terminate()
            raise
        if self.is_pooled and keeps_statements:
            connection.terminate()
            return await self._open(host, command_timeout)
        return connection

    async def _examine(self, connection: asyncpg.Connection) -> None:
        """Find out whether this server takes writes, and whether there is a pooler before it."""
        async with asyncio.timeout(CONNECT_SECONDS), connection.transaction():
            # In a transaction and without a name: that works behind a pooler too.
            statement = await connection.prepare(
                "SELECT pg_backend_pid(), current_setting('transaction_read_only')", name=""
            )
            process, read_only = await statement.fetchrow()
        if self._must_write and read_only == "on":
            raise ReadOnlyServer("the server takes no writes")
        if self.is_pooled is None:
            # PostgreSQL tells each connection its process, for cancelling. A pooler that lends its connections to
            # several clients has to tell them a number of its own.
            self.is_pooled = process != connection.get_server_pid()
            if self.is_pooled:
                log.info("there is a connection pooler before the database: statements are not kept prepared")


def _close(task: "asyncio.Task[asyncpg.Connection]") -> None:
    if not task.cancelled() and task.exception() is None:
        task.result().terminate()


def _watch(connection: asyncpg.Connection) -> None:
    """Have the system notice that the server's machine is gone, which says nothing: also while a statement waits.

    A statement that takes long, or waits for a lock, is not cut off by this: the machine still acknowledges.
    """
    line = connection._transport.get_extra_info("socket")  # asyncpg has no way to ask for this
    if line is None or line.family not in (socket.AF_INET, socket.AF_INET6):
        return
    for name, level, value in _OPTIONS:
        if option := getattr(socket, name, None):
            line.setsockopt(level, option, value)
