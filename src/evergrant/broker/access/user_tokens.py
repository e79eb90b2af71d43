"""Users who authenticate themselves, with a JWT of an issuer that their project trusts (RFC 7519, RFC 9068)."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypeGuard

from sqlalchemy import select

from evergrant.broker.projects.projects import closed_projects
from evergrant.broker.runtime.broker import Broker
from evergrant.broker.runtime.principal import CALL_SCOPE, FETCH_SCOPE, Permission, Principal
from evergrant.db import TrustedIssuer
from evergrant.errors import AuthenticationFailed, EvergrantError, UpstreamUnavailable
from evergrant.oauth2.signed_token import InvalidToken, check_parties, key_id_of, unverified_claims, verified_claims

_MAX_TOKEN_LENGTH = 16_384
"""Longer ones are not even looked at."""
_MAX_ID_LENGTH = 255
_MAX_ACTORS = 10
_MAX_CANDIDATES = 4
"""So many projects are tried at most, where the caller does not say which."""
_KEYS_SECONDS = 3.0
"""How long each of several may take to bring its issuer's keys."""
_MAX_AUDIENCES = 32
"""Of a token, where the caller does not say which project."""
_SEVERAL = "its issuer is trusted by several projects; say which: Bearer <PROJECT_ID>:<JWT>"
_NONE = "no project that trusts its issuer accepts it"
_MACHINES_GRANTS = ("client-credentials", "client_credentials")


def looks_like_jwt(credential: str) -> bool:
    """Tell whether a credential has the form of a signed JWT: three parts, the first a JSON object in Base64."""
    return credential.startswith("ey") and credential.count(".") == 2 and len(credential) <= _MAX_TOKEN_LENGTH


async def authenticate_user(
    broker: Broker, project_id: str, token: str, *, network: str, now: datetime, resource: str = ""
) -> Principal:
    """Validate a user's JWT. Without a project, exactly one must accept it: by its audience, and its issuer's keys.

    A project accepts a token by what it trusts itself. What others trust neither helps nor hinders it. `network` is
    where the caller is, as limits count: at its limit, look-ups wait for each other. `resource` is the address that the
    project's user calls (RFC 8707): a token for it is good there beside one for the issuer's audience.

    Raises:
        AuthenticationFailed: the token must not be believed; the message says why, and holds nothing of the token.
        UpstreamUnavailable: the issuer's keys cannot be read right now.
    """
    try:
        unverified = unverified_claims(token)
        async with broker.limits.credentials.turn(network):  # not the keys too: a slow issuer would keep the turn
            found = await _trusted(broker, project_id, unverified)
        if len(found) == 1:
            return await _verified_by(broker, found[0], token, resource if project_id else "", now=now)
        return await _the_one(broker, found, token, now=now)
    except InvalidToken as error:
        raise AuthenticationFailed(f"This token is not accepted: {error}.") from None


async def _trusted(broker: Broker, project_id: str, unverified: Mapping[str, Any]) -> Sequence[TrustedIssuer]:
    """Return the issuers that may have made a token, by what it says: at least one, and few."""
    issuer, audience = unverified.get("iss"), unverified.get("aud")
    if not isinstance(issuer, str) or "\x00" in issuer or not issuer.isprintable():
        raise InvalidToken("it names no issuer")
    is_open = TrustedIssuer.project_id.not_in(closed_projects())
    query = select(TrustedIssuer).where(TrustedIssuer.issuer == issuer, is_open)
    if project_id:
        query = query.where(TrustedIssuer.project_id == project_id)
    else:
        # The one query across projects: here the issuer is what says which project it is.
        audiences = audience[:_MAX_AUDIENCES] if isinstance(audience, list) else [audience]
        printable = [one for one in audiences if isinstance(one, str) and one.isprintable()]
        query = query.where(TrustedIssuer.audience.in_(printable)).limit(_MAX_CANDIDATES + 1)
    async with broker.database.read() as session:
        found = list(await session.scalars(query))
    if not found:
        raise InvalidToken("its issuer is not trusted here" + ("" if project_id else ", or not for its audience"))
    if len(found) > _MAX_CANDIDATES:
        raise InvalidToken(_SEVERAL)
    return found


