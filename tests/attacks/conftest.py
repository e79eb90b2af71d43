"""Attacks go against what a stranger, a user or a backend can reach: the same installations as in `tests/web/`."""

import pytest

from tests.cli.conftest import evergrant
from tests.oauth2.conftest import http, provider
from tests.web.conftest import backend_with, here, idp, other

__all__ = ["backend_with", "evergrant", "here", "http", "idp", "other", "provider"]

BEFORE_THE_DATABASE = {
    f"test_{name}.py"
    for name in (
        "claims",
        "connect_links",
        "console_rights",
        "forged_tokens",
        "large_bodies",
        "limits",
        "open_redirects",
        "pages",
        "skipped_pages",
        "webhooks",
    )
}
"""What stops these attacks does so before a database is asked, so that one kind of it is enough."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items[:] = [item for item in items if not (item.path.name in BEFORE_THE_DATABASE and _is_on_postgresql(item))]


def _is_on_postgresql(item: pytest.Item) -> bool:
    of_attacks = item.path.parent.name == "attacks"
    return of_attacks and isinstance(item, pytest.Function) and "[postgresql" in item.name
