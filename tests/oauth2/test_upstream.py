"""Calls of APIs: what is written, judged by another parser, and what comes of an answer."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import h11
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evergrant.errors import AnswerLost, InvalidValue, MalformedRequest, UpstreamUnavailable
from evergrant.oauth2 import upstream_connection
from evergrant.oauth2.upstream_messages import BrokenOff, UpstreamAnswer
from tests.infra.raw_api import Script, answer_of, body_of, get, ok, open_upstream, raw_api
from tests.oauth2.network import LOOPBACK, TLS, Names

VALUES = st.binary(max_size=12).map(bytes.strip).filter(lambda value: not any(c < 32 or c == 127 for c in value))
NAMES = st.from_regex(rb"[A-Za-z][A-Za-z0-9-]{0,8}", fullmatch=True).filter(lambda name: name.lower() != b"te")


async def parts(*pieces: bytes) -> AsyncIterator[bytes]:
    for piece in pieces:
        yield piece


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]),
    st.from_regex(r"/[!-\"$-~]{0,20}", fullmatch=True),
    st.lists(st.tuples(NAMES, VALUES), max_size=5),
    st.one_of(st.none(), st.binary(max_size=20), st.lists(st.binary(max_size=9), max_size=3)),
    st.booleans(),
)
def test_another_parser_reads_what_was_asked_for(
    method: str,
    target: str,
    headers: list[tuple[bytes, bytes]],
    body: bytes | list[bytes] | None,
    is_length_known: bool,
) -> None:
    whole = b"".join(body) if isinstance(body, list) else body or b""

    def answer(head: bytes) -> Script:
        return [ok(b"" if head.startswith(b"HEAD") else b"x")]

    async def trial() -> None:
        async with raw_api(answer) as (api, upstream):
            request = replace(
                get(api, target),
                method=method,
                headers=[*headers, (b"Content-Length", b"99"), (b"transfer-encoding", b"gzip"), (b"HOST", b"evil")],
                body=parts(*body) if isinstance(body, list) else body,
                length=len(whole) if is_length_known else None,
            )
            await body_of(upstream, request)
            heard = h11.Connection(h11.SERVER)
            heard.receive_data(api.heads[0][1] + b"".join(api.bodies))
            event = heard.next_event()
            assert isinstance(event, h11.Request)
            assert (event.method, event.target) == (method.encode(), target.encode())
            framing = {b"host", b"content-length", b"transfer-encoding", b"connection", b"expect", b"upgrade"}
            got = [(name, value) for name, value in event.headers if name not in framing]
            assert got == [(name.lower(), value) for name, value in headers if name.lower() not in framing]
            assert dict(event.headers)[b"host"] == api.url.removeprefix("http://").encode()
            data = b""
            while isinstance(event := heard.next_event(), h11.Data):
                data += event.data
            assert isinstance(event, h11.EndOfMessage)
            assert (data, heard.trailing_data[0]) == (whole, b"")

    asyncio.run(trial())


@pytest.mark.parametrize("header", [(b"a", b"b\r\nc: d"), (b"a\n", b"b"), (b"a", b"\r"), (b"a", b"\0")])
async def test_a_request_does_not_hold_another(header: tuple[bytes, bytes]) -> None:
    async with raw_api(lambda _: [ok(b"x")]) as (api, upstream):
        for request in (replace(get(api), headers=[header]), replace(get(api), method="CONNECT")):
            with pytest.raises(InvalidValue):
                await body_of(upstream, request)
        assert api.heads == []


async def test_an_answer_comes_as_it_is_and_redirects_cookies_and_compression_are_its_callers() -> None:
    sent = b"HTTP/1.1 302 Found\r\nLocation: /b\r\nSet-Cookie: a=b\r\nX-\xc3: y\r\nContent-Encoding: gzip\r\n"
    sent = sent.replace(b"X-\xc3", b"X-Y") + b"Content-Length: 3\r\n\r\nabc"
    async with raw_api(lambda _: [sent]) as (api, upstream):
        for _ in range(2):
            async with answer_of(upstream, get(api, "/a")) as answer:
                assert isinstance(answer, UpstreamAnswer)
                assert answer.status == 302
                assert [name for name, _ in answer.headers][:2] == [b"Location", b"Set-Cookie"]
                assert b"".join([piece async for piece in answer.body]) == b"abc"
        assert all(b"/a " in head and b"ookie" not in head for _, head in api.heads)
        assert api.connections == 1


async def test_what_fails_says_whether_it_was_sent() -> None:
    async with raw_api(lambda head: [None] if b"gone" in head else [ok(b"x")]) as (api, upstream):
        with pytest.raises(AnswerLost) as lost:
            await body_of(upstream, get(api, "/gone"))
        assert not lost.value.on_kept_connection
        assert await body_of(upstream, get(api)) == b"x"
        with pytest.raises(AnswerLost) as lost:
            await body_of(upstream, get(api, "/gone"))
        assert lost.value.on_kept_connection
        with pytest.raises(AnswerLost) as lost:
            await body_of(upstream, replace(get(api, "/gone"), method="PUT", body=parts(b"x"), length=1))
        assert not lost.value.on_kept_connection, "what streams goes over a connection of its own"
        closed = get(api)
    async with open_upstream(LOOPBACK, tls=TLS) as upstream:
        with pytest.raises(UpstreamUnavailable):
            await body_of(upstream, closed)


async def test_where_one_address_takes_no_connection_the_next_one_is_tried() -> None:
    async with raw_api(lambda _: [ok(b"x")]) as (api, _):
        names = Names(two_example=[["127.0.0.9", "127.0.0.1"]])
        async with open_upstream(LOOPBACK, tls=TLS, resolve=names) as upstream:
            url = api.url.replace("127.0.0.1", "two.example") + "/"
            assert await body_of(upstream, replace(get(api), url=url)) == b"x"


@pytest.mark.parametrize("pieces", [(b"ab",), (b"ab", b"cdef")])
async def test_a_body_that_is_not_as_long_as_was_said_is_not_sent_whole(pieces: tuple[bytes, ...]) -> None:
    async with raw_api(lambda _: [ok(b"x")]) as (api, upstream):
        with pytest.raises(MalformedRequest):
            await body_of(upstream, replace(get(api), method="PUT", body=parts(*pieces), length=4))
        assert api.bodies == []


async def test_what_the_body_raises_goes_to_the_caller() -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield b"a"
        raise KeyError("gone")

    async with raw_api(lambda _: [ok(b"x")]) as (api, upstream):
        with pytest.raises(KeyError):
            await body_of(upstream, replace(get(api), method="PUT", body=broken()))


@pytest.mark.parametrize(
    ("script", "limits", "error"),
    [
        ([1.0], {"head_seconds": 0.05}, AnswerLost),
        ([b"HTTP/1.1 200 OK\r\n", 0.04, b"A: b\r\n", 0.04, b"C: d\r\n", 1.0], {"head_seconds": 0.06}, AnswerLost),
        ([b"HTTP/1.1 200 OK\r\n\r\na", 1.0], {"idle_seconds": 0.05}, BrokenOff),
        ([b"HTTP/1.1 200 OK\r\n\r\na", *[0.02, b"a"] * 50], {"total_seconds": 0.1}, BrokenOff),
    ],
)
async def test_each_part_of_an_answer_has_its_time(
    script: Script, limits: dict[str, float], error: type[Exception]
) -> None:
    async with raw_api(lambda _: script) as (api, upstream):
        with pytest.raises(error):
            await body_of(upstream, replace(get(api), **limits))  # type: ignore[arg-type]


async def test_a_caller_that_hangs_up_closes_the_connection() -> None:
    async with raw_api(lambda _: [b"HTTP/1.1 200 OK\r\n\r\na"]) as (api, upstream):
        async with answer_of(upstream, get(api)) as answer:
            assert await anext(answer.body) == b"a"
        async with asyncio.timeout(5):
            await api.ended.wait()


async def test_a_caller_that_hangs_up_before_the_answer_leaves_it_to_nobody() -> None:
    async with raw_api(lambda head: [ok(b"x")] if b"/quick" in head else [0.05, ok(b"late")]) as (api, upstream):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.02):
                await body_of(upstream, get(api, "/slow"))
        assert await body_of(upstream, get(api, "/quick")) == b"x"
        assert api.connections == 2


async def test_a_connection_is_used_again_and_closed_when_nobody_has_called_for_a_while(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(upstream_connection, "KEEPALIVE_SECONDS", 0.1)
    async with raw_api(lambda _: [ok(b"x")]) as (api, upstream):
        assert [await body_of(upstream, get(api)) for _ in range(3)] == [b"x"] * 3
        assert api.connections == 1
        async with asyncio.timeout(5):
            await api.ended.wait()
        assert await body_of(upstream, get(api)) == b"x"
        assert api.connections == 2
