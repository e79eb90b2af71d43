"""A caller that speaks HTTP byte by byte, rightly or wrongly."""

import contextlib
import socket
from typing import Self

from tests.infra.waiting import PATIENCE

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class RawCaller:
    """One connection to a server on this machine, while the `with` block runs."""

    def __init__(self, url: str, *, room: int | None = None) -> None:
        """`room` is how many bytes the system takes that are not read yet; None for as many as it likes."""
        self._socket = socket.socket()
        self._socket.settimeout(PATIENCE)
        if room is not None:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, room)
        self._socket.connect(("127.0.0.1", int(url.rpartition(":")[2])))

    def send(self, data: bytes) -> bool:
        """Send; False where the server has hung up."""
        try:
            self._socket.sendall(data)
        except OSError:
            return False
        return True

    def send_on(self, part: bytes, *, most: int) -> int:
        """Send the same again and again, until the server hangs up; return how many bytes went out, at most `most`."""
        sent = 0
        while sent < most and self.send(part):
            sent += len(part)
        return sent

    def sends_no_more(self) -> None:
        """Say that there is no more to come; answers may still be."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_WR)

    def answer(self) -> bytes:
        """Return one answer, and 100 Continue before it, or what there is of it when the server hangs up."""
        received = b""
        while True:
            head, ended, body = received.removeprefix(CONTINUE).partition(b"\r\n\r\n")
            length = head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0]
            if ended and len(body) >= int(length or 0):
                return received
            if not (more := self._receive()):
                return received
            received += more

    def rest(self) -> bytes:
        """Return all that comes until the server hangs up."""
        received = b""
        while more := self._receive():
            received += more
        return received

    def _receive(self) -> bytes:
        try:
            return self._socket.recv(65_536)
        except ConnectionError:
            return b""

    def close(self) -> None:
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
