"""Chores: small pieces of work that nobody waits for, done again and again, each as a task of its own.

None waits for another. When the database comes back, all are done at once; when the process stops, what is under way is
cut off, because whatever a chore leaves undone is there the next time.
"""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from evergrant import clock
from evergrant.broker.access.authentication import write_key_uses
from evergrant.broker.access.session_list import clear_agent_sessions
from evergrant.broker.activity.folding import fold_days
from evergrant.broker.activity.writing import note_refresher, prune_activity, write_activity
from evergrant.broker.audit.call_pruning import prune_calls
from evergrant.broker.audit.pruning import prune_audit_logs
from evergrant.broker.calls.approval_decisions import clear_old_approvals
from evergrant.broker.calls.call_log import seal_left_calls, write_calls
from evergrant.broker.connect.confirmation import clear_finished_requests
from evergrant.broker.grants.counts import recount
from evergrant.broker.grants.directory import enter_missing
from evergrant.broker.grants.events import clear_timelines, tidy_timelines, write_fetches
from evergrant.broker.grants.expiry_warnings import warn_of_ends
from evergrant.broker.grants.last_used import write_last_uses
from evergrant.broker.operations.closed_projects import finish_closed_projects
from evergrant.broker.operators.sessions import clear_console_sessions, write_session_uses
from evergrant.broker.portal.sessions import clear_visits, write_visit_uses
from evergrant.broker.refresh.left_behind import give_back_left_behind
from evergrant.broker.refresh.replay import replay_journal
from evergrant.broker.refresh.restored import let_some_be_tried
from evergrant.broker.runtime.backoff import jittered
from evergrant.broker.runtime.broker import Broker
from evergrant.broker.trials.leftovers import end_left_trials
from evergrant.broker.webhooks.log import clear_old_deliveries
from evergrant.errors import Unavailable

log = logging.getLogger(__name__)

LOOK_AGAIN_SECONDS = 5.0
"""How often a chore that met no database looks for it by itself, if nobody else tells."""
LAST_TIME_SECONDS = 3.0
"""How long a stop waits for the chores that are done a last time."""


@dataclass(frozen=True)
class Chore:
    """One piece of work, and the name that the log gives it."""

    name: str
    work: Callable[[Broker], Awaitable[object]]
    often: bool = False
    """Whether it is done with each heartbeat, because somebody may be waiting for what it brings."""
    seconds: float | None = None
    """How often it is done, where that is seldom because it looks at every row."""


async def _replay(broker: Broker) -> None:
    # Others of the same folder land what is younger: it is theirs, and in their hands.
    await replay_journal(broker, older_than_seconds=broker.pace.beat)


async def _look_after_keys(broker: Broker) -> None:
    await broker.vault.look_after_keys()


async def _clear_trips(broker: Broker) -> None:
    await clear_finished_requests(broker, now=clock.now())


async def _clear_console_sessions(broker: Broker) -> None:
    await clear_console_sessions(broker, now=clock.now())


async def _clear_visits(broker: Broker) -> None:
    await clear_visits(broker, now=clock.now())


async def _clear_agent_sessions(broker: Broker) -> None:
    await clear_agent_sessions(broker, now=clock.now())


async def _clear_deliveries(broker: Broker) -> None:
    await clear_old_deliveries(broker, now=clock.now())


async def _clear_approvals(broker: Broker) -> None:
    await clear_old_approvals(broker, now=clock.now())


async def _prune_audit_logs(broker: Broker) -> None:
    await prune_audit_logs(broker, now=clock.now())


async def _prune_calls(broker: Broker) -> None:
    await prune_calls(broker, now=clock.now())


async def _seal_left_calls(broker: Broker) -> None:
    await seal_left_calls(broker, now=clock.now())


async def _end_left_trials(broker: Broker) -> None:
    await end_left_trials(broker, now=clock.now())


async def _prune_activity(broker: Broker) -> None:
    await prune_activity(broker, now=clock.now())


