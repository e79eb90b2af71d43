"""Looking names up: what silent name servers hold up, what is remembered, and what is used when nobody knows better."""

import asyncio
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from evergrant.errors import Trouble, UpstreamUnavailable
from evergrant.networks import Address
from evergrant.oauth2 import lookups, name_cache
from evergrant.oauth2.transport import Http, open_http
from tests.infra.scripted import Request, ScriptedProvider, answer
from tests.infra.waiting import PATIENCE, until
from tests.oauth2.network import LOOPBACK, TLS, Names


class Resolver:
    """The system's resolver: `*.good.example` is the provider, `*.dead.example` stands until it is released."""

    def __init__(self) -> None:
        self.asked: Counter[str] = Counter()
        self.released = threading.Event()
        self.standing = 0

    def getaddrinfo(self, host: str, port: int, **_: Any) -> list[Any]:
        self.asked[host] += 1
        if not host.endswith(".good.example"):
            self.standing += 1
            self.released.wait(PATIENCE)
            self.standing -= 1
            raise socket.gaierror(socket.EAI_AGAIN, "nobody answers")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))]


@pytest.fixture
def resolver(monkeypatch: pytest.MonkeyPatch) -> Iterator[Resolver]:
    resolver = Resolver()
    monkeypatch.setattr(socket, "getaddrinfo", resolver.getaddrinfo)
    yield resolver
    resolver.released.set()


