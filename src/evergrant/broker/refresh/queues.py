"""The queues of due apps, in lines: who calls the same token endpoint as the same client stands in the same one."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from evergrant.broker.refresh.claims import AppKey, ClaimQuota
from evergrant.broker.refresh.due_apps import MANY, DueApp

Line = tuple[str, str]
"""A token URL and a client id: providers limit what one client may ask."""


@dataclass(eq=False, slots=True)
class Queue:
    """What one app has waiting, as far as it is known."""

    app: AppKey
    due: int
    """How many fell due lately; `MANY` for that or more."""
    overdue: int
    """How many are long overdue; counted in the same way."""

    @classmethod
    def of(cls, one: DueApp) -> "Queue":
        """Make the queue of an app as a look has found it."""
        return cls((one.project_id, one.app_id), one.due, one.overdue)

    def learn(self, asked: ClaimQuota, *, due: int, overdue: int) -> None:
        """Take note of what a claim has brought. A part that gave fewer than it was asked for has come to its end."""
        self.due = _left(self.due, asked.due, due)
        self.overdue = _left(self.overdue, asked.overdue, overdue)


def _left(known: int, asked: int, got: int) -> int:
    if got < asked:
        return 0
    return known if known >= MANY else known - got


class Queues:
    """All queues that are known to have something, those that wait longest first."""

    def __init__(self, apps: Iterable[DueApp] = ()) -> None:
        self._lines: dict[Line, list[Queue]] = {}
        self._spellings: dict[Line, set[tuple[str, str]]] = {}
        self.add(apps)

    def __bool__(self) -> bool:
        """Tell whether any is left."""
        return bool(self._lines)

    def __iter__(self) -> Iterator[tuple[Line, Sequence[Queue]]]:
        """Go through the lines, the one with the queue that waits longest first."""
        return iter(self._lines.items())

    @property
    def lines(self) -> list[tuple[str, str]]:
        """The token URLs, as their apps spell them, and the client ids that somebody waits for."""
        return [spelling for line in self._lines for spelling in self._spellings[line]]

    def add(self, apps: Iterable[DueApp]) -> None:
        """Add the queues of apps that wait less long than all before."""
        for one in apps:
            line = one.token_url.partition("?")[0], one.client_id
            self._spellings.setdefault(line, set()).add((one.token_url, one.client_id))
            self._lines.setdefault(line, []).append(Queue.of(one))

    def put_behind(self, served: Mapping[Line, Iterable[Queue]]) -> None:
        """Let those that were served stand behind the others of their line; those that are empty go."""
        for line, queues in served.items():
            asked = set(queues)
            left = [queue for queue in self._lines[line] if queue not in asked]
            left += [queue for queue in queues if queue.due or queue.overdue]
            if left:
                self._lines[line] = left
            else:
                del self._lines[line]
