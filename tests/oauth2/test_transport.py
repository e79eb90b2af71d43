"""The way out: where it refuses to go, and what it does with late, large, broken or hostile answers."""

import asyncio
import gzip
import ipaddress
import logging
import socket
import zlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from evergrant.errors import EgressRefused, Trouble, UpstreamUnavailable
from evergrant.oauth2 import guarded_network, transport
from evergrant.oauth2.token_request import send
from evergrant.oauth2.transport import Http, open_http
from tests.infra.certificates import certificate_for
from tests.infra.scripted import Request, ScriptedProvider, answer, json_answer, serving
from tests.infra.waiting import PATIENCE, until
from tests.oauth2.network import LOOPBACK, TLS, LoopClock, Names
from tests.oauth2.test_egress import NOT_PUBLIC


def gzipped(data: bytes) -> bytes:
    """Compress without the time in it: two processes that collect the same tests give them the same names."""
    return gzip.compress(data, mtime=0)


@asynccontextmanager
async def way_out(names: Names, *, opened: bool = True) -> AsyncIterator[Http]:
    async with open_http(LOOPBACK if opened else (), resolve=names, tls=TLS) as http:
        yield http


# where it goes


async def test_a_form_is_posted_and_the_answer_comes_back_whole(http: Http, provider: ScriptedProvider) -> None:
    provider.answers(json_answer(201, {"a": 1}, X_Note="yes"))
    params, headers = [("a", "1 &"), ("a", "ü")], {"Accept": "application/json"}
    got = await send(http, "POST", f"{provider.url}/token?x=1", "form", params, headers)
    assert (got.status, got.headers["x-note"], got.body) == (201, "yes", b'{"a": 1}')
    request = provider.requests[0]
    assert (request.method, request.target) == ("POST", "/token?x=1")
    assert request.pairs == [("a", "1 &"), ("a", "ü")]
    assert request.headers["host"] == f"127.0.0.1:{provider.port}"
    assert request.headers["accept"] == "application/json"


@pytest.mark.parametrize("address", NOT_PUBLIC)
async def test_a_name_that_resolves_to_an_address_that_is_not_public_is_refused(address: str) -> None:
    async with way_out(Names(evil_example=[[address]]), opened=False) as http:
        with pytest.raises(EgressRefused, match=r"^evil\.example may not be called"):
            await http.get_json("https://evil.example/")


@pytest.mark.parametrize(
    "url",
    [
        "https://127.0.0.1/",
        "https://2130706433/",
        "https://0x7f.1/",
        "https://0177.0.0.1/",
        "https://[::1]/",
        "https://[::ffff:7f00:1]/",
        "https://[64:ff9b::7f00:1]/",
        "https://169.254.169.254/latest/meta-data/",
    ],
)
async def test_a_literal_address_that_is_not_public_is_refused_in_every_spelling(url: str) -> None:
    async with way_out(Names(), opened=False) as http:
        with pytest.raises(EgressRefused):
            await http.get_json(url)


async def test_a_decimal_spelling_is_connected_to_as_the_address_that_it_is(
    http: Http, provider: ScriptedProvider
) -> None:
    provider.answers(answer(200))
    assert (await http.get_json(f"http://2130706433:{provider.port}/")).status == 200
    assert provider.requests[0].local_address == "127.0.0.1"


async def test_a_name_server_that_changes_its_answer_gains_nothing() -> None:
    only_the_first = (ipaddress.ip_network("127.0.0.2/32"),)
    names = Names(rebind_example=[["127.0.0.2"], ["127.0.0.1"]])
    with (
        serving(ScriptedProvider(), "127.0.0.2") as good,
        serving(ScriptedProvider(), "127.0.0.1", port=good.port) as inside,
    ):
        good.answers(answer(200))
        inside.answers(answer(200))
        async with open_http(only_the_first, resolve=names) as http:
            await http.get_json(f"http://rebind.example:{good.port}/")
    assert names.lookups == ["rebind.example"]
    assert [request.local_address for request in good.requests] == ["127.0.0.2"]
    assert inside.connections == 0


