"""A provider that costs next to nothing: a token endpoint that rotates every refresh token, and notices a spent one.

It is a process of its own. `POST /token` answers after `--delay-ms`; `GET /seen` tells what there was until now.
"""

import argparse
import asyncio
import json
import re
import sys
from typing import cast
from urllib.parse import unquote_plus

import uvloop

from benchmarks.seed import ACCESS_TOKEN_LENGTH

EXPIRES_IN = 86_400
REFRESH_TOKEN = re.compile(rb"(?:^|&)refresh_token=([^&]*)")


class Seen:
    """What this provider has seen."""

    def __init__(self) -> None:
        self.calls = 0
        self.reused = 0
        """Refresh tokens that came twice: a broker that does so loses consents."""
        self.spent: set[bytes] = set()

    def rotate(self, form: bytes) -> bytes:
        """Return the answer to a refresh."""
        self.calls += 1
        found = REFRESH_TOKEN.search(form)
        token = found[1] if found else b""
        self.reused += token in self.spent
        self.spent.add(token)
        return json.dumps(
            {
                "access_token": f"access-token-{self.calls}-".ljust(ACCESS_TOKEN_LENGTH, "x"),
                "token_type": "Bearer",
                "expires_in": EXPIRES_IN,
                "refresh_token": f"{unquote_plus(token.decode()).partition('~')[0]}~{self.calls}",
                "scope": "contacts.readonly openid",
            }
        ).encode()


class Answering(asyncio.Protocol):
    """One kept connection. Knows just enough HTTP for evergrant, whose requests have a Content-Length."""

    def __init__(self, seen: Seen, delay: float) -> None:
        self._seen, self._delay = seen, delay
        self._received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.WriteTransport", transport)

    def data_received(self, data: bytes) -> None:
        self._received += data
        while True:
            end = self._received.find(b"\r\n\r\n")
            if end < 0:
                return
            head = self._received[:end].lower()
            length = int(head.partition(b"\r\ncontent-length:")[2].partition(b"\r\n")[0] or 0)
            if len(self._received) < end + 4 + length:
                return
            body = self._received[end + 4 : end + 4 + length]
            self._received = self._received[end + 4 + length :]
            if head.startswith(b"get "):
                self._answer(json.dumps({"calls": self._seen.calls, "reused": self._seen.reused}).encode())
            elif self._delay:
                answer = self._seen.rotate(body)
                asyncio.get_running_loop().call_later(self._delay, self._answer, answer)
            else:
                self._answer(self._seen.rotate(body))

    def _answer(self, body: bytes) -> None:
        head = f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
        self._transport.write(head.encode() + body)


async def _serve(port: int, delay: float) -> None:
    seen = Seen()
    server = await asyncio.get_running_loop().create_server(lambda: Answering(seen, delay), "127.0.0.1", port)
    await server.serve_forever()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--delay-ms", type=float, default=0.0)
    options = parser.parse_args()
    try:
        uvloop.run(_serve(options.port, options.delay_ms / 1000))
    except KeyboardInterrupt:
        sys.exit(0)
