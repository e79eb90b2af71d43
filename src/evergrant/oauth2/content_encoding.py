"""Undoes `Content-Encoding` (RFC 9110 section 8.4), going by what the bytes are more than by what a header says.

Servers and proxies name a charset there, or "none", or a compression that they then do not use. An answer is not worth
losing for that: its refresh token may exist nowhere else.
"""

import json
import zlib

_UNREADABLE = ("br", "zstd", "compress", "x-compress", "lzma", "xz", "bzip2", "dcb", "dcz")
_GZIP = b"\x1f\x8b"
_MOST_LAYERS = 3
_MOST_MEMBERS = 16
"""Unfolding thousands of empty ones would stop the process for seconds."""


class UndecodableBody(ValueError):
    """A body that cannot be read; the message continues a sentence that begins with the server's name."""


def decoded(body: bytes, encoding: str, *, most: int) -> bytes:
    """Return a body without its compression, in at most `most` bytes, so that a small bomb cannot unfold in memory.

    gzip is known by its first bytes, whatever the header says. `deflate` is zlib or, as some send it, without zlib's
    frame. What is neither stays as it is: a name that is no compression, such as `utf-8`, changes nothing.

    Raises:
        UndecodableBody: it is compressed in a way that was not asked for, broken, or more than `most` bytes.
    """
    names = [name.strip().lower() for name in encoding.split(",")]
    for name in names:
        if name in _UNREADABLE:
            raise UndecodableBody(f"answered in an encoding that was not asked for ({name})")
    for _ in range(_MOST_LAYERS):
        if not body.startswith(_GZIP):
            break
        body = _gunzipped(body, most)
    return _inflated(body, most) if "deflate" in names else body


def _gunzipped(body: bytes, most: int) -> bytes:
    """Unfold every member of a gzip file (RFC 1952 section 2.2); what follows the last is left out."""
    whole = b""
    rest = body
    for _ in range(_MOST_MEMBERS):
        if not rest.startswith(_GZIP):
            break
        member = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)
        try:
            whole += _unfolded(member, rest, most - len(whole))
        except zlib.error:
            raise UndecodableBody("garbled its answer") from None
        if not member.eof:
            # A stream whose end is lost may have brought all of its object: JSON shows by itself whether it is whole.
            if is_json_object(whole):
                return whole
            raise UndecodableBody("broke off its answer")
        rest = member.unused_data
    return whole


def _inflated(body: bytes, most: int) -> bytes:
    for bits in (zlib.MAX_WBITS, -zlib.MAX_WBITS):
        stream = zlib.decompressobj(wbits=bits)
        try:
            whole = _unfolded(stream, body, most)
        except zlib.error:
            continue
        if stream.eof or is_json_object(whole):
            return whole
    return body


def _unfolded(stream: "zlib._Decompress", body: bytes, most: int) -> bytes:
    whole = stream.decompress(body, most + 1)
    if len(whole) > most:
        raise UndecodableBody("sent an answer of more than 1 MiB")
    return whole


def is_json_object(body: bytes) -> bool:
    """Tell whether a body is a JSON object from beginning to end."""
    try:
        return isinstance(json.loads(body), dict)
    except (ValueError, RecursionError):
        return False