class Hours:
    """The clock by which names are remembered."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._passed = 0.0
        monkeypatch.setattr(name_cache, "time", SimpleNamespace(monotonic=lambda: time.monotonic() + self._passed))

    def pass_by(self, seconds: float) -> None:
        self._passed += seconds


@pytest.fixture
def hours(monkeypatch: pytest.MonkeyPatch) -> Hours:
    return Hours(monkeypatch)


async def works(http: Http, name: str, provider: ScriptedProvider) -> bool:
    return (await http.get_json(f"http://{name}:{provider.port}/")).status == 200


async def test_a_hundred_names_that_stand_delay_no_other(
    http: Http, provider: ScriptedProvider, resolver: Resolver
) -> None:
    provider.answers(answer(200))
    dead = [asyncio.create_task(works(http, f"{n}.dead.example", provider)) for n in range(100)]
    await until(lambda: resolver.standing == 100, "all of them stand")
    for n in range(10):
        assert await works(http, f"{n}.good.example", provider)
    assert resolver.standing == 100
    resolver.released.set()
    failures = await asyncio.gather(*dead, return_exceptions=True)
    assert {(type(f), f.trouble, f.in_doubt) for f in failures if isinstance(f, UpstreamUnavailable)} == {
        (UpstreamUnavailable, Trouble.NAME, False)
    }


async def test_names_that_are_known_to_stand_wait_for_each_other_alone(
    provider: ScriptedProvider, resolver: Resolver, hours: Hours, monkeypatch: pytest.MonkeyPatch
) -> None:
    provider.answers(answer(200))
    monkeypatch.setattr(lookups, "AT_ONCE", 2)
    monkeypatch.setattr(lookups, "SLOW_AT_ONCE", 1)
    monkeypatch.setattr(lookups, "SLOW_SECONDS", 0.0)
    async with open_http(LOOPBACK, tls=TLS) as http:
        resolver.released.set()
        for n in range(3):
            with pytest.raises(UpstreamUnavailable):
                await works(http, f"{n}.dead.example", provider)
        monkeypatch.setattr(lookups, "SLOW_SECONDS", PATIENCE)
        hours.pass_by(name_cache.BAD_SECONDS)
        resolver.released.clear()
        again = [asyncio.create_task(works(http, f"{n}.dead.example", provider)) for n in range(3)]
        await until(lambda: resolver.standing == 1, "one of them stands")
        assert await works(http, "a.good.example", provider)
        assert resolver.standing == 1
        resolver.released.set()
        await asyncio.gather(*again, return_exceptions=True)
        assert set(resolver.asked.values()) == {1, 2}


async def test_when_as_many_names_stand_as_are_looked_up_at_once_it_is_no_fault_of_the_next(
    provider: ScriptedProvider, resolver: Resolver, monkeypatch: pytest.MonkeyPatch
) -> None:
    provider.answers(answer(200))
    monkeypatch.setattr(lookups, "AT_ONCE", 1)
    monkeypatch.setattr(lookups, "QUEUE_SECONDS", 0.05)
    async with open_http(LOOPBACK, tls=TLS) as http:
        dead = asyncio.create_task(works(http, "a.dead.example", provider))
        await until(lambda: resolver.standing == 1, "it stands")
        with pytest.raises(UpstreamUnavailable) as held_back:
            await works(http, "a.good.example", provider)
        assert (held_back.value.trouble, held_back.value.in_doubt) == (Trouble.OURS, False)
        resolver.released.set()
        await asyncio.gather(dead, return_exceptions=True)
        assert await works(http, "a.good.example", provider), "and nothing is remembered of it"


async def closes(request: Request) -> None:
    """Answer, and close the connection, so that the next request needs another."""
    request.writer.write(answer(200, connection="close"))
    request.writer.close()


async def test_a_name_is_looked_up_once_at_a_time_and_then_remembered(
    http: Http, provider: ScriptedProvider, resolver: Resolver, hours: Hours
) -> None:
    provider.answers(closes)
    assert all(await asyncio.gather(*(works(http, "a.good.example", provider) for _ in range(20))))
    assert await works(http, "a.good.example", provider)
    assert (provider.connections, resolver.asked["a.good.example"]) == (21, 1)
    hours.pass_by(name_cache.GOOD_SECONDS)
    assert await works(http, "a.good.example", provider)
    assert resolver.asked["a.good.example"] == 2


async def test_that_a_name_could_not_be_looked_up_is_remembered_too(
    http: Http, provider: ScriptedProvider, resolver: Resolver, hours: Hours
) -> None:
    resolver.released.set()
    for lookups_so_far in (1, 1, 2):
        if lookups_so_far == 2:
            hours.pass_by(name_cache.BAD_SECONDS)
        with pytest.raises(UpstreamUnavailable):
            await works(http, "a.dead.example", provider)
        assert resolver.asked["a.dead.example"] == lookups_so_far


class Fickle(Names):
    """A name server that knows one name, and then stands, or knows nothing any more."""

    def __init__(self) -> None:
        super().__init__(once_example=[["127.0.0.1"]])
        self.stands = False

    async def __call__(self, host: str, port: int) -> Sequence[Address]:
        if self.stands:
            await asyncio.sleep(PATIENCE)
        return await super().__call__(host, port)


@pytest.mark.parametrize("stands", [True, False])
async def test_addresses_that_were_found_are_used_while_the_resolver_is_ill(
    provider: ScriptedProvider, hours: Hours, stands: bool
) -> None:
    provider.answers(closes)
    names = Fickle()
    async with open_http(LOOPBACK, tls=TLS, resolve=names) as http:
        assert await works(http, "once.example", provider)
        names.stands = stands
        names.answers.clear()
        hours.pass_by(name_cache.GOOD_SECONDS)
        for _ in range(3):
            assert await works(http, "once.example", provider)
        assert provider.connections == 4


async def test_addresses_that_were_found_long_ago_are_not_used(provider: ScriptedProvider, hours: Hours) -> None:
    provider.answers(closes)
    names = Fickle()
    async with open_http(LOOPBACK, tls=TLS, resolve=names) as http:
        assert await works(http, "once.example", provider)
        names.answers.clear()
        hours.pass_by(name_cache.LAST_RESORT_SECONDS)
        with pytest.raises(UpstreamUnavailable) as unknown:
            await works(http, "once.example", provider)
    assert unknown.value.trouble is Trouble.NAME


async def test_a_name_whose_addresses_take_no_connection_is_looked_up_again(provider: ScriptedProvider) -> None:
    provider.answers(answer(200))
    names = Names(moved_example=[["127.0.0.9"], ["127.0.0.1"]])
    async with open_http(LOOPBACK, tls=TLS, resolve=names) as http:
        with pytest.raises(UpstreamUnavailable, match="takes no connection"):
            await works(http, "moved.example", provider)
        assert await works(http, "moved.example", provider)
    assert names.lookups == ["moved.example"] * 2
