"""An upgrade under load: the release before this one on the new schema, beside this version, and again without it."""

from pathlib import Path

import pytest

from benchmarks.upgrade import drill
from tests.faults.conftest import Book
from tests.infra.postgres import PostgresServer


@pytest.mark.slow
def test_an_upgrade_under_load_fails_nobody_and_loses_no_consent(
    postgres_server: PostgresServer, tmp_path: Path, book: Book
) -> None:
    outcome = drill(postgres_server.create_database("upgraded_under_load"), tmp_path)
    assert outcome.failures == []
    book(outcome.ledger)
    assert outcome.is_clean, outcome.ledger
