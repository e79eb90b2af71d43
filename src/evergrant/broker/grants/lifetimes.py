"""When the tokens of a grant end, and from when on they are replaced."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from evergrant.broker.runtime.backoff import jittered
from evergrant.db import Grant
from evergrant.oauth2.quirks import Quirks
from evergrant.oauth2.token_response import TokenResponse

MAX_MARGIN = timedelta(minutes=5)
MARGIN_SHARE = 0.2
ASSUMED_SECONDS = 3600
"""How long a token is used whose provider says even at a refresh that it has ended: what most providers give."""
LOOK_AGAIN = timedelta(days=1)
"""How long a token is used without a refresh where nobody knows its end, and there is a refresh token."""
LOOK_AGAIN_JITTER = (0.9, 1.0)


@dataclass(frozen=True, slots=True)
class Lifetime:
    """When an access token ends, from when on a fetch refreshes it first, and when the background does."""

    expires_at: datetime | None
    fresh_until: datetime | None
    due: datetime | None


NO_END = Lifetime(None, None, None)


def lifetime(expires_in: int | None, *, now: datetime, margin_seconds: int | None = None) -> Lifetime:
    """Work out an access token's times from its lifetime in seconds.

    The margin is 20% of the lifetime, at most 5 minutes. The background refresher comes up to half a margin before a
    fetch would have to refresh, at a random moment, so that grants made together do not stay together. A provider's
    own margin, `margin_seconds`, is when it begins to allow a refresh: then the background comes no earlier either.
    """
    if expires_in is None:
        return NO_END
    whole = timedelta(seconds=expires_in)
    if margin_seconds is not None and timedelta(seconds=margin_seconds) < whole:
        end = now + whole
        fresh_until = end - timedelta(seconds=margin_seconds)
        return Lifetime(end, fresh_until, fresh_until)
    margin = min(MAX_MARGIN, whole * MARGIN_SHARE)
    fresh_until = now + whole - margin
    due = fresh_until - jittered(margin, (0.0, 0.5))
    return Lifetime(now + whole, fresh_until, due)


def lifetime_of(answer: TokenResponse, quirks: Quirks, *, refreshed: Grant | None, now: datetime) -> Lifetime:
    """Work out the times of a new access token; `refreshed` is the grant that a refresh brought it for.

    Where a refresh answer states no lifetime, the token has the one that the last had. A token whose end nobody knows
    is looked at again after a day, if it can be refreshed and its provider is not known for tokens without an end.
    """
    expires_in = answer.expires_in
    if refreshed is not None and not expires_in:
        expires_in = _previous_lifetime(refreshed) or (None if expires_in is None else ASSUMED_SECONDS)
    if expires_in is not None:
        return lifetime(expires_in, now=now, margin_seconds=quirks.refresh_margin)
    can_be_refreshed = refreshed is not None or answer.refresh_token is not None
    return unknown_end(now=now) if can_be_refreshed and not quirks.never_ends else NO_END


def unknown_end(*, now: datetime) -> Lifetime:
    """Return the times of a token that may have an end which nobody knows."""
    fresh_until = now + LOOK_AGAIN
    return Lifetime(None, fresh_until, now + jittered(LOOK_AGAIN, LOOK_AGAIN_JITTER))


def _previous_lifetime(grant: Grant) -> int | None:
    """Return how many seconds the last access token lived: providers that omit it once mean the same again."""
    if grant.expires_at is None:
        return None
    lived = round((grant.expires_at - (grant.last_refresh_time or grant.consented_at)).total_seconds())
    if lived < 0:
        return None  # it was uploaded when it had ended already
    return lived or ASSUMED_SECONDS  # it was issued as one that has ended: there are ends, and this one's is not known


def refresh_token_end(
    answer: TokenResponse, quirks: Quirks, *, refreshed: Grant | None, now: datetime
) -> datetime | None:
    """Return when the refresh token ends that a grant has after this answer; None where nobody knows an end.

    A new token has the end that came with it, or none. One that stays keeps its end, unless a new one is stated. The
    end that the provider sets for every consent is not moved by a rotation.
    """
    stated = answer.refresh_token_expires_in
    end = None if stated is None else now + timedelta(seconds=stated)
    if stated is None and answer.refresh_token is None and refreshed is not None:
        end = refreshed.refresh_token_expires_at
    if not quirks.refresh_token_max_seconds or (refreshed is None and answer.refresh_token is None):
        return end
    consented_at = now if refreshed is None else refreshed.consented_at
    last = consented_at + timedelta(seconds=quirks.refresh_token_max_seconds)
    return last if end is None else min(end, last)
