"""What is the least that a refresh costs? A POST to the provider and an UPDATE of one row, and nothing else.

It is a process of its own, like a refresher: the same HTTP transport, the same database driver, the same event loop, as
many in flight. It has no lease, opens and seals nothing, keeps no journal and understands nothing of the answer. It
reads its orders as JSON from standard input, works until it gets SIGTERM and then says how much it did.
"""

import asyncio
import contextlib
import itertools
import json
import os
import signal
import sys
from base64 import b64encode
from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from urllib.parse import urlencode

import uvloop
from sqlalchemy import Row, Table, select, update
from sqlalchemy.ext.asyncio import AsyncEngine

from benchmarks.seed import CLIENT_ID, CLIENT_SECRET, SCOPES
from evergrant import clock
from evergrant.broker.runtime.broker import own_database_url
from evergrant.db import Grant
from evergrant.db.engine import make_engine
from evergrant.db.grant import scope_key
from evergrant.oauth2.transport import Http, open_http
from evergrant.settings import load_settings

GRANTS: Table = Grant.metadata.tables["grants"]
READ = ("project_id", "id", "access_token", "refresh_token")


@dataclass(frozen=True)
class Orders:
    """What to do."""

    token_url: str
    in_flight: int
    share: int
    """This process takes every `of`th grant, from this one on."""
    of: int


async def work(orders: Orders) -> int:
    """Refresh as in a broker without any care, until SIGTERM; return how many."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    settings = load_settings()
    engine = make_engine(own_database_url(settings))
    async with open_http(settings.egress_allow) as http:
        try:
            async with engine.connect() as connection:
                rows = (
                    await connection.execute(select(*(GRANTS.c[name] for name in READ)).order_by(GRANTS.c.id))
                ).all()
            # SQLite has one writer at a time, and who finds it taken is put to sleep: better to queue here.
            one_writer = asyncio.Lock() if engine.dialect.name == "sqlite" else contextlib.nullcontext()
            mine = itertools.cycle(rows[orders.share :: orders.of])
            done = await asyncio.gather(
                *(_one_after_another(http, engine, one_writer, orders, mine, stop) for _ in range(orders.in_flight))
            )
        finally:
            await engine.dispose()
    return sum(done)


async def _one_after_another(
    http: Http,
    engine: AsyncEngine,
    one_writer: AbstractAsyncContextManager[None],
    orders: Orders,
    grants: Iterator[Row[Any]],
    stop: asyncio.Event,
) -> int:
    credentials = b64encode(f"{CLIENT_ID}:{CLIENT_SECRET}".encode()).decode()
    headers = {
        "accept": "application/json",
        "authorization": f"Basic {credentials}",
        "content-type": "application/x-www-form-urlencoded",
    }
    done = 0
    while not stop.is_set():
        grant = next(grants)
        form = urlencode({"grant_type": "refresh_token", "refresh_token": f"bare-{os.urandom(16).hex()}"})
        answer = await http.request("POST", orders.token_url, headers=headers, content=form.encode("ascii"))
        if answer.status != 200:
            raise RuntimeError(f"the provider answered {answer.status}")
        now = clock.now()
        statement = (
            update(GRANTS)
            .where(GRANTS.c.project_id == grant.project_id, GRANTS.c.id == grant.id)
            .values(  # the columns that a landing writes
                access_token=grant.access_token,  # the same again, so that the refreshers' next turn can open them
                access_token_type="Bearer",
                refresh_token=grant.refresh_token,
                expires_at=now + timedelta(days=1, minutes=5),
                fresh_until=now + timedelta(days=1),
                next_refresh_at=now + timedelta(days=1),
                last_refresh_time=now,
                last_refresh_error="",
                refresh_failures=0,
                refresh_not_before=None,
                token_version=GRANTS.c.token_version + 1,
                scopes=SCOPES,
                scope_key=scope_key(SCOPES),
                lease_owner=None,
                lease_until=None,
            )
        )
        async with one_writer, engine.begin() as connection:
            await connection.execute(statement)
        done += 1
    return done


if __name__ == "__main__":
    print(json.dumps({"done": uvloop.run(work(Orders(**json.load(sys.stdin))))}))