async def test_a_name_with_mixed_addresses_is_called_only_at_those_that_may_be(provider: ScriptedProvider) -> None:
    provider.answers(answer(200))
    async with way_out(Names(mixed_example=[["10.0.0.1", "169.254.169.254", "127.0.0.1"]])) as http:
        assert (await http.get_json(f"http://mixed.example:{provider.port}/")).status == 200


async def test_the_next_address_is_tried_when_one_takes_no_connection(provider: ScriptedProvider) -> None:
    provider.answers(answer(200))
    async with way_out(Names(two_example=[["127.0.0.9", "127.0.0.1"]])) as http:
        assert (await http.get_json(f"http://two.example:{provider.port}/")).status == 200


async def test_plain_http_to_a_public_address_is_refused() -> None:
    async with way_out(Names(public_example=[["8.8.8.8"]])) as http:
        with pytest.raises(EgressRefused, match="use https"):
            await http.get_json("http://public.example/")


@pytest.mark.parametrize(
    "url",
    [
        "ftp://127.0.0.1/",
        "file:///etc/passwd",
        "https://user:hunter2@127.0.0.1/",
        "https://provider.example\\@127.0.0.1/",
        "https://@127.0.0.1/",
        "nonsense",
    ],
)
async def test_a_url_of_another_form_is_refused_without_being_quoted(http: Http, url: str) -> None:
    with pytest.raises(EgressRefused) as refused:
        await http.get_json(url)
    assert "hunter2" not in refused.value.message


async def test_a_redirect_is_not_followed(http: Http, provider: ScriptedProvider) -> None:
    provider.answers(answer(302, Location=f"{provider.url}/elsewhere"))
    assert (await http.get_json(f"{provider.url}/")).status == 302
    assert len(provider.requests) == 1


