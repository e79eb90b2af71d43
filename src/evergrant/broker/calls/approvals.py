"""Approvals: a request that a rule lets be only once its owner has said yes to it, to the byte.

What is kept is a digest over who asks for whom and over everything that goes to the provider. So a yes is for one
request, by one agent, once: it is used up, by one UPDATE, before anything is sent. Asking again for the same shares the
approval that there is; so an agent that repeats itself asks nobody twice.
"""

import hashlib
import json
from collections.abc import Sequence
from datetime import datetime, timedelta
from unicodedata import category

from pydantic import SecretStr
from sqlalchemy import func, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from evergrant.broker.audit.record import record
from evergrant.broker.calls.asked import AskedCall
from evergrant.broker.connect.verification import LOGIN, login_issuer
from evergrant.broker.grants.grants import ResourceOwner
from evergrant.broker.runtime.broker import Broker
from evergrant.broker.runtime.places import slot_in
from evergrant.broker.runtime.principal import Principal
from evergrant.broker.webhooks.outbox import EventType, emit
from evergrant.crypto.opaque import digest, new_id, new_opaque
from evergrant.db import Approval
from evergrant.errors import ApprovalNeeded, ApprovalRefused, InvalidValue, RateLimited, RequestTooLarge
from evergrant.oauth2.hygiene import forwarded, header

PENDING, APPROVED, REFUSED, USED = STATUSES = ("pending", "approved", "refused", "used")
EXPIRED = "expired"
"""What a pending or approved one is once its time is over; no row says so."""
APPROVAL_PATH = "/approve"
LIFETIME = timedelta(minutes=10)
"""How long a request waits for its decision, and an approved one to be made."""
MAX_BODY = 64 * 1024
SHOWN_BODY = 4 * 1024
_SAY_NOTHING = frozenset(
    (
        *(b"accept", b"accept-charset", b"accept-encoding", b"accept-language", b"cache-control", b"content-type"),
        *(b"date", b"dnt", b"idempotency-key", b"pragma", b"priority", b"user-agent", b"x-correlation-id"),
    )
)
_SAY_NOTHING_ENDINGS = (b"-user-agent", b"-telemetry", b"-request-id", b"-invocation-id", b"-retry-count")
_UNSEEN = frozenset({"Cc", "Cf", "Cn", "Co", "Cs", "Zl", "Zp"})
MOST_PENDING = 20
"""So many requests wait for one owner; the next has to wait until one is decided or over."""


async def use_approval(
    broker: Broker,
    principal: Principal,
    asked: AskedCall,
    *,
    owner: ResourceOwner,
    body: bytes,
    rule: str,
    now: datetime,
    connection: str = "",
) -> str:
    """Use up the approval of exactly this request, and return its id. Without one, ask for it.

    `rule` is what wants it approved. `connection` is the external identifier of the connection that the call is made
    with. The one that `asked` names counts where it is not given.

    Raises:
        ApprovalNeeded: it is yet to be decided; `details` has `approvalId`, `approvalUrl` and `expiresAt`.
        ApprovalRefused: it was refused; or the approval that is named is for another request, used or over.
        RequestTooLarge, InvalidValue: nobody could see what they approve: the body is too long, or compressed.
        RateLimited: too many requests wait for this owner.
    """
    if len(body) > MAX_BODY:
        raise RequestTooLarge(
            "A call that its owner approves may have a body of at most 64 KiB: send less, or have a policy allow it."
        )
    if header(asked.headers, b"content-encoding") not in ("", "identity"):
        raise InvalidValue.of(("Content-Encoding", "send the body as it is: nobody can read what they would approve"))
    connection = connection or asked.external_identifier or ""
    if len(shown_headers(asked)) > SHOWN_BODY:
        raise InvalidValue.of(("headers", "send at most 4 KiB of your own: who approves a request sees them all"))
    wanted = _request_digest(principal, asked, owner, connection, body)
    if asked.approval_id and await _use_approved(broker, principal, asked.approval_id, wanted, now=now):
        return asked.approval_id
    found = await _same_asked(broker, principal.project_id, wanted, now=now)
    if asked.approval_id and asked.approval_id not in [one.id for one in found]:
        raise ApprovalRefused(
            "This approval is not for this request, which has to be the same to the byte and from the same agent; "
            "or it was used, or is over. Send it without Evergrant-Approval to ask for another."
        )
    if not found:
        row = await _new_row(broker, principal, asked, owner, connection, body, rule, wanted, now=now)
        found = [await _ask(broker, row[0], row[1], now=now)]
    approval = found[0]
    if approval.status == REFUSED:
        why = f": {approval.decision_reason}" if approval.decision_reason else "."
        raise ApprovalRefused(f"This request was refused{why}", details={"approvalId": approval.id})
    raise await _needed(broker, approval)


