"""When a grant is refreshed in the background: ahead of every expiry, only to stay alive, or not at all.

An app's `refresh_policy` says which: `proactive`, so that a fetch never waits, or `on_demand`. Grants that nobody has
fetched for long drop to keeping alive by themselves. Where a provider lets refresh tokens die of disuse (the app's
`refresh_token_idle_seconds`), every grant is refreshed well before that, whatever its policy. Where the answer says
that the refresh token itself ends, those of `proactive` apps are refreshed well before that too. Tokens that evergrant
signs itself are made when a fetch needs them.
"""

from datetime import datetime, timedelta

from evergrant.app_types import AppType
from evergrant.broker.runtime.backoff import jittered
from evergrant.db import Grant, OutboundApp

PROACTIVE = "proactive"
ON_DEMAND = "on_demand"
POLICIES = (PROACTIVE, ON_DEMAND)

KEEP_ALIVE_SHARE = (0.5, 0.65)
"""The part of its allowed idle time after which a refresh token is used: a random one between these two."""
SHORTEST_KEPT_ALIVE = timedelta(minutes=20)
"""A refresh token whose end is nearer than this is not used just to move the end: where its provider's end stays where
it is, each time would come sooner than the one before."""
KEEP_ALIVE = timedelta(days=7)
"""How often a grant that nobody fetches is refreshed, where its provider's rule is not known."""
KEEP_ALIVE_JITTER = (0.9, 1.1)


def is_kept_fresh(app: OutboundApp, *, used_at: datetime, idle_after: timedelta | None, now: datetime) -> bool:
    """Tell whether a grant is refreshed ahead of each expiry; `idle_after` None never calls one idle."""
    idle = idle_after is not None and now - used_at >= idle_after
    return _policy(app) == PROACTIVE and not idle


def _policy(app: OutboundApp) -> str:
    """Return the policy that counts: nobody waits for a token that is only signed, so that none is made ahead."""
    return ON_DEMAND if app.app_type == AppType.SIGNED_JWT else app.refresh_policy


def next_refresh(
    app: OutboundApp,
    due: datetime | None,
    *,
    used_at: datetime,
    refreshed_at: datetime,
    ends_at: datetime | None,
    idle_after: timedelta | None,
    now: datetime,
) -> datetime | None:
    """Return when the background takes up a grant that can be refreshed; None for never.

    Args:
        app: the grant's app.
        due: when its access token is to be replaced before a fetch would have to; None where it does not end.
        used_at: when it was last fetched, or connected.
        refreshed_at: when its refresh token was last used, or issued.
        ends_at: when its refresh token itself ends; None where it does not, or nobody knows.
        idle_after: how long without a fetch makes it idle.
        now: the moment.
    """
    life = _life_of_refresh_token(app, refreshed_at=refreshed_at, ends_at=ends_at)
    alive = None if life is None else refreshed_at + jittered(life, KEEP_ALIVE_SHARE)
    if is_kept_fresh(app, used_at=used_at, idle_after=idle_after, now=now):
        return min((at for at in (due, alive) if at is not None), default=None)
    if alive is not None or due is None or _policy(app) == ON_DEMAND:
        return alive
    return max(due, refreshed_at + jittered(KEEP_ALIVE, KEEP_ALIVE_JITTER))


def _life_of_refresh_token(app: OutboundApp, *, refreshed_at: datetime, ends_at: datetime | None) -> timedelta | None:
    """Return how long a refresh token lives without use, as far as that is known and a refresh can prolong it."""
    lives = [timedelta(seconds=app.refresh_token_idle_seconds)] if app.refresh_token_idle_seconds else []
    if ends_at is not None and _policy(app) == PROACTIVE and ends_at - refreshed_at > SHORTEST_KEPT_ALIVE:
        lives.append(ends_at - refreshed_at)
    return min(lives, default=None)


WANTED_BY = (
    Grant.consented_at,
    Grant.last_refresh_time,
    Grant.refresh_token_expires_at,
)
"""The columns of a grant that `is_wanted` looks at."""


def is_wanted(
    app: OutboundApp, grant: Grant, *, used_at: datetime, idle_after: timedelta | None, now: datetime
) -> bool:
    """Tell whether a grant that is due is to be refreshed now.

    Its due time was set by the policy and the use at its last refresh, and both may have changed since.
    """
    if is_kept_fresh(app, used_at=used_at, idle_after=idle_after, now=now):
        return True
    life = _life_of_refresh_token(app, refreshed_at=refreshed_at(grant), ends_at=grant.refresh_token_expires_at)
    if life is not None:
        earliest = life * KEEP_ALIVE_SHARE[0]
    elif _policy(app) == PROACTIVE:
        earliest = KEEP_ALIVE * KEEP_ALIVE_JITTER[0]
    else:
        return False
    return now >= refreshed_at(grant) + earliest


def refreshed_at(grant: Grant) -> datetime:
    """Return when a grant's refresh token was last used, or issued."""
    return grant.last_refresh_time or grant.consented_at
