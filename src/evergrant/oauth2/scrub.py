"""Overwrites secrets in what an API answers, so that one that echoes its token hands it to nobody.

Found is a secret in every spelling that text is usually put in: as it is, in UTF-16, and in base64 (RFC 4648, both
alphabets) at each of its three offsets; each of these also escaped, whole or in part, as URLs and JSON do it. It is
overwritten by `*` of equal length, so that nothing else moves.
"""

import base64
import re
from bisect import bisect_right
from collections.abc import Iterable, Sequence

LEAST_CHARACTERS = 8
"""What is shorter is no secret, and stands in too much."""
_ESCAPE = re.compile(rb"%([0-9A-Fa-f]{2})|\\u00([0-9A-Fa-f]{2})|\\([\"\\/])")
_BEGUN_ESCAPE = re.compile(rb"(?:%[0-9A-Fa-f]?|\\(?:u(?:0(?:0[0-9A-Fa-f]?)?)?)?)\Z")
_LONGEST_ESCAPE = 6
_URLSAFE = bytes.maketrans(b"+/", b"-_")


class Spellings:
    """What is looked for: secrets in every spelling. It costs as much to find out as to look through a short answer."""

    __slots__ = ("has_slashes", "spelled", "tail_bytes")

    def __init__(self, secrets: Iterable[str]) -> None:
        long = {secret.encode(): None for secret in secrets if len(secret) >= LEAST_CHARACTERS}
        # Whoever sends `Bearer` and a token back sends the token back: looked for once, it costs a third.
        self.spelled = _spellings(one for one in long if not any(other in one for other in long if other != one))
        self.has_slashes = any(b"/" in spelling for spelling in self.spelled)
        longest = max(map(len, self.spelled), default=0)
        self.tail_bytes = longest * _LONGEST_ESCAPE + _LONGEST_ESCAPE


class Scrubber:
    """Overwrites secrets in one answer, which may come in any pieces."""

    def __init__(self, secrets: Iterable[str] | Spellings) -> None:
        self.found = False
        """Whether there was one."""
        known = secrets if isinstance(secrets, Spellings) else Spellings(secrets)
        self._spelled, self._has_slashes, self._tail_bytes = known.spelled, known.has_slashes, known.tail_bytes
        self._held = b""

    def feed(self, piece: bytes) -> bytes:
        """Take the next piece, and return what can go on: the end is held back while a secret may begin in it."""
        data = self._overwritten(self._held + piece if self._held else piece)
        held = self._begun(data)
        self._held = data[len(data) - held :]
        return data[: len(data) - held] if held else data

    def end(self) -> bytes:
        """Return what was held back: nothing comes any more."""
        rest, self._held = self._held, b""
        return rest

    def text(self, text: str) -> str:
        """Return a whole text without secrets, a header's value for one."""
        return self.whole(text.encode(errors="surrogateescape")).decode(errors="surrogateescape")

    def whole(self, data: bytes) -> bytes:
        """Return whole data without secrets."""
        return self._overwritten(data)

    def headers(self, headers: Sequence[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
        """Return headers without secrets in their names and values."""
        lines = b"\n".join(line for pair in headers for line in pair)
        scrubbed = self._overwritten(lines)
        if scrubbed is lines:
            return list(headers)
        parts = scrubbed.split(b"\n")
        return list(zip(parts[::2], parts[1::2], strict=True))

    def _overwritten(self, data: bytes) -> bytes:
        spans = [span for spelling in self._spelled if spelling in data for span in _spans(data, spelling)]
        if self._has_escapes(data):
            spans += self._escaped_spans(data)
        if not spans:
            return data
        self.found = True
        clean = bytearray(data)
        for start, end in spans:
            clean[start:end] = b"*" * (end - start)
        return bytes(clean)

    def _has_escapes(self, data: bytes) -> bool:
        if b"%" in data:
            return True
        return b"\\" in data and (b"\\u00" in data or (self._has_slashes and b"\\/" in data))

    def _escaped_spans(self, data: bytes) -> list[tuple[int, int]]:
        plain = _unescaped(data)
        found = [span for spelling in self._spelled if spelling in plain for span in _spans(plain, spelling)]
        if not found:
            return []
        places = _Places(data)
        return [(places.before(start), places.before(end)) for start, end in found]

    def _begun(self, data: bytes) -> int:
        """Return how many bytes at the end may be the beginning of a secret."""
        tail = data[-self._tail_bytes :]
        has_escapes = b"%" in tail or b"\\" in tail
        cut = _BEGUN_ESCAPE.search(tail) if has_escapes else None
        known = tail[: cut.start()] if cut else tail
        plain = _unescaped(known) if has_escapes else known
        held = max((_overlap(plain, spelling) for spelling in self._spelled), default=0)
        if not held:
            return len(tail) - len(known)
        start = _Places(known).before(len(plain) - held) if has_escapes else len(known) - held
        return len(tail) - start


def _spellings(secrets: Iterable[bytes]) -> tuple[bytes, ...]:
    found: dict[bytes, None] = {}
    for secret in secrets:
        found[secret] = None
        found[b"\0".join(secret[at : at + 1] for at in range(len(secret)))] = None  # UTF-16, whichever end is first
        for offset in range(3):
            # Only the letters that the secret alone decides: around it may stand anything.
            encoded = base64.b64encode(bytes(offset) + secret)
            core = encoded[-(-offset * 8 // 6) : (offset + len(secret)) * 8 // 6]
            found[core] = found[core.translate(_URLSAFE)] = None
    return tuple(found)


def _spans(data: bytes, spelling: bytes) -> list[tuple[int, int]]:
    found = []
    at = data.find(spelling)
    while at >= 0:
        found.append((at, at + len(spelling)))
        at = data.find(spelling, at + 1)
    return found


def _overlap(data: bytes, spelling: bytes) -> int:
    """Return how long the longest beginning of `spelling` is with which `data` ends, short of all of it."""
    start = spelling[:3]
    at = data.find(start, max(0, len(data) - len(spelling) + 1))
    while at >= 0:
        if spelling.startswith(data[at:]):
            return len(data) - at
        at = data.find(start, at + 1)
    return 2 if data.endswith(spelling[:2]) else int(data.endswith(spelling[:1]))


def _unescaped(data: bytes) -> bytes:
    return _ESCAPE.sub(_character, data)


def _character(escape: "re.Match[bytes]") -> bytes:
    digits = escape[1] or escape[2]
    return bytes((int(digits, 16),)) if digits else escape[3]


class _Places:
    """Where the bytes of unescaped data stood."""

    def __init__(self, data: bytes) -> None:
        self._plain, self._escaped = [0], [0]
        shorter = 0
        for escape in _ESCAPE.finditer(data):
            shorter += len(escape[0]) - 1
            self._plain.append(escape.end() - shorter)
            self._escaped.append(escape.end())

    def before(self, at: int) -> int:
        """Return where the byte at `at` begins."""
        index = bisect_right(self._plain, at) - 1
        return self._escaped[index] + at - self._plain[index]