async def _needed(broker: Broker, approval: Approval) -> ApprovalNeeded:
    ticket = await broker.vault.open(slot_in("approvals", approval, "ticket"), approval.ticket)
    return ApprovalNeeded(
        details={
            "approvalId": approval.id,
            "approvalUrl": approval_url(broker, ticket.get_secret_value()),
            "expiresAt": str(int(approval.expires_at.timestamp())),
            "rule": approval.reason,
        }
    )


def shown_body(body: bytes) -> str:
    """Return the first 4 KiB of a body for people. What has no look of its own, or turns text round, is a code."""
    return _seen(body[:SHOWN_BODY].decode("utf-8", "backslashreplace").replace("\r\n", "\n"))


def shown_headers(asked: AskedCall) -> str:
    """Return the headers that can say what a request does, in lines: all that go on, but for those that never do.

    SDKs write the others anew for each request: by which program, in which attempt, with which answer in mind.
    """
    lines = sorted(
        (name.decode("ascii"), value.decode())
        for name, value in forwarded(asked.headers)
        if name not in _SAY_NOTHING and not name.endswith(_SAY_NOTHING_ENDINGS)
    )
    return "\n".join(f"{name}: {value}" for name, value in lines)


def _seen(text: str) -> str:
    return "".join(
        letter if letter in "\n\t" or category(letter) not in _UNSEEN else f"\\u{ord(letter):04x}" for letter in text
    )


def approval_url(broker: Broker, ticket: str) -> str:
    """Return the link to the page on which the owner decides."""
    return f"{broker.settings.public_url}{APPROVAL_PATH}/{ticket}"


def status_of(approval: Approval, *, now: datetime) -> str:
    """Return an approval's status, `expired` among them."""
    is_over = approval.status in (PENDING, APPROVED) and approval.expires_at <= now
    return EXPIRED if is_over else approval.status


def _request_digest(
    principal: Principal, asked: AskedCall, owner: ResourceOwner, connection: str, body: bytes
) -> bytes:
    said = [
        *(owner.user_id, owner.tenant_id, principal.name, principal.agent, asked.app_id, connection),
        *(asked.method, asked.base, asked.path, asked.query, header(asked.headers, b"content-type")),
        hashlib.sha256(body).hexdigest(),
        shown_headers(asked),
    ]
    return digest(json.dumps(said, separators=(",", ":")))


async def _use_approved(
    broker: Broker, principal: Principal, approval_id: str, wanted: bytes, *, now: datetime
) -> bool:
    statement = (
        update(Approval)
        .where(
            Approval.project_id == principal.project_id,
            Approval.id == approval_id,
            Approval.request_digest == wanted,
            Approval.status == APPROVED,
            Approval.expires_at > now,
        )
        .values(status=USED, used_at=now)
        .returning(Approval)
        .execution_options(synchronize_session=False)
    )
    async with broker.database.write() as session:
        used = (await session.execute(statement)).scalar_one_or_none()
        if used is not None:
            await record_approval(session, used, "approval.used")
    return used is not None


async def _same_asked(broker: Broker, project_id: str, wanted: bytes, *, now: datetime) -> Sequence[Approval]:
    async with broker.database.read() as session:
        return await _find_alike(session, project_id, wanted, now=now)


async def _find_alike(session: AsyncSession, project_id: str, wanted: bytes, *, now: datetime) -> Sequence[Approval]:
    """Return what was asked of the very same request and is not over, the newest first."""
    query = select(Approval).where(
        Approval.project_id == project_id,
        Approval.request_digest == wanted,
        Approval.status.in_((PENDING, APPROVED, REFUSED)),
        Approval.expires_at > now,
    )
    return (await session.scalars(query.order_by(Approval.created_at.desc(), Approval.id))).all()


