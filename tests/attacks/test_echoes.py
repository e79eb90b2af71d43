"""An API that hands a caller's token back, by mistake or because a model was talked into asking for it."""

import base64
import gzip
import zlib
from collections.abc import AsyncIterator
from urllib.parse import quote

import pytest

from evergrant.errors import UpstreamRejected
from evergrant.oauth2.scrub import Scrubber
from evergrant.oauth2.upstream_decoding import plain
from evergrant.oauth2.upstream_messages import BrokenOff

TOKEN = "tok_a/b+c=d~5Gh7-Kq_2zPw9"


def _each(text: str, how: str) -> str:
    return "".join(how % ord(letter) for letter in text)


SPELLINGS = {
    "as it is": TOKEN,
    "with percent signs": quote(TOKEN, safe=""),
    "with small percent signs": "".join(c if c.isalnum() else f"%{ord(c):02x}" for c in TOKEN),
    "percent signs alone": _each(TOKEN, "%%%02X"),
    "JSON with its slashes": TOKEN.replace("/", "\\/"),
    "JSON with numbers": _each(TOKEN, "\\u%04x"),
    "JSON with large numbers": _each(TOKEN, "\\u%04X"),
    "mixed": "".join((c, f"%{ord(c):02x}", f"\\u{ord(c):04X}")[i % 3] for i, c in enumerate(TOKEN)),
    **{f"base64 behind {n}": base64.b64encode(b"~" * n + TOKEN.encode() + b"~~").decode() for n in range(3)},
    **{f"base64url behind {n}": base64.urlsafe_b64encode(b"?" * n + TOKEN.encode()).decode() for n in range(3)},
    "UTF-16": TOKEN.encode("utf-16-le").decode(),
    "base64 with percent signs": quote(base64.b64encode(b"~~" + TOKEN.encode()).decode(), safe=""),
}
AROUND = 4
"""Letters of base64 that others than the token decide."""


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_a_token_that_an_api_echoes_does_not_come_out_in_any_spelling_or_at_any_border(spelling: str) -> None:
    written = SPELLINGS[spelling].encode()
    whole = b'{"t": "tok_ % \\ ' + written + b'", "rest": 1}'
    outs = set()
    for border in range(len(whole) + 1):
        scrubber = Scrubber([TOKEN])
        outs.add(scrubber.feed(whole[:border]) + scrubber.feed(whole[border:]) + scrubber.end())
        assert scrubber.found
    scrubber = Scrubber([TOKEN])
    outs.add(b"".join(scrubber.feed(whole[at : at + 1]) for at in range(len(whole))) + scrubber.end())
    (out,) = outs
    assert len(out) == len(whole)
    assert out.count(b"*") >= len(written) - 3 * AROUND
    assert out.startswith(b'{"t": "tok_ % \\ ')
    assert out.endswith(b'", "rest": 1}')


def test_what_is_no_token_is_left_as_it_is() -> None:
    scrubber = Scrubber([TOKEN, "short"])
    pieces = [b"short tok_a/b+c=d~5Gh7-Kq_2zPw", b"8 %", b"zz \\u00e4", b"data: x\n\n"]
    assert scrubber.feed(pieces[-1]) == pieces[-1], "an event is not held back"
    assert b"".join(map(scrubber.feed, pieces)) + scrubber.end() == b"".join(pieces)
    assert not scrubber.found


async def _body(*pieces: bytes) -> AsyncIterator[bytes]:
    for piece in pieces:
        yield piece


async def test_a_token_in_headers_or_behind_a_compression_does_not_come_out() -> None:
    text = b"before " + TOKEN.encode() + b" after"
    bare = zlib.compressobj(wbits=-15)
    for coding, packed in (
        ("gzip", gzip.compress(text[:9]) + gzip.compress(text[9:])),
        ("x-gzip", gzip.compress(text)),
        ("deflate", zlib.compress(text)),
        ("deflate", bare.compress(text) + bare.flush()),
        ("identity", text),
    ):
        scrubber = Scrubber([TOKEN])
        given = [(b"Content-Encoding", coding.encode()), (b"ETag", b"x"), (b"X-Token", TOKEN.encode()), (b"A", b"")]
        headers, body = plain(given, _body(packed[:20], packed[20:]))
        got = b"".join([scrubber.feed(piece) async for piece in body]) + scrubber.end()
        assert got == b"before " + b"*" * len(TOKEN) + b" after"
        assert scrubber.headers(headers)[-2:] == [(b"X-Token", b"*" * len(TOKEN)), (b"A", b"")]
        assert coding == "identity" or b"ETag" not in dict(headers)
    with pytest.raises(UpstreamRejected):
        plain([(b"content-encoding", b"br")], _body(b""))
    with pytest.raises(UpstreamRejected):
        plain([(b"content-encoding", b"gzip"), (b"content-encoding", b"gzip")], _body(b""))
    for broken in (b"not gzip", gzip.compress(text)[:-9]):
        with pytest.raises(BrokenOff):
            _ = [piece async for piece in plain([(b"content-encoding", b"gzip")], _body(broken))[1]]
    bomb = gzip.compress(b"\0" * 4_000_000)
    _, body = plain([(b"content-encoding", b"gzip")], _body(bomb))
    assert max([len(piece) async for piece in body]) <= 65_536, "a bomb unfolds piece by piece"
