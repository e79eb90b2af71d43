"""Users who authenticate themselves, with a JWT of an issuer that their project trusts (RFC 7519, RFC 9068)."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import select

from evergrant.broker.runtime.broker import Broker
from evergrant.broker.runtime.principal import FETCH_SCOPE, Permission, Principal
from evergrant.db import TrustedIssuer
from evergrant.errors import AuthenticationFailed
from evergrant.oauth2.signed_token import InvalidToken, check_parties, unverified_claims, verified_claims

_MAX_TOKEN_LENGTH = 16_384
"""Longer ones are not even looked at."""
_MAX_ID_LENGTH = 255


def looks_like_jwt(credential: str) -> bool:
    """Tell whether a credential has the form of a signed JWT: three parts, the first a JSON object in Base64."""
    return credential.startswith("ey") and credential.count(".") == 2 and len(credential) <= _MAX_TOKEN_LENGTH


async def authenticate_user(broker: Broker, project_id: str, token: str, *, now: datetime) -> Principal:
    """Validate a user's JWT. Without a project, its issuer must be trusted by exactly one.

    Raises:
        AuthenticationFailed: the token must not be believed; the message says why, and holds nothing of the token.
        UpstreamUnavailable: the issuer's keys cannot be read right now.
    """
    try:
        trusted = await _trusted(broker, project_id, unverified_claims(token).get("iss"))
        claims = await verified_claims(broker.http, trusted.jwks_url, token, now=now)
        return _principal(trusted, claims)
    except InvalidToken as error:
        raise AuthenticationFailed(f"This token is not accepted: {error}.") from None


async def _trusted(broker: Broker, project_id: str, unverified_issuer: object) -> TrustedIssuer:
    if not isinstance(unverified_issuer, str) or "\x00" in unverified_issuer or not unverified_issuer.isprintable():
        raise InvalidToken("it names no issuer")
    # The one query across projects: here the issuer is what says which project it is.
    query = select(TrustedIssuer).where(TrustedIssuer.issuer == unverified_issuer).limit(2)
    if project_id:
        query = query.where(TrustedIssuer.project_id == project_id)
    async with broker.database.read() as session:
        found = list(await session.scalars(query))
    if not found:
        raise InvalidToken("its issuer is not trusted here")
    if len(found) > 1:
        raise InvalidToken("its issuer is trusted by several projects; say which: Bearer <PROJECT_ID>:<JWT>")
    return found[0]


def _principal(trusted: TrustedIssuer, claims: Mapping[str, Any]) -> Principal:
    check_parties(claims, issuer=trusted.issuer, audience=trusted.audience, recipient="audience")
    # Compared at every use, without leeway: it is the bearer's to renew it in time.
    expires_at = datetime.fromtimestamp(min(claims["exp"], 253_402_300_799), UTC)
    tenant_ids = _tenants(claims.get(trusted.tenant_claim)) if trusted.tenant_claim else frozenset()
    user_id = "" if _is_a_machines(trusted, claims, tenant_ids) else _id(claims.get(trusted.user_claim))
    if not user_id and not tenant_ids:
        raise InvalidToken("it names neither a user nor a tenant")
    may_fetch = FETCH_SCOPE in _scopes(claims)
    return Principal(
        project_id=trusted.project_id,
        key_id="",
        permissions=frozenset({Permission.CONNECT, Permission.TOKENS_FETCH} if may_fetch else {Permission.CONNECT}),
        app_ids=frozenset(),
        networks=(),
        expires_at=expires_at,
        claims=claims,
        user_id=user_id,
        tenant_ids=tenant_ids,
    )


def _is_a_machines(trusted: TrustedIssuer, claims: Mapping[str, Any], tenant_ids: frozenset[str]) -> bool:
    """Tell whether a token is a machine's, with no user: then it stands for its tenant (RFC 9068 section 2.2)."""
    subject = claims.get("sub")
    if isinstance(subject, str) and subject and subject in (claims.get("client_id"), claims.get("azp")):
        return True
    return trusted.user_claim not in claims and bool(tenant_ids)


def _id(value: object) -> str:
    if not isinstance(value, str) or not value or len(value) > _MAX_ID_LENGTH or not value.isprintable():
        raise InvalidToken("it does not name a user")
    return value


def _tenants(value: object) -> frozenset[str]:
    """Read a tenant claim: one tenant, a list of them, or an object with a member for each."""
    values = [value] if isinstance(value, str) else value if isinstance(value, (list, dict)) else []
    return frozenset(v for v in values if isinstance(v, str) and v and len(v) <= _MAX_ID_LENGTH and v.isprintable())


def _scopes(claims: Mapping[str, Any]) -> frozenset[str]:
    """Read the scopes: `scope` as RFC 9068 has it, or a list; or `scp`, as Microsoft and Okta spell it."""
    value = claims.get("scope", claims.get("scp"))
    values = value.split() if isinstance(value, str) else value if isinstance(value, list) else []
    return frozenset(v for v in values if isinstance(v, str))
