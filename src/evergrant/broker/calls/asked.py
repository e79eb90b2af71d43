"""A call as it is asked for, and its answer: what the proxy and the MCP server have in common."""

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Literal

from evergrant.broker.grants.grants import ResourceOwner
from evergrant.oauth2.hygiene import RawHeaders

Via = Literal["proxy", "mcp"]


@dataclass(slots=True, kw_only=True)  # not frozen: that makes each of these cost three times as much
class AskedCall:
    """A call of an app's API. No field names a host."""

    app_id: str
    method: str
    path: str = field(repr=False)
    """Below the base, byte for byte as it was asked for: it begins with `/`, and percent signs stand as they came."""
    query: str = field(default="", repr=False)
    """Without its question mark, byte for byte."""
    headers: RawHeaders = field(default=(), repr=False)
    """As they came; what must not go on is taken out."""
    body: AsyncIterator[bytes] | None = field(default=None, repr=False)
    """None where there is none."""
    length: int | None = None
    """How long the body is, in bytes, where its headers say so."""
    owner: ResourceOwner | None = None
    """Whose connection; None for whoever the credential stands for."""
    base: str = ""
    """One of the app's further bases, by name."""
    external_identifier: str | None = None
    """Which of several connections; None for the only one."""
    scopes: tuple[str, ...] | None = None
    retries: int = 0
    """How often an answer that names a time may be waited for and the call be repeated."""
    max_wait_seconds: float = 0.0
    seconds: float = 60.0
    """How long the head of the answer may take."""
    begin_connect: bool = False
    """Whether a missing connection is to begin a trip, whose link is in the error's `details.connectUrl`."""
    approval_id: str = ""
    via: Via = "proxy"


@dataclass(slots=True, kw_only=True)
class CallAnswer:
    """The provider's answer. Its body ends with an exception where it broke off."""

    status: int
    headers: RawHeaders = field(repr=False)
    """Cleaned: what may go back to the caller."""
    body: AsyncIterator[bytes] = field(repr=False)