async def _new_row(
    broker: Broker,
    principal: Principal,
    asked: AskedCall,
    owner: ResourceOwner,
    connection: str,
    body: bytes,
    rule: str,
    wanted: bytes,
    *,
    now: datetime,
) -> tuple[Approval, str]:
    """Return a row to be written, and its ticket."""
    ticket, limits = new_opaque(), principal.session
    issuer = await login_issuer(broker, principal) if owner.user_id else None
    row = Approval(
        project_id=principal.project_id,
        id=new_id(22),
        ticket_digest=digest(ticket),
        request_digest=wanted,
        app_id=asked.app_id,
        user_id=owner.user_id,
        tenant_id=owner.tenant_id,
        external_identifier=connection,
        agent_id=principal.agent[:255],
        agent_name=(limits.agent_name if limits else "")[:200],
        session_id=limits.id if limits else "",
        actor=principal.name[:300],
        method=asked.method,
        base=asked.base,
        content_type=header(asked.headers, b"content-type")[:200],
        body_bytes=len(body),
        reason=rule,
        status=PENDING,
        verify=LOGIN if issuer else "",
        login_issuer_id=issuer.id if issuer else "",
        created_at=now,
        expires_at=now + LIFETIME,
    )
    sealer = await broker.vault.reserve(principal.project_id, seals=3)
    target = f"{asked.path}?{asked.query}" if asked.query else asked.path
    row.ticket = sealer.seal(slot_in("approvals", row, "ticket"), SecretStr(ticket))
    row.target = sealer.seal(slot_in("approvals", row, "target"), SecretStr(target))
    if shown := "\n\n".join(part for part in (_seen(shown_headers(asked)), shown_body(body)) if part):
        row.body = sealer.seal(slot_in("approvals", row, "body"), SecretStr(shown))
    return row, ticket


async def _ask(broker: Broker, row: Approval, ticket: str, *, now: datetime) -> Approval:
    """Write a request down, tell of it, and return it; or the one that somebody else has written meanwhile."""
    whose = (
        Approval.project_id == row.project_id,
        Approval.user_id == row.user_id,
        Approval.tenant_id == row.tenant_id,
    )
    waiting = select(func.count(), func.min(Approval.expires_at)).where(
        *whose, Approval.status == PENDING, Approval.expires_at > now
    )
    async with broker.database.write() as session:
        if session.get_bind().dialect.name == "postgresql":  # SQLite has one writer
            place = func.hashtextextended(f"evergrant approvals {row.project_id} {row.user_id} {row.tenant_id}", 0)
            await session.execute(select(func.pg_advisory_xact_lock(place)))
        if found := await _find_alike(session, row.project_id, row.request_digest, now=now):
            return found[0]
        count, first_ends = (await session.execute(waiting)).one()
        if count >= MOST_PENDING:
            raise RateLimited(limit=MOST_PENDING, wait_seconds=(first_ends - now).total_seconds())
        session.add(row)
        await session.flush()
        await emit(session, row.project_id, EventType.APPROVAL_REQUESTED, _event(broker, row, ticket))
        await record_approval(session, row, "approval.requested")
        return row


def _event(broker: Broker, row: Approval, ticket: str) -> dict[str, str]:
    return {
        "approvalId": row.id,
        "appId": row.app_id,
        "userId": row.user_id,
        "tenantId": row.tenant_id,
        "agentId": row.agent_id,
        "sessionId": row.session_id,
        "approvalUrl": approval_url(broker, ticket),
    }


async def record_approval(session: AsyncSession, row: Approval, action: str, **more: str) -> None:
    """Append an audit record about an approval, as the last statement of the caller's transaction."""
    data = {"id": row.id, "method": row.method, "agentId": row.agent_id, "rule": row.reason}
    await record(
        session,
        row.project_id,
        action,
        app_id=row.app_id,
        user_id=row.user_id,
        tenant_id=row.tenant_id,
        data={name: value for name, value in {**data, **more}.items() if value},
    )
