"""Calls by way of evergrant over several processes: one is killed with writes in flight; a session is revoked."""

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from typing import Any

import httpx2
import pytest
from sqlalchemy import select

from evergrant import clock
from evergrant.broker.audit.chain import verify_chain
from evergrant.broker.calls.call_log import LEFT, seal_left_calls
from evergrant.broker.calls.under_way import STILL_GOOD_SECONDS
from evergrant.broker.runtime.broker import SESSION_SECONDS, Broker, open_broker
from evergrant.db import CallRecord
from tests.faults.cluster import Cluster
from tests.infra.people import someone
from tests.infra.scripted import ScriptedProvider, serving
from tests.infra.waiting import in_a_thread, wait_until

WRITES = 12


@pytest.fixture
def upstream() -> Iterator[ScriptedProvider]:
    """An API that a test scripts."""
    with serving(ScriptedProvider()) as running:
        yield running


@pytest.fixture
def connected(replicas: Cluster, upstream: ScriptedProvider) -> Iterator[tuple[str, str]]:
    """An app with this API, and a user who has connected it: both ids. They go, as the books of others count all."""
    backend, user = replicas.backends[1], someone()  # the first is killed
    app_id = backend.new_app(upstream.registration("api"), apiBaseUrl=upstream.url)
    token = {"appId": app_id, "userId": user, "accessToken": f"token of {user}".replace(" ", "-"), "scopes": ["files"]}
    answer = backend.post("app/user/oauthtoken/upload", token)
    assert answer.status_code == 200, answer.text
    yield app_id, user
    assert backend.post("app/delete", {"id": app_id}).status_code == 200


def test_each_write_in_flight_of_a_process_that_is_killed_has_its_row_and_is_sealed_later(
    replicas: Cluster, upstream: ScriptedProvider, connected: tuple[str, str]
) -> None:
    app_id, user = connected
    project_id, headers = replicas.backends[0].project_id, {"Evergrant-User": user}

    async def never(_: Any) -> None:
        await asyncio.sleep(3600)

    upstream.answers(never)

    def write(number: int) -> None:
        with suppress(httpx2.TransportError):
            replicas.backends[0].http.post(f"/v1/proxy/{app_id}/things/{number}", json={}, headers=headers)

    async def rows(broker: Broker) -> list[CallRecord]:
        async with broker.database.read() as session:
            query = select(CallRecord).where(CallRecord.app_id == app_id).order_by(CallRecord.path)
            return list(await session.scalars(query))

    async def later() -> None:
        async with open_broker(replicas.settings) as broker:
            ahead = await rows(broker)
            assert {row.path for row in ahead} == {f"/things/{number}" for number in range(WRITES)}
            assert {(row.method, row.user_id, row.status, row.source, row.batch) for row in ahead} == {
                ("POST", user, 0, "", "")
            }
            assert await seal_left_calls(broker, now=clock.now() + LEFT) >= WRITES
            sealed = await rows(broker)
            assert [row.path for row in sealed] == [row.path for row in ahead]
            assert all(row.batch and row.status == 0 for row in sealed)
            found = await verify_chain(broker, project_id)
            assert (found.problem, found.calls >= WRITES) == ("", True)

    with ThreadPoolExecutor(WRITES) as pool:
        asked = [pool.submit(write, number) for number in range(WRITES)]
        wait_until(lambda: len(upstream.requests) == WRITES, "every write has been sent")
        replicas.servers[0].kill()
        for future in asked:
            future.result()
    in_a_thread(later())


def test_a_revoked_session_ends_on_3_replicas_and_so_do_its_open_streams(
    replicas: Cluster, upstream: ScriptedProvider, connected: tuple[str, str]
) -> None:
    """How soon is not measured here, where a machine may be busy: it is the sum of two constants."""
    assert SESSION_SECONDS + STILL_GOOD_SECONDS <= 2
    app_id, user = connected

    async def endless(request: Any) -> None:
        request.writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n")
        for _ in range(600):  # half a minute is as good as endless
            if request.writer.transport.is_closing():
                break
            request.writer.write(b"data: 1\n\n")
            await asyncio.sleep(0.05)
        request.writer.close()

    upstream.routes["/events"] = endless
    upstream.answers((200, {}))
    body = {"userId": user, "apps": [{"appId": app_id}], "agent": {"id": "bot", "name": "Bot"}}
    made = replicas.backends[0].post("session/create", body).json()
    headers = {"Authorization": f"Bearer {made['key']}"}

    def status(at: int) -> int:
        return replicas.backends[at].http.get(f"/v1/proxy/{app_id}/a", headers=headers).status_code

    def read_to_its_end(given: httpx2.Response) -> str:
        try:
            given.read()
        except httpx2.RemoteProtocolError:
            return "cut"
        return "ended"

    with ExitStack() as opened, ThreadPoolExecutor(3) as pool:
        streams = [
            opened.enter_context(backend.http.stream("GET", f"/v1/proxy/{app_id}/events", headers=headers))
            for backend in replicas.backends
        ]
        assert [given.status_code for given in streams] == [200] * 3
        ends = [pool.submit(read_to_its_end, given) for given in streams]
        assert [status(at) for at in range(3)] == [200] * 3  # each remembers it now
        answer = replicas.backends[0].post("session/revoke", {"id": made["session"]["id"]})
        assert answer.status_code == 200, answer.text
        assert status(0) == 401
        # Whoever asks again and again does not keep it alive.
        wait_until(lambda: [status(1), status(2)] == [401, 401], "it is over on the others too")
        assert [end.result() for end in ends] == ["cut"] * 3
