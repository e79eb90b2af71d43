"""Whose fault it is that a provider refused a refresh: the app's, the grant's, or nobody's because the grant has ended.

| the provider's answer | whose |
|---|---|
| `invalid_client` and its like; a 401 without a reason, while no refresh of the app works | the app's |
| what it also says to a refresh token that nobody has issued, while refreshes of the app work | the grant has ended |
| a refusal of this token by a provider that takes any other one | the grant has ended |
| another 4xx | the grant's |
| another 4xx, for several grants in a row, and no refresh of the app works | the app's |

An app is never blamed for one user, and no consent is ended because a provider refuses everybody: an answer that every
token gets proves nothing unless the same client's refreshes work.
"""

import logging
from datetime import datetime, timedelta
from enum import Enum, auto

from sqlalchemy import ColumnElement, func, literal, select

from evergrant import clock
from evergrant.broker.apps.dynamic_registration import made_up_token
from evergrant.broker.refresh.attempt import RefreshAttempt, send_refresh_token
from evergrant.broker.runtime.broker import Broker
from evergrant.broker.runtime.refusals import SEVERAL, Streak, defined
from evergrant.db import Grant, GrantStatus
from evergrant.errors import EvergrantError, ReauthorizationRequired, Refusal, Unavailable, UpstreamRejected

log = logging.getLogger(__name__)

WORKED_LATELY = timedelta(days=1)
"""A refresh this long ago still shows that the client works."""
ASK_SECONDS = 10.0
"""How long the provider may take to say what it thinks of a token that nobody has issued."""
_UNDERSTOOD = "understood"
"""In place of an answer: it was about the token, in words that we understand, so the client is accepted."""
_TOKENS = "tokens"
"""In place of an answer: it brought tokens, so that the same request is good with any other token."""


class Fault(Enum):
    """Whose a refusal is."""

    APP = auto()
    """Only the operator can mend it."""
    GRANT = auto()
    """This connection's, for now."""
    ENDED = auto()
    """The grant has ended: only the user can mend it."""


async def whose_fault(broker: Broker, attempt: RefreshAttempt, error: UpstreamRejected) -> Fault:
    """Tell whose fault a refusal is. If the database is away, the grant's: that changes least."""
    if error.refusal in (Refusal.OURS, Refusal.CLIENT_UNKNOWN, Refusal.CLIENT):
        return Fault.APP
    try:
        streak = await _streak(broker, attempt)
        is_coincidence = len(streak.grants) < SEVERAL
        works = is_coincidence and await _works(broker, attempt, since=clock.now() - WORKED_LATELY)
        if is_coincidence and error.refusal is not Refusal.REQUEST:
            answer = await _answer_to_any_bad_token(broker, attempt)
            if answer == _UNDERSTOOD:
                return Fault.GRANT
            if answer == _TOKENS or (works and answer == error.fingerprint):
                return Fault.ENDED
        if error.refusal is Refusal.UNSAID:
            return Fault.GRANT if works else Fault.APP
        return Fault.APP if len(streak.grants) >= await _refreshable(broker, attempt) else Fault.GRANT
    except Unavailable:
        log.exception("could not find out whose fault a refusal is")
        return Fault.GRANT


async def _streak(broker: Broker, attempt: RefreshAttempt) -> Streak:
    """Return the app's streak with this grant in it. A refresh that works, in whatever process, ends a streak."""
    app, now = attempt.app, clock.now()
    streak = broker.refusals.streak(app, now=now)
    if streak.grants and await _works(broker, attempt, since=streak.since):
        streak = Streak(now, frozenset())
    return broker.refusals.add(app, streak, attempt.leased.grant.id)


async def _works(broker: Broker, attempt: RefreshAttempt, *, since: datetime) -> bool:
    """Tell whether a refresh of the app, as it is defined now, has worked since then."""
    since = max(since, attempt.app.updated_at)
    query = select(literal(1)).where(*_of_app(attempt), Grant.last_refresh_time > since).limit(1)
    async with broker.database.read() as session:
        return (await session.execute(query)).first() is not None


async def _refreshable(broker: Broker, attempt: RefreshAttempt) -> int:
    """Count the grants that could be refreshed, up to `SEVERAL`."""
    some = (
        select(literal(1))
        .where(*_of_app(attempt), Grant.status == GrantStatus.ACTIVE, Grant.refresh_token.is_not(None))
        .limit(SEVERAL)
        .subquery()
    )
    async with broker.database.read() as session:
        return (await session.execute(select(func.count()).select_from(some))).scalar_one()


def _of_app(attempt: RefreshAttempt) -> tuple[ColumnElement[bool], ColumnElement[bool]]:
    return Grant.project_id == attempt.app.project_id, Grant.app_id == attempt.app.id


async def _answer_to_any_bad_token(broker: Broker, attempt: RefreshAttempt) -> str:
    """Return what the provider says to this very request with a refresh token that nobody has issued.

    It is asked once in a while for each app. Empty where it does not tell.
    """
    key = (*defined(attempt.app), attempt.endpoint.url)
    known = broker.refusals.answers.get(key)
    if known is not None:
        return known
    try:
        await send_refresh_token(broker, attempt, made_up_token(), seconds=ASK_SECONDS)
        answer = _TOKENS
    except ReauthorizationRequired:
        answer = _UNDERSTOOD
    except UpstreamRejected as error:
        answer = error.fingerprint
    except EvergrantError:
        return ""
    broker.refusals.answers.put(key, answer)
    return answer
