"""Agent sessions over HTTP: minting, listing and revoking them."""

from datetime import timedelta
from typing import Annotated, Literal

from fastapi import Query

from evergrant import clock
from evergrant.broker.access import session_list
from evergrant.broker.access.session_list import SessionFilter
from evergrant.broker.access.session_minting import SessionRequest, mint_session
from evergrant.broker.grants.grants import ResourceOwner
from evergrant.broker.runtime.list_places import Place
from evergrant.errors import InvalidValue
from evergrant.web.api.session_wire import (
    EXAMPLE_ID,
    CreateSession,
    NewSessionAnswer,
    SessionId,
    SessionsAnswer,
    new_session,
    session_body,
)
from evergrant.web.api.wire import AppId, OptionalId, OwnerId, StrictWireModel, Text, WireModel, errors, example
from evergrant.web.deps import BrokerDep, SessionsKeeper
from evergrant.web.routing import ApiRouter

router = ApiRouter(prefix="/v1/mgmt/outbound", tags=["agent sessions"])


class RevokeSessions(StrictWireModel):
    """Which sessions to end: one, or all of a user, of an agent, or with an app. Give one of these."""

    model_config = example({"id": EXAMPLE_ID})

    id: SessionId | None = None
    user_id: OwnerId | None = None
    agent_id: OwnerId | None = None
    app_id: AppId | None = None


class RevokedSessionsAnswer(WireModel):
    """How many sessions were ended."""

    model_config = example({"total": 1})

    total: int


@router.post("/session/create", summary="Mint an agent session", responses=errors(400, 413))
async def create_agent_session(body: CreateSession, broker: BrokerDep, principal: SessionsKeeper) -> NewSessionAnswer:
    """Make a session, which can do no more than the key that asks. Its own key is in the answer and never again."""
    wanted = SessionRequest(
        owner=ResourceOwner(body.user_id, body.tenant_id),
        apps=[app.read() for app in body.apps],
        agent_id=body.agent.id,
        agent_name=body.agent.name,
        connect=body.connect,
        fetch=body.fetch,
        lives=timedelta(seconds=body.ttl_seconds),
        max_calls=body.max_calls,
        allowed_cidrs=body.permitted_ips,
        elicitation=body.elicitation,
        labels=body.labels,
    )
    made = await mint_session(broker, principal.project_id, wanted, maker=principal, now=clock.now())
    return NewSessionAnswer(session=new_session(made.row, broker.settings.public_url), key=made.key)


@router.get("/sessions", summary="List agent sessions", responses=errors(400))
async def list_agent_sessions(
    broker: BrokerDep,
    principal: SessionsKeeper,
    user_id: Annotated[OptionalId, Query(alias="userId", description="Of this user.", examples=["alice"])] = "",
    agent_id: Annotated[
        OptionalId, Query(alias="agentId", description="Of this agent.", examples=["mail-helper"])
    ] = "",
    status: Annotated[
        Literal["", "active", "expired", "revoked"], Query(description="In this state.", examples=["active"])
    ] = "",
    cursor: Annotated[
        Text,
        Query(max_length=64, description="`nextCursor` of the page before.", examples=[f"60f4a1b2c3d4e.{EXAMPLE_ID}"]),
    ] = "",
    limit: Annotated[int, Query(ge=1, le=200, description="How many at most.", examples=[50])] = 50,
) -> SessionsAnswer:
    """Return sessions, the latest first. Those that are over stay for 30 days.

    A key that is limited to some apps sees the sessions for these alone, so a page can be shorter than `limit`.
    """
    which, now = SessionFilter(user_id=user_id, agent_id=agent_id, status=status), clock.now()
    after = Place.parse(cursor, field="cursor")
    page, following = await session_list.list_agent_sessions(
        broker, principal.project_id, which, reader=principal, after=after, limit=limit, now=now
    )
    return SessionsAnswer(sessions=[session_body(row, now=now) for row in page], next_cursor=str(following or ""))


@router.post("/session/revoke", summary="Revoke agent sessions", responses=errors(400, 404, 413))
async def revoke_agent_sessions(
    body: RevokeSessions, broker: BrokerDep, principal: SessionsKeeper
) -> RevokedSessionsAnswer:
    """End sessions within 2 seconds everywhere, and their open streams. What is over already is not counted."""
    given = [value for value in (body.id, body.user_id, body.agent_id, body.app_id) if value]
    if len(given) != 1:
        raise InvalidValue.of(("id", "give one of id, userId, agentId, appId"))
    which = SessionFilter(
        session_id=body.id or "", user_id=body.user_id or "", agent_id=body.agent_id or "", app_id=body.app_id or ""
    )
    total = await session_list.revoke_agent_sessions(
        broker, principal.project_id, which, principal=principal, now=clock.now()
    )
    return RevokedSessionsAnswer(total=total)
