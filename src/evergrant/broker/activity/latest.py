"""The latest records of the audit log, and what the keys that they tell of are called."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import and_, func, select

from evergrant.broker.access.management_keys import manages
from evergrant.broker.audit.browsing import is_told
from evergrant.broker.runtime.broker import Broker
from evergrant.broker.runtime.principal import Permission, Principal
from evergrant.db import AuditEvent, ManagementKey

_ACTOR = "key:"


async def latest_records(
    broker: Broker, principal: Principal, *, without: Sequence[str], most: int
) -> tuple[list[AuditEvent], dict[str, str]]:
    """Return a project's newest records `without` some actions, and the names of keys that acted, by `key:<id>`.

    Only who manages a key is told its name. One statement, for the page that asks has few.

    Raises:
        Unavailable: the database is away.
    """
    is_key = and_(
        ManagementKey.project_id == AuditEvent.project_id,
        AuditEvent.actor.startswith(_ACTOR),
        ManagementKey.id == func.substr(AuditEvent.actor, len(_ACTOR) + 1),
    )
    query = (
        select(AuditEvent, ManagementKey)
        .outerjoin(ManagementKey, is_key)
        .where(AuditEvent.project_id == principal.project_id, AuditEvent.action.not_in(without), is_told())
        .order_by(AuditEvent.sequence.desc())
        .limit(most)
    )
    async with broker.database.browse() as session:
        rows: Sequence[Any] = (await session.execute(query)).all()
    may_read = Permission.KEYS in principal.permissions
    names = {
        f"{_ACTOR}{key.id}": key.name for _, key in rows if may_read and key is not None and manages(principal, key)
    }
    return [event for event, _ in rows], names
