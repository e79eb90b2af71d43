"""Trusted issuers: the identity providers whose JWTs a project accepts for its users."""

from datetime import datetime

from sqlalchemy import select
from sqlalchemy.exc import IntegrityError

from evergrant.broker.audit.record import record
from evergrant.broker.runtime.authority import Authority, require_no_more
from evergrant.broker.runtime.broker import Broker
from evergrant.broker.runtime.principal import Permission, Principal
from evergrant.crypto.opaque import new_id
from evergrant.db import AccessPolicy, TrustedIssuer
from evergrant.errors import AlreadyExists, InvalidValue, MissingArgument, NotFound, UpstreamError
from evergrant.oauth2.discovery import discover
from evergrant.oauth2.jwks import KnownKeys
from evergrant.oauth2.signed_token import read_jwks
from evergrant.oauth2.transport import check_url


async def create_issuer(
    broker: Broker,
    project_id: str,
    *,
    issuer: str,
    audience: str,
    now: datetime,
    jwks_url: str = "",
    user_claim: str = "sub",
    tenant_claim: str = "",
    machines_without_user: bool = False,
    maker: Principal | None = None,
) -> TrustedIssuer:
    """Trust an issuer. Without `jwks_url`, its metadata says where its keys are (RFC 8414, OpenID Connect Discovery).

    `maker` is the key that asks for it; None for the operator.

    Raises:
        PermissionDenied: the issuer's users could do more than its maker.
        MissingArgument, InvalidValue: an argument cannot be used, or the keys cannot be read; nothing is written.
        AlreadyExists: the project trusts this issuer already.
    """
    if maker is not None:
        await _require_may_change(broker, maker)
    missing = [name for name, value in (("issuer", issuer), ("audience", audience)) if not value]
    if missing:
        raise MissingArgument.of(*((name, "is required") for name in missing))
    if not user_claim:
        raise InvalidValue.of(("userClaim", "name the claim that holds your own id of the user"))
    if not jwks_url:
        issuer, jwks_url = await _discovered(broker, issuer)
    await _check_keys(broker, jwks_url)
    row = TrustedIssuer(
        project_id=project_id,
        id=new_id(22),
        issuer=issuer,
        jwks_url=jwks_url,
        audience=audience,
        user_claim=user_claim,
        tenant_claim=tenant_claim,
        machines_without_user=machines_without_user,
        created_at=now,
    )
    try:
        async with broker.database.write() as session:
            session.add(row)
            await session.flush()
            data = {"id": row.id, "issuer": issuer, "machinesWithoutUser": machines_without_user}
            await record(session, project_id, "issuer.created", data=data)
    except IntegrityError:
        raise AlreadyExists("The project trusts this issuer already; remove it first to change it.") from None
    return row


async def list_issuers(broker: Broker, project_id: str) -> list[TrustedIssuer]:
    """Return the issuers that a project trusts, oldest first."""
    query = select(TrustedIssuer).where(TrustedIssuer.project_id == project_id)
    async with broker.database.read() as session:
        return list(await session.scalars(query.order_by(TrustedIssuer.created_at, TrustedIssuer.id)))


def known_keys(broker: Broker, issuer: TrustedIssuer) -> KnownKeys | None:
    """Return what this process knows of an issuer's keys; None where no token has made it ask for them lately."""
    return broker.http.jwks.known(issuer.jwks_url)


async def delete_issuer(broker: Broker, project_id: str, issuer_id: str, *, remover: Principal | None = None) -> None:
    """Stop trusting an issuer; effective everywhere within 5 seconds. `remover` is the key that asks for it.

    Raises:
        NotFound: the project trusts no issuer with this id.
        PermissionDenied: `remover` could not have made it.
    """
    if remover is not None:
        await _require_may_change(broker, remover)
    async with broker.database.write() as session:
        row = await session.get(TrustedIssuer, (project_id, issuer_id))
        if row is None:
            raise NotFound(f"Project '{project_id}' has no trusted issuer '{issuer_id}'.")
        issuer = row.issuer
        await session.delete(row)
        await record(session, project_id, "issuer.deleted", data={"id": issuer_id, "issuer": issuer})
    broker.forget_credentials()


async def _require_may_change(broker: Broker, principal: Principal) -> None:
    """Check that an issuer's users can do no more than a key: they fetch and connect, with every app, for ever.

    The issuer writes the claims that policies ask for, and so decides whom these let in.
    """
    permissions = {Permission.TOKENS_FETCH, Permission.CONNECT}
    query = select(AccessPolicy.claims).where(AccessPolicy.project_id == principal.project_id)
    async with broker.database.read() as session:
        if any(await session.scalars(query)):
            permissions.add(Permission.POLICIES)
    made = Authority(permissions=frozenset(permissions))
    require_no_more(principal, made, what="a trusted issuer")


async def _discovered(broker: Broker, issuer: str) -> tuple[str, str]:
    """Return the issuer as its metadata spells it, since tokens spell it so too, and where its keys are."""
    remedy = "give jwksUrl, the address of its keys"
    try:
        metadata = await discover(broker.http, issuer)
    except InvalidValue as error:
        problem = error.details["fields"][0]["problem"].partition(";")[0]
        raise InvalidValue.of(("issuer", f"{problem}; {remedy}")) from None
    if not metadata.jwks_uri:
        raise InvalidValue.of(("issuer", f"its metadata has no jwks_uri; {remedy}"))
    # Microsoft's shared endpoints publish a template, which no token says
    return (issuer if "{" in metadata.issuer else metadata.issuer), metadata.jwks_uri


async def _check_keys(broker: Broker, jwks_url: str) -> None:
    try:
        check_url(jwks_url, what="it", egress_allow=broker.http.egress_allow)
        await read_jwks(broker.http, jwks_url)
    except ValueError as error:
        raise InvalidValue.of(("jwksUrl", str(error))) from None
    except UpstreamError as error:
        raise InvalidValue.of(("jwksUrl", f"{error.message.rstrip('.')}; check the address")) from None
