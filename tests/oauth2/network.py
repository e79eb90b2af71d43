"""What may be called here, and a scripted name server."""

import ipaddress
import ssl
from collections.abc import Sequence

from evergrant.networks import Address

LOOPBACK = (ipaddress.ip_network("127.0.0.0/8"),)
TLS = ssl.create_default_context()  # built once: it costs more than a test


class Names:
    """A name server: each lookup of a name takes its next answer; it counts them."""

    def __init__(self, **answers: Sequence[Sequence[str]]) -> None:
        self.answers = {name.replace("_", "."): list(turns) for name, turns in answers.items()}
        self.lookups: list[str] = []

    async def __call__(self, host: str, port: int) -> Sequence[Address]:
        self.lookups.append(host)
        turns = self.answers.get(host)
        if not turns:
            raise OSError("no such name")
        turn = turns.pop(0) if len(turns) > 1 else turns[0]
        return [ipaddress.ip_address(address) for address in turn]
