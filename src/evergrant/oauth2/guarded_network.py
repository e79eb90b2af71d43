"""Opens connections to addresses that may be called, and to no other."""

import socket
import ssl
from collections.abc import Iterable, Sequence

import httpcore2

from evergrant.errors import EgressRefused
from evergrant.networks import Address, Network
from evergrant.oauth2.egress import is_opened, is_public, literal_address
from evergrant.oauth2.listening import Listening
from evergrant.oauth2.metered import Metered
from evergrant.oauth2.name_cache import NameCache, NameNotFound

CONNECT_SECONDS = 5.0
"""How long a name and a connection may take together, and then TLS, in seconds of listening."""
_MAX_ADDRESSES_TRIED = 4
_SMALL_BUFFER = (socket.SOL_SOCKET, socket.SO_RCVBUF, 64 * 1024)
"""The event loop reads in one go what a system has buffered, megabytes by itself, before anybody can say stop."""


class GuardedNetwork(httpcore2.AsyncNetworkBackend):
    """Connects to addresses that may be called, and to no other.

    A name is resolved in one place, here, and the socket is opened to the address that was checked: a name server
    that changes its answer between the check and the connection (DNS rebinding) gains nothing. TLS still verifies the
    name.
    """

    def __init__(
        self, egress_allow: tuple[Network, ...], *, opened_only: bool, names: NameCache, listening: Listening
    ) -> None:
        self._egress_allow = egress_allow
        self._opened_only = opened_only
        self._names = names
        self._listening = listening
        self._network = httpcore2.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109  # the signature is httpcore2's
        local_address: str | None = None,
        socket_options: Iterable[httpcore2.SOCKET_OPTION] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        """Connect to the first address of `host` that may be called and takes a connection.

        Raises:
            EgressRefused: none may be called. NameNotFound, LookupsBusy: none is known. ConnectError, ConnectTimeout:
            none takes a connection.
        """
        seconds = CONNECT_SECONDS if timeout is None else timeout
        ends = self._listening.now + seconds
        try:
            async with self._listening.at_most(seconds):
                addresses = await self._addresses(host, port)
        except TimeoutError:
            raise NameNotFound("looking its name up takes too long") from None
        allowed = [address for address in addresses if self._may_call(address)][:_MAX_ADDRESSES_TRIED]
        if not allowed:
            raise EgressRefused(f"{host} may not be called: {self._why_refused()}")
        failure: Exception = httpcore2.ConnectTimeout()
        for tried, address in enumerate(allowed):
            share = max(ends - self._listening.now, 0.0) / (len(allowed) - tried)
            try:
                async with self._listening.at_most(share):
                    stream = await self._network.connect_tcp(
                        str(address),
                        port,
                        local_address=local_address,
                        socket_options=[*(socket_options or ()), _SMALL_BUFFER],
                    )
                    return _Connection(stream, self._listening)
            except TimeoutError:
                failure = httpcore2.ConnectTimeout()
            except httpcore2.ConnectError as error:
                failure = error
        self._names.doubt(host)
        raise failure

    async def _addresses(self, host: str, port: int) -> Sequence[Address]:
        literal = literal_address(host)
        return [literal] if literal is not None else await self._names.addresses(host, port)

    def _may_call(self, address: Address) -> bool:
        return is_opened(address, self._egress_allow) or (not self._opened_only and is_public(address))

    def _why_refused(self) -> str:
        if self._opened_only:
            return "plain http is only for addresses that EVERGRANT_EGRESS_ALLOW opens; use https."
        return "it is not public, and EVERGRANT_EGRESS_ALLOW does not open it."


class _Connection(Metered):
    """A metered connection, on which TLS has to stand within a while."""

    def __init__(self, stream: httpcore2.AsyncNetworkStream, listening: Listening) -> None:
        super().__init__(stream)
        self._listening = listening

    async def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,  # noqa: ASYNC109
    ) -> httpcore2.AsyncNetworkStream:
        try:
            async with self._listening.at_most(CONNECT_SECONDS if timeout is None else timeout):
                return Metered(await self._stream.start_tls(ssl_context, server_hostname))
        except BaseException as error:  # a call that is given up closes what it opened
            await self._stream.aclose()
            if isinstance(error, TimeoutError):
                raise httpcore2.ConnectTimeout from None
            raise
