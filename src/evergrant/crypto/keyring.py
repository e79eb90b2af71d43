"""Two levels of keys: master keys wrap data keys, data keys seal values. AES-256-GCM for both (NIST SP 800-38D).

A sealed value is `version(1) | data key id(8) | nonce(12) | ciphertext and tag`. The nonce is random, so one key may
seal at most 2^32 values (SP 800-38D section 8.3); `broker.vault` counts and rolls data keys over long before that.
"""

import os
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from evergrant.crypto.kms.master_key import KEY_BYTES, MasterKey
from evergrant.crypto.sealed import Sealed, Slot
from evergrant.errors import CannotOpenSealed

_VERSION = b"\x01"
_KEY_ID_BYTES = 8
_NONCE_BYTES = 12
_NONCE_AT = len(_VERSION) + _KEY_ID_BYTES
_TEXT_AT = _NONCE_AT + _NONCE_BYTES


@dataclass(frozen=True, slots=True)
class WrappedDataKey:
    """A data key as the database holds it: encrypted by the master key with this id."""

    id: str
    project_id: str
    master_key_id: str
    wrapped: bytes = field(repr=False)
    binds_owner: bool = True
    """Whether what it seals opens for one owner only. It is wrapped for that, so nobody can say otherwise later."""


class DataKey:
    """One project's key for sealing values. Unwrapped once per process, and kept while its row is there."""

    __slots__ = ("_aead", "_binds_owner", "_header", "id")

    def __init__(self, key_id: str, key: bytes, *, binds_owner: bool = True) -> None:
        self.id = key_id
        self._aead = AESGCM(key)
        self._binds_owner = binds_owner
        self._header = _VERSION + bytes.fromhex(key_id)

    def __repr__(self) -> str:
        """Show the id only."""
        return f"<DataKey {self.id}>"

    def seal(self, slot: Slot, plaintext: str) -> Sealed:
        """Encrypt `plaintext` so that it opens in `slot` only."""
        nonce = os.urandom(_NONCE_BYTES)
        text = self._aead.encrypt(nonce, plaintext.encode(), self._associated_data(slot))
        return Sealed(self._header + nonce + text)

    def open(self, slot: Slot, sealed: Sealed) -> str:
        """Decrypt what `seal` made for the same slot.

        Raises:
            CannotOpenSealed: the value was altered, or belongs to another slot or key.
        """
        raw = sealed.ciphertext
        try:
            return self._aead.decrypt(raw[_NONCE_AT:_TEXT_AT], raw[_TEXT_AT:], self._associated_data(slot)).decode()
        except (InvalidTag, ValueError):
            raise CannotOpenSealed from None

    def _associated_data(self, slot: Slot) -> bytes:
        return (slot if self._binds_owner else slot.place).associated_data()


def data_key_id(sealed: Sealed) -> str:
    """Return the id of the data key that sealed this value.

    Raises:
        CannotOpenSealed: this is not a sealed value of a version we know.
    """
    raw = sealed.ciphertext
    if len(raw) <= _TEXT_AT or raw[:1] != _VERSION:
        raise CannotOpenSealed
    return raw[len(_VERSION) : _NONCE_AT].hex()


class Keyring:
    """The operator's master keys: the first wraps, all of them unwrap."""

    def __init__(self, keys: Sequence[MasterKey]) -> None:
        self.keys = tuple(keys)
        self._by_id = {key.id: key for key in keys}
        self.first_id = keys[0].id

    def __repr__(self) -> str:
        """Show the ids only."""
        return f"<Keyring {', '.join(self._by_id)}>"

    async def new_data_key(self, project_id: str) -> WrappedDataKey:
        """Make a data key for a project, wrapped by the first master key.

        Raises:
            KeyServiceUnavailable, MasterKeyRefused: as `MasterKey.wrap`.
        """
        return await self._wrap(secrets.token_hex(_KEY_ID_BYTES), project_id, os.urandom(KEY_BYTES), binds_owner=True)

    async def unwrap(self, wrapped: WrappedDataKey) -> DataKey:
        """Unwrap a data key.

        Raises:
            CannotOpenSealed: its master key is not among ours, or the row was altered.
            KeyServiceUnavailable, MasterKeyRefused: as `MasterKey.wrap`.
        """
        return DataKey(wrapped.id, await self._unwrap(wrapped), binds_owner=wrapped.binds_owner)

    async def rewrap(self, wrapped: WrappedDataKey) -> WrappedDataKey:
        """Wrap the same data key by the first master key.

        Raises:
            CannotOpenSealed, KeyServiceUnavailable, MasterKeyRefused: as in `unwrap`.
        """
        key = await self._unwrap(wrapped)
        return await self._wrap(wrapped.id, wrapped.project_id, key, binds_owner=wrapped.binds_owner)

    async def _wrap(self, key_id: str, project_id: str, key: bytes, *, binds_owner: bool) -> WrappedDataKey:
        slot = _slot(project_id, key_id, binds_owner=binds_owner)
        return WrappedDataKey(key_id, project_id, self.first_id, await self.keys[0].wrap(slot, key), binds_owner)

    async def _unwrap(self, wrapped: WrappedDataKey) -> bytes:
        master = self._by_id.get(wrapped.master_key_id)
        if master is None:
            raise CannotOpenSealed(
                f"EVERGRANT_MASTER_KEYS lacks the key with id {wrapped.master_key_id}, which project "
                f"{wrapped.project_id} is sealed with: add it behind the others"
            )
        slot = _slot(wrapped.project_id, wrapped.id, binds_owner=wrapped.binds_owner)
        return await master.unwrap(slot, wrapped.wrapped)


def _slot(project_id: str, key_id: str, *, binds_owner: bool) -> Slot:
    """Return what a data key is wrapped for: its row, and whether it binds owners, which must not be changed there."""
    return Slot(project_id, "data_keys", "wrapped", key_id, ("binds owner",) if binds_owner else ())
