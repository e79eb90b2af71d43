"""How the server speaks HTTP/1.1: uvicorn's protocol, with bounds on what callers send and on how long they take.

uvicorn's fast parser has none: headers, trailers and extensions of chunks may be of any size and come at any pace,
before anybody has shown a credential. Bodies have their limits in `middleware`, where they are read.

Nothing here runs for each header, and no timer is set for a request: a connection is looked at every two seconds.
Looks are counted and not seconds, so that nobody is late because this process stood still.
"""

import asyncio
import enum
import logging
from collections import deque
from collections.abc import Callable
from functools import cache
from typing import Any

import httptools
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from evergrant.oauth2.open_files import callers_at_once
from evergrant.web.answer_cycle import AnswerCycle, Corked

log = logging.getLogger(__name__)

MOST_HEAD_BYTES = 64 * 1024
"""All headers together. Browsers and proxies send some 10 KiB at most."""
MOST_HEADERS = 200
MOST_URL_BYTES = 16 * 1024
MOST_FRAMING_BYTES = 1024 * 1024
"""What a chunked body may have beside its content: sizes and extensions of its chunks."""
MOST_PIPELINED = 16
"""Requests that a caller may send before it has read the answer to the first."""
SMALL_BODY_BYTES = 64 * 1024
MOST_LARGE_BODIES_BYTES = 64 * 1024 * 1024
"""What is in memory, at once, of bodies that are not small. Small ones are always taken."""
MOST_REST_BYTES = 1024 * 1024
"""What is still read of a body after its answer, so that the caller comes to read that."""

STREAMED = b"/v1/proxy/"
"""Bodies of requests below this path are read on as they are sent on: no more than a small one is ever in memory."""
CALLER = "evergrant.caller"
"""The extension of such a request's scope by which it knows whether its caller is still there."""

LOOK_SECONDS = 2.0
HEAD_LOOKS = 5
"""A request's headers have 10 seconds."""
SILENT_LOOKS = 15
"""Of a body, something has to come every 30 seconds,"""
BODY_LOOKS = 300
"""and all of it in 10 minutes."""
IDLE_SECONDS = 75
"""How long a caller may take between two requests. Balancers keep connections for 60: one that we closed just when it
was used again would cost somebody an answer."""
REST_LOOKS = 5
UNREAD_LOOKS = 30
"""A caller reads something of its answer every minute,"""
READ_LOOKS = 300
"""and has read all of it once in 10 minutes."""

_TOO_MANY_BODIES = "There are too many large requests at once. Try again."
_CLEARED_AT_ONCE = 20
"""One in so many connections goes when there are too many: looking for it costs, and so not for each new one."""

_most_connections = cache(callers_at_once)


class Due(enum.Enum):
    """What a connection waits for."""

    HEAD = "a request"
    BODY = "the body of a request"
    ANSWER = "our own answer"
    REST = "the rest of a body whose answer has been given"


_MOST_LOOKS = {Due.HEAD: HEAD_LOOKS, Due.BODY: BODY_LOOKS, Due.REST: REST_LOOKS}