async def test_proxies_of_the_environment_are_ignored(
    provider: ScriptedProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    provider.answers(answer(200))
    async with open_http(LOOPBACK) as http:
        assert (await http.get_json(f"{provider.url}/")).status == 200


async def test_a_cookie_of_one_answer_is_not_sent_with_the_next_request(http: Http, provider: ScriptedProvider) -> None:
    provider.answers(answer(200, Set_Cookie="session=of-another-user"))
    for _ in range(2):
        await http.get_json(f"{provider.url}/")
    assert "cookie" not in provider.requests[1].headers


async def test_tls_verifies_the_name_and_not_the_address(tmp_path: Path) -> None:
    server_tls, client_tls = certificate_for("good.example", tmp_path)
    names = Names(good_example=[["127.0.0.1"]], other_example=[["127.0.0.1"]])
    with serving(ScriptedProvider(), tls=server_tls) as provider:
        provider.answers(answer(200))
        async with open_http(LOOPBACK, resolve=names, tls=client_tls) as http:
            assert (await http.get_json(f"https://good.example:{provider.port}/")).status == 200
            with pytest.raises(UpstreamUnavailable, match=r"other\.example .* certificate is not accepted"):
                await http.get_json(f"https://other.example:{provider.port}/")
    assert len(provider.requests) == 1


# what it does with the answer


async def test_a_body_of_more_than_a_mebibyte_is_not_read(http: Http, provider: ScriptedProvider) -> None:
    provider.answers(answer(200, b"x" * (1024 * 1024 + 1)))
    with pytest.raises(UpstreamUnavailable, match="more than 1 MiB"):
        await http.get_json(f"{provider.url}/")


async def test_a_body_of_exactly_a_mebibyte_is_read(http: Http, provider: ScriptedProvider) -> None:
    provider.answers(answer(200, gzipped(b"x" * 1024 * 1024), Content_Encoding="gzip"))
    assert len((await http.get_json(f"{provider.url}/")).body) == 1024 * 1024


async def test_a_small_body_that_unfolds_to_a_large_one_is_not_unfolded(http: Http, provider: ScriptedProvider) -> None:
    bomb = gzipped(b"\0" * 64 * 1024 * 1024)
    assert len(bomb) < 100_000
    provider.answers(answer(200, bomb, Content_Encoding="gzip"))
    with pytest.raises(UpstreamUnavailable, match="more than 1 MiB"):
        await http.get_json(f"{provider.url}/")


JSON = b'{"access_token":"at-1"}'


def deflated(body: bytes, wbits: int) -> bytes:
    stream = zlib.compressobj(wbits=wbits)
    return stream.compress(body) + stream.flush()


@pytest.mark.parametrize(
    ("encoding", "body"),
    [
        *(
            (name, JSON)
            for name in ("", "identity", "UTF-8", "utf8", "none", "binary", "8bit", "application/json", ",")
        ),
        *((name, gzipped(JSON)) for name in ("gzip", "x-gzip", "GZIP", "utf-8, gzip", "none", "", "deflate")),
        ("gzip", JSON),
        ("gzip, gzip", gzipped(gzipped(JSON))),
        ("gzip, gzip", gzipped(JSON)),
        ("gzip", gzipped(JSON[:9]) + gzipped(JSON[9:])),
        ("gzip", gzipped(JSON) + b"\x00\x00\r\n"),
        ("gzip", gzipped(JSON)[:-8]),
        ("deflate", deflated(JSON, 15)),
        ("deflate", deflated(JSON, -15)),
        ("deflate", deflated(JSON, 15)[:-4]),
        ("deflate", JSON),
        ("identity\r\nContent-Encoding: deflate", deflated(JSON, 15)),
        ("deflate\r\nContent-Encoding: identity", deflated(JSON, 15)),
    ],
)
async def test_a_body_is_read_by_what_it_is_whatever_its_encoding_is_called(
    http: Http, provider: ScriptedProvider, encoding: str, body: bytes
) -> None:
    provider.answers(answer(200, body, Content_Encoding=encoding))
    assert (await http.get_json(f"{provider.url}/")).body == JSON


async def test_of_a_flood_of_members_only_the_first_are_unfolded(http: Http, provider: ScriptedProvider) -> None:
    flood = gzipped(b"x") + gzipped(b"") * 40_000 + gzipped(b"y")
    provider.answers(answer(200, flood, Content_Encoding="gzip"))
    assert (await http.get_json(f"{provider.url}/")).body == b"x"


@pytest.mark.parametrize("wbits", [15, -15, 31])
async def test_no_way_to_compress_unfolds_to_more_than_a_mebibyte(
    http: Http, provider: ScriptedProvider, wbits: int
) -> None:
    halves = deflated(b"\0" * 1024 * 1024, wbits), deflated(b"\0", wbits)
    bodies = [deflated(b"\0" * (1024 * 1024 + 1), wbits), *([b"".join(halves)] if wbits == 31 else [])]
    for body in bodies:
        provider.answers(answer(200, body, Content_Encoding="gzip" if wbits == 31 else "deflate"))
        with pytest.raises(UpstreamUnavailable, match="more than 1 MiB"):
            await http.get_json(f"{provider.url}/")


@pytest.mark.parametrize("encoding", ["br", "BR", "gzip, br", "zstd", "compress"])
async def test_an_encoding_that_was_not_asked_for_is_refused(
    http: Http, provider: ScriptedProvider, encoding: str
) -> None:
    provider.answers(answer(200, b"\x00\x01", Content_Encoding=encoding))
    with pytest.raises(UpstreamUnavailable, match="not asked for"):
        await http.get_json(f"{provider.url}/")


@pytest.mark.parametrize(
    "broken",
    [
        b'HTTP/1.1 200 X\r\ncontent-length: 100\r\nconnection: close\r\n\r\n{"half":',
        b'HTTP/1.1 200 X\r\ntransfer-encoding: chunked\r\n\r\n5\r\n{"hal',
        b"HTTP/1.1 200 X\r\nconte",
        b"220 mail.example ESMTP\r\n\r\n",
        b"",
        answer(200, b"\x1f\x8bnot gzip at all", Content_Encoding="gzip"),
        answer(200, gzipped(b'{"half":' * 500)[:-12], Content_Encoding="gzip"),
        answer(200, gzipped(b"access_token=at-1&refresh_token=rt-1")[:-9], Content_Encoding="gzip"),
    ],
)
async def test_half_an_answer_or_garbage_is_no_answer(http: Http, provider: ScriptedProvider, broken: bytes) -> None:
    async def break_off(request: Request) -> None:
        request.writer.write(broken)
        await request.writer.drain()
        request.writer.close()

    provider.answers(break_off)
    with pytest.raises(UpstreamUnavailable, match=r"^127\.0\.0\.1 "):
        await http.get_json(f"{provider.url}/")


def chunk(part: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(part), part)


CHUNKED = b"HTTP/1.1 200 X\r\ntransfer-encoding: chunked\r\n"
WITHOUT_END = {
    "announces too much": b"HTTP/1.1 200 X\r\ncontent-length: 100\r\n\r\n" + JSON,
    "lacks its last chunk": CHUNKED + b"\r\n" + chunk(JSON[:9]) + chunk(JSON[9:]),
    "is compressed": CHUNKED + b"content-encoding: gzip\r\n\r\n" + chunk(gzipped(JSON)),
}


@pytest.mark.parametrize("sent", WITHOUT_END.values(), ids=WITHOUT_END)
@pytest.mark.parametrize("hangs", [True, False], ids=["hangs", "closes"])
async def test_a_json_object_that_is_there_is_read_although_the_answer_does_not_end(
    http: Http, provider: ScriptedProvider, monkeypatch: pytest.MonkeyPatch, sent: bytes, hangs: bool
) -> None:
    has_sent = asyncio.Event()
    here = asyncio.get_running_loop()

    async def do_not_end(request: Request) -> None:
        request.writer.write(sent)
        await request.writer.drain()
        if not hangs:
            request.writer.close()
        here.call_soon_threadsafe(has_sent.set)

    provider.answers(do_not_end)
    clock = LoopClock(monkeypatch)
    asked = asyncio.create_task(http.get_json(provider.url))
    await has_sent.wait()
    if hangs:
        clock.listen(PATIENCE)
    assert (await asked).body == JSON


async def test_a_provider_that_never_answers_is_given_up(provider: ScriptedProvider) -> None:
    provider.answers(_hang)
    async with open_http(LOOPBACK, tls=TLS, seconds=0.1) as http:
        with pytest.raises(UpstreamUnavailable, match="did not answer in time"):
            await http.get_json(f"{provider.url}/")


async def test_a_provider_that_drips_is_given_up_after_the_total_time(provider: ScriptedProvider) -> None:
    async def drip(request: Request) -> None:
        request.writer.write(b"HTTP/1.1 200 X\r\ncontent-length: 100000\r\n\r\n")
        while True:
            request.writer.write(b"x")
            await request.writer.drain()
            await asyncio.sleep(0.02)

    provider.answers(drip)
    async with open_http(LOOPBACK, tls=TLS, seconds=0.3) as http:
        with pytest.raises(UpstreamUnavailable, match="did not answer in time"):
            await http.get_json(f"{provider.url}/")


async def test_a_name_server_that_never_answers_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guarded_network, "CONNECT_SECONDS", 0.1)

    async def never(host: str, port: int) -> list[ipaddress.IPv4Address]:
        await asyncio.sleep(60)
        return []

    async with open_http(LOOPBACK, resolve=never, tls=TLS, seconds=30) as http:
        with pytest.raises(UpstreamUnavailable, match="looking its name up takes too long") as given_up:
            await http.get_json("https://slow.example/")
    assert (given_up.value.trouble, given_up.value.in_doubt) == (Trouble.NAME, False)


