"""Calls that stream, callers that hang up, limits, and many callers with one dead token."""

import asyncio
import threading
from typing import Any

import httpx2
import pytest

from evergrant import clock
from evergrant.broker.calls.asked import AskedCall
from evergrant.broker.calls.calls import call
from evergrant.broker.grants.grants import ResourceOwner
from evergrant.broker.runtime.broker import Broker, open_broker
from evergrant.broker.runtime.principal import Permission, Principal
from evergrant.web import protocol
from tests.calls.conftest import Api
from tests.infra.people import refused
from tests.infra.raw import RawCaller
from tests.infra.scripted import json_answer
from tests.infra.waiting import PATIENCE, in_a_thread, wait_until

CALLERS = 200


class Endless:
    """An API that sends without end, and notices when it is not read."""

    def __init__(self) -> None:
        self.sent = 0
        self.closed = threading.Event()

    async def __call__(self, request: Any) -> None:
        request.writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n")
        try:
            while True:
                request.writer.write(b"data: 1\n\n")
                self.sent += 9
                await request.writer.drain()
                await asyncio.sleep(0.02)
                if request.writer.transport.is_closing():
                    break
        finally:
            self.closed.set()


def test_an_answer_comes_as_it_is_sent_and_who_hangs_up_closes_it(api: Api) -> None:
    api.provider.answers(endless := Endless())
    with api.http.stream("GET", f"/v1/proxy/{api.app_id}/events", headers=api.headers) as given:
        assert next(given.iter_raw()).startswith(b"data: 1")
        assert not endless.closed.is_set()
    assert endless.closed.wait(PATIENCE)


def test_who_hangs_up_before_the_answer_closes_it_too(api: Api) -> None:
    begun, ended = threading.Event(), threading.Event()

    async def silent(request: Any) -> None:
        begun.set()
        try:
            while not request.writer.transport.is_closing():
                request.writer.write(b"HTTP/1.1 102 Processing\r\n\r\n")
                await request.writer.drain()
                await asyncio.sleep(0.05)
        finally:
            ended.set()

    api.provider.answers(silent)
    head = f"GET /v1/proxy/{api.app_id}/a HTTP/1.1\r\nhost: h\r\nevergrant-user: {api.user}\r\n"
    with RawCaller(api.here.url) as caller:
        caller.send(f"{head}authorization: Bearer {api.here.backend.project_id}:{api.key}\r\n\r\n".encode())
        assert begun.wait(PATIENCE)
    assert ended.wait(PATIENCE)


def test_a_session_that_ends_cuts_its_open_streams(api: Api) -> None:
    api.provider.answers(endless := Endless())
    key = api.session_key()
    with api.http.stream("GET", f"/v1/proxy/{api.app_id}/events", headers={"Authorization": f"Bearer {key}"}) as given:
        chunks = given.iter_raw()
        next(chunks)
        answer = api.here.backend.post("session/revoke", {"userId": api.user})
        assert answer.status_code == 200, answer.text
        with pytest.raises(httpx2.RemoteProtocolError):
            for _ in chunks:
                pass
    assert endless.closed.wait(PATIENCE)


def test_a_large_body_is_sent_on_as_it_comes(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "MOST_LARGE_BODIES_BYTES", 1_000_000)  # of those that are in memory, and this is not
    parts = [b"x" * 65_536] * 40  # more than other calls may have at all

    def drip() -> Any:
        yield from parts

    api.provider.answers(lambda request: (200, len(request.body)))
    given = api.call("/upload", "PUT", content=drip(), headers={"Content-Length": str(65_536 * 40)})
    assert (given.status_code, given.json()) == (200, 65_536 * 40), given.text


def test_an_owner_has_so_many_calls_at_once_and_others_have_theirs(api: Api) -> None:
    api.provider.answers(Endless())
    opened = [api.http.stream("GET", f"/v1/proxy/{api.app_id}/e", headers=api.headers) for _ in range(32)]
    try:
        assert {one.__enter__().status_code for one in opened} == {200}
        given = api.call("/e")
        assert refused(given, 429, "E130429"), given.text
        assert given.headers["evergrant-source"] == "evergrant"
    finally:
        for one in opened:
            one.__exit__(None, None, None)
    api.provider.answers((200, {}))
    wait_until(lambda: api.call("/e").status_code == 200, "there is room again")


def test_callers_with_one_dead_token_share_one_refresh_over_three_processes(api: Api) -> None:
    """Three brokers on one database stand for three processes."""
    api.connect(refreshToken="rt-0")

    async def newer(_: Any) -> Any:
        await asyncio.sleep(0.1)
        return {"access_token": "newer-token", "expires_in": 3600, "refresh_token": "rt-1"}

    api.provider.routes["/token"] = newer
    api.provider.answers(
        lambda request: json_answer(200 if request.headers["authorization"] == "Bearer newer-token" else 401, {})
    )
    principal = Principal(api.here.backend.project_id, "k", frozenset({Permission.CALLS}), frozenset(), (), None)
    asked = AskedCall(app_id=api.app_id, method="GET", path="/a", owner=ResourceOwner(api.user, ""))
    changes = {"rate_limit_per_owner": 0, "calls_at_once_per_owner": 0}

    async def one(broker: Broker) -> int:
        async with call(broker, principal, asked, now=clock.now()) as answer:
            return answer.status

    async def all_of_them() -> list[int]:
        mine = api.here.settings.model_copy(update=changes)
        async with open_broker(mine) as a, open_broker(mine) as b, open_broker(mine) as c:
            return await asyncio.gather(*(one((a, b, c)[n % 3]) for n in range(CALLERS)))

    assert in_a_thread(all_of_them()) == [200] * CALLERS
    assert len(api.provider.requests_to("/token")) == 1