class BoundedProtocol(HttpToolsProtocol):
    """One caller's connection."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.due: Due = Due.HEAD
        self.looks = 0
        """How many looks have found the caller owing us the same."""
        self.large_body = 0
        """Bytes of the body that is in memory, where it is not small, as far as they are counted: all but 64 KiB."""
        self.body_bytes = 0
        """Bytes of the body that have arrived."""
        self._is_kept = False
        """Whether it has had an answer, and was kept."""
        self._silent_looks = 0
        self._unread = 0
        self._unread_looks = 0
        """How many looks have found a part of our answer unread,"""
        self._unmoved_looks = 0
        """and how many of these the same part."""
        self._is_aborted = False
        self._unanswered: deque[RequestResponseCycle] = deque()
        """Requests in the order in which they came, which is that of their answers."""
        self._head_arrived = 0
        self._framing = 0
        self._refusal = (400, "This is no HTTP request.")
        self._is_streamed = False
        self._when_gone: Callable[[], None] | None = None
        self._watch: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        """Take a connection. Of too many, those go that have kept us waiting for the longest time."""
        super().connection_made(transport)
        self._watch = self.loop.call_later(LOOK_SECONDS, self._watch_on)
        if len(self.connections) > _most_connections():
            self._make_room()

    def _make_room(self) -> None:
        # One that is closing counts until its caller has read what is left.
        there = [one for one in self._connections() if not one._is_aborted]
        if len(there) <= _most_connections():
            return
        waited_for = [one for one in there if one is not self and (one.owes_us or one.has_unread)]
        waited_for.sort(key=lambda one: max(one.looks, one._unread_looks), reverse=True)
        leaving = waited_for[: len(there) // _CLEARED_AT_ONCE + 1] or [self]
        for one in leaving:
            one._abort()
        log.warning("there are more connections than can be kept", extra={"closed": len(leaving)})

    def connection_lost(self, exc: Exception | None) -> None:
        """Look no more, and let no request's answer wait for the caller: uvicorn tells the last request only."""
        if self._watch is not None:
            self._watch.cancel()
        for cycle in self._unanswered:
            cycle.disconnected = True
            cycle.message_event.set()
        if self._when_gone is not None:
            self._when_gone()
        super().connection_lost(exc)

    def when_gone(self, told: Callable[[], None] | None) -> None:
        """Have `told` called when the caller hangs up, from now on; None for nobody."""
        self._when_gone = told
        if told is not None and self.transport.is_closing():
            told()

    def break_off(self) -> None:
        """End the connection in the middle of the answer that is being given, so that nobody takes it for whole."""
        if self._unanswered:
            self._unanswered[0].disconnected = True
            self._unanswered[0].transport.close()

    @property
    def owes_us(self) -> bool:
        """Whether the caller has to send something before anything happens."""
        if self.due is Due.HEAD:
            return not self._unanswered
        return self.due is not Due.ANSWER

    @property
    def has_unread(self) -> bool:
        """Whether the caller has to read before all of our answer can be sent."""
        return self.transport.get_write_buffer_size() > 0

    def _connections(self) -> "list[BoundedProtocol]":
        return [one for one in self.connections if isinstance(one, BoundedProtocol)]

    def data_received(self, data: bytes) -> None:
        """Take what has arrived."""
        self._unset_keepalive_if_required()
        self._silent_looks = 0
        due = self.due
        if due is Due.HEAD and not self._head_arrived:
            self.looks = 0  # a request begins, and has its own ten seconds
        self._framing += len(data)
        self._head_arrived += len(data)
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self.cycle.keep_alive = False  # there is none; what follows the request need not be HTTP
        except httptools.HttpParserError:
            self._refuse(*self._refusal)
            return
        if due is Due.HEAD and self.due is Due.HEAD and self._head_arrived > MOST_HEAD_BYTES:
            self._refuse(431, "The headers are too large.")
        elif self._framing > (MOST_REST_BYTES if self.due is Due.REST else MOST_FRAMING_BYTES):
            self._refuse(400, "The body is sent in too many parts.")
        elif len(self.headers or ()) > MOST_HEADERS:
            self._refuse(431, "There are too many headers.")

    def on_headers_complete(self) -> None:
        """Begin to answer, unless the head is too large."""
        if len(self.headers) > MOST_HEADERS:
            self._stop_parsing(431, "There are too many headers.")
        if len(self.url) > MOST_URL_BYTES:
            self._stop_parsing(414, "The URL is too long.")
        if self._head_arrived > MOST_HEAD_BYTES and sum(map(_size, self.headers)) > MOST_HEAD_BYTES:
            self._stop_parsing(431, "The headers are too large.")
        if len(self.pipeline) >= MOST_PIPELINED:
            self._stop_parsing(400, "There are too many requests without an answer.")
        self._is_streamed = self.url.startswith(STREAMED)
        if self._is_streamed:
            self.scope["extensions"] = {CALLER: self}  # type: ignore[dict-item]  # ours; servers may add such
        super().on_headers_complete()
        cycle = self.cycle
        cycle.transport = Corked(self.transport, self.loop)  # type: ignore[assignment]  # it is one, in effect
        cycle.__class__ = AnswerCycle  # uvicorn makes its own, which has nothing yet that differs
        self._unanswered.append(self.cycle)
        # Trailers must not become headers: the application has begun to read those.
        self.headers = []
        self._wait_for(Due.BODY)

    def on_body(self, body: bytes) -> None:
        """Take a part of a body."""
        if self.due is Due.REST:
            return
        self._framing -= len(body)
        self.body_bytes += len(body)
        if self.body_bytes - self.large_body > SMALL_BODY_BYTES and not self._is_streamed:
            self.large_body = self.body_bytes  # not for each part, of which there may be a hundred thousand
            self._make_room_for_bodies()
        super().on_body(body)

    def _make_room_for_bodies(self) -> None:
        """Of too many large bodies, refuse those that have taken longest: whoever drips one keeps nobody's out."""
        large = [one for one in self._connections() if one.large_body]
        large.sort(key=lambda one: one.looks)
        too_much = sum(one.large_body for one in large) - MOST_LARGE_BODIES_BYTES
        while too_much > 0:
            slowest = large.pop()
            if slowest.looks <= self.looks:
                self._stop_parsing(503, _TOO_MANY_BODIES)
            too_much -= slowest.large_body
            slowest._refuse(503, _TOO_MANY_BODIES)

    def on_message_complete(self) -> None:
        """Have all of a request."""
        super().on_message_complete()
        self._wait_for(Due.ANSWER if self._unanswered else Due.HEAD)

    def on_response_complete(self) -> None:
        """Go on with the next request, or with what is left of this one."""
        self.large_body = 0
        self._is_kept = True
        self._unanswered.popleft()
        if not self._unanswered:
            self._wait_for(Due.REST if self.due is Due.BODY else Due.HEAD)
            if self.due is Due.REST and self.expect_100_continue:
                # The caller may leave the body out, and what follows would be taken for it.
                self.cycle.transport.close()
        super().on_response_complete()

    def _wait_for(self, due: Due) -> None:
        self.due = due
        self.looks = self._silent_looks = self._head_arrived = self._framing = self.body_bytes = 0

    def _watch_on(self) -> None:
        self._watch = self.loop.call_later(LOOK_SECONDS, self._watch_on)
        self.look()

    def look(self) -> None:
        """See whether the caller owes us something for too long."""
        unread = self.transport.get_write_buffer_size()
        self._unread_looks = self._unread_looks + 1 if unread else 0
        self._unmoved_looks = self._unmoved_looks + 1 if unread and unread == self._unread else 0
        self._unread = unread
        if self._unmoved_looks > UNREAD_LOOKS or self._unread_looks > READ_LOOKS:
            self._abort()
        elif self.owes_us and not self.transport.is_closing():
            self._look_at_debt()

    def _look_at_debt(self) -> None:
        if self.due is Due.BODY:
            if self.flow.read_paused or self.cycle.waiting_for_100_continue:
                return  # it is the application that does not read
            self._silent_looks += 1
        self.looks += 1
        if self.due is Due.HEAD and self._is_kept and not self._head_arrived:
            return  # uvicorn's timer closes it
        if self.looks <= _MOST_LOOKS[self.due] and self._silent_looks <= SILENT_LOOKS:
            return
        if self.due is Due.BODY or self._head_arrived:
            self._refuse(408, "The request took too long to arrive.")
        else:
            self.transport.close()

    def _abort(self) -> None:
        self._is_aborted = True
        self.transport.abort()

    def _stop_parsing(self, status: int, why: str) -> None:
        self._refusal = (status, why)
        raise ValueError(why)

    def _refuse(self, status: int, why: str) -> None:
        """Close the connection, and say why where it is this request's turn to be answered."""
        log.info("a caller was refused", extra={"status": status, "why": why})
        is_current = self.due is Due.BODY and not self.pipeline and not self.cycle.response_started
        if is_current or (self.due is Due.HEAD and not self._unanswered):
            text = why.encode()
            head = b"content-type: text/plain; charset=utf-8\r\ncontent-length: %d\r\nconnection: close\r\n\r\n" % len(
                text
            )
            self.transport.write(STATUS_LINE[status] + head + text)
        self.large_body = 0
        self.transport.close()


def _size(header: tuple[bytes, bytes]) -> int:
    return len(header[0]) + len(header[1])


HTTP_OPTIONS: dict[str, Any] = {"http": BoundedProtocol, "ws": "none", "timeout_keep_alive": IDLE_SECONDS}
"""How every server of evergrant speaks: options of uvicorn."""
