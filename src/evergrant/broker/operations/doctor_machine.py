"""What this machine tells: the data folder, its disk, the journal in it, and how many files a process may open."""

import os
import resource
import shutil
import stat
import time
from collections.abc import Iterator
from pathlib import Path

from evergrant.broker.operations.doctor_finding import Finding, todo
from evergrant.broker.runtime.broker import JOURNAL_FOLDER, MASTER_KEY_FILE
from evergrant.broker.runtime.journal import Journal
from evergrant.settings import Settings

FEW_BYTES, TOO_FEW_BYTES = 1024**3, 100 * 1024**2
FEW_FILES = 4_096
STUCK_SECONDS = 60.0
"""A journal's entry lands within milliseconds."""
MOUNTS = Path("/proc/self/mounts")
NETWORK = frozenset({"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "ceph", "glusterfs", "fuse.sshfs", "fuse.s3fs"})
FLEETING = {"tmpfs": "memory", "ramfs": "memory", "overlay": "the container's own layer"}


def examine_machine(settings: Settings) -> Iterator[Finding]:
    """Look at the machine, as the user who runs this may. Blocks."""
    folder = settings.data_dir
    yield _folder(folder)
    yield from _key_file(settings)
    there = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    yield _disk(there)
    yield _file_system(there, settings)
    yield _journal(folder)
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    if most != resource.RLIM_INFINITY and most < FEW_FILES:
        yield todo("open files", f"{most} at most: raise it ('ulimit -Hn', LimitNOFILE=) to {FEW_FILES} or more")
    else:
        yield Finding("open files", True, "enough")


def _folder(folder: Path) -> Finding:
    if not folder.exists():
        parent = next(path for path in folder.absolute().parents if path.exists())
        if not os.access(parent, os.W_OK | os.X_OK):
            return Finding("data folder", False, f"{folder} cannot be made: let this user write to {parent}")
        return Finding("data folder", True, f"{folder}, which the start makes")
    if not folder.is_dir() or not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
        return Finding(
            "data folder", False, f"{folder} is not this user's to write: chown it, or set EVERGRANT_DATA_DIR"
        )
    if folder.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        return todo("data folder", f"others on this machine can read {folder}: chmod 700 it")
    return Finding("data folder", True, str(folder))


def _key_file(settings: Settings) -> Iterator[Finding]:
    path = settings.data_dir / MASTER_KEY_FILE
    if settings.master_keys is not None or not os.access(path, os.F_OK):
        return
    if path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        yield Finding("key file", False, f"others on this machine can read {path}: chmod 600 it, and rotate the key")
    elif settings.is_loopback_trial:
        yield Finding("key file", True, str(path))
    else:
        text = f"{path} lies beside the database that it opens, and whoever loses one loses both"
        yield todo("key file", f"{text}: keep a copy elsewhere, or hand it over as EVERGRANT_MASTER_KEYS_FILE")


def _disk(folder: Path) -> Finding:
    free, counts = shutil.disk_usage(folder).free, os.statvfs(folder)
    text = f"{free // 1024**2} MiB free at {folder}"
    if free < TOO_FEW_BYTES or (counts.f_files and counts.f_favail == 0):
        return Finding(
            "disk", False, f"{text}: answers of providers have no place when the database is away; make room"
        )
    if free < FEW_BYTES:
        return todo("disk", f"{text}: make room before it is full")
    return Finding("disk", True, text)


def _file_system(folder: Path, settings: Settings) -> Finding:
    kind = _kind_of(folder)
    if kind in NETWORK and settings.uses_sqlite:
        text = f"{kind}: SQLite's locks do not hold over a network, and two writers destroy the file"
        return Finding("file system", False, f"{text}. Use a local disk, or PostgreSQL")
    if kind in NETWORK:
        return todo("file system", f"{kind}: the journal is as slow as the network. Use a disk of the machine's own")
    if kind in FLEETING:
        text = f"{kind}: what is in {settings.data_dir} goes with {FLEETING[kind]}"
        return todo("file system", f"{text}. Mount a volume there, or set EVERGRANT_DATA_DIR to one that stays")
    return Finding("file system", True, kind or "not known")


def _kind_of(folder: Path) -> str:
    """Return the kind of file system that a folder is on; empty where the system does not tell."""
    try:
        mounts = [line.split(" ")[1:3] for line in MOUNTS.read_text(encoding="utf-8").splitlines()]
    except OSError:
        return ""
    # The last one mounted at a place covers the others.
    here = [(len(place), number, kind) for number, (place, kind) in enumerate(mounts) if folder.is_relative_to(place)]
    return max(here, default=(0, 0, ""))[2]


def _journal(folder: Path) -> Finding:
    census = Journal(folder / JOURNAL_FOLDER).census()
    if census.oldest is not None and time.time() - census.oldest > STUCK_SECONDS:
        text = f"{census.waiting} answers of providers are not in the database"
        return Finding("journal", False, f"{text}: start 'evergrant refresher' with this data folder, which lands them")
    if census.broken:
        text = f"{census.broken} files could not be read, or can never land: see docs/journal.md, then remove them"
        return todo("journal", text)
    return Finding("journal", True, "nothing is left over")
