"""What the doctor says: a finding for each thing that it looked at."""

from dataclasses import dataclass

MOST_NAMED = 5


@dataclass(frozen=True, slots=True)
class Finding:
    """The outcome of one check. `docs/doctor.md` has a row for each `what`."""

    what: str
    good: bool
    text: str
    advice: bool = False
    """Nothing is wrong, but something should be changed while that is so."""


def todo(what: str, text: str) -> Finding:
    """Return a finding that nothing is wrong, and what should be changed."""
    return Finding(what, True, text, advice=True)


def listed(names: list[str]) -> str:
    """Return the first few of them, and how many more there are."""
    more = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
    return ", ".join(names[:MOST_NAMED]) + more
