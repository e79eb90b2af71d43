"""A call as it is sent: its body, which can be sent again where it is short, its headers and its address."""

from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, field

from evergrant.broker.calls.asked import AskedCall
from evergrant.broker.calls.bases import AppApi
from evergrant.broker.calls.call_rules import READS
from evergrant.broker.calls.connections import Credential, WantedConnection
from evergrant.broker.runtime.broker import Broker
from evergrant.broker.runtime.principal import Principal
from evergrant.broker.runtime.unwritten_calls import Call
from evergrant.db.grant_reader import GrantView
from evergrant.errors import EvergrantError, RequestTooLarge
from evergrant.oauth2.egress import origin_of_url
from evergrant.oauth2.hygiene import RawHeaders, forwarded
from evergrant.oauth2.placement import with_parameters
from evergrant.oauth2.upstream_messages import UpstreamRequest

REPLAYED_BYTES = 64 * 1024
"""A body of at most so many bytes is read before it is sent, and can be sent again."""
IDEMPOTENT = READS | {"PUT", "DELETE"}
"""RFC 9110 section 9.2.2."""


@dataclass(slots=True)
class CallBody:
    """The body of a call."""

    first: bytes = field(default=b"", repr=False)
    rest: AsyncIterator[bytes] | None = field(default=None, repr=False)
    """What is not read yet; None where `first` is all of it."""
    length: int | None = None
    most: int = 0
    """How many bytes it may have."""
    sent: int = 0
    problem: EvergrantError | None = None
    """What was wrong with it, found while it was sent."""

    @property
    def is_replayable(self) -> bool:
        """Whether it can be sent again."""
        return self.rest is None

    def outgoing(self) -> bytes | AsyncIterator[bytes] | None:
        """Return it as it is sent."""
        if self.rest is not None:
            return self._stream(self.rest)
        self.sent = len(self.first)
        return self.first if self.first or self.length is not None else None

    async def _stream(self, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        self.sent = len(self.first)
        yield self.first
        async for part in rest:
            self.sent += len(part)
            if self.sent > self.most:
                self.problem = RequestTooLarge()
                raise self.problem
            yield part


async def read_body(asked: AskedCall, *, most: int) -> CallBody:
    """Read a body as far as it can be sent again; of a longer one, the rest streams.

    Raises:
        RequestTooLarge: it has more than `most` bytes.
    """
    if asked.body is None:
        return CallBody(length=asked.length)
    if asked.length is not None and asked.length > most:
        raise RequestTooLarge
    parts, size = [], 0
    async for part in asked.body:
        parts.append(part)
        size += len(part)
        if size > most:
            raise RequestTooLarge
        if size > REPLAYED_BYTES:
            return CallBody(b"".join(parts), asked.body, asked.length, most)
    return CallBody(b"".join(parts), None, size, most)


@dataclass(slots=True, kw_only=True)
class PreparedCall:
    """A call that may be made, with all that sending it takes."""

    broker: Broker
    principal: Principal
    asked: AskedCall
    api: AppApi
    wanted: WantedConnection
    view: GrantView
    credential: Credential = field(repr=False)
    body: CallBody
    is_read: bool
    """Whether it changes nothing."""
    entry: Call
    may_have_token: bool
    """Whether the caller could fetch it, so that it need not be kept from them."""

    @property
    def hidden(self) -> tuple[str, ...]:
        """What must not come back to the caller."""
        return self.credential.app_secrets if self.may_have_token else self.credential.secrets

    @property
    def may_repeat(self) -> bool:
        """Whether sending it twice does what sending it once does, as far as anybody has said."""
        is_idempotent = self.is_read or self.asked.method in IDEMPOTENT or self._has(b"idempotency-key")
        return is_idempotent and self.body.is_replayable

    def _has(self, wanted: bytes) -> bool:
        return any(name.lower() == wanted for name, _ in self.asked.headers)

    def request(self) -> UpstreamRequest:
        """Return it as it is sent now."""
        credential = self.credential
        headers = forwarded(self.asked.headers, credential_headers=self._credential_headers())
        theirs = {name for name, _ in headers}
        if self.needs_plain_answer:
            headers = [one for one in headers if one[0] != b"accept-encoding"]
            headers.append((b"accept-encoding", b"identity"))
        if theirs.isdisjoint(credential.header_names):
            headers += credential.headers
        else:  # what a caller says goes before what is only usual: the credential's own headers are none that go on
            headers += [one for one in credential.headers if one[0].lower() not in theirs]
        query = with_parameters(self.asked.query, credential.carried.query)
        return self._request(credential.base.url, credential.base.origin, self.asked.path, query, headers)

    def followed(self, url: str) -> UpstreamRequest:
        """Return the request for a file to which the API has redirected: no credential goes with it."""
        headers = forwarded(self.asked.headers, credential_headers=self._credential_headers())
        where, _, query = url.partition("?")
        return self._request(where, origin_of_url(where), "", query, headers, is_body_sent=False)

    @property
    def needs_plain_answer(self) -> bool:
        """Whether the answer has to be read, for tokens that must not get out, or for one that has ended."""
        return bool(self.hidden or self.api.expected.expired)

    def _credential_headers(self) -> Iterable[str]:
        credential = self.api.api.credential
        return ["Authorization"] if credential.place == "basic" else [credential.name, "Authorization"]

    def _request(
        self, base: str, origin: str, path: str, query: str, headers: RawHeaders, *, is_body_sent: bool = True
    ) -> UpstreamRequest:
        settings, owner = self.broker.settings, self.wanted.owner
        project_id = self.principal.project_id
        return UpstreamRequest(
            pool=(project_id, origin),
            owner=(project_id, owner.user_id, owner.tenant_id),
            method=self.asked.method,
            url=f"{base}{path}?{query}" if query else f"{base}{path}",
            headers=headers,
            body=self.body.outgoing() if is_body_sent else None,
            length=self.body.length if is_body_sent else None,
            head_seconds=self.asked.seconds,
            idle_seconds=settings.call_idle_seconds,
            total_seconds=settings.call_total_seconds,
        )
