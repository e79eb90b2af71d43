"""What every source of master keys does: wrap a data key for its place, and unwrap it in that place only."""

import hashlib
from typing import Protocol

from evergrant.crypto.sealed import Slot

AWS_SCHEME = "aws-kms:"
TRANSIT_SCHEME = "vault-transit:"
KEY_BYTES = 32
"""The length of a data key, and of a master key that is in a setting."""
SERVICE_SECONDS = 12.0
"""How long a key service may take, all tries together: data keys are unwrapped once per process, and somebody waits."""


class MasterKey(Protocol):
    """One master key, wherever it is. A key service is asked once for each data key and process, and then no more."""

    @property
    def id(self) -> str:
        """What the database calls it: 12 hexadecimal digits."""

    @property
    def name(self) -> str:
        """What the operator calls it. No secret."""

    async def wrap(self, slot: Slot, key: bytes) -> bytes:
        """Encrypt a data key for its place.

        Raises:
            KeyServiceUnavailable: the service does not answer as it should; later it may.
            MasterKeyRefused: the service refuses: the message says what to do.
        """

    async def unwrap(self, slot: Slot, wrapped: bytes) -> bytes:
        """Decrypt what `wrap` made for the same place.

        Raises:
            CannotOpenSealed: it was altered, moved, or wrapped by another key.
            KeyServiceUnavailable, MasterKeyRefused: as in `wrap`.
        """


def id_of(text: str | bytes) -> str:
    """Name a master key by a fingerprint of it, or of where it is: nobody has to invent, keep and match names."""
    raw = text.encode() if isinstance(text, str) else text
    return hashlib.sha256(b"evergrant master key\x00" + raw).hexdigest()[:12]
