"""A cable between evergrant and PostgreSQL that a test can cut, or let hang, and mend."""

import asyncio
import contextlib
import shutil
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path

from tests.infra.postgres import PostgresServer
from tests.infra.waiting import PATIENCE

SOCKET = ".s.PGSQL.5432"


class Cable:
    """Passes on what both ends say, over a Unix socket of its own. It works in a thread, so any test can use it."""

    def __init__(self, server: PostgresServer) -> None:
        self._far_end = str(server.folder / SOCKET)
        self._folder = Path(tempfile.mkdtemp(prefix="evg-cable-", dir="/tmp"))
        self._folder.chmod(0o755)
        self._loop = asyncio.new_event_loop()
        self._writers: set[asyncio.StreamWriter] = set()
        self._is_cut = False
        self._flows = asyncio.Event()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._lay(), self._loop).result(PATIENCE)

    def url(self, database: str) -> str:
        """Return the URL for `EVERGRANT_DATABASE_URL` of who is at this end of the cable."""
        return f"postgresql://postgres@/{database}?host={self._folder}"

    def cut(self) -> None:
        """End every connection, and refuse new ones, as a network does that has lost a machine and says so."""

        def cut() -> None:
            self._is_cut = True
            self._flows.set()
            for writer in list(self._writers):
                writer.transport.abort()

        self._do(cut)

    def hang(self) -> None:
        """Swallow everything and say nothing, as a firewall does that has forgotten its connections."""
        self._do(self._flows.clear)

    def mend(self) -> None:
        """Pass on again, also what was swallowed."""

        def mend() -> None:
            self._is_cut = False
            self._flows.set()

        self._do(mend)

    def remove(self) -> None:
        """Take the cable away."""
        self.cut()
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result(PATIENCE)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(PATIENCE)
        self._loop.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    async def _lay(self) -> None:
        self._flows.set()
        self._server = await asyncio.start_unix_server(self._connect, self._folder / SOCKET, backlog=512)

    async def _end(self) -> None:
        self._server.close()
        await asyncio.gather(*asyncio.all_tasks() - {asyncio.current_task()}, return_exceptions=True)

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._is_cut:
            writer.transport.abort()
            return
        await self._flows.wait()
        try:
            far_reader, far_writer = await asyncio.open_unix_connection(self._far_end)
        except OSError:
            writer.transport.abort()
            return
        self._writers |= {writer, far_writer}
        await asyncio.gather(self._pass_on(reader, far_writer), self._pass_on(far_reader, writer))
        self._writers -= {writer, far_writer}

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                await self._flows.wait()
                writer.write(data)
                await writer.drain()
        writer.close()

    def _do(self, change: Callable[[], None]) -> None:
        async def do() -> None:
            change()

        asyncio.run_coroutine_threadsafe(do(), self._loop).result(PATIENCE)
