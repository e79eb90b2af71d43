"""A call of a provider's API with somebody's connection, by whoever never sees its token: the one use case.

The proxy and the MCP server make calls this way, and in no other: checks first, cheapest and strictest ones before all
others; then the credential; then the call, written into the log however it ends.
"""

import re
from datetime import datetime
from itertools import chain

from evergrant.broker.access.agent_sessions import count_call
from evergrant.broker.access.policies import call_policies, may_have_tokens
from evergrant.broker.audit.record import actor, record
from evergrant.broker.calls.approvals import use_approval
from evergrant.broker.calls.asked import AskedCall
from evergrant.broker.calls.bases import api_of
from evergrant.broker.calls.call_log import write_ahead
from evergrant.broker.calls.call_rules import Requested, is_read, verdict
from evergrant.broker.calls.connections import (
    Ready,
    WantedConnection,
    find_connection,
    open_credential,
    wanted_connection,
    with_usable_token,
)
from evergrant.broker.calls.outgoing import PreparedCall, read_body
from evergrant.broker.calls.under_way import CallUnderWay
from evergrant.broker.connect.agent_links import connect_link
from evergrant.broker.runtime.admission import TENANT, USER
from evergrant.broker.runtime.broker import Broker
from evergrant.broker.runtime.path_globs import method_problem
from evergrant.broker.runtime.principal import Permission, Principal
from evergrant.broker.runtime.unwritten_calls import Call
from evergrant.errors import (
    AppNotFound,
    EvergrantError,
    InvalidValue,
    NotConnected,
    PermissionDenied,
    RequestTooLarge,
)
from evergrant.oauth2.hygiene import body_override_problem, header, override_problem, path_problem, readings

MOST_FIELDS = 100
MOST_HEAD_BYTES = 64 * 1024
_QUERY = re.compile(r"[!-\"$-~]*")
"""What a request line can hold (RFC 9112 section 3): no spaces, and no fragment."""


def call(broker: Broker, principal: Principal, asked: AskedCall, *, now: datetime) -> CallUnderWay:
    """Return a call for an `async with`, which makes it and gives its answer while the block lasts.

    Who leaves the block early closes the connection.

    Raises:
        PermissionDenied: the credential, its session, a policy or the app forbids it; `details.rule` says what.
        AppNotFound, NoApiAddress: there is no such app, or nobody knows where its API is.
        NotConnected, SeveralConnections: no connection answers, or more than one could.
        ApprovalNeeded, ApprovalRefused, CallsUsedUp: the owner, or the session, does not let it be.
        InvalidValue, RequestTooLarge, RateLimited: the request itself, or how many there are.
        UpstreamUnavailable: nothing was sent. AnswerLost: it was, and no answer came. UpstreamRejected: an answer that
            nobody can use, or an address that may not be called.
        BrokenOff: from the answer's body, where it has no proper end.
    """
    entry = Call.begun(
        principal,
        kind="call" if asked.via == "proxy" else "mcp",
        at=now,
        app_id=asked.app_id,
        remote_address=actor.get().remote_address,
        method=asked.method,
        base=asked.base,
        path=asked.path,
    )

    async def prepare(under_way: CallUnderWay) -> PreparedCall:
        _check_request(asked)
        wanted = _permitted(principal, asked)
        under_way.begin(wanted.owner)
        return await _prepared(broker, principal, asked, wanted, entry, now=now)

    return CallUnderWay(broker, principal, entry, prepare)


def _permitted(principal: Principal, asked: AskedCall) -> WantedConnection:
    """Check what the credential alone tells, and say whose connection is wanted."""
    principal.require_app(asked.app_id)
    wanted = wanted_connection(
        principal,
        asked.app_id,
        owner=asked.owner,
        external_identifier=asked.external_identifier,
        scopes=asked.scopes,
    )
    owner = wanted.owner
    principal.require_for(Permission.CALLS, user_id=owner.user_id, tenant_id=owner.tenant_id)
    return wanted


