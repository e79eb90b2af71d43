"""Revoking at the provider what was deleted here (RFC 7009, or the provider's own way), by an outbox.

What is still to be revoked is written in the transaction that deletes, so neither happens without the other. The first
try follows at once; the background refresher makes the others, over days. The audit log has every outcome.
"""

import asyncio
import logging
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from sqlalchemy import ColumnElement, and_, delete

from evergrant import clock
from evergrant.broker.apps.provider_client import provider_client
from evergrant.broker.apps.quirks import can_revoke, quirks_of, revokes_singly
from evergrant.broker.audit.record import record
from evergrant.broker.grants.events import GrantEventKind, record_event
from evergrant.broker.grants.grants import owner_of, token_slot
from evergrant.broker.revocations.accounts import alone_on_account
from evergrant.broker.runtime.broker import Broker
from evergrant.broker.runtime.places import slot_in
from evergrant.crypto.opaque import new_id
from evergrant.crypto.sealed import Sealed, Slot
from evergrant.db import Grant, OutboundApp, Revocation
from evergrant.errors import CannotOpenSealed, EvergrantError, Unavailable, UpstreamRejected, UpstreamUnavailable
from evergrant.oauth2 import revocation
from evergrant.oauth2.quirks import NO_QUIRKS, Quirks, from_json, to_json
from evergrant.oauth2.registration import ClientRegistration, ServerMetadata

log = logging.getLogger(__name__)

FIRST_TRY_SECONDS = 5.0
"""How long a caller waits for the first tries, all together."""
FIRST_TRIES = 50
"""How many of a deletion's tokens are tried at once; the background takes the others."""
CALL_SECONDS = 30.0
PAUSE = (timedelta(minutes=1), timedelta(hours=12))
"""The pause between two tries: at first, doubling, and at most."""
MAX_ATTEMPTS = 16
"""How often a revocation is tried: with these pauses, for about four days."""


class RevocationReason(StrEnum):
    """Why a grant goes."""

    DELETED = "deleted"
    REPLACED = "replaced"
    """A newer consent took its place."""
    REFUSED = "refused"
    """The application confirmed somebody else."""
    UNCONFIRMED = "unconfirmed"
    """Nobody confirmed it in time."""
    FAILED = "failed"
    """The provider gave tokens, and the trip failed after that."""
    CLOSED = "closed"
    """Its project is closed."""
    TESTED = "tested"
    """It was made by a test connection, which is over."""


ON_PURPOSE = (RevocationReason.DELETED, RevocationReason.CLOSED)
"""Somebody wants it to end at the provider too, whatever else ends with it."""


class RevocationOutcome(StrEnum):
    """How far the revoking of one token has come."""

    REVOKED = "revoked"
    PENDING = "pending"
    UNSUPPORTED = "unsupported"
    """The provider has no way to revoke, or refuses to."""


async def prepare_revocations(
    broker: Broker,
    app: OutboundApp,
    grants: Sequence[Grant],
    *,
    reason: RevocationReason,
    person: str = "",
    besides: Collection[str] = (),
    now: datetime,
) -> list[Revocation]:
    """Make the rows for these grants of `app`, to be added in the transaction that deletes them.

    Not inside a transaction: sealing may write. There are none for an app whose provider cannot revoke. What is deleted
    on purpose is revoked in any case; what goes for another reason only where that ends no connection that stays, for
    which `person` and `besides` are as in `alone_on_account`.
    """
    if not grants or not can_revoke(broker, app):
        return []
    if reason not in ON_PURPOSE and not revokes_singly(broker, app):
        alone = await alone_on_account(broker, app, grants, besides=besides, person=person)
        if spared := [grant.id for grant in grants if grant not in alone]:
            log.info("not revoked: another connection may stand on the same account", extra={"grants": spared})
        grants = alone
    return await make_revocations(broker, app, grants, reason=reason, person=person, now=now)


async def make_revocations(
    broker: Broker,
    app: OutboundApp,
    grants: Sequence[Grant],
    *,
    reason: RevocationReason,
    person: str = "",
    now: datetime,
) -> list[Revocation]:
    """Make the rows for grants of which it is decided that they are revoked, if the provider can."""
    if not grants or not can_revoke(broker, app):
        return []
    provider = await provider_client(broker, app)
    rows: list[Revocation] = []
    for grant in grants:
        quirks = quirks_of(broker, app, grant.details)
        column = _token_to_revoke(app, grant, quirks)
        sealed: Sealed | None = getattr(grant, column)
        if sealed is None:
            continue
        try:
            token = await broker.vault.open(token_slot(owner_of(grant), grant.id, column), sealed)
        except CannotOpenSealed:
            # It must be possible to delete what nobody can read any more.
            log.exception("a token cannot be revoked", extra={"grant": grant.id, "app": app.id})
            continue
        row = Revocation(
            project_id=app.project_id,
            id=new_id(),
            grant_id=grant.id,
            app_id=app.id,
            app_name=app.name,
            user_id=grant.user_id,
            tenant_id=grant.tenant_id,
            external_identifier=grant.external_identifier,
            token_sub=grant.token_sub or "",  # of a grant that is gone, less is known
            granted_by=grant.granted_by or "",
            person=person,
            revocation_url=app.revocation_url,
            client_id=app.client_id,
            client_secret=None,
            auth_method=provider.client.auth_method,
            token_type_hint=column,
            quirks=to_json(quirks),
            reason=reason,
            attempts=0,
            next_attempt_at=now,
            created_at=now,
        )
        row.token = await broker.vault.seal(_slot(row, "token"), token)
        if provider.client.client_secret is not None:
            row.client_secret = await broker.vault.seal(_slot(row, "client_secret"), provider.client.client_secret)
        rows.append(row)
    return rows


