"""Master keys in AWS KMS: they never leave it, it wraps and unwraps. Needs the extra `evergrant[aws]`."""

import asyncio
import logging
import re
import threading
from typing import Any

import botocore.session
from botocore import exceptions as aws
from botocore.config import Config

from evergrant.crypto.kms.master_key import AWS_SCHEME, SERVICE_SECONDS, id_of
from evergrant.crypto.sealed import Slot
from evergrant.errors import CannotOpenSealed, KeyServiceUnavailable, MasterKeyRefused

log = logging.getLogger(__name__)


_ALTERED = {"InvalidCiphertextException", "IncorrectKeyException"}
_PASSING = {
    "DependencyTimeoutException",
    "KMSInternalException",
    "KeyUnavailableException",
    "InternalFailure",
    "InternalError",
    "LimitExceededException",
    "RequestLimitExceeded",
    "ServiceUnavailable",
    "ServiceUnavailableException",
    "ThrottlingException",
    "Throttling",
}
_UNREACHABLE = (
    aws.ConnectionError,
    aws.HTTPClientError,
    aws.CredentialRetrievalError,
    aws.MetadataRetrievalError,
)
_LIMITS = Config(connect_timeout=2, read_timeout=4, retries={"mode": "standard", "total_max_attempts": 2})


class AwsKmsKey:
    """One symmetric key in AWS KMS. Credentials are found as AWS's own tools find them: environment, role, file."""

    def __init__(self, key: str) -> None:
        """`key` is a key's ARN, its id, or an alias."""
        self.name = f"{AWS_SCHEME}{key}"
        self.id = id_of(self.name)
        self._key = key
        self._client: Any = None
        self._making = threading.Lock()

    async def wrap(self, slot: Slot, key: bytes) -> bytes:
        """Encrypt a data key for its place; raises as `MasterKey.wrap`."""
        answer = await self._call("encrypt", Plaintext=key, EncryptionContext=_context(slot))
        return bytes(answer["CiphertextBlob"])

    async def unwrap(self, slot: Slot, wrapped: bytes) -> bytes:
        """Decrypt what `wrap` made for the same place; raises as `MasterKey.unwrap`.

        The key is named here too: KMS would else take any that evergrant may use, such as a stranger's.
        """
        answer = await self._call("decrypt", CiphertextBlob=wrapped, EncryptionContext=_context(slot))
        return bytes(answer["Plaintext"])

    async def _call(self, verb: str, **parameters: Any) -> dict[str, Any]:
        try:
            async with asyncio.timeout(SERVICE_SECONDS):
                return await asyncio.to_thread(self._ask, verb, parameters)
        except aws.ClientError as error:
            raise self._meaning(error) from None
        except (*_UNREACHABLE, TimeoutError) as error:
            log.warning("the key service cannot be reached", extra={"key": self.name, "why": type(error).__name__})
            raise KeyServiceUnavailable from None
        except aws.BotoCoreError as error:  # no credentials, no region, an ARN that is none
            raise MasterKeyRefused(f"{self.name}: {error}") from None

    def _ask(self, verb: str, parameters: dict[str, Any]) -> dict[str, Any]:
        with self._making:
            if self._client is None:
                region = re.match(r"arn:[^:]+:kms:([^:]+):", self._key)
                session = botocore.session.get_session()
                self._client = session.create_client("kms", region_name=region[1] if region else None, config=_LIMITS)
        answer: dict[str, Any] = getattr(self._client, verb)(KeyId=self._key, **parameters)
        return answer

    def _meaning(self, error: aws.ClientError) -> Exception:
        code = str(error.response.get("Error", {}).get("Code", ""))
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        if code in _ALTERED:
            log.error("the key service cannot unwrap a data key", extra={"key": self.name, "why": code})
            return CannotOpenSealed()
        if code in _PASSING or status >= 500:
            log.warning("the key service does not answer as it should", extra={"key": self.name, "why": code})
            return KeyServiceUnavailable()
        said = str(error.response.get("Error", {}).get("Message", ""))[:300]
        return MasterKeyRefused(
            f"{self.name} refuses ({code}: {said}): the key must be enabled, and evergrant's role must be allowed "
            "kms:Encrypt and kms:Decrypt with it"
        )


def _context(slot: Slot) -> dict[str, str]:
    """Return the place as KMS takes associated data; it is in CloudTrail too, and no secret."""
    return {"project": slot.project_id, "dataKey": slot.row_id, "format": "2" if slot.bound else "1"}
