"""The allowance of one client at one address: how much the provider lets it ask, learned from when it says no.

Limits differ by provider, plan and hour, and few providers tell theirs. So nothing is held back until the provider
says that too much was asked (429 and its like). From then on calls begin one by one, at a rate that grows by a little
while calls get through and is cut when one is refused. Whoever else uses the same client, another replica for example,
is cut more often the faster it goes, so that they come to share the limit without a word.

The number of calls at once needs no limit of its own: it is the rate times what a call takes.
"""

import math

KEEP = 0.8
"""The part of its rate that a client keeps when a call is refused."""
KEEP_IN_VAIN = 0.5
"""The same when nothing got through since the last time."""
SLOWEST = 1 / 60
"""Calls per second, at the least: one a minute finds out whether more is allowed again."""
FASTEST = 1000.0
"""Calls per second that are no limit any more."""
GROWTH = 0.1
"""By so much the rate grows in each second in which calls get through: always the same, which is what makes it fair."""
GROWTH_DOUBLES = 15.0
"""The growth itself doubles when nothing was refused for so many seconds: a limit can be lifted."""
LONGEST_PAUSE = 60.0
"""Seconds of `Retry-After` for which nothing is asked. Of a longer one it is not sure that it is about the client and
not about one of its users: one call a minute finds out."""
CATCH_UP = 0.5
"""Turns of so many seconds that were missed are made up for."""
OTHERS = 3
"""Calls that got through between two refusals of one grant show that it is the grant that is held back."""
ALONE = 10
"""A refusal that so many calls got through before since the last one is about its own grant, as far as anybody knows: a
client that asks too much is refused more often."""
MOST_REMEMBERED = 1000


class Allowance:
    """What one client may ask. Moments are monotonic seconds, and always arguments."""

    __slots__ = (
        "_accepted",
        "_cut_at",
        "_got_through",
        "_grown_at",
        "_last_refusal",
        "_paused_until",
        "_quiet",
        "_recent",
        "_recent_at",
        "_refused",
        "_turn_at",
        "rate",
    )

    def __init__(self) -> None:
        self.rate = math.inf
        """Calls per second."""
        self._turn_at = self._paused_until = self._cut_at = -math.inf
        self._grown_at = self._quiet = 0.0
        self._got_through = False
        """Whether a call did that began since the rate was cut."""
        self._recent, self._recent_at = 0.0, 0.0
        """Calls that got through within about the last second, and when that was so."""
        self._accepted = 0
        self._last_refusal = 0
        """How many calls had got through at the last refusal."""
        self._refused: dict[str, int] = {}
        """How many calls had got through when one for this grant was refused."""

    @property
    def is_limited(self) -> bool:
        """Whether the provider has said that there is a limit."""
        return self.rate < math.inf

    def wait(self, now: float) -> float:
        """Return the seconds until the next call may begin."""
        return max(0.0, self._opens_at - now)

    def turns(self, now: float, *, within: float) -> float:
        """Return how many calls may begin within so many seconds; infinite where there is no limit."""
        left = now + within - max(now, self._opens_at)
        if left < 0:
            return 0
        return int(left * self.rate) + 1 if self.is_limited else math.inf

    def take(self, now: float) -> None:
        """Note that a call begins."""
        if self.is_limited:
            self._turn_at = max(self._opens_at, now - CATCH_UP)

    def accepted(self, now: float, *, begun: float, whose: str) -> None:
        """Note that a call that began at that moment got through, whatever its answer was.

        `whose`: the grant that it was for.
        """
        self._accepted += 1
        self._refused.pop(whose, None)
        self._recent = self._accepted_lately(now) + 1
        self._recent_at = now
        if not self.is_limited:
            return
        self._got_through = self._got_through or begun > self._cut_at
        # Only time in which the rate was used counts: what was not asked shows nothing.
        used = min(now - self._grown_at, 2 / self.rate)
        self._grown_at = now
        self._quiet += used
        self.rate += GROWTH * 2 ** (self._quiet / GROWTH_DOUBLES) * used
        if self.rate > FASTEST:
            self.rate = math.inf

    def refused(self, now: float, *, begun: float, whose: str, retry_after: float | None) -> None:
        """Note that the provider said of a call that too much was asked; `retry_after` is in seconds, if it said so."""
        since, self._last_refusal = self._accepted - self._last_refusal, self._accepted
        if self._is_its_own(whose) or since >= ALONE:
            return
        if begun > self._cut_at:  # of calls that were under way together the first tells it all
            was = self.rate if self.is_limited else max(self._accepted_lately(now), 1.0)
            self.rate = max(SLOWEST, was * (KEEP if self._got_through or not self.is_limited else KEEP_IN_VAIN))
            self._cut_at = self._grown_at = self._turn_at = now
            self._quiet = 0.0
            self._got_through = False
        if retry_after is not None:
            self._paused_until = max(self._paused_until, now + min(retry_after, LONGEST_PAUSE))
            if retry_after > LONGEST_PAUSE:
                self.rate = SLOWEST

    @property
    def _opens_at(self) -> float:
        return max(self._turn_at + 1 / self.rate, self._paused_until)

    def _accepted_lately(self, now: float) -> float:
        return self._recent * math.exp(min(0.0, self._recent_at - now))

    def _is_its_own(self, whose: str) -> bool:
        """Tell whether it is this grant alone that is held back: others got through since its last refusal."""
        before = self._refused.get(whose)
        if len(self._refused) >= MOST_REMEMBERED:
            self._refused.clear()
        self._refused[whose] = self._accepted
        return bool(whose) and before is not None and self._accepted - before >= OTHERS
