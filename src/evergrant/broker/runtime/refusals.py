"""What this process has seen of refreshes that were refused without a clear reason, for telling whose fault that is."""

from dataclasses import dataclass, replace
from datetime import datetime

from evergrant.broker.runtime.expiring import Expiring
from evergrant.db import Grant, OutboundApp

SEVERAL = 3
"""So many different grants in a row are no coincidence any more."""
MOST_NEEDED = 48
"""So many are none even where the app has been suspected wrongly before, again and again."""
REMEMBER_HELD_BACK_SECONDS = 1800.0
MOST_GRANTS = 50_000
REMEMBER_STREAKS_SECONDS = 86_400.0
REMEMBER_ANSWERS_SECONDS = 600.0
MOST_APPS = 10_000


@dataclass(frozen=True, slots=True)
class Streak:
    """The grants of an app that were refused since a refresh of it has worked; no more than `needed` of them."""

    since: datetime
    grants: frozenset[str] = frozenset()
    needed: int = SEVERAL
    """So many different ones show that it is the app. Twice as many each time that such a showing was wrong."""

    @property
    def is_long(self) -> bool:
        """Whether it is no coincidence any more, however many grants the app has."""
        return len(self.grants) >= self.needed

    def followed_by(self, now: datetime, *, at_most: int) -> "Streak":
        """Return the streak that begins now: it takes more if this one showed what was wrong, as it turned out."""
        was_wrong = len(self.grants) >= min(self.needed, at_most)
        return Streak(now, needed=min(self.needed * 2, MOST_NEEDED) if was_wrong else self.needed)


class Refusals:
    """The streaks of apps, and what their providers answer to a refresh token that nobody has issued.

    Both belong to an app as it is defined: what was refused before an update tells nothing about it.
    """

    def __init__(self) -> None:
        self._streaks: Expiring[tuple[object, ...], Streak] = Expiring(seconds=REMEMBER_STREAKS_SECONDS, most=MOST_APPS)
        self.answers: Expiring[tuple[object, ...], str] = Expiring(seconds=REMEMBER_ANSWERS_SECONDS, most=MOST_APPS)
        """By app as defined, and the address that was asked."""
        self._held_back: Expiring[tuple[str, str, int], int] = Expiring(
            seconds=REMEMBER_HELD_BACK_SECONDS, most=MOST_GRANTS
        )
        """How often a provider has said of a grant, with the tokens that it has, that too much is asked."""

    def streak(self, app: OutboundApp, *, now: datetime) -> Streak:
        """Return an app's streak; an empty one that begins now where there is none."""
        return self._streaks.get(defined(app)) or Streak(now)

    def end(self, app: OutboundApp, streak: Streak, *, at_most: int, now: datetime) -> None:
        """End a streak, because a refresh has worked since it began; nothing if somebody else just did.

        `at_most`: how many grants the app has, up to the number that is needed.
        """
        if self.streak(app, now=now).since == streak.since:
            self._streaks.put(defined(app), streak.followed_by(now, at_most=at_most))

    def add(self, app: OutboundApp, grant_id: str, *, now: datetime) -> Streak:
        """Add a grant to its app's streak, and return that."""
        streak = self.streak(app, now=now)
        if not streak.is_long:
            streak = replace(streak, grants=streak.grants | {grant_id})
        self._streaks.put(defined(app), streak)
        return streak

    def held_back(self, grant: Grant) -> int:
        """Count that a provider has held a grant back, and return how often in a row it has."""
        key = grant.project_id, grant.id, grant.token_version
        times = (self._held_back.get(key) or 0) + 1
        self._held_back.put(key, times)
        return times


def defined(app: OutboundApp) -> tuple[object, ...]:
    """Return what tells an app, as it is defined now, from all others."""
    return app.project_id, app.id, app.updated_at, app.client_id
