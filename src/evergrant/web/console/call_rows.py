"""Calls as rows of a table: on the pages of an app, a person, and the call log itself."""

from collections.abc import Sequence
from dataclasses import dataclass

from evergrant.broker.calls.call_list import CallFilter, list_calls
from evergrant.broker.runtime.list_places import Place
from evergrant.broker.runtime.principal import Permission
from evergrant.db import CallRecord
from evergrant.errors import ApprovalNeeded
from evergrant.web.console.desk import Desk

FEW, PAGE = 8, 30
"""How many calls a section of another page shows, and how many a page of the log."""
MOST_PATH = 100
WORDS = {
    "E011003": "Not acceptable",
    "E011006": "Not allowed",
    "E011008": "Too large",
    "E111503": "No such app",
    "E111504": "Not connected",
    "E111505": "Not reached",
    "E111506": "Unusable answer",
    "E111510": "No API address",
    "E111511": "Which account?",
    "E111512": "Calls used up",
    "E111513": "Asked for approval",
    "E111514": "Not approved",
    "E111515": "No answer",
    "E130429": "Too many",
}
"""What evergrant answered, in words; any other is shown as its code."""


@dataclass(frozen=True, slots=True)
class CallRow:
    """One call in words."""

    call: CallRecord
    what: str
    """What was asked for, where it was no request to the provider's API."""
    path: str
    by: str
    """The agent; or who else called, without saying of what kind that is."""
    kind: str
    icon: str
    word: str
    """The answer, as a badge."""


@dataclass(frozen=True, slots=True)
class CallRows:
    """Some calls, newest first."""

    rows: Sequence[CallRow]
    older: str
    """Where the next page goes on; empty on the last."""


async def read_calls(desk: Desk, wanted: CallFilter, *, at: str = "", limit: int = FEW) -> CallRows | None:
    """Return calls for a page; None for an operator who may not see them. One statement.

    Raises:
        InvalidValue: `at` is no place of the log.
    """
    if not desk.may(Permission.AUDIT):
        return None
    place = Place.parse(at, field="at")
    page = await list_calls(desk.broker, desk.principal, wanted, after=place, limit=limit)
    return CallRows([_call_row(call) for call in page.calls], str(page.following or ""))


def _call_row(call: CallRecord) -> CallRow:
    whole = f"{call.base}: {call.path}" if call.base else call.path
    path = whole if len(whole) <= MOST_PATH else f"{whole[:MOST_PATH]}\u2026"
    what = {"fetch": "Fetched the token", "exchange": "Exchanged a token"}.get(call.kind, "")
    by = call.agent or call.actor.partition(":")[2] or call.actor
    return CallRow(call, what, path, by, *_answer(call))


def _answer(call: CallRecord) -> tuple[str, str, str]:
    if not call.source:
        return ("warn", "circle-alert", "No outcome") if call.batch else ("info", "refresh-cw", "Under way")
    if call.source == "provider":
        return (
            ("good", "circle-check", str(call.status)) if call.status < 400 else ("warn", "circle-x", str(call.status))
        )
    if call.code:
        return (
            "warn" if call.status < 500 else "bad",
            "clock" if call.code == ApprovalNeeded.code else "circle-x",
            WORDS.get(call.code, call.code),
        )
    return ("good", "circle-check", "Answered")
