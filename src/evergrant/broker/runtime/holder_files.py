"""The files by which other processes of a data folder know that a holder is dead, and what it held.

While a process lives it has the lock of a file of its own, and the kernel takes the lock away when it ends, however it
ends. Whoever gets the lock of another's file knows for certain that its process is gone. Beside it is a list of the
leases that it holds. The list need not reach the disk: what a killed process wrote, the kernel keeps.
"""

import contextlib
import json
import logging
import os
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

if sys.platform != "win32":
    import fcntl

log = logging.getLogger(__name__)

HOLDERS_FOLDER = "holders"
_LOCK, _LIST = ".lock", ".leases"
SHORTEN_AT = 10_000
"""A list of so many lines is written anew, with what is still held."""


class HeldLease(NamedTuple):
    """A lease on one grant, under the name that it is held by."""

    project_id: str
    grant_id: str
    owner: str


class HolderFiles:
    """The files of one holder, this process's own. Where they cannot be kept, that is logged and costs only time."""

    def __init__(self, folder: Path, holder_id: str) -> None:
        self._lock = folder / f"{holder_id}{_LOCK}"
        self._list = folder / f"{holder_id}{_LIST}"
        self._held: dict[tuple[str, str], HeldLease] = {}
        self._descriptors: tuple[int, int] | None = None
        """Of the lock and of the list; None before the first lease, and where they cannot be kept."""
        self._lines = 0
        self._given_up = False

    def add(self, leases: Iterable[HeldLease]) -> None:
        """Put leases on the list."""
        new = {lease[:2]: lease for lease in leases}
        self._held |= new
        self._write("".join(f"+ {' '.join(lease)}\n" for lease in new.values()), lines=len(new))

    def remove(self, lease: HeldLease) -> None:
        """Take a lease off the list."""
        if self._held.get(lease[:2]) == lease:
            del self._held[lease[:2]]
            self._write(f"- {' '.join(lease)}\n", lines=1)

    def close(self) -> None:
        """Let the lock go. The files stay while something is on the list: whoever comes next gives it back."""
        if self._descriptors is None:
            return
        if not self._held:
            _unlink(self._lock, self._list)
        for descriptor in self._descriptors:
            os.close(descriptor)
        self._descriptors = None
        self._given_up = True

    def _write(self, text: str, *, lines: int) -> None:
        if self._given_up:
            return
        try:
            if self._descriptors is None:
                self._descriptors = self._opened()
            os.write(self._descriptors[1], text.encode())
            self._lines += lines
            if self._lines > SHORTEN_AT and self._lines > 4 * len(self._held):
                self._shorten()
        except OSError as error:
            # Without the list, what is held when this process is killed is taken over late, and nothing is lost.
            log.warning("cannot keep the list of leases", extra={"file": str(self._list), "why": error.strerror})
            self._given_up = True

    def _opened(self) -> tuple[int, int]:
        self._lock.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        listed = os.open(self._list, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        draft = self._lock.with_suffix(".draft")
        lock = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        os.write(lock, json.dumps({"kernel": _kernel()}).encode())
        if not _got_lock(lock):
            raise OSError(0, "files cannot be locked there")
        draft.rename(self._lock)  # only now does anybody look at it, and finds it locked
        return lock, listed

    def _shorten(self) -> None:
        assert self._descriptors is not None  # noqa: S101 - it has just been written; for the type checker
        lock, listed = self._descriptors
        draft = self._list.with_suffix(".draft")
        anew = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o600)
        os.write(anew, "".join(f"+ {' '.join(lease)}\n" for lease in self._held.values()).encode())
        draft.rename(self._list)
        os.close(listed)
        self._descriptors, self._lines = (lock, anew), len(self._held)


@dataclass(frozen=True, slots=True)
class DeadHolder:
    """What a process left behind that is gone for certain."""

    id: str
    leases: Iterable[HeldLease]
    """Those that it had not given back yet, as far as is known."""
    is_certain: bool
    """Whether the kernel that it ran on says so. File systems that several machines share may not honour locks."""
    folder: Path

    def forget(self) -> None:
        """Remove its files, when all has been given back."""
        _unlink(self.folder / f"{self.id}{_LOCK}", self.folder / f"{self.id}{_LIST}")


def dead_holders(folder: Path) -> Iterator[DeadHolder]:
    """Yield the holders of a folder whose process is gone. Nobody else is given the same one meanwhile."""
    for path in sorted(folder.glob(f"*{_LOCK}")):
        with contextlib.ExitStack() as stack:
            try:
                descriptor = os.open(path, os.O_RDWR)
                stack.callback(os.close, descriptor)
                # What was forgotten since it was opened is a file without a name, which anybody could lock.
                if not _got_lock(descriptor) or os.fstat(descriptor).st_ino != path.stat().st_ino:
                    continue
                kernel = _kernel()
                is_certain = bool(kernel) and path.read_text(encoding="utf-8") == json.dumps({"kernel": kernel})
                held = _read_list(path.with_suffix(_LIST))
            except OSError:
                continue  # somebody else gave it back just now, or it is not ours to open
            yield DeadHolder(path.stem, held, is_certain, folder)


def is_in_use(folder: Path) -> bool:
    """Tell whether a process that has held leases is there still."""
    for path in folder.glob(f"*{_LOCK}"):
        try:
            descriptor = os.open(path, os.O_RDWR)
        except OSError:
            continue
        try:
            if not _got_lock(descriptor):
                return True
        finally:
            os.close(descriptor)
    return False


def _read_list(path: Path) -> list[HeldLease]:
    held: dict[tuple[str, str], HeldLease] = {}
    if not path.exists():
        return []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        match line.split(" "):
            case ["+", project_id, grant_id, owner]:
                held[project_id, grant_id] = HeldLease(project_id, grant_id, owner)
            case ["-", project_id, grant_id, owner] if held.get((project_id, grant_id), ("",) * 3)[2] == owner:
                del held[project_id, grant_id]
    return list(held.values())


def _got_lock(descriptor: int) -> bool:
    if sys.platform == "win32":
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _kernel() -> str:
    """Return what is the same for all processes of one running kernel and for no others; nothing where unknown."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""


def _unlink(*paths: Path) -> None:
    for path in paths:
        with contextlib.suppress(OSError):
            path.unlink()
