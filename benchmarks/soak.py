"""Does evergrant keep every consent through ten bad minutes?

Three `evergrant serve` processes and one `evergrant refresher` on PostgreSQL keep some thousand grants alive whose
tokens live for 30 seconds, at a provider that rotates strictly and revokes on reuse. Callers fetch all the time.
Meanwhile a replica is killed every 20 seconds, the database is away twice for longer than a lease, a replica is cut off
from it, another stands still for a while, the provider takes only so many calls a second, and one in ten calls to it
goes wrong. At the end, when all is well again, every grant is refreshed once more and its token shown to the provider.

It prints a ledger, and the exit code is not 0 when a consent was lost, or a spent refresh token was sent for a grant
that was not in doubt: not on the wire at the instant of a kill. Everything stays on loopback and in a temporary folder.
"""

import argparse
import asyncio
import contextlib
import shutil
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

import httpx2

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # so that the file can be run by its path

from benchmarks.fetch import progress
from benchmarks.soak_ledger import Ledger
from benchmarks.soak_load import APP_ID, Load, User
from benchmarks.soak_parts import Parts, started
from benchmarks.soak_provider import CLIENT_ID, CLIENT_SECRET, CRUEL, SCOPES

KILL_EVERY_SECONDS = 20.0
CALLS_PER_SECOND = 30
"""What the provider takes while it limits its callers: a third of what the grants need."""
PROGRESS_SECONDS = 10.0
UPLOAD_AT_ONCE = 500


def main() -> None:
    options = parse()
    with tempfile.TemporaryDirectory(prefix="evergrant-soak-") as folder:
        try:
            ledger = asyncio.run(soak(Path(folder), options))
        finally:
            if options.logs:
                shutil.copytree(folder, options.logs, dirs_exist_ok=True, ignore=shutil.ignore_patterns("journal"))
    print(ledger.text())
    if problems := ledger.problems():
        sys.exit("\n".join(problems))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--minutes", type=float, default=10.0, help="how long things go wrong (default: 10)")
    parser.add_argument("--grants", type=int, default=2_000)
    parser.add_argument("--replicas", type=int, default=3)
    parser.add_argument("--per-second", type=float, default=100.0, help="fetches (default: 100)")
    parser.add_argument("--forced", type=float, default=0.03, help="share of fetches that force a refresh")
    parser.add_argument("--faults", type=float, default=0.1, help="share of the provider's calls that go wrong")
    parser.add_argument("--cruel", action="store_true", help="also let answers vanish after the token was rotated")
    parser.add_argument("--logs", type=Path, help="keep what the processes logged in this folder")
    return parser.parse_args()


async def soak(folder: Path, options: argparse.Namespace) -> Ledger:
    """Let everything go wrong for a while, then look what is left."""
    ledger = Ledger(options.grants, options.minutes, cruel=frozenset(CRUEL))
    async with started(folder, replicas=options.replicas, faults=options.faults, cruel=options.cruel) as parts:
        limits = httpx2.Limits(max_connections=200, max_keepalive_connections=100)
        async with httpx2.AsyncClient(timeout=60, limits=limits, trust_env=False, headers=parts.headers) as http:
            users = await connect_users(http, parts, options.grants)
            urls = [replica.url for replica in parts.replicas]
            load = ledger.load = Load(http, urls, users, provider=parts.provider_url, forced=options.forced)
            progress(f"{len(users):,} grants; {options.minutes:g} minutes begin")
            await go_wrong(http, parts, load, ledger, options)
            progress("all is well again; refreshing every grant once more")
            await http.post(f"{parts.provider_url}/control/fair")
            await parts.all_up()
            await look_at_the_end(http, parts, load, ledger, users)
    return ledger


async def connect_users(http: httpx2.AsyncClient, parts: Parts, count: int) -> list[User]:
    """Let the provider record consents and bring their tokens to evergrant, as somebody who moves here does."""
    url = f"{parts.replicas[0].url}/v1/mgmt/outbound"
    app = {
        "id": APP_ID,
        "name": "Practice contacts",
        "clientId": CLIENT_ID,
        "clientSecret": CLIENT_SECRET,
        "discoveryUrl": parts.provider_url,
        "defaultScopes": SCOPES,
    }
    (await http.post(f"{url}/app/create", json=app)).raise_for_status()
    users: list[User] = []
    while len(users) < count:
        some = min(UPLOAD_AT_ONCE, count - len(users))
        made = (await http.post(f"{parts.provider_url}/control/consents", params={"count": some})).json()
        tokens = []
        for family, access_token, refresh_token, expiry in made:
            users.append(User(f"user-{len(users)}", family))
            token: dict[str, Any] = {"appId": APP_ID, "userId": users[-1].id, "refreshToken": refresh_token}
            tokens.append(token | {"accessToken": access_token, "accessTokenExpiry": expiry, "scopes": SCOPES})
        answer = await http.post(f"{url}/app/user/oauthtoken/batch/upload", json={"tokens": tokens})
        if answer.status_code != 200 or answer.json()["failures"]:
            raise RuntimeError(f"the upload failed: {answer.text[:1000]}")
    return users


