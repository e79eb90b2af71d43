"""What an error from a driver means: the database is away, it is busy, or something is wrong with what was asked.

Only the third is raised as it is. The other two are worth another try:

- Away (`Unavailable`): no connection, a lost one, no answer in time; a server that starts, stops, takes no writes (a
  standby, a primary that was demoted), lets nobody in or has run out of something. A file that cannot be read.
- Busy (`Busy`): a deadlock, a conflict, a lock or a statement that took too long, no free connection in our pool, a
  schema that changed meanwhile. A file that another process writes.
"""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

import asyncpg
from asyncpg import InternalClientError
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from evergrant.errors import Busy, Unavailable

_AWAY = ("08", "25006", "28", "3D", "53", "57", "58")
"""How the SQLSTATE begins: PostgreSQL's manual, appendix A."""
_BUSY = ("40", "55P03", "57014")
_BUSY_FILE = ("SQLITE_BUSY", "SQLITE_LOCKED")
_WRONG_IN_FILE = ("SQLITE_ERROR", "SQLITE_CONSTRAINT", "SQLITE_MISMATCH", "SQLITE_TOOBIG", "SQLITE_RANGE")


@contextmanager
def translated() -> Iterator[None]:
    """Turn what drivers raise when the database is away or busy into errors of ours.

    Raises:
        Unavailable: it is away.
        Busy: it is there, and has not come to what was asked.
    """
    try:
        yield
    except (DBAPIError, PoolTimeout, asyncpg.PostgresError, asyncpg.InterfaceError, sqlite3.Error, OSError) as error:
        if (meaning := meaning_of(error)) is None:
            raise
        raise meaning from error


def meaning_of(error: BaseException) -> Unavailable | None:
    """Return the error of ours that a driver's error means; None where something is wrong with what was asked."""
    driver = _driver_error(error)
    match driver:
        case PoolTimeout() | asyncpg.InvalidCachedStatementError() | asyncpg.OutdatedSchemaCacheError():
            return Busy()
        case asyncpg.PostgresError():
            state = driver.sqlstate or ""
            if state.startswith(_BUSY):
                return Busy()
            return Unavailable() if state.startswith(_AWAY) else None
        case asyncpg.DataError():  # asyncpg's own, before anything is sent; it is an InterfaceError too
            return None
        case sqlite3.Error():
            return _meaning_in_file(driver)
        case OSError() | asyncpg.InterfaceError() | InternalClientError():
            return Unavailable()
    return None


def driver_says(error: Unavailable) -> str:
    """Return in the driver's own words why the database is away, for its operator. They hold no password."""
    reason = _driver_error(error.__cause__) if error.__cause__ is not None else error
    return (str(reason) or type(reason).__name__).splitlines()[0]


def is_read_only(error: BaseException) -> bool:
    """Tell whether the server refused to write because it is not, or no longer, the primary."""
    return isinstance(_driver_error(error), asyncpg.ReadOnlySQLTransactionError)


def _driver_error(error: BaseException) -> BaseException:
    """Return what the driver itself raised: SQLAlchemy wraps that, on PostgreSQL in two layers."""
    if isinstance(error, DBAPIError) and error.orig is not None:
        error = error.orig
    cause = error.__cause__
    return cause if isinstance(cause, asyncpg.PostgresError | asyncpg.InterfaceError | InternalClientError) else error


def _meaning_in_file(error: sqlite3.Error) -> Unavailable | None:
    name = getattr(error, "sqlite_errorname", "")
    if name.startswith(_BUSY_FILE):
        return Busy()
    if not isinstance(error, sqlite3.OperationalError) or name.startswith(_WRONG_IN_FILE):
        return None
    return Unavailable()
