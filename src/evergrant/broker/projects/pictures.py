"""Pictures that operators upload: looked at before they are stored, because browsers of others show them.

What a picture is says its content, never its name or what the sender calls it. SVG is not taken: it can run scripts.
"""

import struct
from dataclasses import dataclass

from evergrant.errors import InvalidValue

MAX_BYTES = 256 * 1024
SMALLEST, LARGEST = 16, 2048
"""Pixels of a side."""
_PNG = b"\x89PNG\r\n\x1a\n"
_JPEG = b"\xff\xd8\xff"
_SIZES = (*range(0xC0, 0xC4), *range(0xC5, 0xC8), *range(0xC9, 0xCC), *range(0xCD, 0xD0))
"""The markers of JPEG behind which a frame says its size (ITU T.81, table B.1)."""


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture that may be stored."""

    content: bytes
    media_type: str


def check_picture(content: bytes, *, field: str) -> Picture:
    """Look at an upload.

    Raises:
        InvalidValue: naming `field`: it is no PNG, JPEG or WebP, is too large, or has an odd size.
    """
    if len(content) > MAX_BYTES:
        raise InvalidValue.of((field, f"use at most {MAX_BYTES // 1024} KB"))
    try:
        media_type, width, height = _look_at(content)
    except (IndexError, struct.error):
        media_type, width, height = "", 0, 0
    if not media_type:
        raise InvalidValue.of((field, "use a PNG, JPEG or WebP picture"))
    if not (min(width, height) >= SMALLEST and max(width, height) <= LARGEST):
        problem = f"it has {width} by {height} pixels: use {SMALLEST} to {LARGEST} for each side"
        raise InvalidValue.of((field, problem))
    return Picture(content, media_type)


def _look_at(content: bytes) -> tuple[str, int, int]:
    """Return media type, width and height in pixels; an empty type for anything else."""
    if content.startswith(_PNG) and content[12:16] == b"IHDR":
        return "image/png", *struct.unpack(">II", content[16:24])
    if content.startswith(_JPEG):
        return _look_at_jpeg(content)
    if content[:4] == b"RIFF" and content[8:12] == b"WEBP":
        return _look_at_webp(content)
    return "", 0, 0


def _look_at_jpeg(content: bytes) -> tuple[str, int, int]:
    at = 2
    while content[at] == 0xFF:
        marker = content[at + 1]
        (length,) = struct.unpack(">H", content[at + 2 : at + 4])
        if marker in _SIZES:
            height, width = struct.unpack(">HH", content[at + 5 : at + 9])
            return "image/jpeg", width, height
        at += 2 + length
    return "", 0, 0


def _look_at_webp(content: bytes) -> tuple[str, int, int]:
    """Read one of the three kinds of WebP (RFC 9649 section 2)."""
    kind = content[12:16]
    if kind == b"VP8X":
        width, more, height, still_more = struct.unpack("<HBHB", content[24:30])
        width, height = (width | more << 16) + 1, (height | still_more << 16) + 1
    elif kind == b"VP8L" and content[20] == 0x2F:
        (bits,) = struct.unpack("<I", content[21:25])
        width, height = (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    elif kind == b"VP8 " and content[23:26] == b"\x9d\x01\x2a":
        width, height = (side & 0x3FFF for side in struct.unpack("<HH", content[26:30]))
    else:
        return "", 0, 0
    return "image/webp", width, height
