"""Calls, fetches and exchanges that the call log does not have yet: noted in memory, written down each second.

Nothing waits for an entry, except that a write is in the log before it is sent. A crash loses a second of reads.
"""

import itertools
import os
from collections import Counter
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, Self

from evergrant.broker.runtime.principal import Principal

MOST = 20_000
"""How many calls wait at most, in a database's bad minutes. What is over is not kept, and the log says how many."""

MOST_METHOD, MOST_BASE, MOST_PATH = 16, 64, 2_000
"""So much is kept of what a caller writes, in characters: no more is written down, and thousands of them wait."""

_PROCESS = os.urandom(3).hex()
_numbers = itertools.count()
"""Ids of calls are no secrets: they only have to differ, and a random number for each would be a system call more."""

CallKind = Literal["call", "mcp", "fetch", "exchange"]


@dataclass(kw_only=True)  # without slots: what is not known yet is the class's own
class Call:
    """One entry of the call log, filled while the call goes on. No query string, no body and no token is in it."""

    project_id: str
    id: str
    at: datetime
    """When it began."""
    kind: CallKind
    app_id: str = ""
    user_id: str = ""
    tenant_id: str = ""
    grant_id: str = ""
    actor: str = ""
    agent: str = ""
    act: tuple[str, ...] = ()
    session_id: str = ""
    remote_address: str = ""
    method: str = ""
    base: str = ""
    path: str = ""
    status: int = 0
    source: Literal["", "provider", "evergrant"] = ""
    code: str = ""
    bytes_sent: int = 0
    bytes_received: int = 0
    ms: int = 0
    attempts: int = 0
    policy: str = ""
    approval_id: str = ""
    is_written_ahead: bool = False
    """Whether the log has a row for it already, without its outcome."""

    @classmethod
    def begun(
        cls,
        principal: Principal,
        *,
        kind: CallKind,
        at: datetime,
        app_id: str = "",
        user_id: str = "",
        tenant_id: str = "",
        remote_address: str = "",
        method: str = "",
        base: str = "",
        path: str = "",
    ) -> Self:
        """Begin the entry of a call that somebody makes; what is not known yet is set later."""
        call = cls.__new__(cls)  # setting what is not known yet would cost as much as all the rest
        call.project_id = principal.project_id
        # In the order of time, so that the rows of an hour lie side by side.
        call.id = f"{int(at.timestamp() * 1000):012x}{_PROCESS}{next(_numbers) % 65_536:04x}"
        call.at = at
        call.kind = kind
        call.app_id, call.user_id, call.tenant_id = app_id, user_id, tenant_id
        call.actor = principal.name
        call.agent, call.act = principal.agent, principal.act
        if principal.session is not None:
            call.session_id = principal.session.id
        call.remote_address = remote_address
        call.method, call.base, call.path = method[:MOST_METHOD], base[:MOST_BASE], path[:MOST_PATH]
        return call


class UnwrittenCalls:
    """What one process has to write into the call log."""

    def __init__(self) -> None:
        self._calls: list[Call] = []
        self._dropped: Counter[str] = Counter()

    def __len__(self) -> int:
        """Return how many calls wait."""
        return len(self._calls)

    def note(self, call: Call) -> None:
        """Note a call that has ended, however it did. It is not changed from here on."""
        if len(self._calls) < MOST:
            self._calls.append(call)
        else:
            self._dropped[call.project_id] += 1

    def take(self) -> tuple[list[Call], Counter[str]]:
        """Return what waits and how many of each project were not kept, and begin anew."""
        taken, self._calls = self._calls, []
        dropped, self._dropped = self._dropped, Counter()
        return taken, dropped

    def give_back(self, calls: list[Call], dropped: Counter[str]) -> None:
        """Let wait on what could not be written: before what came meanwhile, because it is older."""
        waiting = calls + self._calls
        self._calls = waiting[:MOST]
        self._dropped += dropped
        self._dropped.update(call.project_id for call in waiting[MOST:])
