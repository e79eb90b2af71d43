"""What the journal keeps of one answer, and how it is written: JSON, with marks for what JSON has no word for."""

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from evergrant.crypto.sealed import Sealed


@dataclass(frozen=True, slots=True)
class Entry:
    """One answer that has to land: the columns to write, and on what condition."""

    project_id: str
    grant_id: str
    lease_owner: str
    """Whose lease is given back with it."""
    seen_version: int
    """It lands on a row with this `token_version` and on no other; with 0, it is a row of its own that is made."""
    values: Mapping[str, object]
    audit: Mapping[str, object] | None = None
    """What the audit log is to say of a row that is made: the record's `action`, `data`, `actor` and address.

    Beside that, the app's `destinations` that the row is for. Of an answer for a row that there is, the `event` of its
    timeline: no member of its own, so that an earlier version can read the entry, too.
    """

    @property
    def key(self) -> tuple[str, str]:
        """Which grant it is for."""
        return self.project_id, self.grant_id

    @property
    def destinations(self) -> str:
        """Where the app's credentials went when the answer was asked for; empty where that does not matter."""
        return str((self.audit or {}).get("destinations", ""))

    @property
    def event(self) -> Mapping[str, object] | None:
        """What the grant's timeline is to say: the event's `data`, and its `actor`."""
        event = (self.audit or {}).get("event")
        return event if isinstance(event, Mapping) else None

    def encoded(self) -> str:
        """Return it as JSON, in ASCII.

        Raises:
            TypeError, ValueError: a value is nothing that a column can have.
        """
        members: dict[str, object] = {
            "project_id": self.project_id,
            "grant_id": self.grant_id,
            "lease_owner": self.lease_owner,
            "seen_version": self.seen_version,
            "values": {name: _encoded(value) for name, value in self.values.items()},
        }
        if self.audit is not None:
            members["audit"] = dict(self.audit)
        return json.dumps(members)


def read_entry(text: str) -> Entry:
    """Read what `encoded` wrote.

    Raises:
        ValueError, TypeError, KeyError, AttributeError: it is something else.
    """
    members = json.loads(text)
    values = {name: _decoded(value) for name, value in members.pop("values").items()}
    entry = Entry(**members, values=values)
    if (
        not all(isinstance(part, str) for part in (*entry.key, entry.lease_owner))
        or type(entry.seen_version) is not int
    ):
        raise TypeError("not an entry")
    return entry


def _encoded(value: object) -> object:
    if isinstance(value, Sealed):
        return {"sealed": base64.b64encode(value.ciphertext).decode()}
    if isinstance(value, datetime):
        return {"at": value.isoformat()}
    if isinstance(value, dict):
        return {"members": value}  # or its own members could pass for one of the others
    return value


def _decoded(value: Any) -> object:
    match value:
        case {"sealed": str(text)}:
            return Sealed(base64.b64decode(text))
        case {"at": str(text)}:
            return datetime.fromisoformat(text)
        case {"members": dict(members)}:
            return members
        case _:
            return value
