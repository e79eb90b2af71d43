"""Expand, then contract: a migration leaves what the release before uses, and holds no table that grows with use."""

from collections.abc import Iterator
from io import StringIO
from pathlib import Path
from typing import Any

import pglast
import pytest
from alembic import command
from alembic.config import Config
from pglast import ast
from pglast.enums import AlterTableType, ConstrType

from scripts.release.previous import load_previous
from tests.infra.serving import environment_of
from tests.infra.settings import settings_on

ROOT = Path(__file__).parents[2]
LARGE = {
    "audit_events",
    "call_records",
    "grant_directory",
    "grant_events",
    "grant_uses",
    "grants",
    "webhook_deliveries",
}
"""They have millions of rows, and every process writes to them all the time."""
CONTRACTS: dict[str, str] = {}
"""Statements that are allowed to take something away, each with the release that used it last."""


def problems(sql: str) -> Iterator[str]:
    """Yield what is wrong with each statement, in words for whoever writes the migration."""
    new: set[str] = set()
    parsed: Any = pglast.parse_sql(sql)
    for raw in parsed:
        statement = raw.stmt
        match type(statement).__name__:
            case "CreateStmt":
                new.add(statement.relation.relname)
                found = []
            case "AlterTableStmt":
                there = statement.relation.relname not in new
                found = [wrong for one in statement.cmds if there and (wrong := _of_alteration(one))]
            case "IndexStmt":
                large = statement.relation.relname in LARGE - new
                found = ["building an index holds up every write to a large table"] if large else []
            case "InsertStmt" | "UpdateStmt" | "DeleteStmt":
                large = statement.relation.relname in LARGE
                found = ["changing many rows belongs into a chore, a batch at a time"] if large else []
            case "TransactionStmt" | "SelectStmt":
                found = []
            case _:
                found = ["the release before may need what goes"]
        text = sql[raw.stmt_location : raw.stmt_location + raw.stmt_len].strip()
        if text not in CONTRACTS:
            yield from (f"{text}: {one}" for one in found)


def _of_alteration(one: Any) -> str:
    if one.subtype == AlterTableType.AT_DropNotNull:
        return ""
    if one.subtype != AlterTableType.AT_AddColumn:
        return "only columns may be added to a table that is there"
    constraints = {constraint.contype: constraint for constraint in one.def_.constraints or ()}
    default = constraints.get(ConstrType.CONSTR_DEFAULT)
    if constraints.keys() - {ConstrType.CONSTR_NULL, ConstrType.CONSTR_NOTNULL, ConstrType.CONSTR_DEFAULT}:
        return "a constraint of a new column looks at every row"
    if default is None:
        is_required = ConstrType.CONSTR_NOTNULL in constraints
        return "the release before cannot fill it: give it a server default" if is_required else ""
    value = default.raw_expr.arg if isinstance(default.raw_expr, ast.TypeCast) else default.raw_expr
    return "" if isinstance(value, ast.A_Const) else "a default that is not constant writes every row anew"


def test_migrations_since_the_release_before_only_add(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name, value in environment_of(settings_on("postgresql://nobody@/none", tmp_path)).items():
        monkeypatch.setenv(name, value)
    written = StringIO()
    config = Config(output_buffer=written)
    config.set_main_option("script_location", str(ROOT / "migrations"))
    command.upgrade(config, f"{load_previous().revision}:head", sql=True)
    assert list(problems(written.getvalue())) == []


@pytest.mark.parametrize(
    "statement",
    [
        "ALTER TABLE projects DROP COLUMN name",
        "ALTER TABLE projects RENAME COLUMN name TO title",
        "ALTER TABLE projects RENAME TO tenants",
        "ALTER TABLE projects ALTER COLUMN name TYPE TEXT",
        "ALTER TABLE projects ALTER COLUMN name SET NOT NULL",
        "ALTER TABLE projects ADD CONSTRAINT c CHECK (name != '')",
        "ALTER TABLE projects ADD COLUMN more INTEGER NOT NULL",
        "ALTER TABLE projects ADD COLUMN more TIMESTAMPTZ DEFAULT clock_timestamp() NOT NULL",
        "ALTER TABLE projects ADD COLUMN more INTEGER DEFAULT 0 UNIQUE",
        "DROP TABLE projects",
        "DROP INDEX ix_grants_due",
        "CREATE INDEX ix_grants_more ON grants (app_id)",
        "UPDATE grants SET status = 'active'",
    ],
)
def test_what_breaks_or_holds_up_the_release_before_is_found(statement: str) -> None:
    assert len(list(problems(statement))) == 1


def test_what_only_adds_is_allowed() -> None:
    added = "CREATE TABLE more (id INTEGER); CREATE INDEX ix_more ON more (id); ALTER TABLE more ADD UNIQUE (id);"
    added += "ALTER TABLE grants ADD COLUMN a TEXT; ALTER TABLE grants ADD COLUMN b INTEGER DEFAULT 0 NOT NULL;"
    added += "ALTER TABLE grants ADD COLUMN c VARCHAR(3) DEFAULT 'x' NOT NULL;"
    assert list(problems(added)) == []
