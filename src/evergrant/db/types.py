"""Column types and the database's own clock."""

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import BindParameter, DateTime, Dialect, LargeBinary, literal
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.types import TypeDecorator

from evergrant.crypto.sealed import Sealed


class UtcDateTime(TypeDecorator[datetime]):
    """An instant: aware and in UTC on our side, on every database."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Refuse naive values, which could be any time zone's."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("a naive datetime is not an instant")
        return value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Put back the time zone that SQLite does not keep."""
        return value.replace(tzinfo=UTC) if value is not None and value.tzinfo is None else value


class SealedBytes(TypeDecorator[Sealed]):
    """A `Sealed` ciphertext. Neither reading nor writing it involves a key."""

    impl = LargeBinary
    cache_ok = True

    def process_bind_param(self, value: Sealed | None, dialect: Dialect) -> bytes | None:
        """Only `Sealed` gets in: a plaintext cannot be stored by mistake."""
        if value is None:
            return None
        if not isinstance(value, Sealed):
            raise TypeError("this column takes sealed values only")
        return value.ciphertext

    def process_result_value(self, value: bytes | None, dialect: Dialect) -> Sealed | None:
        """Hand the ciphertext out as `Sealed`."""
        return Sealed(value) if value is not None else None


class database_now(FunctionElement[datetime]):  # noqa: N801 - used like SQL's own functions, func.now() and kin
    """The database's clock at the moment of execution.

    Leases are timed by it alone: replicas whose own clocks disagree still agree on who holds a grant.
    `plus` seconds are added; a number, or the parameter that will have it.
    """

    inherit_cache = True
    type = UtcDateTime()
    name = "database_now"

    def __init__(self, plus: float | BindParameter[float] = 0.0) -> None:
        super().__init__(plus if isinstance(plus, BindParameter) else literal(float(plus)))


@compiles(database_now, "postgresql")
def _postgresql_now(element: database_now, compiler: SQLCompiler, **kw: Any) -> str:
    seconds = compiler.process(element.clauses, **kw)
    return f"(clock_timestamp() + CAST({seconds} AS double precision) * interval '1 second')"


@compiles(database_now, "sqlite")
def _sqlite_now(element: database_now, compiler: SQLCompiler, **kw: Any) -> str:
    seconds = compiler.process(element.clauses, **kw)
    # The format is the one in which SQLAlchemy stores datetimes, so that the texts compare as the instants do.
    return f"(strftime('%Y-%m-%d %H:%M:%f', 'now', {seconds} || ' seconds') || '000')"