async def test_a_name_that_does_not_exist_is_unavailable_and_named() -> None:
    async with way_out(Names()) as http:
        with pytest.raises(UpstreamUnavailable, match=r"^gone\.example cannot be reached: the name"):
            await http.get_json("https://gone.example/")


async def test_a_closed_port_is_unavailable(http: Http) -> None:
    with serving(ScriptedProvider()) as provider:
        url = f"{provider.url}/"
    with pytest.raises(UpstreamUnavailable, match="takes no connection"):
        await http.get_json(url)


# whether it was sent


async def test_what_was_not_sent_is_not_in_doubt(tmp_path: Path) -> None:
    with serving(ScriptedProvider()) as gone:
        closed = f"{gone.url}/"
    server_tls, _ = certificate_for("other.example", tmp_path)
    with serving(ScriptedProvider(), tls=server_tls) as distrusted:
        async with way_out(Names()) as http:
            for url in (closed, f"https://127.0.0.1:{distrusted.port}/", "https://gone.example/"):
                with pytest.raises(UpstreamUnavailable) as failed:
                    await http.request("POST", url, headers={}, content=b"once")
                assert not failed.value.in_doubt
    assert distrusted.requests == []


async def test_a_server_that_says_nothing_before_tls_stands_has_not_been_sent_anything() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        async with open_http(LOOPBACK, tls=TLS, seconds=0.1) as http:
            with pytest.raises(UpstreamUnavailable, match="did not answer in time") as failed:
                await http.request("POST", f"https://127.0.0.1:{silent.getsockname()[1]}/", headers={}, content=b"once")
    assert not failed.value.in_doubt


