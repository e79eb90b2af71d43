"""Reads JSON and text as servers really send them: what nobody needs must not spoil what is needed.

Nothing here decides what may be believed. Whoever takes a value out checks it.
"""

import json
import math
import re
from typing import Any

# Only those in which text of old systems is written: some of Python's other codecs are slow on purpose-made bytes.
MOST_DEPTH = 50
"""What is nested deeper is left out."""
_CHARSET = re.compile(
    r"charset=[\"']?((?:iso-?8859|windows|cp|shift_?jis|sjis|gbk?|gb\d|big5|euc|koi8|latin)[\w-]*)", re.IGNORECASE
)


def read_text(body: bytes, content_type: str) -> str:
    """Decode a body: by its byte order mark, as UTF-8 or UTF-16, by the charset that is stated, else as Latin-1.

    It never fails. Bytes that mean nothing come out as some other character, and no token has one of those.
    """
    try:
        return body.decode(json.detect_encoding(body))
    except UnicodeDecodeError:
        stated = _CHARSET.search(content_type)
    try:
        return body.decode(stated[1] if stated else "latin-1", "replace")
    except LookupError:
        return body.decode("latin-1")


def read_json(text: str) -> object:
    """Return the JSON value that `text` begins with, also where it stands inside a JSON string.

    Taken as they are: raw control characters in strings, whatever follows the value, of two members of one name the
    last. NUL and halves of surrogates become U+FFFD: no database takes the one, and no encoding the other. What is
    nested deeper than anybody means it becomes null.

    Raises:
        ValueError: there is none.
    """
    try:
        value = _DECODER.raw_decode(text)[0]
        if isinstance(value, str) and value.lstrip()[:1] == "{":
            value = _DECODER.raw_decode(value.lstrip())[0]
        return _clean(value)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def clean_text(text: str) -> str:
    """Return a text with U+FFFD in the place of NUL and of halves of surrogates."""
    if text.isascii():
        return text.replace("\x00", "\ufffd")
    return text.replace("\x00", "\ufffd").encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _clean(value: Any, *, depth: int = 0) -> Any:
    if depth > MOST_DEPTH:
        return None
    if isinstance(value, str):
        return clean_text(value)
    if isinstance(value, list):
        return [_clean(item, depth=depth + 1) for item in value]
    if isinstance(value, dict):
        return {clean_text(name): _clean(item, depth=depth + 1) for name, item in value.items()}
    return value


def _integer(digits: str) -> float:
    try:
        return int(digits)
    except ValueError:  # Python reads 4,300 digits at most
        return math.inf


_DECODER = json.JSONDecoder(strict=False, parse_int=_integer)
