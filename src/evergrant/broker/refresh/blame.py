"""Whose fault it is that a provider refused a refresh: the app's, the grant's, or nobody's because the grant has ended.

| what the provider says | no refresh of the app worked lately | one did |
|---|---|---|
| nothing: we did not ask, because the app lacks something | the app's | the app's |
| that it is the client (`invalid_client` and its like) | the app's | the grant's, until everybody is refused |
| 401 without a reason | the app's | as the next, if asking (below) tells nothing |
| another 4xx | the grant's, until everybody is refused | the grant's, until everybody is refused |

*Everybody* is several different grants in a row, with no refresh that works in between, or all that the app has. One
user's refusal and another's success so never turn an app to and fro; and where that has happened once, it takes twice
as many the next time.

Before, where the words tell nothing and it is not everybody yet, the provider is asked what it thinks of a refresh
token that nobody has issued:

| it says | whose |
|---|---|
| that the token is bad, in words that we know | the grant's: it accepts the client |
| it gives tokens | the grant has ended: the same request is good with any other token |
| the same as to the grant, and a refresh of the app worked lately | the grant has ended: so it says of bad tokens |
| anything else | as above |

Where credentials that stay stand in the refresh token's place, nothing is asked and nothing ends. Those that a
connection has brought itself are its own: what the provider says of its client or key, or of anything else, is the
connection's until several in a row are refused; that its key does not sign is always. With the app's own client or key,
the first table counts.

An app is never blamed for one user, and no consent is ended because a provider refuses everybody: an answer that every
token gets proves nothing unless the same client's refreshes work.
"""

import logging
from datetime import datetime, timedelta
from enum import Enum, auto

from sqlalchemy import ColumnElement, func, literal, select

from evergrant import clock
from evergrant.app_types import AppType
from evergrant.broker.apps.dynamic_registration import made_up_token
from evergrant.broker.grants.credentials import fields_in
from evergrant.broker.grants.grants import owner_of, token_slot
from evergrant.broker.refresh.attempt import RefreshAttempt, send_refresh_token
from evergrant.broker.runtime.broker import Broker
from evergrant.broker.runtime.refusals import Streak, defined
from evergrant.db import Grant, GrantStatus
from evergrant.errors import EvergrantError, ReauthorizationRequired, Refusal, Unavailable, UpstreamRejected
from evergrant.oauth2.failures import ABOUT_THE_CLIENT

log = logging.getLogger(__name__)

WORKED_LATELY = timedelta(days=1)
"""A refresh this long ago still shows that the client works."""
ASK_SECONDS = 10.0
"""How long the provider may take to say what it thinks of a token that nobody has issued."""
_SAID_PLAINLY = frozenset({Refusal.CLIENT_UNKNOWN, Refusal.CLIENT, Refusal.REQUEST})
"""What cannot be about the token: there is nothing to ask."""
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
    CREDENTIALS = auto()
    """This connection's own credentials': they stay, and whoever brought them can bring others."""
    ENDED = auto()
    """The grant has ended: only the user can mend it."""


async def whose_fault(broker: Broker, attempt: RefreshAttempt, error: UpstreamRejected) -> Fault:
    """Tell whose fault a refusal is, by the table above. If the database is away, the grant's: that changes least."""
    try:
        own = await _has_own_credentials(broker, attempt)
        if own and error.provider_error == "invalid_client_key":
            return Fault.CREDENTIALS
        if error.refusal is Refusal.OURS:
            return Fault.APP
        streak = await _streak(broker, attempt)
        if streak.is_long:
            return Fault.APP
        if own:
            return Fault.CREDENTIALS
        works = await _works(broker, attempt, since=clock.now() - WORKED_LATELY)
        if error.refusal not in _SAID_PLAINLY and not AppType(attempt.app.app_type).is_obtained:
            answer = await _answer_to_any_bad_token(broker, attempt)
            if answer == _UNDERSTOOD:
                return Fault.GRANT
            if answer == _TOKENS or (works and answer == error.fingerprint):
                return Fault.ENDED
        if error.refusal in ABOUT_THE_CLIENT and (not works or await _is_known_to_be_the_apps(broker, attempt)):
            return Fault.APP
        is_everybody = len(streak.grants) >= await _refreshable(broker, attempt, at_most=streak.needed)
    except Unavailable as error:
        broker.database_health.note_away(error)
        return Fault.GRANT
    return Fault.APP if is_everybody else Fault.GRANT


async def _has_own_credentials(broker: Broker, attempt: RefreshAttempt) -> bool:
    """Tell whether a connection has brought what its tokens are obtained with, or part of it."""
    grant = attempt.leased.grant
    if not AppType(attempt.app.app_type).is_obtained or grant.refresh_token is None:
        return False
    slot = token_slot(owner_of(grant), grant.id, "refresh_token")
    return bool(fields_in(await broker.vault.open(slot, grant.refresh_token)))


async def _streak(broker: Broker, attempt: RefreshAttempt) -> Streak:
    """Return the app's streak with this grant in it. A refresh that works, in whatever process, ends a streak."""
    app, now = attempt.app, clock.now()
    streak = broker.refusals.streak(app, now=now)
    if streak.grants and await _works(broker, attempt, since=streak.since):
        at_most = await _refreshable(broker, attempt, at_most=streak.needed)
        broker.refusals.end(app, streak, at_most=at_most, now=now)
    return broker.refusals.add(app, attempt.leased.grant.id, now=now)


async def _is_known_to_be_the_apps(broker: Broker, attempt: RefreshAttempt) -> bool:
    """Tell whether somebody, maybe another process, has blamed the app, and no refresh has worked since."""
    since = attempt.app.unhealthy_since
    return since is not None and not await _works(broker, attempt, since=since)


async def _works(broker: Broker, attempt: RefreshAttempt, *, since: datetime) -> bool:
    """Tell whether a refresh of the app, as it is defined now, has worked since then."""
    since = max(since, attempt.app.updated_at)
    query = select(literal(1)).where(*_of_app(attempt), Grant.last_refresh_time > since).limit(1)
    async with broker.database.read() as session:
        return (await session.execute(query)).first() is not None


async def _refreshable(broker: Broker, attempt: RefreshAttempt, *, at_most: int) -> int:
    """Count the grants that could be refreshed, up to `at_most`."""
    some = (
        select(literal(1))
        .where(*_of_app(attempt), Grant.status == GrantStatus.ACTIVE, Grant.refresh_token.is_not(None))
        .limit(at_most)
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
