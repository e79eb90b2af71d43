"""Master keys that are in a setting or a file: AES-256-GCM in this process."""

import base64
import binascii
import os

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from evergrant.crypto.kms.master_key import KEY_BYTES, id_of
from evergrant.crypto.sealed import Slot
from evergrant.errors import CannotOpenSealed

_NONCE_BYTES = 12


class LocalKey:
    """A master key that this process has."""

    def __init__(self, key: bytes) -> None:
        self.id = id_of(key)
        self.name = f"a key of {KEY_BYTES} bytes"
        self._aead = AESGCM(key)

    @classmethod
    def parse(cls, text: str) -> "LocalKey":
        """Read a key as `EVERGRANT_MASTER_KEYS` has it.

        Raises:
            ValueError: it is not base64 of 32 bytes.
        """
        try:
            key = base64.b64decode(text.replace("-", "+").replace("_", "/"), validate=True)
        except (binascii.Error, ValueError):
            key = b""
        if len(key) != KEY_BYTES:
            raise ValueError("is not base64 of 32 bytes; make one with 'evergrant keyring new'")
        return cls(key)

    async def wrap(self, slot: Slot, key: bytes) -> bytes:
        """Encrypt a data key for its place."""
        nonce = os.urandom(_NONCE_BYTES)
        return nonce + self._aead.encrypt(nonce, key, slot.associated_data())

    async def unwrap(self, slot: Slot, wrapped: bytes) -> bytes:
        """Decrypt what `wrap` made for the same place.

        Raises:
            CannotOpenSealed: it was altered or moved.
        """
        try:
            return self._aead.decrypt(wrapped[:_NONCE_BYTES], wrapped[_NONCE_BYTES:], slot.associated_data())
        except (InvalidTag, ValueError):
            raise CannotOpenSealed from None


def new_master_key() -> str:
    """Make a master key in the form `EVERGRANT_MASTER_KEYS` takes."""
    return base64.b64encode(os.urandom(KEY_BYTES)).decode()
