"""What goes to an API, and what comes back."""

from collections.abc import AsyncIterator, Callable, Hashable, Sequence
from dataclasses import dataclass


class BrokenOff(Exception):
    """An answer's body ended without its proper end; the message continues a sentence with the server's name."""


@dataclass(slots=True, kw_only=True)  # not frozen: that makes each of these cost three times as much
class UpstreamRequest:
    """One request, as it is to be sent."""

    pool: Hashable
    """Whose connections: the project and the base URL."""
    owner: Hashable
    """For whom: two owners never share a connection either."""
    method: str
    url: str
    """Whole and encoded: path and query are sent byte for byte."""
    headers: Sequence[tuple[bytes, bytes]]
    """Final, but for `Host` and all that says where the body ends, which are written here."""
    body: bytes | AsyncIterator[bytes] | None = None
    length: int | None = None
    """How long a body that is an iterator is, if that is known."""
    head_seconds: float = 60.0
    """From the last byte of the request to the head of the answer."""
    idle_seconds: float = 60.0
    """Between two pieces, either way."""
    total_seconds: float = 900.0

    @property
    def is_replayable(self) -> bool:
        """Whether its body is here, so that it could be sent again."""
        return self.body is None or isinstance(self.body, bytes)


@dataclass(slots=True)
class UpstreamAnswer:
    """One answer. Its body raises `BrokenOff` where it has no proper end."""

    status: int
    headers: tuple[tuple[bytes, bytes], ...]
    """As they came."""
    body: AsyncIterator[bytes]
    """As it came, still compressed."""
    end: Callable[[], None] = lambda: None
    """Ends it, to be called once: before the body's end, that closes the connection."""
