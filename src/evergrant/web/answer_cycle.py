"""How answers are written: as uvicorn writes them, with fewer steps for each header and each piece."""

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HEADER_RE, HEADER_VALUE_RE, STATUS_LINE, RequestResponseCycle

_WITHOUT_BODY = frozenset((204, 304))


class Corked:
    """A transport that sends the head of an answer and the beginning of its body in one go, if both are there."""

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport, self._loop = transport, loop
        self._held: bytes | None = b""
        """What waits for more; None once something was sent."""

    def __getattr__(self, name: str) -> Any:
        """Be the transport in everything else."""
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        """Keep the first piece until the second comes, or the loop's next turn."""
        if self._held is None:
            self._transport.write(data)
        elif self._held:
            self._transport.write(self._held + data)
            self._held = None
        else:
            self._held = data
            self._loop.call_soon(self._send_held)

    def send(self, data: bytes) -> None:
        """Send all that there is, at once."""
        self._transport.write(data)
        self._held = None

    def close(self) -> None:
        """Send what is left, and close."""
        self._send_held()
        self._transport.close()

    def _send_held(self) -> None:
        if self._held and not self._transport.is_closing():  # by now, the caller may be gone
            self._transport.write(self._held)
            self._held = None


class AnswerCycle(RequestResponseCycle):
    """A request whose application answers with a head and then pieces, and leaves to us how the body is framed.

    All names are looked at in one go, and all values. uvicorn looks at each: half of what an answer costs goes there.
    """

    async def send(self, message: Any) -> None:
        """Send a part of the answer, when the one before has gone.

        Raises:
            RuntimeError: it is none that can come here.
        """
        if self.flow.write_paused and not self.disconnected:
            await self.flow.drain()
        if self.disconnected:
            return
        if message["type"] == "http.response.start" and not self.response_started:
            self._begin(message["status"], message["headers"])
        elif message["type"] == "http.response.body" and self.response_started and not self.response_complete:
            self._go_on(message.get("body", b""), is_last=not message.get("more_body", False))
        else:
            raise RuntimeError(f"'{message['type']}' is no part of the answer that can come here")

    async def send_whole(self, status: int, head: bytes, body: bytes) -> None:
        """Send a whole answer, when the one before has gone.

        `head` has header lines that whoever calls this has made itself, so that nobody needs to look at them.
        """
        if self.flow.write_paused and not self.disconnected:
            await self.flow.drain()
        if self.disconnected:
            return
        self.response_started, self.waiting_for_100_continue = True, False
        lines = [b"%b: %b\r\n" % header for header in self.default_headers]
        if not self.keep_alive:
            lines.append(b"connection: close\r\n")
        self.transport.send(  # type: ignore[attr-defined]  # a `Corked`
            b"".join((STATUS_LINE[status], *lines, head, b"content-length: %d\r\n\r\n" % len(body), body))
        )
        self._end()

    def _begin(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        self.response_started, self.waiting_for_100_continue = True, False
        names = {name for name, _ in headers}
        if b"transfer-encoding" in names or HEADER_RE.search(b"".join(names)):
            raise RuntimeError("a header's name is none that an answer may have")
        if HEADER_VALUE_RE.search(b"".join([value for _, value in headers])):
            raise RuntimeError("a header's value is none that an answer may have")
        lines = [b"%b: %b\r\n" % header for header in (*self.default_headers, *headers)]
        if b"connection" in names:
            self.keep_alive = False  # so says uvicorn's own answer to a bug
        elif not self.keep_alive:
            lines.append(b"connection: close\r\n")
        self.chunked_encoding = False
        if self.scope["method"] != "HEAD":
            if b"content-length" in names:
                self.expected_content_length = int(next(value for name, value in headers if name == b"content-length"))
            elif status not in _WITHOUT_BODY:
                self.chunked_encoding = True
                lines.append(b"transfer-encoding: chunked\r\n")
        self.transport.write(b"".join((STATUS_LINE[status], *lines, b"\r\n")))

    def _go_on(self, body: bytes, *, is_last: bool) -> None:
        if self.chunked_encoding:
            piece = b"%x\r\n%b\r\n" % (len(body), body) if body else b""
            self.transport.write(piece + b"0\r\n\r\n" if is_last else piece)
        elif self.scope["method"] != "HEAD":
            self.expected_content_length -= len(body)
            if self.expected_content_length < 0 or (is_last and self.expected_content_length):
                raise RuntimeError("the body is not as long as its header says")
            self.transport.write(body)
        if is_last:
            self._end()

    def _end(self) -> None:
        self.response_complete = True
        self.message_event.set()
        if not self.keep_alive:
            self.transport.close()
        self.on_response()
