"""Whose a lease is: the one place that decides whether a grant that somebody holds may be taken.

A refresh token that is sent twice can cost the consent. So a lease that is over says nothing yet: its holder may have
the provider's answer in hand, and no database to write it to. A lease is free when nobody has it. One that somebody has
is taken over only from a holder that is gone: it shows no sign of life, although the database and this process have
been there all the while; and as late as can be, while the access token still works.
"""

from collections.abc import Mapping
from datetime import datetime, timedelta

from sqlalchemy import Boolean, ColumnElement, ScalarSelect, String, and_, bindparam, case, exists, func, or_, select

from evergrant.broker.runtime.broker import Broker
from evergrant.broker.runtime.holder import longest_silence
from evergrant.db import Grant, Holder
from evergrant.db.holder import HOLDER_ID_LENGTH
from evergrant.db.types import database_now
from evergrant.pace import Pace

LONGEST_SECONDS = 3600.0
"""A grant whose access token still works waits for its holder for so long, and no longer."""
FEWEST_BEATS = 6
"""However soon the operator wants it, a holder has so many beats to show itself."""
NOBODY: Mapping[str, object] = {"own_holder": "", "steady": False, "owners_in_use": ()}
"""The parameters of a statement that is built once and executed with `own_state` each time."""


def own_state(broker: Broker) -> Mapping[str, object]:
    """Return what this process knows of itself, as the parameters of the conditions below."""
    holder = broker.holder
    return {"own_holder": holder.id, "steady": holder.is_steady, "owners_in_use": holder.owners_in_use}


def is_free_for(broker: Broker) -> ColumnElement[bool]:
    """Return the condition that this process may take a row's lease."""
    return is_free(own_state(broker), pace=broker.pace, takeover_seconds=broker.settings.takeover_seconds)


def is_free(state: Mapping[str, object], *, pace: Pace, takeover_seconds: float) -> ColumnElement[bool]:
    """Return the condition that a process in this state may take a row's lease."""
    is_over = Grant.lease_until < database_now()
    last_sign = func.coalesce(beat_of_holder(), Grant.lease_until)
    # Both by the database's clock: a process that stood still does not know it yet.
    own = bindparam("own_holder", state["own_holder"], type_=String)
    we_are_there = exists(
        select(Holder.id).where(Holder.id == own, Holder.beat_at > database_now(-longest_silence(pace)))
    )
    token_has_ended = or_(Grant.access_token.is_(None), Grant.expires_at <= database_now())
    is_gone = and_(
        bindparam("steady", state["steady"], type_=Boolean),
        last_sign < database_now(-patience_with_holders(pace, takeover_seconds)),
        or_(token_has_ended, last_sign < database_now(-LONGEST_SECONDS)),
        we_are_there,
    )
    in_use = bindparam("owners_in_use", state["owners_in_use"], expanding=True, type_=String)
    is_forgotten = and_(is_own(state), Grant.lease_owner.not_in(in_use))
    return or_(Grant.lease_owner.is_(None), and_(is_over, or_(is_forgotten, and_(~is_own(state), is_gone))))


def is_own(state: Mapping[str, object]) -> ColumnElement[bool]:
    """Return the condition that the process in this state took a row's lease."""
    return _holder_id() == bindparam("own_holder", state["own_holder"], type_=String)


def beat_of_holder() -> ScalarSelect[datetime]:
    """Return when a row's holder was last there; none where it is not known."""
    return select(Holder.beat_at).where(Holder.id == _holder_id()).correlate(Grant).scalar_subquery()


def interruption(state: Mapping[str, object]) -> ColumnElement[datetime | None]:
    """Return what `interrupted_at` becomes when a free lease is taken.

    Who lets a lease run out was killed or cut off with the refresh under way, and nobody knows how far it got.
    """
    return case((and_(Grant.lease_owner.is_not(None), ~is_own(state)), database_now()), else_=Grant.interrupted_at)


def patience_with_holders(pace: Pace, takeover_seconds: float) -> float:
    """Return for how many seconds a holder may show no sign of life before others take over."""
    return max(takeover_seconds, FEWEST_BEATS * pace.beat)


def seconds_until_takeover(
    *, at: datetime, lease_until: datetime, beat_at: datetime | None, works_until: datetime | None, patience: float
) -> float:
    """Return in how many seconds a held lease may be taken over.

    Args:
        at: now, by the database's clock.
        lease_until: when the lease is over.
        beat_at: when its holder was last there; None where that is not known.
        works_until: when the access token ends; None where it does not.
        patience: for how many seconds its holder may show no sign of life.
    """
    sign = beat_at or lease_until
    latest = sign + timedelta(seconds=LONGEST_SECONDS)
    late = max(lease_until, sign + timedelta(seconds=patience), min(works_until or latest, latest))
    return max(0.0, (late - at).total_seconds())


def _holder_id() -> ColumnElement[str]:
    return func.substr(Grant.lease_owner, 1, HOLDER_ID_LENGTH)
