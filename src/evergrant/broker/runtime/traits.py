"""What replicas of one installation must have in common, as short fingerprints that are compared and tell nothing."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

from evergrant import __version__
from evergrant.catalog.loader import toml_files
from evergrant.networks import Network

LETTERS = 12


def traits_of(
    *, public_url: str, egress_allow: Sequence[Network], master_keys: Sequence[str], catalog_dir: Path | None
) -> str:
    """Return the fingerprints of this process as JSON, by the setting that each is of; the version as it is.

    Of master keys, their ids count, and which is the first; of an operator's templates, the files' names and texts.
    """
    files = toml_files(catalog_dir) if catalog_dir is not None else []
    found = {
        "EVERGRANT_PUBLIC_URL": _fingerprint(public_url),
        "EVERGRANT_EGRESS_ALLOW": _fingerprint(*sorted(map(str, egress_allow))),
        "EVERGRANT_MASTER_KEYS": _fingerprint(*master_keys[:1], *sorted(master_keys)),
        "EVERGRANT_CATALOG_DIR": _fingerprint(*(part for one in files for part in (one.name, one.read_text("utf-8")))),
    }
    return json.dumps({"version": __version__} | found, separators=(",", ":"))


def _fingerprint(*parts: str) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:LETTERS]
