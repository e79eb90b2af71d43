"""Reading `EVERGRANT_MASTER_KEYS`: each entry is a key itself, or says where one is."""

from evergrant.crypto.kms.local import LocalKey
from evergrant.crypto.kms.master_key import AWS_SCHEME, TRANSIT_SCHEME, MasterKey
from evergrant.crypto.kms.transit import TransitAccess, TransitKey
from evergrant.errors import ConfigurationError


def read_master_keys(text: str, access: TransitAccess | None = None) -> list[MasterKey]:
    """Return the master keys in their order. Entries are separated by commas or line breaks; no service is asked.

    Raises:
        ConfigurationError: an entry is wrong; the message says which, never its text where that is a key.
    """
    entries = [part.strip() for part in text.replace("\n", ",").split(",") if part.strip()]
    keys: list[MasterKey] = []
    for number, entry in enumerate(entries, start=1):
        if entry.startswith(AWS_SCHEME):
            keys.append(_aws_key(entry.removeprefix(AWS_SCHEME), number))
        elif entry.startswith(TRANSIT_SCHEME):
            keys.append(TransitKey(entry.removeprefix(TRANSIT_SCHEME), access or TransitAccess()))
        else:
            try:
                keys.append(LocalKey.parse(entry))
            except ValueError as error:
                raise ConfigurationError(f"EVERGRANT_MASTER_KEYS: key {number} {error}") from None
    if not keys:
        raise ConfigurationError("EVERGRANT_MASTER_KEYS: give at least one key")
    return keys


def _aws_key(key: str, number: int) -> MasterKey:
    if not key:
        raise ConfigurationError(f"EVERGRANT_MASTER_KEYS: key {number}: write {AWS_SCHEME}ARN")
    try:
        # Here and not above: it takes long to import, and most have no master key there.
        from evergrant.crypto.kms.aws import AwsKmsKey
    except ModuleNotFoundError:
        raise ConfigurationError(
            f"EVERGRANT_MASTER_KEYS: key {number} is in AWS KMS, which needs: pip install 'evergrant[aws]'"
        ) from None
    return AwsKmsKey(key)
