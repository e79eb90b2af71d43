"""How does the database carry out what the product asks it? By its own account, for the very statements sent."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import event

from evergrant.broker.runtime.broker import Broker

INDEX = "ix_grants_due"


class PlanReader:
    """Records statements, and lets the database explain them afterwards."""

    def __init__(self, broker: Broker) -> None:
        self._engine = broker.database.engine
        self._is_sqlite = broker.database.is_sqlite
        self._statements: list[tuple[str, Any]] = []

    @contextmanager
    def recording(self) -> Iterator[None]:
        def record(_connection: Any, _cursor: Any, statement: str, parameters: Any, _context: Any, _many: bool) -> None:
            if "grants" in statement:
                self._statements.append((statement, parameters))

        event.listen(self._engine.sync_engine, "before_cursor_execute", record)
        try:
            yield
        finally:
            event.remove(self._engine.sync_engine, "before_cursor_execute", record)

    async def problem(self) -> str:
        """Return how else than through the index of due grants they are found; empty when all is well."""
        problems = []
        explain = "EXPLAIN QUERY PLAN" if self._is_sqlite else "EXPLAIN (FORMAT JSON)"
        async with self._engine.connect() as connection:
            for statement, parameters in self._statements:
                rows = (await connection.exec_driver_sql(f"{explain} {statement}", parameters)).all()
                problems += _sqlite_problems(rows) if self._is_sqlite else _postgresql_problems(rows[0][0])
            await connection.rollback()
        if not self._statements:
            problems.append("no statement was seen")
        return "; ".join(dict.fromkeys(problems))


def _postgresql_problems(plan: Any) -> list[str]:
    """Look at a plan as PostgreSQL writes it in JSON."""
    (whole,) = json.loads(plan) if isinstance(plan, str) else plan
    nodes = list(_nodes(whole["Plan"]))
    problems = [
        f"a {node['Node Type']} of the whole table"
        for node in nodes
        if node.get("Relation Name") == "grants" and node["Node Type"] not in ("ModifyTable", *_BY_INDEX)
    ]
    by_index = [node for node in nodes if node.get("Index Name") == INDEX]
    if not by_index:
        problems.append(f"{INDEX} is not used")
    problems += [f"{INDEX} is read whole" for node in by_index if "app_id" not in node.get("Index Cond", "")]
    problems += ["a sort of all that are due" for node in nodes if "Sort" in node["Node Type"] and _sorts_grants(node)]
    return problems


_BY_INDEX = ("Index Scan", "Index Only Scan")


def _nodes(node: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield node
    for child in node.get("Plans", ()):
        yield from _nodes(child)


def _sorts_grants(node: dict[str, Any]) -> bool:
    """Tell whether grants pass through this node, other than inside a subquery for each row."""
    return node.get("Index Name") == INDEX or any(
        _sorts_grants(child)
        for child in node.get("Plans", ())
        if child.get("Parent Relationship") not in ("SubPlan", "InitPlan")
    )


def _sqlite_problems(rows: Any) -> list[str]:
    """Look at the lines of `EXPLAIN QUERY PLAN`: id, parent, unused, text."""
    problems = [f"a {line.detail}" for line in rows if line.detail.startswith("SCAN grants")]
    searches = [line for line in rows if INDEX in line.detail and "app_id=?" in line.detail]
    if not searches:
        problems.append(f"{INDEX} is not searched")
    blocks = {line.parent for line in searches}
    problems += [
        "a sort of all that are due" for line in rows if "TEMP B-TREE" in line.detail and line.parent in blocks
    ]
    return problems
