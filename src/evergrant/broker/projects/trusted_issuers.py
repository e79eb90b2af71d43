"""Trusted issuers: the identity providers whose JWTs a project accepts for its users."""

import logging
from dataclasses import replace
from datetime import datetime

from pydantic import SecretStr
from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from evergrant.broker.audit.record import record
from evergrant.broker.runtime.authority import Authority, require_no_more
from evergrant.broker.runtime.broker import Broker
from evergrant.broker.runtime.places import slot_in
from evergrant.broker.runtime.principal import Permission, Principal
from evergrant.crypto.opaque import new_id
from evergrant.crypto.sealed import Slot
from evergrant.db import AccessPolicy, TrustedIssuer
from evergrant.errors import AlreadyExists, InvalidValue, MissingArgument, NotFound, UpstreamError, UpstreamUnavailable
from evergrant.oauth2.discovery import discover
from evergrant.oauth2.jwks import KnownKeys
from evergrant.oauth2.registration import ServerMetadata
from evergrant.oauth2.signed_token import read_jwks
from evergrant.oauth2.transport import check_url

log = logging.getLogger(__name__)

LOGIN_CALLBACK_PATH = "/login/callback"
"""Where browsers come back to that have signed in at a trusted issuer."""


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
    mcp: bool = False,
    login_client_id: str = "",
    login_client_secret: SecretStr | None = None,
    maker: Principal | None = None,
    replaced_id: str = "",
) -> TrustedIssuer:
    """Trust an issuer. Without `jwks_url`, its metadata says where its keys are (RFC 8414, OpenID Connect Discovery).

    With `mcp`, clients of the project's MCP endpoint are sent there for their tokens. `login_client_id` is our client
    there, which signs in browsers that open an agent's link; its secret is None for a public client. Both need the
    issuer's metadata. `maker` is the key that asks for it; None for the operator. `replaced_id` is the issuer whose
    place it takes at the same moment, so that nobody's tokens are refused in between.

    Raises:
        NotFound: there is no issuer to replace; nothing is written.
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
    secret = login_client_secret if login_client_secret and login_client_secret.get_secret_value() else None
    if secret is not None and not login_client_id:
        raise InvalidValue.of(("login.clientId", "name the client that the secret is of"))
    if not jwks_url:
        issuer, jwks_url = await _discovered(broker, issuer)
    elif mcp or login_client_id:
        await _metadata(broker, issuer, "whoever is sent there needs it")
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
        mcp=mcp,
        login_client_id=login_client_id,
        created_at=now,
    )
    if secret is not None:
        row.login_client_secret = await broker.vault.seal(login_secret_slot(row), secret)
    try:
        async with broker.database.write() as session:
            if replaced_id:
                await _delete_trusted(session, project_id, replaced_id)
                await session.flush()
            session.add(row)
            await session.flush()
            data = {
                "id": row.id,
                "issuer": issuer,
                "machinesWithoutUser": machines_without_user,
                "mcp": mcp,
                "loginClientId": login_client_id,
            }
            await record(session, project_id, "issuer.created", data=data)
    except IntegrityError:
        raise AlreadyExists("The project trusts this issuer already; remove it first to change it.") from None
    if replaced_id:
        broker.forget_credentials()
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
        await _delete_trusted(session, project_id, issuer_id)
    broker.forget_credentials()


async def _delete_trusted(session: AsyncSession, project_id: str, issuer_id: str) -> None:
    row = await session.get(TrustedIssuer, (project_id, issuer_id))
    if row is None:
        raise NotFound(f"Project '{project_id}' has no trusted issuer '{issuer_id}'.")
    issuer = row.issuer
    await session.delete(row)
    await record(session, project_id, "issuer.deleted", data={"id": issuer_id, "issuer": issuer})


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


def login_redirect_uri(broker: Broker) -> str:
    """Return the redirect URI to register for the client that signs browsers in."""
    return broker.settings.public_url + LOGIN_CALLBACK_PATH


async def find_sign_in(broker: Broker, issuer: TrustedIssuer) -> ServerMetadata:
    """Return a trusted issuer's metadata, for a login there. It is remembered for some minutes.

    Its id_tokens are believed by the keys that its other tokens are believed by, and in its own name only.

    Raises:
        UpstreamUnavailable: it cannot be read.
    """

    async def read() -> ServerMetadata:
        try:
            return await discover(broker.http, issuer.issuer)
        except InvalidValue as error:
            log.warning("nobody can sign in at a trusted issuer", extra={"issuer": issuer.issuer, "why": error.message})
            raise UpstreamUnavailable("The issuer does not answer, or not as it should.") from None

    known: ServerMetadata = await broker.user_providers.get_or_read(issuer.issuer, read)
    return replace(known, issuer=issuer.issuer, jwks_uri=issuer.jwks_url)


async def open_login_secret(broker: Broker, issuer: TrustedIssuer) -> SecretStr | None:
    """Return the secret of our client at a trusted issuer; None where that is a public one."""
    if issuer.login_client_secret is None:
        return None
    return await broker.vault.open(login_secret_slot(issuer), issuer.login_client_secret)


def login_secret_slot(issuer: TrustedIssuer) -> Slot:
    """Return the place that a login's secret is sealed for: it opens for this issuer and this client only."""
    return slot_in("trusted_issuers", issuer, "login_client_secret")


async def _metadata(broker: Broker, issuer: str, remedy: str) -> ServerMetadata:
    try:
        return await discover(broker.http, issuer)
    except InvalidValue as error:
        problem = error.details["fields"][0]["problem"].partition(";")[0]
        raise InvalidValue.of(("issuer", f"{problem}; {remedy}")) from None


async def _discovered(broker: Broker, issuer: str) -> tuple[str, str]:
    """Return the issuer as its metadata spells it, since tokens spell it so too, and where its keys are."""
    remedy = "give jwksUrl, the address of its keys"
    metadata = await _metadata(broker, issuer, remedy)
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
