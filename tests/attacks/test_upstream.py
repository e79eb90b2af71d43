"""APIs are not trusted: no byte of one user's answer is taken for another's, and no answer does harm by its form."""

import asyncio
import contextlib
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evergrant.errors import AnswerLost, EgressRefused, UpstreamRejected, UpstreamUnavailable
from evergrant.oauth2.upstream_messages import BrokenOff, UpstreamRequest
from tests.infra.certificates import certificate_for
from tests.infra.raw_api import RawApi, Script, answer_of, body_of, get, ok, open_upstream, raw_api
from tests.infra.scripted import ScriptedProvider, serving
from tests.infra.scripted import answer as scripted_answer
from tests.oauth2.network import LOOPBACK, TLS, Names

HEAD = b"HTTP/1.1 200 OK\r\n"


def misdeeds(own: bytes) -> dict[str, Script]:
    """Return what a server may do at the cost of who uses its connection next."""
    good, other = ok(own), ok(b"late-" + own)
    chunked = HEAD + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(own), own)
    return {
        "nothing": [good],
        "a second answer": [good + other],
        "a second answer behind chunks": [chunked + other],
        "the beginning of a second answer": [good + other[:20], 0.004, other[20:]],
        "the beginning of one behind chunks": [chunked + other[:9], 0.004, other[9:]],
        "a second answer while idle": [good, 0.001, other],
        "an interim answer too many": [good + b"HTTP/1.1 103 Early\r\n\r\n" + other],
        "an answer without a body too many": [good + b"HTTP/1.1 204 No\r\n\r\n", other],
        "more body than it says": [good + own],
        "two lengths": [HEAD + b"Content-Length: 1\r\nContent-Length: %d\r\n\r\n%b" % (len(own), own)],
        "a length and chunks": [HEAD + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + other],
        "half a body": [HEAD + b"Content-Length: 99\r\n\r\n" + own, None],
        "no end": [HEAD + b"Transfer-Encoding: chunked\r\n\r\n5\r\nab", None],
        "no answer": [None],
    }


KINDS = tuple(misdeeds(b""))
NO_ANSWERS = {"two lengths", "a length and chunks", "half a body", "no end", "no answer"}


def answer_as_asked(head: bytes) -> Script:
    user, project, kind = (part.decode() for part in head.split(b" ")[1][1:].split(b"/"))
    return misdeeds(f"{user}-{project}".encode())[kind.replace("_", " ")]


def asking(api: RawApi, user: str, project: str, kind: str) -> UpstreamRequest:
    return get(api, f"/{user}/{project}/{kind.replace(' ', '_')}", pool=project, owner=user)


@settings(max_examples=30, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from("ab"), st.sampled_from(("p1", "p2")), st.sampled_from(KINDS)), min_size=2, max_size=8
    )
)
def test_no_byte_crosses_between_two_users_and_two_projects(calls: list[tuple[str, str, str]]) -> None:
    async def trial() -> None:
        async with raw_api(answer_as_asked) as (api, upstream):
            for user, project, kind in calls:
                with contextlib.suppress(BrokenOff, AnswerLost, UpstreamRejected):
                    got = await body_of(upstream, asking(api, user, project, kind))
                    assert got.removeprefix(b"late-") == f"{user}-{project}".encode()
            served: dict[int, set[bytes]] = {}
            for number, head in api.heads:
                served.setdefault(number, set()).add(head.rpartition(b"/")[0].rpartition(b"/")[0])
            assert all(len(whose) == 1 for whose in served.values()), "a connection served two owners"

    asyncio.run(trial())


@pytest.mark.parametrize("kind", KINDS)
async def test_what_comes_behind_an_answer_is_not_the_next_calls_answer(kind: str) -> None:
    async with raw_api(answer_as_asked) as (api, upstream):
        try:
            assert await body_of(upstream, asking(api, "a", "p", kind)) == b"a-p"
            assert kind not in NO_ANSWERS
        except (BrokenOff, AnswerLost, UpstreamRejected):
            assert kind in {*NO_ANSWERS, "more body than it says"}
        await asyncio.sleep(0.002 if "while idle" in kind else 0)
        assert await body_of(upstream, asking(api, "a", "p", "nothing")) == b"a-p"
        assert api.connections == (1 if kind == "nothing" else 2)


async def test_a_connection_that_is_clean_is_used_again_and_one_that_speaks_for_a_user_is_not() -> None:
    def answer(head: bytes) -> Script:
        bound = b"WWW-Authenticate: Negotiate\r\n" if b"bound" in head else b""
        return [HEAD + bound + b"Content-Length: 1\r\n\r\nx"]

    async with raw_api(answer) as (api, upstream):
        for path in ("/", "/", "/bound", "/"):
            assert await body_of(upstream, get(api, path)) == b"x"
    assert [number for number, _ in api.heads] == [1, 1, 1, 2]


