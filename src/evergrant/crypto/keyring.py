"""Two levels of keys: master keys wrap data keys, data keys seal values. AES-256-GCM for both (NIST SP 800-38D).

A sealed value is `version(1) | data key id(8) | nonce(12) | ciphertext and tag`. The nonce is random, so one key may
seal at most 2^32 values (SP 800-38D section 8.3); `broker.vault` counts and rolls data keys over long before that.
"""

import base64
import binascii
import hashlib
import os
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from evergrant.crypto.sealed import Sealed, Slot
from evergrant.errors import CannotOpenSealed, ConfigurationError

KEY_BYTES = 32
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


class DataKey:
    """One project's key for sealing values. Unwrapped once per process and kept."""

    __slots__ = ("_aead", "_header", "id")

    def __init__(self, key_id: str, key: bytes) -> None:
        self.id = key_id
        self._aead = AESGCM(key)
        self._header = _VERSION + bytes.fromhex(key_id)

    def __repr__(self) -> str:
        """Show the id only."""
        return f"<DataKey {self.id}>"

    def seal(self, slot: Slot, plaintext: str) -> Sealed:
        """Encrypt `plaintext` so that it opens in `slot` only."""
        nonce = os.urandom(_NONCE_BYTES)
        text = self._aead.encrypt(nonce, plaintext.encode(), slot.associated_data())
        return Sealed(self._header + nonce + text)

    def open(self, slot: Slot, sealed: Sealed) -> str:
        """Decrypt what `seal` made for the same slot.

        Raises:
            CannotOpenSealed: the value was altered, or belongs to another slot or key.
        """
        raw = sealed.ciphertext
        try:
            return self._aead.decrypt(raw[_NONCE_AT:_TEXT_AT], raw[_TEXT_AT:], slot.associated_data()).decode()
        except (InvalidTag, ValueError):
            raise CannotOpenSealed from None


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

    def __init__(self, keys: Sequence[bytes]) -> None:
        if not keys:
            raise ConfigurationError("EVERGRANT_MASTER_KEYS: give at least one key")
        self._aeads = {master_key_id(key): AESGCM(key) for key in keys}
        self.first_id = master_key_id(keys[0])

    def __repr__(self) -> str:
        """Show the ids only."""
        return f"<Keyring {', '.join(self._aeads)}>"

    @classmethod
    def parse(cls, text: str) -> "Keyring":
        """Read `EVERGRANT_MASTER_KEYS`: base64 keys of 32 bytes, separated by commas or line breaks.

        Raises:
            ConfigurationError: a key does not decode or has the wrong length; the message says which, never its text.
        """
        keys = []
        for number, part in enumerate(text.replace("\n", ",").split(","), start=1):
            if not part.strip():
                continue
            try:
                key = base64.b64decode(part.strip().replace("-", "+").replace("_", "/"), validate=True)
            except (binascii.Error, ValueError):
                key = b""
            if len(key) != KEY_BYTES:
                raise ConfigurationError(
                    f"EVERGRANT_MASTER_KEYS: key {number} is not base64 of 32 bytes; "
                    "make one with 'evergrant keyring new'"
                )
            keys.append(key)
        return cls(keys)

    def new_data_key(self, project_id: str) -> WrappedDataKey:
        """Make a data key for a project, wrapped by the first master key."""
        return self._wrap(secrets.token_hex(_KEY_ID_BYTES), project_id, os.urandom(KEY_BYTES))

    def unwrap(self, wrapped: WrappedDataKey) -> DataKey:
        """Unwrap a data key.

        Raises:
            CannotOpenSealed: its master key is not among ours, or the row was altered.
        """
        return DataKey(wrapped.id, self._unwrap(wrapped))

    def rewrap(self, wrapped: WrappedDataKey) -> WrappedDataKey:
        """Wrap the same data key by the first master key.

        Raises:
            CannotOpenSealed: as in `unwrap`.
        """
        return self._wrap(wrapped.id, wrapped.project_id, self._unwrap(wrapped))

    def _wrap(self, key_id: str, project_id: str, key: bytes) -> WrappedDataKey:
        nonce = os.urandom(_NONCE_BYTES)
        slot = Slot(project_id, "data_keys", "wrapped", key_id)
        text = self._aeads[self.first_id].encrypt(nonce, key, slot.associated_data())
        return WrappedDataKey(key_id, project_id, self.first_id, nonce + text)

    def _unwrap(self, wrapped: WrappedDataKey) -> bytes:
        aead = self._aeads.get(wrapped.master_key_id)
        if aead is None:
            raise CannotOpenSealed(
                f"EVERGRANT_MASTER_KEYS lacks the key with id {wrapped.master_key_id}, which project "
                f"{wrapped.project_id} is sealed with: add it behind the others"
            )
        slot = Slot(wrapped.project_id, "data_keys", "wrapped", wrapped.id)
        raw = wrapped.wrapped
        try:
            return aead.decrypt(raw[:_NONCE_BYTES], raw[_NONCE_BYTES:], slot.associated_data())
        except (InvalidTag, ValueError):
            raise CannotOpenSealed from None


def master_key_id(key: bytes) -> str:
    """Name a master key by a fingerprint of it, so that nobody has to invent, keep and match names."""
    return hashlib.sha256(b"evergrant master key\x00" + key).hexdigest()[:12]


def new_master_key() -> str:
    """Make a master key in the form `EVERGRANT_MASTER_KEYS` takes."""
    return base64.b64encode(os.urandom(KEY_BYTES)).decode()
