"""Every distinct statement that this test process sends to PostgreSQL, and what of SQL it uses."""

import json
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from pglast.parser import parse_sql_json
from sqlalchemy import Connection, Engine, event

LIST = Path(__file__).parents[2] / "deploy/sql/features.toml"
OF_A_TEST = "evergrant_of_a_test"
"""The execution option of what a test itself sends, past the application."""
PLANS = ("EXPLAIN", "VACUUM", "ANALYZE")
"""How statements begin by which tests look at plans."""

_SENT: set[str] = set()
_NEW: list[str] = []
"""Those that nobody has looked at."""


def listen() -> None:
    """Begin to keep what engines send."""

    @event.listens_for(Engine, "before_cursor_execute")
    def _keep(connection: Connection, _cursor: Any, statement: str, *_: Any) -> None:
        if connection.get_execution_options().get(OF_A_TEST) or statement.startswith(PLANS):
            return
        # What reads the system's own catalogue is the migrations' tool and tests; each system has a dialect for that.
        is_ours = connection.dialect.name == "postgresql" and "pg_catalog." not in statement
        if is_ours and statement not in _SENT:
            _SENT.add(statement)
            _NEW.append(statement)


def outside_the_list() -> list[str]:
    """Return what new statements use that `deploy/sql/features.toml` does not know, each with its statement."""
    new, _NEW[:] = list(_NEW), []
    return [f"{what}: {sql}" for sql in new for what in sorted(features(sql) - known())]


@cache
def known() -> frozenset[str]:
    """Return what the list knows: what all three systems share, and the exceptions."""
    listed = tomllib.loads(LIST.read_text())
    return frozenset([*(what for group in listed["shared"].values() for what in group), *listed["exceptions"]])


def features(sql: str) -> frozenset[str]:
    """Return what a statement uses: kinds of nodes of PostgreSQL's own parser, functions, types, locks and options."""
    return frozenset(_found(json.loads(parse_sql_json(sql))))


def _found(node: Any) -> Iterator[str]:
    if isinstance(node, list):
        for one in node:
            yield from _found(one)
        return
    if not isinstance(node, dict):
        return
    for name, value in node.items():
        yield from _named(name, value)
        yield from _found(value)


def _named(name: str, value: Any) -> Iterator[str]:
    """Say what a node is, and for those that have many forms, which."""
    if name[0].isupper() and isinstance(value, dict):
        yield name
    match name, value:
        case "FuncCall", {"funcname": parts}:
            yield f"function {_last(parts)}"
        case "collClause", {"collname": parts}:
            yield f"COLLATE {_last(parts)}"
        case "typeName", {"names": parts}:
            yield f"type {_last(parts)}"
        case "AlterTableCmd", {"subtype": kind}:
            yield f"ALTER TABLE {kind.removeprefix('AT_')}"
        case "LockingClause", {"strength": strength, "waitPolicy": policy}:
            yield f"{strength} {policy}"
        case "SubLink", {"subLinkType": kind}:
            yield f"sublink {kind}"
        case "JoinExpr", {"jointype": kind}:
            yield kind
        case "onConflictClause", {"action": kind}:
            yield kind
        case "Constraint", {"contype": kind}:
            yield kind
        case "IndexStmt", {"accessMethod": method}:
            yield f"index {method}"
            yield from (f"index {option}" for option in ("unique", "concurrent") if value.get(option))
            yield from (["index partial"] if "whereClause" in value else [])
        case "IndexElem", _:
            yield from (f"index {option}" for option in ("expr", "opclass", "collation") if value.get(option))
        case "SelectStmt", _:
            yield from (option for option in ("distinctClause", "windowClause", "groupClause") if value.get(option))
            yield f"{value.get('op', 'SETOP_NONE')}"
        case "withClause", {"recursive": True}:
            yield "WITH RECURSIVE"
        case "RangeSubselect" | "RangeFunction", {"lateral": True}:
            yield "LATERAL"
        case "TransactionStmt", {"kind": kind}:
            yield kind
        case "A_Expr", {"kind": kind, "name": parts}:
            yield f"{kind} {_last(parts)}"


def _last(parts: list[dict[str, Any]]) -> str:
    return str(parts[-1]["String"]["sval"])


def fixed_columns(sql: str) -> set[str]:
    """Return the columns that a SELECT of one table compares with a parameter, in conditions that all must hold."""
    query = json.loads(parse_sql_json(sql))["stmts"][0]["stmt"]["SelectStmt"]
    assert len(query["fromClause"]) == 1
    where = query["whereClause"]["BoolExpr"]
    assert where["boolop"] == "AND_EXPR"
    compared = [one["A_Expr"] for one in where["args"] if "A_Expr" in one]
    return {
        _last(one["lexpr"]["ColumnRef"]["fields"])
        for one in compared
        if _last(one["name"]) == "=" and "ColumnRef" not in one["rexpr"]
    }