def _token_to_revoke(app: OutboundApp, grant: Grant, quirks: Quirks) -> str:
    """Return which of a grant's tokens to revoke: the one that the provider's own way takes, else the refresh token.

    With a refresh token, the provider ends the whole consent (RFC 7009 section 2.1).
    """
    if not app.revocation_url and quirks.revocation is not None:
        return quirks.revocation.token
    return "refresh_token" if grant.refresh_token is not None else "access_token"


def claim_at_once(rows: Sequence[Revocation], *, now: datetime) -> list[Revocation]:
    """Claim the rows that are tried at once, before they are written, so that no background refresher takes them."""
    first = list(rows[:FIRST_TRIES])
    for row in first:
        row.attempts, row.next_attempt_at = 1, now + PAUSE[0]
    return first


async def write_and_try(broker: Broker, rows: Sequence[Revocation], *, now: datetime) -> None:
    """Write rows of what was never stored, and make the first tries: without the row where the database takes none.

    Raises:
        UpstreamUnavailable, UpstreamRejected, TimeoutError: there is no row, and the only try has failed.
    """
    first = claim_at_once(rows, now=now)
    try:
        async with broker.database.write() as session:
            session.add_all(rows)
    except Exception:
        log.exception("what is to be revoked cannot be written down, and is tried once")
        for row in rows:
            await _call_revocation(broker, row)
        return
    await try_at_once(broker, first)


async def try_at_once(broker: Broker, rows: Sequence[Revocation]) -> dict[str, RevocationOutcome]:
    """Make the first tries, for a few seconds, and return their outcomes by grant. No transaction is open."""
    tasks = {row.grant_id: asyncio.create_task(attempt_revocation(broker, row)) for row in rows}
    if not tasks:
        return {}
    done, late = await asyncio.wait(tasks.values(), timeout=FIRST_TRY_SECONDS)
    for task in late:
        task.cancel()  # the row is still there, and due in a minute
    await asyncio.gather(*late, return_exceptions=True)
    return {
        grant_id: task.result() if task in done and not task.exception() else RevocationOutcome.PENDING
        for grant_id, task in tasks.items()
    }


async def attempt_revocation(broker: Broker, row: Revocation) -> RevocationOutcome:
    """Make one try of a claimed row, and write its outcome down.

    Raises:
        Unavailable: our database is away; the try is repeated later, which does no harm.
    """
    try:
        await _call_revocation(broker, row)
    except (UpstreamUnavailable, TimeoutError, Unavailable, CannotOpenSealed) as error:
        # What does not open now may open when the master keys are put right: a mistake there must not cost it.
        if row.attempts < MAX_ATTEMPTS:
            return RevocationOutcome.PENDING
        await note_over(broker, row, "token.revocation_failed", error=_words(error))
        return RevocationOutcome.UNSUPPORTED
    except UpstreamRejected as error:
        await note_over(broker, row, "token.revocation_failed", error=_words(error))
        return RevocationOutcome.UNSUPPORTED
    await note_over(broker, row, "token.revoked")
    return RevocationOutcome.REVOKED


async def _call_revocation(broker: Broker, row: Revocation) -> None:
    secret = None
    if row.client_secret is not None:
        secret = await broker.vault.open(_slot(row, "client_secret"), row.client_secret)
    token = await broker.vault.open(_slot(row, "token"), row.token)
    client = ClientRegistration(row.client_id, secret, row.auth_method, name=row.app_name)
    endpoint = broker.revocation_endpoints.at(revocation_address(row.revocation_url, row.quirks))
    async with endpoint.call(name=row.app_name), asyncio.timeout(CALL_SECONDS):
        await revocation.revoke(
            broker.revocation_http,
            ServerMetadata(revocation_endpoint=row.revocation_url),
            client,
            token=token,
            token_type_hint=row.token_type_hint,
            quirks=from_json(row.quirks) if row.quirks else NO_QUIRKS,
        )


async def note_over(broker: Broker, row: Revocation, action: str, *, error: str = "") -> None:
    """Remove a row that is not tried again, and tell the audit log how it ended."""
    data = {"grantId": row.grant_id, "reason": row.reason, "attempts": row.attempts}
    if row.external_identifier:
        data["externalIdentifier"] = row.external_identifier
    if error:
        data["error"] = error
    async with broker.database.write() as session:
        gone = await session.execute(
            delete(Revocation)
            .where(is_revocation(row.project_id, row.id))
            .returning(Revocation.id)
            .execution_options(synchronize_session=False)
        )
        if gone.all():
            kind = GrantEventKind.REVOCATION_FAILED if error else GrantEventKind.REVOKED
            happened = {"error": error} if error else {}
            await record_event(session, row.project_id, row.grant_id, kind, at=clock.now(), data=happened)
            await record(
                session,
                row.project_id,
                action,
                app_id=row.app_id,
                user_id=row.user_id,
                tenant_id=row.tenant_id,
                data=data,
            )


def _words(error: BaseException) -> str:
    return error.message if isinstance(error, EvergrantError) else "The provider does not answer in time."


def is_revocation(project_id: str, revocation_id: str) -> ColumnElement[bool]:
    """Return the condition for one row."""
    return and_(Revocation.project_id == project_id, Revocation.id == revocation_id)


def revocation_address(url: str, quirks: Mapping[str, Any]) -> str:
    """Return what tells the provider's address from others: its endpoint's, or where its own way leads."""
    style = from_json(quirks).revocation if quirks and not url else None
    return style.url if style is not None else url


def _slot(row: Revocation, column: str) -> Slot:
    return slot_in("revocations", row, column)
