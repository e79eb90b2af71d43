"""The journal: what a provider answered, on this machine's disk before the database is tried.

A rotated refresh token exists nowhere else. If the database is away when it comes, or the process is killed before it
is stored, the next start finds it here. What is written is sealed already; a file goes as soon as its row is committed.

A disk that is full or turned read-only costs what the journal is for, and nothing else: nothing here raises for it.
"""

import asyncio
import contextlib
import json
import logging
import os
import secrets
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from evergrant.broker.runtime.batches import Batches
from evergrant.broker.runtime.journal_entry import Entry, read_entry
from evergrant.disk import sync

log = logging.getLogger(__name__)

T = TypeVar("T")

DRAFT_SECONDS = 60.0
"""A draft that is older was left behind by a process that was killed while it wrote."""
THREADS = 4
"""Of the journal's own: others may be held up for long, by slow name servers for example."""
_SUFFIX = ".json"
_DRAFT = ".draft"
_BROKEN = ".broken"


@dataclass(frozen=True, slots=True)
class Census:
    """What is in a journal's folder."""

    waiting: int
    """Answers that have not landed yet: for some milliseconds each refresh has one."""
    oldest: float | None
    """When the first of them was written, in epoch seconds."""
    broken: int
    """Files that could not be read, or cannot land, and were put aside."""


