"""A new grant takes the place of earlier ones: which they are, and that none goes without being looked at before.

What is revoked with a replaced grant is sealed before the transaction that replaces it, because sealing may write. So
the earlier ones are read first; where they have changed in between, they are read again.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import wraps
from typing import ParamSpec, TypeVar

from sqlalchemy import ColumnElement, and_, delete, false, or_
from sqlalchemy.ext.asyncio import AsyncSession

from evergrant import clock
from evergrant.broker.grants.events import GrantEventKind, record_event
from evergrant.broker.webhooks import outbox
from evergrant.db import Grant, GrantStatus, Revocation

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Replacement:
    """The grants that a new one will replace, by id and token version, each with its revocation if it gets one."""

    seen: Mapping[tuple[str, int], Revocation | None]


class ReplacedMeanwhile(Exception):
    """What is replaced is not what was read before the transaction, which is rolled back."""


def until_as_read(store: Callable[P, Awaitable[T]]) -> Callable[P, Awaitable[T]]:
    """Let a function that prepares a `Replacement` and then stores begin again where something came in between."""

    @wraps(store)
    async def stored(*args: P.args, **kwargs: P.kwargs) -> T:
        while True:
            try:
                return await store(*args, **kwargs)
            except ReplacedMeanwhile:
                continue

    return stored


async def replace_earlier(session: AsyncSession, grant: Grant, replacement: Replacement | None) -> None:
    """Delete the grants that `grant` replaces, write down what is revoked with them, and tell webhooks.

    `replacement` is None where nothing is revoked, whatever is replaced.

    Raises:
        ReplacedMeanwhile: there are others than `replacement` knows.
    """
    statement = (
        delete(Grant)
        .where(*is_replaced_by(grant))
        .returning(Grant.id, Grant.status, Grant.token_version)
        .execution_options(synchronize_session=False)
    )
    replaced = (await session.execute(statement)).all()
    if replacement is not None:
        try:
            rows = [replacement.seen[row.id, row.token_version] for row in replaced]
        except KeyError:
            raise ReplacedMeanwhile from None
        session.add_all(row for row in rows if row is not None)
    await _tell_timelines(session, grant, sorted(row.id for row in replaced))
    await outbox.emit_connected(session, grant, replaced=[(row.id, row.status) for row in replaced])


async def _tell_timelines(session: AsyncSession, grant: Grant, replaced: Sequence[str]) -> None:
    project_id, now = grant.project_id, clock.now()
    for one in replaced:
        await record_event(session, project_id, one, GrantEventKind.REPLACED, at=now, data={"by": grant.id})
    if replaced:
        await record_event(session, project_id, grant.id, GrantEventKind.REPLACES, at=now, data={"ids": list(replaced)})


def is_replaced_by(grant: Grant) -> tuple[ColumnElement[bool], ...]:
    """Return the conditions for the grants that `grant` replaces: of the same app, owner and scopes.

    One that can be refreshed stays beside one that cannot: it answers again when the newer one's token has ended.
    """
    useless = or_(Grant.status != GrantStatus.ACTIVE, Grant.refresh_token.is_(None), is_of_another_person(grant))
    return (
        *is_of_same_owner(grant),
        Grant.scope_key == grant.scope_key,
        Grant.status != GrantStatus.PENDING,
        *([useless] if grant.refresh_token is None else []),
    )


def is_of_same_owner(grant: Grant) -> tuple[ColumnElement[bool], ...]:
    """Return the conditions for the other grants of a grant's owner and app."""
    return (
        Grant.project_id == grant.project_id,
        Grant.app_id == grant.app_id,
        Grant.user_id == grant.user_id,
        Grant.tenant_id == grant.tenant_id,
        Grant.external_identifier == grant.external_identifier,
        Grant.id != grant.id,
    )


def is_of_another_person(grant: Grant) -> ColumnElement[bool]:
    """Return the condition that somebody else has consented at the provider, as far as both grants say who it was."""
    return and_(Grant.token_sub != "", Grant.token_sub != grant.token_sub) if grant.token_sub else false()
