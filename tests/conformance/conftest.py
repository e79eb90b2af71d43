"""One installation with every entry of the app library, for the tests of a module."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conformance.conforming import World, world
from tests.infra.databases import fresh_sqlite_database
from tests.infra.entries import Entry, oauth_entries

OWN: dict[str, Entry] = {
    # Not in the library; what is recorded of it is a moment in place of a lifetime, and an address for refreshes.
    "clover": {
        "id": "clover",
        "name": "Clover",
        "category": "payment",
        "documentation_url": "https://docs.clover.com/dev/docs/oauth-intro",
        "verification": "unconfirmed",
        "authorization_endpoint": "https://www.clover.com/oauth/v2/authorize",
        "token_endpoint": "https://api.clover.com/oauth/v2/token",
        "refresh_endpoint": "https://api.clover.com/oauth/v2/refresh",
        "token_request_format": "json",
        "refresh_token_rotation": "rotates",
        "token_response": {"expires_at": "/access_token_expiration"},
        "variables": {"merchantId": {"title": "Merchant", "source": "callback", "from": "merchant_id"}},
    },
}
"""Entries of the operator's own."""


@pytest.fixture(scope="module")
def everybody(migrated_sqlite_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """All of them in one installation."""
    data_dir = tmp_path_factory.mktemp("everybody")
    with world(oauth_entries() | OWN, fresh_sqlite_database(migrated_sqlite_file, data_dir), data_dir) as made:
        yield made