async def _verified_by(
    broker: Broker, trusted: TrustedIssuer, token: str, resource: str, *, now: datetime
) -> Principal:
    """Do the same as `_verified`, and count what comes of it."""
    try:
        principal = await _verified(broker, trusted, token, resource, now=now)
    except InvalidToken:
        broker.activity.note(trusted.project_id, "", f"issuer:{trusted.id}:refused")
        raise
    broker.activity.note_issuer(trusted.project_id, trusted.id, key_id_of(token), at=now)
    return principal


async def _verified(
    broker: Broker, trusted: TrustedIssuer, token: str, resource: str = "", *, now: datetime
) -> Principal:
    claims = await verified_claims(broker.http, trusted.jwks_url, token, now=now)
    return principal_by(trusted, claims, resource=resource)


async def _the_one(broker: Broker, found: Sequence[TrustedIssuer], token: str, *, now: datetime) -> Principal:
    """Return whom a token identifies in the only one of these projects that accepts it.

    Each has its own word about where the keys are, so one that leads nowhere must neither stop nor delay the others.
    """

    async def attempt(trusted: TrustedIssuer) -> Principal | InvalidToken | EvergrantError:
        try:
            async with asyncio.timeout(_KEYS_SECONDS):
                return await _verified(broker, trusted, token, now=now)
        except TimeoutError:
            return UpstreamUnavailable("The issuer's keys cannot be read right now.")
        except (InvalidToken, EvergrantError) as error:
            return error

    outcomes = await asyncio.gather(*(attempt(trusted) for trusted in found))
    accepted = [outcome for outcome in outcomes if isinstance(outcome, Principal)]
    if len(accepted) > 1:
        raise InvalidToken(_SEVERAL)
    if accepted:
        trusted = next(one for one in found if one.project_id == accepted[0].project_id)
        broker.activity.note_issuer(trusted.project_id, trusted.id, key_id_of(token), at=now)
        return accepted[0]
    # One that is away may be the right one, for which the caller should wait.
    raise next((one for one in outcomes if isinstance(one, UpstreamUnavailable)), InvalidToken(_NONE))


@dataclass(frozen=True, slots=True)
class ActorToken:
    """An agent's own token, validated: who it is, and until when that holds."""

    issuer: str
    agent_id: str
    expires_at: datetime


async def authenticate_actor(broker: Broker, project_id: str, token: str, *, network: str, now: datetime) -> ActorToken:
    """Validate the token of an agent that shall act for a user (RFC 8693 section 2.1).

    `network` is as for `authenticate_user`.

    Raises:
        AuthenticationFailed: it must not be believed, it names nobody, or somebody else acts in it.
        UpstreamUnavailable: the issuer's keys cannot be read right now.
    """
    try:
        return await _actor_of(broker, project_id, token, network=network, now=now)
    except InvalidToken as error:
        broker.limits.credentials.take(network)
        raise AuthenticationFailed(f"The actor_token is not accepted: {error}.") from None


async def _actor_of(broker: Broker, project_id: str, token: str, *, network: str, now: datetime) -> ActorToken:
    if not looks_like_jwt(token):
        raise InvalidToken("it is not a JWT")
    async with broker.limits.credentials.turn(network):
        (trusted,) = await _trusted(broker, project_id, unverified_claims(token))
    claims = await verified_claims(broker.http, trusted.jwks_url, token, now=now)
    check_parties(claims, issuer=trusted.issuer, audience=trusted.audience, recipient="audience")
    agent = claims.get("sub")
    if not _is_id(agent):
        raise InvalidToken("its sub does not name an agent")
    if "act" in claims:
        raise InvalidToken("somebody else acts in it (act): send the agent's own")
    expires_at = datetime.fromtimestamp(claims["exp"], UTC)
    if expires_at <= now:
        raise InvalidToken("it has expired")
    return ActorToken(trusted.issuer, agent, expires_at)


