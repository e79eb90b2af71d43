"""Providers' public keys (RFC 7517), kept for ten minutes and asked for again at a bounded rate."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from joserfc import jwk
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, OKPKey, RSAKey

PublicKey = RSAKey | ECKey | OKPKey

LIFETIME = timedelta(minutes=10)
UNKNOWN_KID_INTERVAL = timedelta(minutes=1)
FAILURE_INTERVAL = timedelta(seconds=5)
_MAX_SETS = 256
_MAX_KEYS = 100
"""Of a set, so many are read: importing thousands would stop the process, and trying each of them too."""


@dataclass(frozen=True, slots=True)
class KnownKeys:
    """What this process knows of a key set."""

    loaded_at: datetime | None
    """When it was read last; None for never."""
    count: int
    failed: bool
    """Whether the last attempt to read it has failed."""


@dataclass(slots=True)
class _Entry:
    keys: list[PublicKey] = field(default_factory=list)
    asked_at: datetime | None = None
    loaded_at: datetime | None = None
    failure: Exception | None = None
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


class JwksCache:
    """The key sets of one process, by `jwks_uri`."""

    def __init__(self) -> None:
        self._entries: dict[str, _Entry] = {}

    async def keys(
        self,
        uri: str,
        *,
        kid: str | None,
        now: datetime,
        load: Callable[[], Awaitable[Mapping[str, Any]]],
    ) -> list[PublicKey]:
        """Return the keys of the set at `uri`, fresh enough to contain `kid` if the provider has it.

        `load` fetches the document. A token can name any `kid` it likes, so one that is unknown causes a fetch
        at most once a minute. Concurrent callers share a fetch, and what `load` raises if it fails: whoever
        waited for a provider that does not answer need not wait once more.
        """
        entry = self._entries.get(uri)
        if entry is None:
            if len(self._entries) >= _MAX_SETS:
                self._entries.pop(next(iter(self._entries)))
            entry = self._entries[uri] = _Entry()
        if not self._must_load(entry, kid, now):
            return entry.keys  # without a wait for a fetch that another token's unknown kid causes
        async with entry.lock:
            if self._must_load(entry, kid, now):
                if entry.failure and entry.asked_at and now - entry.asked_at < FAILURE_INTERVAL:
                    raise entry.failure.with_traceback(None)
                entry.asked_at, entry.failure = now, None
                try:
                    entry.keys = _public_keys(await load())
                except Exception as error:
                    entry.failure = error
                    raise
                entry.loaded_at = now
            return entry.keys

    def known(self, uri: str) -> KnownKeys | None:
        """Return what this process knows of the set at `uri`; None where it has not asked for it lately."""
        entry = self._entries.get(uri)
        return KnownKeys(entry.loaded_at, len(entry.keys), entry.failure is not None) if entry else None

    @staticmethod
    def _must_load(entry: _Entry, kid: str | None, now: datetime) -> bool:
        if entry.loaded_at is None or entry.asked_at is None or now - entry.loaded_at >= LIFETIME:
            return True
        unknown = kid is not None and all(key.kid != kid for key in entry.keys)
        return unknown and now - entry.asked_at >= UNKNOWN_KID_INTERVAL


def _is_strong(member: Mapping[str, Any]) -> bool:
    """Tell whether a key is asymmetric and, if RSA, of 2048 bits or more (RFC 7518 section 3.3)."""
    if member.get("kty") == "RSA":
        return isinstance(member.get("n"), str) and len(member["n"]) * 6 >= 2048
    return member.get("kty") in ("EC", "OKP")


def _public_keys(document: Mapping[str, Any]) -> list[PublicKey]:
    """Import the asymmetric signature keys; a key that is not understood is skipped (RFC 7517 section 5)."""
    members = document.get("keys")
    keys: list[PublicKey] = []
    for member in members[:_MAX_KEYS] if isinstance(members, list) else []:
        if not isinstance(member, dict) or member.get("use", "sig") != "sig" or not _is_strong(member):
            continue
        try:
            key = jwk.import_key(member)
        except (JoseError, ValueError, TypeError, KeyError):
            continue
        if isinstance(key, (RSAKey, ECKey, OKPKey)):
            keys.append(key)
    return keys
