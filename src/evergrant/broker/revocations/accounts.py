"""Whether another connection stands on the same account at the provider, so that revoking one might end it too.

Many providers end all that a person has granted to a client when one token is revoked. A consent that nobody uses is
worth less than one that works, so in doubt it is left.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from sqlalchemy import or_, select

from evergrant.broker.runtime.broker import Broker
from evergrant.db import Grant, GrantStatus, OutboundApp


@dataclass(frozen=True, slots=True)
class _Living:
    """What is read of a connection that must not be harmed."""

    token_sub: str
    people: frozenset[str]
    owner: tuple[str, str]


async def alone_on_account(
    broker: Broker, app: OutboundApp, grants: Sequence[Grant], *, besides: Collection[str] = (), person: str = ""
) -> list[Grant]:
    """Return those of `grants` beside which no other living grant of the app stands, or may stand, on the same account.

    Another one does where both name the same subject. It may where one of them names none, and both are of the same
    owner, or of the same person: `person` is who was at the browser, where that was not whom the grant is for.

    Grants in `besides` go too, and do not count.
    """
    ids = {grant.id for grant in grants} | set(besides)
    people = {person} if person else {_consenter(grant) for grant in grants} - {""}
    users = people if person else people | {grant.user_id for grant in grants} - {""}
    tenants = set() if person else {grant.tenant_id for grant in grants if not grant.user_id}
    subjects = {grant.token_sub for grant in grants} - {""}
    query = select(Grant.token_sub, Grant.user_id, Grant.tenant_id, Grant.granted_by).where(
        Grant.project_id == app.project_id,
        Grant.app_id == app.id,
        Grant.id.not_in(ids),
        Grant.status != GrantStatus.REAUTHORIZATION_REQUIRED,
        or_(
            Grant.token_sub.in_(subjects),
            Grant.user_id.in_(users),
            Grant.granted_by.in_(people),
            Grant.tenant_id.in_(tenants) & (Grant.user_id == ""),
        ),
    )
    async with broker.database.read() as session:
        living = [
            _Living(row.token_sub, frozenset({row.user_id, row.granted_by}), (row.user_id, row.tenant_id))
            for row in await session.execute(query)
        ]
    return [grant for grant in grants if not any(_may_share(grant, other, person) for other in living)]


def _consenter(grant: Grant) -> str:
    return grant.granted_by or grant.user_id


def _may_share(grant: Grant, other: _Living, person: str) -> bool:
    if grant.token_sub and other.token_sub:
        return grant.token_sub == other.token_sub
    if person:
        return person in other.people
    same_person = _consenter(grant) != "" and _consenter(grant) in other.people
    return same_person or other.owner == (grant.user_id, grant.tenant_id)
