"""An agent session for a user's own token and its agent's (RFC 8693): the user mints for itself, and for this agent."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from evergrant.broker.access.session_minting import DEFAULT_SECONDS, MintedSession, SessionRequest, mint_session
from evergrant.broker.access.user_tokens import ActorToken
from evergrant.broker.grants.grants import ResourceOwner
from evergrant.broker.runtime.agent_limits import SessionApp
from evergrant.broker.runtime.broker import Broker
from evergrant.broker.runtime.principal import Principal
from evergrant.errors import InvalidValue, PermissionDenied


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionExchange:
    """What is asked for, besides the two tokens."""

    apps: Sequence[SessionApp]
    tenant_id: str = ""
    """The user's connections within this tenant; or which tenant, where a machine's token names several."""
    connect: bool = False
    fetch: bool = False


async def exchange_for_session(
    broker: Broker, principal: Principal, actor: ActorToken, wanted: SessionExchange, *, now: datetime
) -> MintedSession:
    """Mint a session for the subject of a token. It ends with the first of the two tokens, if not before.

    Raises:
        PermissionDenied: the subject's token lacks a scope, is not for this tenant, or names another actor (`may_act`).
        InvalidValue: an app cannot be used so; nothing is written.
    """
    _require_may_act(principal, actor)
    request = SessionRequest(
        owner=owner_of_token(principal, wanted.tenant_id),
        apps=wanted.apps,
        agent_id=actor.agent_id,
        act=(actor.agent_id, *principal.act),
        connect=wanted.connect,
        fetch=wanted.fetch,
        lives=min(timedelta(seconds=DEFAULT_SECONDS), actor.expires_at - now),
    )
    return await mint_session(broker, principal.project_id, request, maker=principal, now=now)


def owner_of_token(principal: Principal, tenant_id: str) -> ResourceOwner:
    """Return whose connections a token is for. `tenant_id` says within which tenant; empty for none.

    Raises:
        InvalidValue: a machine's token names several tenants, and which is not said.
    """
    if not principal.user_id and not tenant_id:
        if len(principal.tenant_ids) != 1:
            raise InvalidValue.of(("tenant_id", "the token names several tenants; say which"))
        (tenant_id,) = principal.tenant_ids
    return ResourceOwner(principal.user_id, tenant_id)


def _require_may_act(principal: Principal, actor: ActorToken) -> None:
    """Check that a token which says who may act for its subject (RFC 8693 section 4.4) says so of this actor."""
    may_act = (principal.claims or {}).get("may_act")
    if may_act is None:
        return
    named = may_act if isinstance(may_act, Mapping) else {}
    if named.get("sub") != actor.agent_id or named.get("iss", actor.issuer) != actor.issuer:
        raise PermissionDenied("The subject_token names another actor (may_act).")