@pytest.mark.parametrize(
    "sent",
    [
        HEAD + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        HEAD + b"Transfer-Encoding: identity\r\n\r\nx",
        HEAD + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        HEAD + b"Content-Length: 1\r\nContent-Length: 1\r\n\r\nx",
        HEAD + b"Content-Length: +1\r\n\r\nx",
        HEAD + b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
        b"HTTP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\nContent-Length: 0\n\n",
        HEAD + b"X-A: b\nSet-Cookie: a=b\r\nContent-Length: 0\r\n\r\n",
        HEAD + b"X-A: b\r\n folded\r\nContent-Length: 0\r\n\r\n",
        HEAD + b"X-A: \x00\r\nContent-Length: 0\r\n\r\n",
        HEAD + b"".join(b"X-%d: a\r\n" % i for i in range(101)) + b"\r\n",
        HEAD + b"".join(b"X-%d: %b\r\n" % (i, b"a" * 1500) for i in range(60)) + b"\r\n",
        HEAD + b"X-A: " + b"a" * 70_000,
        b"HTTP/1.1 103 Early\r\nLink: <x>\r\n\r\n" * 4_000,
        b"SSH-2.0-OpenSSH\r\n\r\n",
    ],
    ids=lambda sent: repr(sent[:48]),
)
async def test_an_answer_that_can_be_read_in_two_ways_is_no_answer(sent: bytes) -> None:
    async with raw_api(lambda _: [sent, 3.0]) as (api, upstream):
        with pytest.raises(UpstreamRejected) as refused:
            await body_of(upstream, get(api))
        assert refused.value.provider_error == "unusable_answer"
        assert "SSH" not in refused.value.message, "what came may be a secret"


async def test_an_answer_without_end_is_read_no_faster_than_its_caller_reads() -> None:
    sent = 0

    async def flood(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        await reader.readuntil(b"\r\n\r\n")
        writer.write(HEAD + b"\r\n")
        try:
            while True:
                writer.write(b"x" * 65_536)
                await writer.drain()
                sent += 65_536
        except OSError:
            closed.set()
        finally:
            writer.transport.abort()

    closed = asyncio.Event()
    server = await asyncio.start_server(flood, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
    async with server, open_upstream(LOOPBACK, tls=TLS) as upstream:
        request = UpstreamRequest(pool="p", owner="o", method="GET", url=url, headers=())
        async with answer_of(upstream, request) as answer:
            assert await anext(answer.body)
            before = -1
            while sent > before:
                before = sent
                await asyncio.sleep(0.05)
            assert sent < 8 * 1024 * 1024, "beyond what two systems buffer"
        async with asyncio.timeout(5):
            await closed.wait()


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("https://10.0.0.1/", "not public"),
        ("https://127.1/", "as it is looked up"),
        ("https://[::ffff:169.254.169.254]/", "as it is looked up"),
        ("https://inner.example/", "not public"),
        ("http://outer.example/", "plain http"),
        ("https://outer.example@127.0.0.1/", "user name"),
        ("https://OUTER.example/", "as it is looked up"),
        ("https://outer.example/a#b", "fragment"),
        ("https://outer.example/a\r\nX: y", "encoded"),
        ("file:///etc/passwd", "encoded"),
    ],
)
async def test_an_address_that_may_not_be_called_is_not_called(url: str, why: str) -> None:
    names = Names(inner_example=[["10.1.2.3"]], outer_example=[["93.184.216.34"]])
    async with open_upstream((), tls=TLS, resolve=names) as upstream:
        with pytest.raises(EgressRefused, match=why):
            await body_of(upstream, UpstreamRequest(pool="p", owner="o", method="GET", url=url, headers=()))


async def test_a_name_that_moves_to_an_inner_address_is_not_followed_there() -> None:
    async with raw_api(lambda _: [ok(b"inner")]) as (api, _):
        port = api.url.rpartition(":")[2]
        names = Names(moving_example=[["127.0.0.1"]])
        async with open_upstream((), tls=TLS, resolve=names) as upstream:
            request = replace(get(api), url=f"https://moving.example:{port}/")
            with pytest.raises(EgressRefused):
                await body_of(upstream, request)
        assert api.connections == 0


async def test_a_server_whose_certificate_is_for_another_name_hears_nothing(tmp_path: Path) -> None:
    server_tls, client_tls = certificate_for("good.example", tmp_path)
    names = Names(good_example=[["127.0.0.1"]], other_example=[["127.0.0.1"]])
    with serving(ScriptedProvider(), tls=server_tls) as provider:
        provider.answers(scripted_answer(200))
        async with open_upstream(LOOPBACK, tls=client_tls, resolve=names) as upstream:
            for _ in range(2):
                url = f"https://good.example:{provider.port}/"
                await body_of(upstream, UpstreamRequest(pool="p", owner="o", method="GET", url=url, headers=()))
            other = UpstreamRequest(
                pool="p", owner="o", method="GET", url=f"https://other.example:{provider.port}/", headers=()
            )
            with pytest.raises(UpstreamUnavailable, match=r"other\.example .* certificate is not accepted"):
                await body_of(upstream, other)
    assert len(provider.requests) == 2
