"""A provider's answer as a model reads it: one JSON object, short enough, marked as the provider's."""

import codecs
import json
import re
import unicodedata
from collections.abc import AsyncIterator, Mapping
from email.message import Message
from typing import Any

from evergrant.broker.calls.asked import CallAnswer
from evergrant.oauth2.content_encoding import UndecodableBody, decoded

MOST_BYTES = 64 * 1024
"""So much of a body is given on; the rest is not read."""
_CHARSETS = re.compile(
    "us-ascii|ascii|utf-?8|iso-8859-[0-9]{1,2}|windows-[0-9]{3,4}|koi8-[ru]|shift_jis|euc-(jp|kr)|gbk|gb2312|gb18030|big5",
    re.IGNORECASE,
)
"""What texts are written in. Python reads much more by such names, and some of it unfolds without end."""
_KEPT = ("content-type", "link", "etag", "retry-after")
_TEXTS = ("json", "xml", "javascript", "x-www-form-urlencoded", "yaml", "csv", "html", "graphql")
_HIDDEN = frozenset({*range(0x202A, 0x202F), *range(0x2066, 0x206A), *range(0xE0000, 0xE0080)})
"""Characters that change the order of what is read, or are read by models and seen by nobody."""


async def as_result(answer: CallAnswer) -> dict[str, Any]:
    """Return an answer as a tool's result. What is longer than `MOST_BYTES` is cut, what is binary is described.

    Raises:
        Exception: whatever the body's iterator raises where it broke off.
    """
    headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in answer.headers}
    body, is_cut = await _first_bytes(answer.body)
    result: dict[str, Any] = {
        "source": "provider",
        "status": answer.status,
        "headers": {name: plain(headers[name]) for name in _KEPT if name in headers},
        **_read_body(body, headers, is_cut=is_cut),
        "bytes": len(body),
        "truncated": is_cut,
    }
    return result


async def _first_bytes(body: AsyncIterator[bytes]) -> tuple[bytes, bool]:
    whole = bytearray()
    async for chunk in body:
        whole += chunk
        if len(whole) > MOST_BYTES:
            return bytes(whole[:MOST_BYTES]), True
    return bytes(whole), False


def _read_body(body: bytes, headers: Mapping[str, str], *, is_cut: bool) -> dict[str, Any]:
    """Return the body as JSON (`body`) or as text (`text`); nothing readable is described (`described`)."""
    if not body:
        return {}
    kind = Message()
    kind["content-type"] = headers.get("content-type", "")
    try:
        plain_body = decoded(body, headers.get("content-encoding", ""), most=MOST_BYTES)
    except UndecodableBody:
        return {"described": f"a compressed body ({plain(headers.get('content-encoding', ''))})"}
    text = _text_of(plain_body, kind, is_cut=is_cut)
    if text is None:
        return {"described": f"binary data ({plain(headers.get('content-type', 'of no stated type'))})"}
    if "json" in kind.get_content_type() and not is_cut:
        try:
            return {"body": _plain_json(json.loads(text))}
        except (ValueError, RecursionError):
            pass  # it only says that it is JSON
    return {"text": plain(text)}


def _text_of(body: bytes, kind: Message, *, is_cut: bool) -> str | None:
    """Return a body as text; None where it is none."""
    subtype = kind.get_content_subtype()
    is_said = kind.get_content_maintype() == "text" or any(word in subtype for word in _TEXTS)
    charset = str(kind.get_param("charset", "utf-8"))
    if not _CHARSETS.fullmatch(charset):
        charset = "utf-8"
    try:
        decoder = codecs.getincrementaldecoder(charset)("replace" if is_said else "strict")
        return decoder.decode(body, final=not is_cut)
    except (LookupError, ValueError):
        return body.decode(errors="replace") if is_said else None


def plain(text: str) -> str:
    """Return text without control characters, and without those that nobody sees; line breaks and tabs stay."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        char
        for char in text
        if char in "\n\r\t" or not (unicodedata.category(char) in ("Cc", "Cs") or ord(char) in _HIDDEN)
    )


def _plain_json(value: Any) -> Any:
    match value:
        case str():
            return plain(value)
        case list():
            return [_plain_json(item) for item in value]
        case dict():
            return {plain(name): _plain_json(item) for name, item in value.items()}
        case _:
            return value