@pytest.mark.parametrize("content", [b"once", None])
@pytest.mark.parametrize("reaction", [None, b"220 mail.example ESMTP\r\n\r\n"])
async def test_what_was_sent_and_has_no_answer_is_in_doubt(
    http: Http, provider: ScriptedProvider, content: bytes | None, reaction: bytes | None
) -> None:
    async def react(request: Request) -> bytes | None:
        if reaction is None:
            request.writer.transport.abort()
        return reaction

    provider.answers(react)
    with pytest.raises(UpstreamUnavailable) as failed:
        await http.request("POST", provider.url, headers={}, content=content)
    assert failed.value.in_doubt


async def test_requests_beyond_the_limit_wait_and_are_then_held_back(
    provider: ScriptedProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = asyncio.Event()
    loop = asyncio.get_running_loop()

    async def hold(_request: Request) -> bytes:
        await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(held.wait(), loop))
        return answer(200)

    provider.answers(hold)
    async with open_http(LOOPBACK, tls=TLS, most=2) as http:
        first = [asyncio.create_task(http.get_json(provider.url)) for _ in range(2)]
        await until(lambda: len(provider.requests) == 2, "both are under way")
        monkeypatch.setattr(transport, "QUEUE_SECONDS", 0.05)
        with pytest.raises(UpstreamUnavailable) as held_back:
            await http.get_json(provider.url)
        assert (held_back.value.trouble, held_back.value.in_doubt) == (Trouble.OURS, False)
        monkeypatch.setattr(transport, "QUEUE_SECONDS", PATIENCE)
        third = asyncio.create_task(http.get_json(provider.url))
        held.set()
        assert [one.status for one in await asyncio.gather(*first, third)] == [200] * 3


# exactly once


async def test_a_post_is_not_repeated_when_the_connection_breaks(http: Http, provider: ScriptedProvider) -> None:
    async def reset(request: Request) -> None:
        request.writer.transport.abort()

    provider.answers(reset)
    with pytest.raises(UpstreamUnavailable):
        await send(http, "POST", f"{provider.url}/token", "form", [("refresh_token", "single-use")], {})
    assert len(provider.requests) == 1


async def test_a_post_on_a_kept_connection_that_the_provider_closes_is_not_repeated(
    http: Http, provider: ScriptedProvider
) -> None:
    async def close(request: Request) -> None:
        request.writer.close()

    provider.answers(answer(200), close, answer(200))
    await send(http, "POST", f"{provider.url}/token", "form", [("n", "1")], {})
    with pytest.raises(UpstreamUnavailable):
        await send(http, "POST", f"{provider.url}/token", "form", [("n", "2")], {})
    assert [request.pairs for request in provider.requests] == [[("n", "1")], [("n", "2")]]
    assert provider.connections == 1


async def test_connections_are_kept_and_shared(http: Http, provider: ScriptedProvider) -> None:
    provider.answers(answer(200))
    for _ in range(5):
        await http.request("POST", f"{provider.url}/token", headers={}, content=b"")
    assert provider.connections == 1


async def test_nothing_of_a_request_is_logged(
    http: Http, provider: ScriptedProvider, caplog: pytest.LogCaptureFixture
) -> None:
    provider.answers(json_answer(200, {"access_token": "planted-answer"}))
    with caplog.at_level(logging.INFO):
        url, headers = f"{provider.url}/token?k=planted-query", {"Authorization": "planted-header"}
        got = await send(http, "POST", url, "form", [("s", "planted-form")], headers)
    assert "planted" not in caplog.text
    assert "planted" not in repr(got)


async def _hang(request: Request) -> None:
    await asyncio.sleep(60)
