"""What this process has seen of refreshes that were refused without a clear reason, for telling whose fault that is."""

from dataclasses import dataclass
from datetime import datetime

from evergrant.broker.runtime.expiring import Expiring
from evergrant.db import OutboundApp

SEVERAL = 3
"""So many different grants in a row are no coincidence any more."""
REMEMBER_STREAKS_SECONDS = 86_400.0
REMEMBER_ANSWERS_SECONDS = 600.0
MOST_APPS = 10_000


@dataclass(frozen=True, slots=True)
class Streak:
    """The grants of an app that were refused since a refresh of it has worked; no more than `SEVERAL` of them."""

    since: datetime
    grants: frozenset[str]


class Refusals:
    """The streaks of apps, and what their providers answer to a refresh token that nobody has issued.

    Both belong to an app as it is defined: what was refused before an update tells nothing about it.
    """

    def __init__(self) -> None:
        self._streaks: Expiring[tuple[object, ...], Streak] = Expiring(seconds=REMEMBER_STREAKS_SECONDS, most=MOST_APPS)
        self.answers: Expiring[tuple[object, ...], str] = Expiring(seconds=REMEMBER_ANSWERS_SECONDS, most=MOST_APPS)
        """By app as defined, and the address that was asked."""

    def streak(self, app: OutboundApp, *, now: datetime) -> Streak:
        """Return an app's streak; an empty one that begins now where there is none."""
        return self._streaks.get(defined(app)) or Streak(now, frozenset())

    def add(self, app: OutboundApp, streak: Streak, grant_id: str) -> Streak:
        """Add a grant to a streak, and remember it as the app's."""
        if len(streak.grants) < SEVERAL:
            streak = Streak(streak.since, streak.grants | {grant_id})
        self._streaks.put(defined(app), streak)
        return streak


def defined(app: OutboundApp) -> tuple[object, ...]:
    """Return what tells an app, as it is defined now, from all others."""
    return app.project_id, app.id, app.updated_at, app.client_id
