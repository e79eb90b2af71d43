"""Rows of the call log: what an entry becomes, and the one statement that inserts many of them."""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from operator import gt, itemgetter
from typing import Any, cast

from sqlalchemy import Dialect, String, Table
from sqlalchemy.ext.asyncio import AsyncConnection

from evergrant.broker.runtime.unwritten_calls import MOST_PATH, Call
from evergrant.db import CallRecord

TABLE = cast(Table, CallRecord.__table__)
_NAMES = [column.name for column in TABLE.columns]
_OF_ENTRY = [name for name in _NAMES if name not in ("act", "batch")]
_MOST = {column.name: column.type.length or MOST_PATH for column in TABLE.columns if isinstance(column.type, String)}
"""How long each text may be, in characters."""
_TEXTS = [name for name in _MOST if name != "batch"]
_LENGTHS = [_MOST[name] for name in _TEXTS]
_values_of, _texts_of = itemgetter(*_NAMES), itemgetter(*_TEXTS)


def row_of(call: Call, *, batch: str) -> dict[str, Any]:
    """Return the row of an entry, with texts that a database takes."""
    row = {name: getattr(call, name) for name in _OF_ENTRY}
    row["act"] = [_clean(one, 255) for one in call.act]
    row["batch"] = batch
    texts = _texts_of(row)
    whole = "".join(texts)
    if not whole.isascii() or "\x00" in whole or any(map(gt, map(len, texts), _LENGTHS)):
        row |= {name: _clean(row[name], _MOST[name]) for name in _TEXTS}
    return row


def _clean(value: str, most: int) -> str:
    """Make a text such that a database takes it, so that nobody keeps out of the log by an odd name."""
    return value.replace("\x00", "\ufffd").encode("utf-8", "replace").decode()[:most]


async def insert_rows(connection: AsyncConnection, rows: Sequence[Mapping[str, Any]]) -> None:
    """Insert rows, of which there is at least one.

    SQLAlchemy would find out for each value of each row how it is converted, which costs as much as writing it.
    """
    text, conversions = _insert(connection.dialect)
    values = []
    for row in rows:
        of_row = list(_values_of(row))
        for at, convert in conversions:
            of_row[at] = convert(of_row[at])
        values.append(tuple(of_row))
    await connection.exec_driver_sql(text, values)


@lru_cache(maxsize=8)
def _insert(dialect: Dialect) -> tuple[str, list[tuple[int, Any]]]:
    """Return the statement, and how the values of some places are converted."""
    compiled = TABLE.insert().compile(dialect=dialect, column_keys=_NAMES)
    if compiled.positiontup != _NAMES:
        raise RuntimeError("the statement takes its values in another order")
    processors = [TABLE.c[name].type.dialect_impl(dialect).bind_processor(dialect) for name in _NAMES]
    return str(compiled), [(at, convert) for at, convert in enumerate(processors) if convert is not None]