async def _fold_days(broker: Broker) -> None:
    await fold_days(broker, now=clock.now())


async def _warn(broker: Broker) -> None:
    await warn_of_ends(broker, now=clock.now())


async def _recount(broker: Broker) -> None:
    await recount(broker, now=clock.now())


async def _clear_timelines(broker: Broker) -> None:
    await clear_timelines(broker, now=clock.now())


WRITE_ACTIVITY = Chore("write down what was done", write_activity)
OF_A_PROCESS = (
    Chore("replay the journal", _replay),
    Chore("give back what dead processes held", give_back_left_behind, often=True),
    Chore("forget data keys that are gone", _look_after_keys, often=True),
    Chore("tidy timelines of connections", tidy_timelines),
    WRITE_ACTIVITY,
)
"""What each process does with what it has itself: its data folder, and the data keys that it has opened."""
OF_A_REFRESHER = (
    Chore("clear trips that are over", _clear_trips),
    Chore("clear sessions that are over", _clear_console_sessions),
    Chore("clear visits that are over", _clear_visits),
    Chore("clear agent sessions that are long over", _clear_agent_sessions),
    Chore("clear old deliveries", _clear_deliveries),
    Chore("clear old approvals", _clear_approvals),
    Chore("warn of refresh tokens that end", _warn),
    Chore("go on with deletions of projects", finish_closed_projects),
    Chore("end tests that were interrupted", _end_left_trials),
    Chore("prune audit logs", _prune_audit_logs),
    Chore("prune call logs", _prune_calls),
    Chore("seal calls that dead processes left", _seal_left_calls),
    Chore("count connections", _recount),
    Chore("clear timelines of connections that are gone", _clear_timelines),
    Chore("list connections that an older version wrote", enter_missing, seconds=3600.0),
    Chore("forget old counts", _prune_activity),
    Chore("fold counts of days that are over", _fold_days, seconds=3600.0),
    Chore("show that a refresher is here", note_refresher),
    Chore("try connections from a backup", let_some_be_tried, often=True),
)
"""What one process does for all."""
OF_A_SERVER = (
    Chore("write down uses of keys", write_key_uses),
    Chore("write down uses of connections", write_last_uses),
    Chore("write down uses of sessions", write_session_uses),
    Chore("write down fetches of connections", write_fetches),
    Chore("write down uses of visits", write_visit_uses),
    Chore("write down calls", write_calls, seconds=1.0),
)
"""What each process that answers does for itself."""
AT_THE_END = (*OF_A_SERVER, WRITE_ACTIVITY)
"""What is done a last time when a process stops, because only its memory has it."""


async def do_until(broker: Broker, chores: Sequence[Chore], stop: asyncio.Event) -> None:
    """Do chores until `stop` is set."""
    tasks = [asyncio.create_task(_do(broker, chore), name=chore.name) for chore in chores]
    try:
        await stop.wait()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def do_a_last_time(broker: Broker, chores: Sequence[Chore]) -> None:
    """Do chores once more before the process ends, for a few seconds."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(LAST_TIME_SECONDS):
            await asyncio.gather(*(_do_once(broker, chore) for chore in chores))


async def _do(broker: Broker, chore: Chore) -> None:
    while True:
        await _do_once(broker, chore)
        back = asyncio.ensure_future(broker.database_health.wait_until_back())
        every = broker.pace.beat if chore.often else chore.seconds or broker.pace.chores
        seconds = jittered(every) if broker.database_health.is_up else LOOK_AGAIN_SECONDS
        try:
            await asyncio.wait({back}, timeout=seconds)
        finally:
            back.cancel()


async def _do_once(broker: Broker, chore: Chore) -> None:
    try:
        await chore.work(broker)
    except Unavailable as error:
        broker.database_health.note_away(error)
    except Exception:
        log.exception("a chore failed and will be done again", extra={"chore": chore.name})
