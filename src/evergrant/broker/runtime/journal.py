"""The journal: what a provider answered, on this machine's disk before the database is tried.

A rotated refresh token exists nowhere else. If the database is away when it comes, or the process is killed before it
is stored, the next start finds it here. What is written is sealed already; a file goes as soon as its row is committed.
"""

import base64
import json
import logging
import os
import secrets
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from evergrant.crypto.sealed import Sealed

log = logging.getLogger(__name__)

_SUFFIX = ".json"
_BROKEN = ".broken"


@dataclass(frozen=True, slots=True)
class Entry:
    """One answer that has to land: the columns to write, and on what condition."""

    project_id: str
    grant_id: str
    lease_owner: str
    seen_version: int
    """It lands on a row with this `token_version` and on no other."""
    values: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Census:
    """What is in a journal's folder."""

    waiting: int
    """Answers that have not landed yet: for some milliseconds each refresh has one."""
    oldest: float | None
    """When the first of them was written, in epoch seconds."""
    broken: int
    """Files that could not be read and were put aside."""


class Journal:
    """A folder with one small file per answer that has not landed yet."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def write(self, entry: Entry) -> Path | None:
        """Put an entry on disk, safe from a power cut when this returns. Blocks; call it in a thread.

        Returns:
            Its file, or None where the folder cannot be written: a full disk must not stop the landing itself.
        """
        text = json.dumps(
            {
                "project_id": entry.project_id,
                "grant_id": entry.grant_id,
                "lease_owner": entry.lease_owner,
                "seen_version": entry.seen_version,
                "values": {name: _encoded(value) for name, value in entry.values.items()},
            }
        )
        path = self._folder / f"{secrets.token_hex(8)}{_SUFFIX}"
        draft = path.with_suffix(".draft")
        try:
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="ascii") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            draft.rename(path)
            self._sync_folder()
        except OSError as error:
            log.warning("cannot write the journal", extra={"folder": str(self._folder), "why": error.strerror})
            return None
        return path

    def forget(self, path: Path | None) -> None:
        """Remove an entry that has landed, or never will."""
        if path is not None:
            path.unlink(missing_ok=True)

    def entries(self, *, older_than: float | None = None) -> Iterator[tuple[Path, Entry]]:
        """Yield what has not landed, oldest first; those written before this epoch second only, where one is given.

        A file that cannot be read is put aside, under another name, for the operator.
        """
        if not self._folder.is_dir():
            return
        for path in sorted(self._folder.glob(f"*{_SUFFIX}"), key=_written_at):
            if older_than is not None and _written_at(path) > older_than:
                continue
            try:
                members = json.loads(path.read_text(encoding="ascii"))
                values = {name: _decoded(value) for name, value in members.pop("values").items()}
                yield path, Entry(**members, values=values)
            except FileNotFoundError:
                continue  # it landed meanwhile
            except (ValueError, TypeError, KeyError, AttributeError, OSError):
                log.exception("a journal file cannot be read and is put aside", extra={"file": str(path)})
                path.rename(path.with_suffix(_BROKEN))

    def census(self) -> Census:
        """Count the folder's files. Blocks; call it in a thread."""
        waiting = [_written_at(path) for path in self._folder.glob(f"*{_SUFFIX}")]
        return Census(
            waiting=len(waiting),
            oldest=min((at for at in waiting if at), default=None),
            broken=sum(1 for _ in self._folder.glob(f"*{_BROKEN}")),
        )

    def _sync_folder(self) -> None:
        """Make the new name itself safe, which a file's own fsync does not."""
        descriptor = os.open(self._folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _written_at(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def _encoded(value: object) -> object:
    if isinstance(value, Sealed):
        return {"sealed": base64.b64encode(value.ciphertext).decode()}
    if isinstance(value, datetime):
        return {"at": value.isoformat()}
    if isinstance(value, dict):
        return {"members": value}  # or its own members could pass for one of the others
    return value


def _decoded(value: Any) -> object:
    match value:
        case {"sealed": str(text)}:
            return Sealed(base64.b64decode(text))
        case {"at": str(text)}:
            return datetime.fromisoformat(text)
        case {"members": dict(members)}:
            return members
        case _:
            return value