async def _prepared(
    broker: Broker,
    principal: Principal,
    asked: AskedCall,
    wanted: WantedConnection,
    entry: Call,
    *,
    now: datetime,
) -> PreparedCall:
    """Check everything, and return the call as it may be made. What is used up by a call is used up here, last."""
    api = await api_of(broker, principal.project_id, asked.app_id)
    if api.app.tenant_id and api.app.tenant_id != wanted.owner.tenant_id:
        raise AppNotFound  # for this owner there is none
    api.require_base(asked.base)
    requested = Requested(
        app_id=asked.app_id,
        method=asked.method,
        paths=readings(asked.path),
        via=asked.via,
        level=USER if wanted.owner.user_id else TENANT,
        query=asked.query,
    )
    policies = await call_policies(broker, principal, asked.app_id)
    said = verdict(policies, principal, requested, forbidden=api.api.forbidden, safe=api.api.safe)
    entry.policy = said.rule
    if said.effect == "deny":
        await deny(broker, principal, entry)
    owner = wanted.owner
    whose = (principal.project_id, wanted.app_id, owner.user_id, owner.tenant_id)
    key = (*whose, wanted.external_identifier, wanted.scopes, asked.base)
    mark = broker.ready_connections.mark()
    ready: Ready | None = broker.ready_connections.get(key)
    try:
        view = ready.view if ready is not None else await find_connection(broker, principal, wanted)
        body = await read_body(asked, most=broker.settings.call_most_bytes)
        if problem := body_override_problem(header(asked.headers, b"content-type"), body.first):
            raise InvalidValue.of(("body", problem))
        view = await with_usable_token(broker, principal, wanted, view, now=now)
    except NotConnected as error:
        if asked.begin_connect:
            await _begin_connect(broker, principal, wanted, error, now=now)
        raise
    entry.grant_id = view.id
    if ready is None or ready.view is not view or ready.api is not api:
        credential = await open_credential(broker, principal.project_id, api, view, base_name=asked.base)
        ready = Ready(api, view, credential)
        broker.ready_connections.put(key, ready, read_since=mark)
    credential = ready.credential
    if credential.base.is_own_endpoint(requested.paths):
        entry.policy = "forbidden"
        await deny(broker, principal, entry)
    if said.effect == "approve":
        if not body.is_replayable:
            raise RequestTooLarge("A call that its owner approves may have a body of at most 64 KiB.")
        entry.approval_id = await use_approval(
            broker,
            principal,
            asked,
            owner=wanted.owner,
            body=body.first,
            rule=said.rule,
            connection=view.external_identifier,
            now=now,
        )
    await count_call(broker, principal)
    broker.uses.note_grant((principal.project_id, view.id), at=now)
    reads = is_read(requested, api.api.safe)
    if not reads:
        await write_ahead(broker, entry)
    return PreparedCall(
        broker=broker,
        principal=principal,
        asked=asked,
        api=api,
        wanted=wanted,
        view=view,
        credential=credential,
        body=body,
        is_read=reads,
        entry=entry,
        may_have_token=await may_have_tokens(broker, principal, asked.app_id),
    )


def _check_request(asked: AskedCall) -> None:
    """Check what no API is asked with, because it would go round rules or be read in two ways.

    Raises:
        InvalidValue: naming what.
    """
    problems = []
    if problem := method_problem(asked.method):
        problems.append(("method", problem))
    if problem := path_problem(asked.path):
        problems.append(("path", problem))
    if not _QUERY.fullmatch(asked.query):
        problems.append(("query", "write what is no plain ASCII with percent signs, and no # and spaces"))
    if problem := override_problem(asked.headers, asked.query):
        problems.append(("headers", problem))
    if len(asked.headers) > MOST_FIELDS or sum(map(len, chain.from_iterable(asked.headers))) > MOST_HEAD_BYTES:
        problems.append(("headers", f"send at most {MOST_FIELDS} fields, and 64 KiB of them"))
    if problems:
        raise InvalidValue.of(*problems)


async def deny(broker: Broker, principal: Principal, entry: Call, why: str = "") -> None:
    """Refuse a call by the rule that it has, and tell the audit log, once a minute of who was denied what.

    `why` is the message, where the usual one does not say it.

    Raises:
        PermissionDenied: always.
    """
    rule = entry.policy
    if broker.limits.denials.allows((principal.project_id, principal.name, entry.app_id, "call", rule)):
        async with broker.database.write() as session:
            await record(
                session,
                principal.project_id,
                "call.denied",
                app_id=entry.app_id,
                user_id=entry.user_id,
                tenant_id=entry.tenant_id,
                data={"rule": rule, "method": entry.method, "base": entry.base, "agentId": principal.agent},
            )
    usual = {
        "session": "This session does not let it make this call.",
        "forbidden": "Nobody makes this call by way of evergrant: it hands out credentials.",
        "policies": "No access policy of this app allows this call.",
    }.get(rule, "An access policy of this app forbids this call.")
    raise PermissionDenied(why or usual, details={"rule": rule})


async def _begin_connect(
    broker: Broker, principal: Principal, wanted: WantedConnection, error: NotConnected, *, now: datetime
) -> None:
    """Begin a trip that would mend this, and add its link to the error; or why the caller may not begin one."""
    try:
        link = await connect_link(
            broker,
            principal,
            app_id=wanted.app_id,
            owner=wanted.owner,
            scopes=wanted.scopes,
            external_identifier=wanted.external_identifier or "",
            now=now,
        )
    except EvergrantError as refusal:
        error.details["connectProblem"] = refusal.message
    else:
        error.details["connectUrl"] = link.url
