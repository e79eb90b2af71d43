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
_RAREST_FIRST = b"\0~^|`QZXJKVYqWUGHjzFOBMLPNRDxISCEATkvwy9876543"
"""What is rare in JSON, pages and texts, as a guess that only costs time where it is wrong."""
_RARE_BYTES = 3


class Spellings:
    """What is looked for: secrets in every spelling. It costs as much to find out as to look through a short answer.

    Finding one byte costs a fraction of finding a text. So data is first asked for the rarest bytes of each spelling:
    where one of them is missing, so is the spelling.
    """

    __slots__ = ("_all", "_by_rarest", "_starts", "_two_and_one", "has_slashes", "tail_bytes")

    def __init__(self, secrets: Iterable[str]) -> None:
        long = {secret.encode(): None for secret in secrets if len(secret) >= LEAST_CHARACTERS}
        # Whoever sends `Bearer` and a token back sends the token back: looked for once, it costs a third.
        spelled = _spellings(one for one in long if not any(other in one for other in long if other != one))
        self._by_rarest: dict[bytes, list[tuple[tuple[bytes, ...], bytes]]] = {}
        for spelling in spelled:
            rarest, *more = _rare_bytes(spelling)
            self._by_rarest.setdefault(rarest, []).append((tuple(more), spelling))
        self._starts = tuple((spelling[:3], spelling) for spelling in spelled)
        self._two_and_one = tuple(one[:2] for one in spelled), tuple(one[:1] for one in spelled)
        self._all = b"\n".join(spelled)
        self.has_slashes = b"/" in self._all
        longest = max(map(len, spelled), default=0)
        self.tail_bytes = longest * _LONGEST_ESCAPE + _LONGEST_ESCAPE

    def found_in(self, data: bytes) -> list[tuple[int, int]]:
        """Return where spellings begin and end in `data`, byte for byte."""
        found: list[tuple[int, int]] = []
        for rarest, spelled in self._by_rarest.items():
            if rarest not in data:
                continue
            for more, spelling in spelled:
                for rare in more:
                    if rare not in data:
                        break
                else:
                    if spelling in data:
                        found += _spans(data, spelling)
        return found

    def begun_in(self, data: bytes) -> int:
        """Return how long the longest beginning of a spelling is with which `data` ends, short of all of it."""
        if data[-3:] in self._all:  # else no beginning of three bytes and more ends it
            held = max((_overlap(data, start, spelling) for start, spelling in self._starts), default=0)
            if held:
                return held
        two, one = self._two_and_one
        return 2 if data.endswith(two) else int(data.endswith(one))


class Scrubber:
    """Overwrites secrets in one answer, which may come in any pieces."""

    def __init__(self, secrets: Iterable[str] | Spellings) -> None:
        self.found = False
        """Whether there was one."""
        self._spellings = secrets if isinstance(secrets, Spellings) else Spellings(secrets)
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
        spans = self._spellings.found_in(data)
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
        return b"\\" in data and (b"\\u00" in data or (self._spellings.has_slashes and b"\\/" in data))

    def _escaped_spans(self, data: bytes) -> list[tuple[int, int]]:
        plain = _unescaped(data)
        found = self._spellings.found_in(plain)
        if not found:
            return []
        places = _Places(data)
        return [(places.before(start), places.before(end)) for start, end in found]

    def _begun(self, data: bytes) -> int:
        """Return how many bytes at the end may be the beginning of a secret."""
        tail = data[-self._spellings.tail_bytes :]
        if b"%" not in tail and b"\\" not in tail:
            return self._spellings.begun_in(tail)
        cut = _BEGUN_ESCAPE.search(tail)
        known = tail[: cut.start()] if cut else tail
        plain = _unescaped(known)
        held = self._spellings.begun_in(plain)
        return len(tail) - (_Places(known).before(len(plain) - held) if held else len(known))


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


def _rare_bytes(spelling: bytes) -> list[bytes]:
    """Return the rarest bytes of a spelling, the rarest first: one at least."""
    rare = [number for number in _RAREST_FIRST if number in spelling] or list(spelling[:1])
    return [bytes((number,)) for number in rare[:_RARE_BYTES]]


def _overlap(data: bytes, start: bytes, spelling: bytes) -> int:
    """Return how long the longest beginning of `spelling` is with which `data` ends, short of all; 0 if below three."""
    at = data.find(start, max(0, len(data) - len(spelling) + 1))
    while at >= 0:
        if spelling.startswith(data[at:]):
            return len(data) - at
        at = data.find(start, at + 1)
    return 0


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
