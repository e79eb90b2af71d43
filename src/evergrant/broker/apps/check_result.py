"""What one check of an app has found."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class CheckResult:
    """The result of one check: what was checked, whether it is good, and what to do where it is not."""

    name: str
    good: bool
    text: str