async def go_wrong(
    http: httpx2.AsyncClient, parts: Parts, load: Load, ledger: Ledger, options: argparse.Namespace
) -> None:
    """Fetch, kill and stop, for as long as was asked."""
    stop = asyncio.Event()
    seconds = options.minutes * 60
    async with asyncio.TaskGroup() as group:
        group.create_task(load.run(stop, per_second=options.per_second))
        group.create_task(kill_replicas(parts, ledger, stop))
        group.create_task(let_happen(http, parts, load, ledger, seconds))
        group.create_task(tell(http, parts, load, ledger, stop))
        group.create_task(watch_refresher(parts, ledger, stop))
        await asyncio.sleep(seconds)
        stop.set()


async def kill_replicas(parts: Parts, ledger: Ledger, stop: asyncio.Event) -> None:
    """Kill one after another, each of which comes back by itself; who is in another trouble is spared.

    While the database is away nobody could come back, so no more than one is killed.
    """
    number = 0
    async with asyncio.TaskGroup() as revivals:
        while not await happens_within(stop, KILL_EVERY_SECONDS):
            up = [one for one in range(len(parts.replicas)) if parts.is_up(one)]
            if not parts.database.is_running and len(up) < len(parts.replicas):
                continue
            if up:
                number = min(up, key=lambda one: (one <= number, one))  # the next, and then from the first again
                ledger.kills.append(await parts.kill(number))
                revivals.create_task(parts.revive(number, stop))


async def let_happen(http: httpx2.AsyncClient, parts: Parts, load: Load, ledger: Ledger, seconds: float) -> None:
    """Let what is longer than a lease happen, one after the other; in a short run each is as short."""

    async def stop_database(while_: float, *, immediately: bool) -> None:
        await asyncio.to_thread(parts.database.stop, immediately=immediately)
        await asyncio.sleep(while_)
        await asyncio.to_thread(parts.database.start)

    async def limit_calls(while_: float) -> None:
        await http.post(f"{parts.provider_url}/control/limit", params={"per_second": CALLS_PER_SECOND})
        await asyncio.sleep(while_)
        await http.post(f"{parts.provider_url}/control/limit", params={"per_second": 0})

    async def freeze(while_: float) -> None:
        url = load.replicas.pop(0)  # as a load balancer does with one that does not answer
        await parts.freeze(0, while_)
        load.replicas.insert(0, url)

    last = len(parts.replicas) - 1
    plan: list[tuple[float, float, str, Callable[[float], Awaitable[None]]]] = [
        (0.08, 75, "database stopped", partial(stop_database, immediately=False)),
        (0.26, 40, "replica frozen", freeze),
        (0.38, 40, "calls limited", limit_calls),
        (0.50, 75, "replica cut off from the database", partial(parts.cut_off, last, hanging=False)),
        (0.66, 75, "database stopped as by a loss of power", partial(stop_database, immediately=True)),
        (0.84, 40, "replica's connections to the database hang", partial(parts.cut_off, last, hanging=True)),
    ]
    began = time.monotonic()
    for at, at_most, what, happen in plan:
        await asyncio.sleep(max(0.0, began + at * seconds - time.monotonic()))
        while_ = min(at_most, 0.125 * seconds)
        progress(f"{time.monotonic() - began:4.0f} s: {what} for {while_:.0f} s")
        await happen(while_)
        ledger.happened.append((what, while_))


async def watch_refresher(parts: Parts, ledger: Ledger, stop: asyncio.Event) -> None:
    while not await happens_within(stop, 0.5):
        ledger.refresher_ended += await parts.revive_refresher()


async def tell(http: httpx2.AsyncClient, parts: Parts, load: Load, ledger: Ledger, stop: asyncio.Event) -> None:
    began = time.monotonic()
    while not await happens_within(stop, PROGRESS_SECONDS):
        seen = (await http.get(f"{parts.provider_url}/control/counts")).json()
        counts = load.counts
        later = counts["database away"] + counts["provider away"]
        progress(
            f"{time.monotonic() - began:4.0f} s: fetches {counts['ok']:,} ok, {later:,} later, "
            f"{counts['no answer']:,} no answer, {counts['dead']:,} dead, {counts['other']:,} other; "
            f"provider {seen['calls']:,} calls, {seen['faults']:,} faults, {seen['reused']} reused; "
            f"{len(ledger.kills)} kills; longest {load.longest:.1f} s"
        )


async def happens_within(event: asyncio.Event, seconds: float) -> bool:
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(event.wait(), seconds)
    return event.is_set()


async def look_at_the_end(
    http: httpx2.AsyncClient, parts: Parts, load: Load, ledger: Ledger, users: list[User]
) -> None:
    """Refresh and try every grant, and write down how things are."""
    before = set(load.wrong)
    failed = await load.last_fetches()
    ledger.failed = failed | dict.fromkeys(load.wrong.keys() - before, "does not work")
    seen = (await http.get(f"{parts.provider_url}/control/ledger")).json()
    ledger.calls, ledger.played, ledger.revoked = seen["calls"], seen["played"], seen["revoked"]
    ledger.refreshes = await parts.count("SELECT sum(token_version - 1) FROM grants")
    family_of = {user.id: user.family for user in users}
    dead = await parts.rows("SELECT user_id, last_refresh_error FROM grants WHERE status = 'reauthorization_required'")
    ledger.dead = {family_of[user_id]: reason for user_id, reason in dead}


if __name__ == "__main__":
    main()