class Journal:
    """A folder with one small file per answer that has not landed yet, and a memory of what is in it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="journal")
        self._writes = Batches(self._write_all, self._threads)
        self._removals = Batches(self._forget_all, self._threads)
        self._waiting: dict[tuple[str, str], dict[Path, Entry]] = {}
        """By (project, grant): what an earlier life or another process left there, and nobody is landing here."""
        self._in_hand: set[Path] = set()
        """What this process is landing."""
        self._was_read = False
        self._is_writable = True
        self._landed: set[Path] = set()
        """What is done with, and could not be removed."""
        self._unusable: set[Path] = set()
        """What can never land, and could not be put aside."""

    async def keep(self, entry: Entry) -> Path | None:
        """Put an entry that is about to be landed on disk, safe from a power cut when this returns.

        Returns:
            Its file, or None where it cannot be written: that must not stop the landing itself.
        """
        file = await self._writes.do(entry.encoded())
        if file is not None:
            self._in_hand.add(file)
        return file

    def leave(self, entry: Entry, file: Path) -> None:
        """Note that an entry is not being landed any more, and still waits."""
        self._in_hand.discard(file)
        self._waiting.setdefault(entry.key, {})[file] = entry

    async def drop(self, entry: Entry, file: Path | None) -> bool:
        """Forget an entry that has landed, or never will; False where its file cannot be removed."""
        if file is None:
            return True
        self._wait_no_more(entry.key, file)
        removed = await self._removals.do(file)
        self._in_hand.discard(file)
        return removed

    async def set_aside(self, entry: Entry, file: Path) -> None:
        """Keep an entry that can never land for the operator, under another name."""
        self._wait_no_more(entry.key, file)
        await self._in_thread(lambda: self._rename(file))

    async def forget_project(self, project_id: str) -> None:
        """Remove what the folder has of a project that was shredded, and that nobody can open any more."""
        for key in [key for key in self._waiting if key[0] == project_id]:
            del self._waiting[key]
        await self._in_thread(lambda: self._remove_of(project_id))

    async def read(self, *, older_than: float | None = None) -> list[tuple[Path, Entry]]:
        """Return what waits and is not being landed here, oldest first; only of before this epoch second, if given."""
        known = [(key, file) for key, files in self._waiting.items() for file in files]
        being_landed = frozenset(self._in_hand)
        found = await self._in_thread(lambda: self._tidied_entries(being_landed))
        self._was_read = True
        there = {file for file, _, _ in found}
        for key, file in known:
            if file not in there:
                self._wait_no_more(key, file)
        waiting = [one for one in found if one[0] not in self._in_hand | self._landed]  # as it is by now
        for file, entry, _ in waiting:
            self._waiting.setdefault(entry.key, {})[file] = entry
        return [(file, entry) for file, entry, at in waiting if older_than is None or at <= older_than]

    async def waiting_for(self, project_id: str, grant_id: str) -> list[tuple[Path, Entry]]:
        """Return what has not landed for one grant, as far as this process knows, in the order of the rows' versions.

        The disk is read the first time only.
        """
        if not self._was_read:
            await self.read()
        files = self._waiting.get((project_id, grant_id), {})
        return sorted(files.items(), key=lambda item: item[1].seen_version)

    def write(self, entry: Entry) -> Path | None:
        """Write an entry; None where that cannot be done. Blocks."""
        return self._write_all([entry.encoded()])[0]

    def _write_all(self, texts: Sequence[str]) -> list[Path | None]:
        """Write entries and return their files; None for one that cannot be written. Blocks."""
        written: list[Path | None] = []
        for text in texts:
            path = self._folder / f"{secrets.token_hex(8)}{_SUFFIX}"
            try:
                self._write_draft(text.encode("ascii"), path.with_suffix(_DRAFT))
                path.with_suffix(_DRAFT).rename(path)
                written.append(path)
            except OSError as error:
                self._warn(error)
                _remove(path.with_suffix(_DRAFT))
                written.append(None)
        try:
            sync(self._folder)  # the new names themselves
        except OSError as error:
            self._warn(error)
        else:
            if None not in written and not self._is_writable:
                log.warning("the journal can be written again", extra={"folder": str(self._folder)})
                self._is_writable = True
        return written

    def _write_draft(self, content: bytes, draft: Path) -> None:
        try:
            descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileNotFoundError:
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            while content:  # a disk that is nearly full takes a part
                content = content[os.write(descriptor, content) :]
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def _warn(self, error: OSError) -> None:
        if self._is_writable:  # once, and not for each refresh
            extra = {"folder": str(self._folder), "why": error.strerror}
            log.warning("cannot write the journal: an outage now costs the refreshes under way", extra=extra)
        self._is_writable = False

    def forget(self, path: Path | None) -> bool:
        """Remove an entry's file; False where it cannot be. Blocks."""
        if path is None or _remove(path):
            return True
        if path not in self._landed:
            log.warning("a journal file that is done with cannot be removed", extra={"file": str(path)})
            self._landed.add(path)
        return False

    def _forget_all(self, paths: Sequence[Path]) -> list[bool]:
        return [self.forget(path) for path in paths]

    def entries(self, but: Collection[Path] = ()) -> Iterator[tuple[Path, Entry, float]]:
        """Yield what has not landed and when it was written, in epoch seconds, oldest first; `but` these. Blocks.

        A file that cannot be understood is put aside, under another name, for the operator.
        """
        for path, at in sorted(self._files(_SUFFIX).items(), key=lambda item: item[1]):
            if path in but:
                continue
            if path in self._landed:
                self.forget(path)
                continue
            if path in self._unusable:
                self._rename(path)
                continue
            try:
                yield path, read_entry(path.read_text(encoding="ascii")), at
            except FileNotFoundError:
                continue  # it landed meanwhile
            except OSError:
                log.warning("a journal file cannot be read now", exc_info=True, extra={"file": str(path)})
            except (ValueError, TypeError, KeyError, AttributeError):
                log.exception("a journal file cannot be read and is put aside", extra={"file": str(path)})
                self._rename(path)

    def census(self) -> Census:
        """Count the folder's files. Blocks; call it in a thread."""
        waiting = [at for path, at in self._files(_SUFFIX).items() if path not in self._landed]
        return Census(len(waiting), min(waiting, default=None), len(self._files(_BROKEN)))

    def _tidied_entries(self, but: Collection[Path]) -> list[tuple[Path, Entry, float]]:
        for path, at in self._files(_DRAFT).items():
            if at < time.time() - DRAFT_SECONDS:
                _remove(path)
        return list(self.entries(but))

    def _remove_of(self, project_id: str) -> None:
        for path in [*self._files(_SUFFIX), *self._files(_BROKEN)]:
            try:
                theirs = json.loads(path.read_text(encoding="ascii"))["project_id"] == project_id
            except (OSError, ValueError, TypeError, KeyError):
                continue
            if theirs:
                self.forget(path)

    def _files(self, suffix: str) -> dict[Path, float]:
        """Return the files of this kind and when each was written; none where the folder is not there or unreadable."""
        found = {}
        try:
            for item in os.scandir(self._folder):
                with contextlib.suppress(FileNotFoundError):  # it landed meanwhile
                    if item.name.endswith(suffix):
                        found[self._folder / item.name] = item.stat().st_mtime
        except (FileNotFoundError, NotADirectoryError):
            pass
        except OSError:
            log.warning("cannot look into the journal", exc_info=True, extra={"folder": str(self._folder)})
        return found

    def _rename(self, path: Path) -> None:
        try:
            path.rename(path.with_suffix(_BROKEN))
        except FileNotFoundError:
            pass  # another process of the same folder was faster
        except OSError as error:
            if path not in self._unusable:
                extra = {"file": str(path), "why": error.strerror}
                log.warning("a journal file cannot be put aside", extra=extra)
            self._unusable.add(path)

    def _wait_no_more(self, key: tuple[str, str], file: Path) -> None:
        files = self._waiting.get(key, {})
        files.pop(file, None)
        if not files:
            self._waiting.pop(key, None)

    async def _in_thread(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)


def _remove(path: Path) -> bool:
    try:
        path.unlink(missing_ok=True)
    except OSError:
        return False
    return True
