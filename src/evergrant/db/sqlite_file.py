"""SQLite's file as a file: a copy of it while it is in use, what a copy is worth, and putting one in its place."""

import contextlib
import os
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from datetime import datetime
from pathlib import Path

from evergrant.disk import sync
from evergrant.errors import InvalidRequest

_MARK = "evergrant_backup"
"""The table by which a backup is known. It is made last: what lacks it is not whole."""
_HEADER = b"SQLite format 3\x00"
_BESIDE = ("-wal", "-shm")


def copy_database(database: Path, target: Path, *, taken_at: datetime) -> None:
    """Copy a database that may be in use, as it is at one moment, to a file for its owner alone.

    What was deleted is not in the copy. Blocks.

    Raises:
        InvalidRequest: there is no such database, or something is at `target` already, or it cannot be written.
    """
    if not database.exists():
        raise InvalidRequest(f"there is no database at {database}")
    try:
        os.close(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    except FileExistsError:
        raise InvalidRequest(f"{target} is there already: choose another name") from None
    except OSError as error:
        raise InvalidRequest(f"cannot write {target}: {error.strerror}") from None
    try:
        with closing(sqlite3.connect(database, isolation_level=None)) as connection:
            connection.execute("VACUUM INTO ?", (str(target),))
        with closing(sqlite3.connect(target, isolation_level=None)) as copy:
            copy.execute("PRAGMA synchronous = FULL")
            copy.execute(f"CREATE TABLE {_MARK} (taken_at TEXT NOT NULL)")
            copy.execute(f"INSERT INTO {_MARK} VALUES (?)", (taken_at.isoformat(),))  # noqa: S608 - our own name
        sync(target)
        sync(target.parent)
    except BaseException as error:
        target.unlink(missing_ok=True)
        if isinstance(error, sqlite3.Error):
            raise InvalidRequest(f"cannot write {target}: {error}") from None
        raise


def copy_of_backup(backup: Path, target: Path) -> datetime:
    """Copy a backup to where it is made ready, and return when it was taken. Blocks.

    Raises:
        InvalidRequest: it is none, or it is damaged.
    """
    if not backup.is_file():
        raise InvalidRequest(f"there is no file {backup}")
    try:
        with closing(sqlite3.connect(f"{backup.absolute().as_uri()}?mode=ro", uri=True)) as connection:
            row = connection.execute(f"SELECT taken_at FROM {_MARK}").fetchone()  # noqa: S608 - our own name
            sound = connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
            if row is None or not sound:
                raise InvalidRequest(f"{backup} is damaged")
            taken_at = datetime.fromisoformat(row[0])
    except (sqlite3.Error, TypeError, ValueError):
        raise InvalidRequest(f"{backup} is not a whole backup that 'evergrant backup' made") from None
    target.unlink(missing_ok=True)
    with (
        os.fdopen(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as copy,
        backup.open("rb") as file,
    ):
        shutil.copyfileobj(file, copy)
    with closing(sqlite3.connect(target, isolation_level=None)) as connection:
        connection.execute(f"DROP TABLE {_MARK}")
    return taken_at


@contextlib.contextmanager
def nobody_else(database: Path) -> Iterator[sqlite3.Connection | None]:
    """Keep everybody else out of a database, and yield a connection to it; None where it is not there, or unreadable.

    Its log is written into it first.

    Raises:
        InvalidRequest: a process uses it.
    """
    # Only what looks like one is opened: SQLite would remove the log beside anything else.
    looks_sound = database.exists() and _beginning(database) in (b"", _HEADER)
    connection = sqlite3.connect(database, timeout=0, isolation_level=None) if looks_sound else None
    try:
        if connection is not None:
            try:
                connection.execute("PRAGMA journal_mode = DELETE")
                connection.execute("BEGIN EXCLUSIVE")
            except sqlite3.OperationalError as error:
                if error.sqlite_errorname.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
                    raise InvalidRequest(
                        f"a process uses {database}: stop every 'evergrant serve' and 'evergrant refresher' first"
                    ) from None
                connection.close()
                connection = None
            except sqlite3.DatabaseError:
                connection.close()
                connection = None
        yield connection
    finally:
        if connection is not None:
            connection.close()


def _beginning(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(len(_HEADER))


def put_in_place(draft: Path, database: Path, *, kept_as: Path) -> None:
    """Put a database where another one is, which is kept under another name. Blocks."""
    with closing(sqlite3.connect(draft, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode = DELETE")  # all of it is in the one file then
    sync(draft)
    for end in _BESIDE:  # of a database that could not be read; a log must not come to lie beside another's file
        with contextlib.suppress(FileNotFoundError):
            Path(f"{database}{end}").rename(f"{kept_as}{end}")
    with contextlib.suppress(FileNotFoundError):
        os.link(database, kept_as)
    draft.replace(database)
    sync(database.parent)
