"""Tiles: an app's logo, or two letters of its name on one of eight colours that its id decides."""

import zlib
from dataclasses import dataclass

HUES = 8


@dataclass(frozen=True, slots=True)
class Tile:
    """What stands for an app in lists and headings. The template macro `tile` draws it."""

    letters: str
    hue: int
    src: str = ""
    """The logo's address; empty for letters."""


def tile_of(app_id: str, name: str, src: str = "") -> Tile:
    """Return an app's tile."""
    return Tile(letters=letters_of(name), hue=zlib.crc32(app_id.encode()) % HUES, src=src)


def letters_of(name: str) -> str:
    """Return two letters that stand for a name: the beginnings of two words, or the beginning of one."""
    words = ["".join(c for c in word if c.isalnum()) for word in name.split()]
    words = [word for word in words if word] or ["?"]
    return words[0][:1].upper() + (words[1][:1].upper() if len(words) > 1 else words[0][1:2].lower())
