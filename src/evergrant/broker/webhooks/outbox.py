"""The outbox of webhooks: each event is written in the transaction of the change that it tells about.

So neither happens without the other, and nobody waits for the receiver. `delivery.py` sends what is written here.
Payloads have the form that Standard Webhooks recommends, with ids and reasons, and never a secret.
"""

import json
import secrets
from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import insert, select
from sqlalchemy.ext.asyncio import AsyncSession

from evergrant import clock
from evergrant.db import Grant, GrantStatus, Webhook, WebhookDelivery


class EventType(StrEnum):
    """The types of events."""

    GRANT_CREATED = "grant.created"
    """Somebody connected, or tokens were uploaded. A connection to be confirmed counts when it is."""
    GRANT_REAUTHORIZATION_REQUIRED = "grant.reauthorization_required"
    """A consent is dead: only the user can mend it, by connecting again."""
    GRANT_EXPIRING = "grant.expiring"
    """A refresh token will end soon, and no refresh has moved its end: let the user connect again before."""
    GRANT_RECOVERED = "grant.recovered"
    """A new consent has taken the place of a dead one."""
    GRANT_REVOKED = "grant.revoked"
    """A connection was deleted here, and is revoked at the provider where that can be done."""
    APP_UNHEALTHY = "app.unhealthy"
    """A provider refuses an app's registration: only the operator can mend it."""
    APP_RECOVERED = "app.recovered"
    """The provider takes it again, or it was changed and is believed again until refused."""
    APPROVAL_REQUESTED = "approval.requested"
    """An agent wants to make a request that its owner, or your backend, has to approve first."""
    TEST = "webhook.test"
    """A test of one webhook: nothing else has happened."""


SUBSCRIBABLE = tuple(str(event) for event in EventType if event is not EventType.TEST)
"""The types that a webhook can be limited to. A test goes to the webhook that is tested."""


async def emit(session: AsyncSession, project_id: str, event: EventType, *data: Mapping[str, Any]) -> None:
    """Write one event for each of `data`, for every webhook of the project that wants them.

    It belongs into the transaction of the change, before the audit record. Without webhooks it costs one lookup by an
    index. The webhooks cannot be deleted until the transaction ends, so that this never makes the change itself fail.
    """
    query = (
        select(Webhook.id, Webhook.event_types)
        .where(Webhook.project_id == project_id, Webhook.enabled)
        .order_by(Webhook.id)
        .with_for_update(read=True, key_share=True)
    )
    wanting = [row.id for row in await session.execute(query) if not row.event_types or event in row.event_types]
    now = clock.now()
    rows = [due_delivery(project_id, webhook_id, event, one, now=now) for one in data for webhook_id in wanting]
    if rows:
        await session.execute(insert(WebhookDelivery), rows)


def due_delivery(
    project_id: str, webhook_id: str, event: EventType, data: Mapping[str, Any], *, now: datetime
) -> dict[str, Any]:
    """Return the columns of a delivery that is due now."""
    body = {
        "type": str(event),
        "timestamp": now.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "data": {"projectId": project_id, **data},
    }
    return {
        "project_id": project_id,
        "id": _new_message_id(now),
        "webhook_id": webhook_id,
        "event_type": str(event),
        "payload": json.dumps(body, separators=(",", ":")),
        "next_attempt_at": now,
        "created_at": now,
    }


def _new_message_id(now: datetime) -> str:
    """Return an id that sorts by time, to the millisecond: 48 bits of it, and 64 random ones."""
    return f"{first_message_id(now)}{secrets.token_hex(8)}"


def first_message_id(at: datetime) -> str:
    """Return what the ids of a moment begin with: every later one sorts behind it."""
    return f"msg_{int(at.timestamp() * 1000):012x}"


def about_grant(grant: Grant, **more: object) -> dict[str, Any]:
    """Return what an event says about a connection."""
    return {
        "grantId": grant.id,
        "appId": grant.app_id,
        "userId": grant.user_id,
        "tenantId": grant.tenant_id,
        "externalIdentifier": grant.external_identifier,
        "scopes": list(grant.scopes),
        **more,
    }


async def emit_connected(session: AsyncSession, grant: Grant, *, replaced: Sequence[tuple[str, str]]) -> None:
    """Tell of a connection that works from now on, in place of those `replaced`: their ids, each with its status."""
    dead = any(status == GrantStatus.REAUTHORIZATION_REQUIRED for _, status in replaced)
    event = EventType.GRANT_RECOVERED if dead else EventType.GRANT_CREATED
    ids = sorted(grant_id for grant_id, _ in replaced)
    await emit(session, grant.project_id, event, about_grant(grant, replacedGrantIds=ids))


async def emit_expiring(session: AsyncSession, grants: Sequence[Grant]) -> None:
    """Tell of connections whose refresh tokens will end, and when: in seconds since 1970, as text like elsewhere."""
    by_project: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)
    for grant in grants:
        ends = grant.refresh_token_expires_at
        expiry = str(int(ends.timestamp())) if ends is not None else ""
        by_project[grant.project_id].append(about_grant(grant, refreshTokenExpiry=expiry))
    for project_id in sorted(by_project):
        await emit(session, project_id, EventType.GRANT_EXPIRING, *by_project[project_id])


async def emit_reauthorization_required(session: AsyncSession, grant: Grant) -> None:
    """Tell of a consent that has come to its end."""
    event = EventType.GRANT_REAUTHORIZATION_REQUIRED
    await emit(session, grant.project_id, event, about_grant(grant, reason=grant.last_refresh_error))
