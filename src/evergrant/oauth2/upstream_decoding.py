"""Undoes the compression of a streamed answer that was to have none: what is compressed cannot be scrubbed."""

import zlib
from collections.abc import AsyncIterator, Iterator

from evergrant.errors import AnswerUnusable
from evergrant.oauth2.hygiene import RawHeaders
from evergrant.oauth2.upstream_messages import BrokenOff

PIECE_BYTES = 64 * 1024
"""So much is unfolded in one go: a bomb comes out at its reader's pace, and fills no memory."""
MOST_MEMBERS = 1_000
"""Of a gzip file (RFC 1952 section 2.2): a file of thousands that are empty is only there to stop us."""
_NONE = ("", "identity")
_BITS = {"gzip": 16 + zlib.MAX_WBITS, "x-gzip": 16 + zlib.MAX_WBITS, "deflate": zlib.MAX_WBITS}
_DESCRIBE_THE_CODED = (b"content-encoding", b"content-length", b"content-md5", b"digest", b"content-digest", b"etag")


def plain(headers: RawHeaders, body: AsyncIterator[bytes]) -> tuple[RawHeaders, AsyncIterator[bytes]]:
    """Return an answer without its compression: headers, without those that told of it, and body.

    Raises:
        AnswerUnusable: it is compressed in a way that cannot be undone here.
    """
    named = b",".join(value for name, value in headers if name.lower() == b"content-encoding").decode("latin-1")
    codings = [name.strip().lower() for name in named.split(",") if name.strip().lower() not in _NONE]
    if not codings:
        return headers, body
    if len(codings) > 1 or codings[0] not in _BITS:
        raise AnswerUnusable("The provider answered in an encoding that was not asked for.")
    kept = [(name, value) for name, value in headers if name.lower() not in _DESCRIBE_THE_CODED]
    return kept, _unfolded(body, _BITS[codings[0]])


async def _unfolded(body: AsyncIterator[bytes], bits: int) -> AsyncIterator[bytes]:
    member, members = zlib.decompressobj(bits), 1
    is_begun = False
    async for piece in body:
        if not is_begun and bits == zlib.MAX_WBITS and piece[0] & 0x0F != zlib.DEFLATED:
            member = zlib.decompressobj(-zlib.MAX_WBITS)  # as some send it, without zlib's frame
        is_begun = True
        rest = piece
        while rest:
            if member.eof:
                if bits == zlib.MAX_WBITS or members >= MOST_MEMBERS:
                    raise BrokenOff("The provider garbled its answer")
                member, members = zlib.decompressobj(bits), members + 1
            for out in _pieces(member, rest):
                yield out
            rest = member.unused_data
    if is_begun and not member.eof:
        raise BrokenOff("The provider broke off its answer")


def _pieces(member: "zlib._Decompress", data: bytes) -> Iterator[bytes]:
    try:
        while data and not member.eof:
            out = member.decompress(data, PIECE_BYTES)
            data = member.unconsumed_tail
            if out:
                yield out
    except zlib.error:
        raise BrokenOff("The provider garbled its answer") from None
