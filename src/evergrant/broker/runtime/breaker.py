"""The breaker of one address: when nothing usable comes from it, who may find out whether it is back, and when."""

from dataclasses import dataclass

from evergrant.broker.runtime.backoff import doubling

FAILURES_TO_OPEN = 5
"""Failures in a row that open a breaker."""
PAUSE = (2.0, 60.0)
"""Seconds for which a failing address is left alone: at first, doubling, and at most."""


@dataclass(frozen=True, slots=True)
class Admission:
    """The leave to make one call, and what its outcome will mean."""

    openings: int
    """How often the breaker had opened when it was given."""
    is_try: bool
    """Whether this is the one call that finds out if the address is back."""


class Breaker:
    """Closed, open, or with one call trying. Moments are monotonic seconds.

    It opens after failures in a row. Calls that were under way when it opened add nothing when they fail too: forty
    that break off in one instant are one event, and no forty.
    """

    __slots__ = ("_again_at", "_is_tried", "_openings", "failures")

    def __init__(self) -> None:
        self.failures = 0
        """Calls without a usable answer since the last with one."""
        self._openings = 0
        self._again_at = 0.0
        self._is_tried = False

    @property
    def is_open(self) -> bool:
        """Whether the address is left alone, but for single tries."""
        return self.failures >= FAILURES_TO_OPEN

    def may_try(self, now: float) -> bool:
        """Tell whether one call may find out if it is back: it is open, its pause is over, and nobody is at it."""
        return self.is_open and not self._is_tried and now >= self._again_at

    def wait(self, now: float) -> float:
        """Return the seconds until a call may begin; 0 where one may now."""
        if not self.is_open or self.may_try(now):
            return 0.0
        return max(1.0, self._again_at - now)

    def admit(self, now: float) -> Admission | None:
        """Give leave for one call; None where none may begin. Each is handed back with `done`, and its outcome told."""
        if not self.is_open:
            return Admission(self._openings, is_try=False)
        if not self.may_try(now):
            return None
        self._is_tried = True
        return Admission(self._openings, is_try=True)

    def stands(self, admission: Admission) -> bool:
        """Tell whether a call with this leave may still begin: it may have opened meanwhile."""
        return admission.is_try or not self.is_open

    def answered(self) -> None:
        """Note a usable answer: it is back, for everybody."""
        self.failures = 0

    def failed(self, admission: Admission, now: float) -> None:
        """Note that a call brought nothing usable."""
        if admission.openings != self._openings:
            return  # it began before the breaker opened: what it shows is known
        self.failures += 1
        if self.is_open:
            self._openings += 1
            self._again_at = now + doubling(*PAUSE, failures=self.failures - FAILURES_TO_OPEN + 1)

    def done(self, admission: Admission, now: float) -> None:
        """Take the leave back. A try that showed nothing, because it was never sent, is followed by another soon."""
        if admission.is_try:
            self._is_tried = False
            if admission.openings == self._openings:
                self._again_at = max(self._again_at, now + PAUSE[0])
