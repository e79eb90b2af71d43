"""A process that stood still, or that is out of time: what it still hears, and what it does not send."""

import asyncio
import threading
import time
from types import SimpleNamespace

import pytest

from evergrant.errors import TooLateToSend, Trouble, UpstreamUnavailable
from evergrant.oauth2 import sending
from evergrant.oauth2.transport import Http, open_http
from evergrant.pace import Pace
from tests.infra.scripted import Request, ScriptedProvider, answer
from tests.infra.waiting import PATIENCE, until
from tests.oauth2.network import LOOPBACK, TLS, LoopClock, Names

STOOD_STILL = 90.0


@pytest.mark.parametrize("parts", [1, 10])
@pytest.mark.parametrize("is_over", [False, True], ids=["in time", "when its time was over"])
async def test_an_answer_that_came_while_the_process_stood_still_is_read(
    provider: ScriptedProvider, monkeypatch: pytest.MonkeyPatch, parts: int, is_over: bool
) -> None:
    may_answer, has_answered = threading.Event(), threading.Event()
    body = b"tokens" * 10_000 * parts

    async def late(request: Request) -> None:
        await asyncio.to_thread(may_answer.wait, PATIENCE)
        request.writer.write(answer(200, body))
        has_answered.set()
        await request.writer.drain()

    provider.answers(late)
    async with open_http(LOOPBACK, tls=TLS, seconds=STOOD_STILL / 3) as http:
        clock = LoopClock(monkeypatch)
        asked = asyncio.create_task(http.request("POST", provider.url, headers={}, content=b"once"))
        await until(lambda: len(provider.requests) == 1, "the request has arrived")
        may_answer.set()
        assert has_answered.wait(PATIENCE), "this loop stands still meanwhile"
        (clock.listen if is_over else clock.stand_still)(STOOD_STILL)
        assert (await asked).body == body


async def test_a_provider_that_is_silent_while_the_process_listens_is_given_up(
    http: Http, provider: ScriptedProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    provider.answers(_hang)
    clock = LoopClock(monkeypatch)
    asked = asyncio.create_task(http.request("POST", provider.url, headers={}, content=b"once"))
    await until(lambda: len(provider.requests) == 1, "the request has arrived")
    clock.stand_still(STOOD_STILL)
    await asyncio.sleep(0.5)
    assert not asked.done()
    clock.listen(Pace().call)
    with pytest.raises(UpstreamUnavailable, match="did not answer in time") as given_up:
        await asked
    assert given_up.value.in_doubt


@pytest.mark.parametrize("content", [b"refresh_token=once", None])
async def test_nothing_is_sent_from_a_given_moment_on(
    http: Http, provider: ScriptedProvider, content: bytes | None
) -> None:
    provider.answers(answer(200))
    with pytest.raises(TooLateToSend) as late:
        await http.under(send_before=time.monotonic()).request("POST", provider.url, headers={}, content=content)
    assert (late.value.in_doubt, late.value.trouble) == (False, Trouble.OURS)
    await http.under(send_before=time.monotonic() + PATIENCE).request("GET", provider.url, headers={})
    assert [request.method for request in provider.requests] == ["GET"]


async def test_a_process_that_stands_still_while_it_connects_does_not_send(
    provider: ScriptedProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    jumped = 0.0
    monkeypatch.setattr(sending, "time", SimpleNamespace(monotonic=lambda: time.monotonic() + jumped))

    async def looked_up(host: str, port: int) -> object:
        nonlocal jumped
        jumped = STOOD_STILL
        return await Names(slow_example=[["127.0.0.1"]])(host, port)

    provider.answers(answer(200))
    async with open_http(LOOPBACK, tls=TLS, resolve=looked_up) as http:  # type: ignore[arg-type]
        limited = http.under(send_before=time.monotonic() + STOOD_STILL - 1)
        with pytest.raises(TooLateToSend):
            await limited.request("POST", f"http://slow.example:{provider.port}/", headers={}, content=b"once")
        await http.get_json(provider.url)
    assert [request.method for request in provider.requests] == ["GET"]


async def _hang(request: Request) -> None:
    await asyncio.sleep(PATIENCE)
