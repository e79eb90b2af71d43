"""What distributed databases share is written down, and the tables' keys spread one large project over a cluster."""

import tomllib
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import ForeignKeyConstraint, PrimaryKeyConstraint, Table, UniqueConstraint
from sqlalchemy.dialects import postgresql

from evergrant.db import Base, Grant
from evergrant.db.grant_reader import _statements
from tests.infra.statements import features, fixed_columns, known

FOLDER = Path(__file__).parents[2] / "deploy/sql"
SHARDING: dict[str, Any] = tomllib.loads((FOLDER / "sharding.toml").read_text())
LARGE: dict[str, dict[str, Any]] = SHARDING["large"]


@pytest.mark.parametrize(
    ("sql", "what"),
    [
        ("WITH RECURSIVE a AS (SELECT 1) SELECT * FROM a", "WITH RECURSIVE"),
        ("SELECT id FROM grants TABLESAMPLE system (1)", "RangeTableSample"),
        ("LISTEN grants", "ListenStmt"),
        ("SELECT pg_notify('a', 'b')", "function pg_notify"),
        ("CREATE INDEX a ON grants USING gin (details)", "index gin"),
        ("CREATE TABLE a (b bigserial)", "type bigserial"),
        ("SELECT id FROM grants FOR UPDATE NOWAIT", "LCS_FORUPDATE LockWaitError"),
    ],
)
def test_a_statement_that_leaves_what_the_systems_share_is_noticed(sql: str, what: str) -> None:
    assert what in features(sql) - known()


def test_each_exception_says_what_a_system_does_instead() -> None:
    exceptions = tomllib.loads((FOLDER / "features.toml").read_text())["exceptions"]
    for what, systems in exceptions.items():
        assert systems, what
        assert systems.keys() <= {"citus", "yugabytedb", "cockroachdb"}, what
        assert all(text.endswith(".") for text in systems.values()), what


def test_each_table_has_its_sharding_key() -> None:
    tables = Base.metadata.tables
    assert sorted([*SHARDING["few"], *LARGE]) == sorted(tables)
    for name, key in LARGE.items():
        table = tables[name]
        first, cut, *_ = [column.name for column in table.primary_key] if name != "portal_sessions" else ["", "id"]
        assert (first, cut) in (("project_id", key["ranges"]), ("", key["ranges"])), name
        assert key["citus"] in table.columns, name
        assert _keys_without(table, key["citus"]) == key["citus_lacks"], name


def _keys_without(table: Table, column: str) -> list[str]:
    """Return the keys that Citus refuses: unique ones without the column, and those that lead to distributed rows."""
    lacking = {str(index.name) for index in table.indexes if index.unique and column not in index.columns}
    for key in table.constraints:
        if isinstance(key, ForeignKeyConstraint):
            unfit = key.elements[0].column.table.name in LARGE
        else:
            unfit = isinstance(key, PrimaryKeyConstraint | UniqueConstraint) and column not in key.columns
        if unfit:
            lacking.add(str(key.name))
    return sorted(lacking)


def test_a_fetch_is_answered_by_one_shard() -> None:
    owner = next(index for index in Grant.__table__.indexes if index.name == "ix_grants_owner")  # type: ignore[attr-defined]
    for sql in _statements(postgresql.asyncpg.dialect()):  # type: ignore[no-untyped-call]
        fixed = fixed_columns(sql)
        assert LARGE["grants"]["citus"] in fixed
        # Where tables are kept in order: one range of the index.
        assert {column.name for column in owner.columns} - fixed <= {"external_identifier", "scope_key"}
