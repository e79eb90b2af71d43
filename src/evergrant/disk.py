"""What the standard library lacks of the disk."""

import os
from pathlib import Path


def sync(path: Path) -> None:
    """Make a file's content safe from a power cut; or a folder's names, which syncing the files does not. Blocks.

    Raises:
        OSError: it is not there, or the disk fails.
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
