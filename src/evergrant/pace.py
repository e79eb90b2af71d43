"""How fast refreshing, holding and taking over go: the durations that the promise to lose no grant hangs on.

They are in one place because they belong together: each is right only beside the others. Fault tests live faster, all
of it by the same factor.
"""

from dataclasses import dataclass, fields
from typing import Self


@dataclass(frozen=True, slots=True)
class Pace:
    """Durations, in seconds."""

    call: float = 25.0
    """A provider may be silent for so long, while this process listens, before a refresh counts as failed."""
    lease: float = 60.0
    """A process that has taken a lease makes its call within this time or makes sure of the lease again."""
    beat: float = 5.0
    """So often a process that holds leases shows in the database that it is there."""
    settle: float = 20.0
    """After a start, and after the database was away, nobody takes over a lease for so long: owners come first."""
    chores: float = 60.0
    """So often each chore is done."""

    def faster(self, times: float) -> Self:
        """Return the same, so many times as fast."""
        return type(self)(**{field.name: getattr(self, field.name) / times for field in fields(self)})


PACE = Pace()
"""The pace of brokers that this process opens."""
