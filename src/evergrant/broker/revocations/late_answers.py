"""An answer that comes when its grant is gone: nobody will ever use its tokens, so they are revoked too."""

import logging
from datetime import datetime, timedelta

from sqlalchemy import func, select

from evergrant import clock
from evergrant.broker.apps.apps import load_app
from evergrant.broker.apps.destinations import digest_of
from evergrant.broker.grants.grants import load_grant
from evergrant.broker.revocations.revocation import (
    RevocationReason,
    make_revocations,
    prepare_revocations,
    write_and_try,
)
from evergrant.broker.runtime.broker import Broker
from evergrant.broker.runtime.journal_entry import Entry
from evergrant.db import AuditEvent, Grant, OutboundApp, Revocation
from evergrant.errors import AppNotFound

log = logging.getLogger(__name__)

CLOCKS_DIFFER = timedelta(hours=1)
"""Clocks of two machines differ by less."""


async def revoke_late_answer(broker: Broker, entry: Entry, *, app: OutboundApp | None = None) -> None:
    """Revoke the tokens of an answer that could not be stored, if its grant is gone and was to be revoked.

    `app` is as the answer was asked for; without it, the app as it is now counts. It never fails: what cannot be done
    is in the log.
    """
    try:
        if await load_grant(broker, entry.project_id, entry.grant_id) is None:
            await (_revoke_refreshed if entry.seen_version else _revoke_new)(broker, entry, app)
    except AppNotFound:
        log.warning("a late answer is not revoked: its app is gone", extra={"grant": entry.grant_id})
    except Exception:
        log.exception("a late answer could not be revoked", extra={"grant": entry.grant_id})


async def _revoke_new(broker: Broker, entry: Entry, app: OutboundApp | None) -> None:
    """Revoke what never was a row: the owner has connected since, or the app is gone or moved; or it went as any other.

    Where the app as it was is not known any more, one that has moved is not told: its tokens are for another place.
    """
    grant = Grant(project_id=entry.project_id, id=entry.grant_id, **entry.values)
    now = clock.now()
    if app is None:
        app = await load_app(broker, grant.project_id, grant.app_id)
        if entry.destinations not in ("", digest_of(broker.catalogue, app)):
            log.warning("a late answer is not revoked: its app has moved", extra={"grant": entry.grant_id})
            return
    rows = await prepare_revocations(broker, app, [grant], reason=RevocationReason.FAILED, now=now)
    await write_and_try(broker, rows, now=now)


async def _revoke_refreshed(broker: Broker, entry: Entry, app: OutboundApp | None) -> None:
    """Revoke what a refresh brought, if the grant was revoked when it went."""
    answered_at = entry.values.get("last_refresh_time")
    gone = await _revoked_grant(broker, entry, since=answered_at if isinstance(answered_at, datetime) else clock.now())
    if gone is None:
        return
    grant, reason = gone
    for name in ("access_token", "refresh_token", "details"):
        if name in entry.values:
            setattr(grant, name, entry.values[name])
    app, now = app or await load_app(broker, grant.project_id, grant.app_id), clock.now()
    rows = await make_revocations(broker, app, [grant], reason=reason, now=now)
    await write_and_try(broker, rows, now=now)


async def _revoked_grant(broker: Broker, entry: Entry, *, since: datetime) -> tuple[Grant, RevocationReason] | None:
    """Return the grant, as far as is still known, and why it was revoked when it went; None if it was not.

    The row says so until the provider has answered, and from then on the audit log.
    """
    waiting = select(
        Revocation.app_id,
        Revocation.user_id,
        Revocation.tenant_id,
        Revocation.external_identifier,
        Revocation.reason,
    ).where(Revocation.project_id == entry.project_id, Revocation.grant_id == entry.grant_id)
    told = AuditEvent.data
    done = select(
        AuditEvent.app_id,
        AuditEvent.user_id,
        AuditEvent.tenant_id,
        func.coalesce(told["externalIdentifier"].as_string(), ""),
        told["reason"].as_string(),
    ).where(
        AuditEvent.project_id == entry.project_id,
        AuditEvent.occurred_at >= since - CLOCKS_DIFFER,
        AuditEvent.action.in_(("token.revoked", "token.revocation_failed")),
        told["grantId"].as_string() == entry.grant_id,
    )
    async with broker.database.read() as session:
        for query in (waiting, done):
            if (found := (await session.execute(query.limit(1))).first()) is not None:
                names = ("app_id", "user_id", "tenant_id", "external_identifier")
                whose = dict(zip(names, found[:4], strict=True))
                return Grant(project_id=entry.project_id, id=entry.grant_id, **whose), RevocationReason(found[4])
    return None