def principal_by(trusted: TrustedIssuer, claims: Mapping[str, Any], *, resource: str = "") -> Principal:
    """Return whom verified claims identify, at an address that may be an audience too.

    Raises:
        InvalidToken: they are from another issuer, for another audience, or name nobody.
    """
    said = claims.get("aud")
    is_for_resource = bool(resource) and (resource in said if isinstance(said, list) else resource == said)
    audience = resource if is_for_resource else trusted.audience
    check_parties(claims, issuer=trusted.issuer, audience=audience, recipient="audience")
    # Compared at every use, without leeway: it is the bearer's to renew it in time.
    expires_at = datetime.fromtimestamp(claims["exp"], UTC)
    tenant_ids = _tenants(claims.get(trusted.tenant_claim)) if trusted.tenant_claim else frozenset()
    user_id = "" if _is_machine(trusted, claims) else _id(claims.get(trusted.user_claim))
    if not user_id and not tenant_ids:
        raise InvalidToken("it names neither a user nor a tenant")
    agent, act = agent_of(claims)
    return Principal(
        project_id=trusted.project_id,
        key_id="",
        permissions=_permissions(_scopes(claims)),
        app_ids=frozenset(),
        networks=(),
        expires_at=expires_at,
        claims=claims,
        user_id=user_id,
        tenant_ids=tenant_ids,
        agent=agent,
        act=act,
    )


def _permissions(scopes: frozenset[str]) -> frozenset[str]:
    """Return what a token's scopes let its user do for itself: what fetches can have calls made too."""
    if FETCH_SCOPE in scopes:
        return frozenset({Permission.CONNECT, Permission.CALLS, Permission.TOKENS_FETCH})
    return frozenset({Permission.CONNECT, Permission.CALLS} if CALL_SCOPE in scopes else {Permission.CONNECT})


def agent_of(claims: Mapping[str, Any]) -> tuple[str, tuple[str, ...]]:
    """Return who acts for the subject, and the chain of actors, outermost first (RFC 8693 section 4.1).

    Without actors it is the client that the token was issued to; it is empty where no client is named.

    Raises:
        InvalidToken: there is an actor without a name, or there are too many.
    """
    chain: list[str] = []
    actor = claims.get("act")
    while actor is not None:
        name = actor.get("sub") if isinstance(actor, Mapping) else None
        if len(chain) == _MAX_ACTORS or not _is_id(name):
            raise InvalidToken(
                f"it has an actor (act) that cannot be read; each has a sub, and there are at most {_MAX_ACTORS}"
            )
        chain.append(name)
        actor = actor.get("act")
    if chain:
        return chain[0], tuple(chain)
    clients = (claims.get(name) for name in ("client_id", "azp"))
    return next((one for one in clients if _is_id(one)), ""), ()


def _is_id(value: object) -> TypeGuard[str]:
    return isinstance(value, str) and 0 < len(value) <= _MAX_ID_LENGTH and value.isprintable()


def _is_machine(trusted: TrustedIssuer, claims: Mapping[str, Any]) -> bool:
    """Tell whether a token is a machine's, which stands for its tenant.

    A machine is known by a sign. Nobody becomes one by a token that says less: it can do more than a user. And nobody
    stops being a user by a token that says more: one that names a user is that user's.
    """
    if trusted.user_claim not in claims:
        return trusted.machines_without_user or _says_it_is_a_machines(claims)
    named = claims[trusted.user_claim]
    is_its_own = isinstance(named, str) and named in [claims.get(name) for name in ("sub", "client_id", "azp")]
    return is_its_own and _says_it_is_a_machines(claims)


def _says_it_is_a_machines(claims: Mapping[str, Any]) -> bool:
    """Tell whether a token shows a sign that no user's does.

    The subject is the client itself (RFC 9068 section 2.2), or the issuer has a claim of its own for it: the grant that
    the token is by (`gty`), or the kind of identity (`idtyp`).
    """
    subject = claims.get("sub")
    if isinstance(subject, str) and subject and subject in (claims.get("client_id"), claims.get("azp")):
        return True
    return claims.get("gty") in _MACHINES_GRANTS or claims.get("idtyp") == "app"


def _id(value: object) -> str:
    if not _is_id(value):
        raise InvalidToken("it does not name a user")
    return value


def _tenants(value: object) -> frozenset[str]:
    """Read a tenant claim: one tenant, a list of them, or an object with a member for each."""
    values = [value] if isinstance(value, str) else value if isinstance(value, (list, dict)) else []
    return frozenset(v for v in values if _is_id(v))


def _scopes(claims: Mapping[str, Any]) -> frozenset[str]:
    """Read the scopes: `scope` as RFC 9068 has it, or a list; or `scp`, as Microsoft and Okta spell it."""
    value = claims.get("scope", claims.get("scp"))
    values = value.split() if isinstance(value, str) else value if isinstance(value, list) else []
    return frozenset(v for v in values if isinstance(v, str))
