"""What replicas of one installation must have in common, as short fingerprints that are compared and tell nothing."""

import hashlib
import json

from evergrant import __version__
from evergrant.crypto.keyring import Keyring
from evergrant.settings import Settings

LETTERS = 12


def traits_of(settings: Settings, keyring: Keyring) -> str:
    """Return the fingerprints of this process as JSON, by the setting that each is of; the version as it is.

    Of master keys, their ids count and which is the first; of an operator's templates, the files' names and texts.
    """
    folder = settings.catalog_dir
    files = sorted(folder.glob("*.toml")) if folder is not None else []
    found = {
        "EVERGRANT_PUBLIC_URL": _fingerprint(settings.public_url),
        "EVERGRANT_EGRESS_ALLOW": _fingerprint(*sorted(map(str, settings.egress_allow))),
        "EVERGRANT_MASTER_KEYS": _fingerprint(keyring.first_id, *sorted(key.id for key in keyring.keys)),
        "EVERGRANT_CATALOG_DIR": _fingerprint(*(part for one in files for part in (one.name, one.read_text("utf-8")))),
    }
    return json.dumps({"version": __version__} | found, separators=(",", ":"))


def _fingerprint(*parts: str) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:LETTERS]
