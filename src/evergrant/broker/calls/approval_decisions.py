"""What becomes of approvals: who sees them, who decides, and when they go."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, and_, delete, or_, select, update

from evergrant.broker.calls.approvals import (
    APPROVED,
    EXPIRED,
    LIFETIME,
    PENDING,
    REFUSED,
    STATUSES,
    record_approval,
    status_of,
)
from evergrant.broker.connect.verification import LOGIN, ProofWanted
from evergrant.broker.runtime.broker import Broker
from evergrant.broker.runtime.list_places import Place
from evergrant.broker.runtime.places import slot_in
from evergrant.broker.runtime.principal import Principal
from evergrant.crypto.opaque import digest
from evergrant.db import Approval
from evergrant.errors import ChangedMeanwhile, InvalidValue, NotFound, PermissionDenied

KEPT = timedelta(days=30)
"""How long what was decided can be looked up. The audit log has it for longer."""
MAX_REASON = 500
NO_SUCH = "There is no such approval, or not any more."


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenedApproval:
    """An approval with what it is about, for whoever decides."""

    row: Approval
    status: str
    target: str = field(repr=False)
    """Path and query."""
    body: str = field(repr=False)
    """Headers, and the first 4 KiB of the body; what cannot be seen stands as a code."""


@dataclass(frozen=True, kw_only=True)
class ApprovalFilter:
    """Which approvals; an empty field does not limit."""

    status: str = ""
    user_id: str = ""


async def list_approvals(
    broker: Broker,
    principal: Principal,
    which: ApprovalFilter,
    *,
    after: Place | None = None,
    limit: int,
    now: datetime,
) -> tuple[Sequence[Approval], Place | None]:
    """Return a page of approvals, newest first, and where the next one goes on; None on the last.

    What they are about stays sealed: see `load_approval`. A key that is limited to some apps sees those.

    Raises:
        InvalidValue: there is no such status.
    """
    query = select(Approval).where(Approval.project_id == principal.project_id)
    if which.status:
        query = query.where(_has_status(which.status, now))
    if which.user_id:
        query = query.where(Approval.user_id == which.user_id)
    if principal.app_ids:
        query = query.where(Approval.app_id.in_(sorted(principal.app_ids)))
    if after is not None:
        query = query.where(after.older(Approval.created_at, Approval.id))
    query = query.order_by(Approval.created_at.desc(), Approval.id.desc()).limit(limit + 1)
    async with broker.database.read() as session:
        rows = (await session.scalars(query)).all()
    return rows[:limit], Place(rows[limit - 1].created_at, rows[limit - 1].id) if len(rows) > limit else None


def _has_status(status: str, now: datetime) -> ColumnElement[bool]:
    is_open = Approval.status.in_((PENDING, APPROVED))
    if status == EXPIRED:
        return and_(is_open, Approval.expires_at <= now)
    if status not in STATUSES:
        raise InvalidValue.of(("status", f"use {', '.join(STATUSES)} or {EXPIRED}"))
    return and_(Approval.status == status, or_(~is_open, Approval.expires_at > now))


async def load_approval(broker: Broker, principal: Principal, approval_id: str, *, now: datetime) -> OpenedApproval:
    """Return an approval, opened.

    Raises:
        NotFound: there is none.
        PermissionDenied: the key is limited to other apps.
    """
    return await open_approval(broker, await _approval_for(broker, principal, approval_id), now=now)


async def _approval_for(broker: Broker, principal: Principal, approval_id: str) -> Approval:
    async with broker.database.read() as session:
        row = await session.get(Approval, (principal.project_id, approval_id))
    if row is None:
        raise NotFound(NO_SUCH)
    principal.require_app(row.app_id)
    return row


async def find_approval(broker: Broker, ticket: str) -> Approval:
    """Return the approval that a link stands for.

    Raises:
        NotFound: the link is of none.
    """
    async with broker.database.read() as session:
        query = select(Approval).where(Approval.ticket_digest == digest(ticket))
        row = (await session.execute(query)).scalar_one_or_none()
    if row is None:
        raise NotFound(NO_SUCH)
    return row


async def open_approval(broker: Broker, row: Approval, *, now: datetime) -> OpenedApproval:
    """Open what an approval is about."""
    target = await broker.vault.open(slot_in("approvals", row, "target"), row.target)
    body = await broker.vault.open(slot_in("approvals", row, "body"), row.body) if row.body else None
    return OpenedApproval(
        row=row,
        status=status_of(row, now=now),
        target=target.get_secret_value(),
        body=body.get_secret_value() if body else "",
    )


def proof_of_approval(broker: Broker, row: Approval) -> ProofWanted | None:
    """Return what a browser has to prove before it sees and decides; None where only the application can decide."""
    if row.verify != LOGIN:
        return None
    return ProofWanted(
        project_id=row.project_id,
        purpose="approval",
        subject_id=row.id,
        app_id=row.app_id,
        issuer_id=row.login_issuer_id,
        user_id=row.user_id,
        origin=broker.settings.public_url,
    )


async def decide_for_owner(
    broker: Broker, principal: Principal, approval_id: str, *, approve: bool, reason: str = "", now: datetime
) -> Approval:
    """Decide in the owner's place: the application's backend, or an operator.

    Raises:
        NotFound: there is no such approval.
        PermissionDenied: the key is limited to other apps, or has asked for it itself.
        ChangedMeanwhile: it was decided, or is over.
    """
    row = await _approval_for(broker, principal, approval_id)
    if row.actor == principal.name:
        raise PermissionDenied("This key has asked for it itself: another key, the owner or an operator decides.")
    return await decide(broker, row, approve=approve, reason=reason, by=principal.name, now=now)


async def decide(broker: Broker, row: Approval, *, approve: bool, reason: str, by: str, now: datetime) -> Approval:
    """Approve or refuse a request, once. `by` is who decides, as the audit log writes it.

    Raises:
        ChangedMeanwhile: it was decided, or is over.
    """
    values = {"status": APPROVED if approve else REFUSED, "decided_at": now, "decided_by": by[:300]}
    statement = (
        update(Approval)
        .where(
            Approval.project_id == row.project_id,
            Approval.id == row.id,
            Approval.status == PENDING,
            Approval.expires_at > now,
        )
        .values(**values, decision_reason=reason[:MAX_REASON], expires_at=now + LIFETIME)
        .returning(Approval)
        .execution_options(synchronize_session=False)
    )
    async with broker.database.write() as session:
        decided = (await session.execute(statement)).scalar_one_or_none()
        if decided is None:
            raise ChangedMeanwhile("This request was decided already, or has waited for more than 10 minutes.")
        action = "approval.approved" if approve else "approval.refused"
        await record_approval(session, decided, action, decidedBy=by, reason=reason[:MAX_REASON])
    return decided


async def clear_old_approvals(broker: Broker, *, now: datetime) -> int:
    """Delete approvals that have been over for 30 days, and return how many."""
    async with broker.database.write() as session:
        gone = await session.execute(
            delete(Approval).where(Approval.expires_at <= now - KEPT).execution_options(synchronize_session=False)
        )
        return int(getattr(gone, "rowcount", 0))
