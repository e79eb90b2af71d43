"""An answer as it arrives."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from evergrant.oauth2.content_encoding import UndecodableBody, decoded, is_json_object

MAX_BODY_BYTES = 1024 * 1024
MAX_PARTS = 8_192
"""How many chunks a body may have: each costs as much time as a small answer, be it one byte long."""
_LISTS = ("www-authenticate", "content-encoding")


@dataclass(frozen=True, slots=True)
class HttpAnswer:
    """A complete answer, decompressed, with header names in lower case. The body may hold tokens: no repr."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def __repr__(self) -> str:
        """Show the status and the size only."""
        return f"HttpAnswer(status={self.status}, {len(self.body)} bytes)"


class UnusableAnswer(Exception):
    """An answer that cannot be read; the message continues a sentence that begins with the server's name."""


class Incoming:
    """Collects one answer: at most 1 MiB, before and after decompression, in not too many parts."""

    def __init__(self) -> None:
        self._status = 0
        self._headers: dict[str, str] = {}
        self._body = bytearray()
        self.parts = 0
        """How many parts of the body have come."""

    def begin(self, status: int, headers: Iterable[tuple[bytes, bytes]]) -> None:
        """Take the status and the headers."""
        self._status = status
        for raw_name, raw_value in headers:
            name, value = raw_name.decode("latin-1").lower(), raw_value.decode("latin-1")
            # Of several headers the last counts, but for those that are one list (RFC 9110 section 5.3).
            joined = name in _LISTS and name in self._headers
            self._headers[name] = f"{self._headers[name]}, {value}" if joined else value

    def add(self, chunk: bytes) -> None:
        """Take a part of the body.

        Raises:
            UnusableAnswer: it is too much.
        """
        self.parts += 1
        if self.parts > MAX_PARTS:
            raise UnusableAnswer(f"sent an answer in more than {MAX_PARTS:,} parts")
        self._body += chunk
        if len(self._body) > MAX_BODY_BYTES:
            raise UnusableAnswer("sent an answer of more than 1 MiB")

    def whole(self) -> HttpAnswer:
        """Return the answer, whose end has come.

        Raises:
            UnusableAnswer: it cannot be read.
        """
        if len(self._body) > MAX_BODY_BYTES:
            raise UnusableAnswer("sent an answer of more than 1 MiB")
        try:
            body = decoded(bytes(self._body), self._headers.get("content-encoding", ""), most=MAX_BODY_BYTES)
        except UndecodableBody as error:
            raise UnusableAnswer(str(error)) from None
        return HttpAnswer(self._status, self._headers, body)

    def whole_without_its_end(self) -> HttpAnswer | None:
        """Return the answer where it broke off, or does not end, and has all of a JSON object; else None.

        Servers announce more than they send, or lose the end of a stream. The tokens in it exist nowhere else.
        """
        try:
            answer = self.whole()
        except UnusableAnswer:
            return None
        return answer if self._status and is_json_object(answer.body) else None
