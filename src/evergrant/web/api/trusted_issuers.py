"""Trusted issuers: whose JWTs identify a project's users."""

from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import Field

from evergrant import clock
from evergrant.broker.projects import trusted_issuers
from evergrant.db import TrustedIssuer
from evergrant.web.api.wire import Flag, Nothing, ShortText, StrictWireModel, Text, WireModel, errors, example
from evergrant.web.deps import BrokerDep, KeysKeeper

router = APIRouter(prefix="/v1/mgmt", tags=["trusted issuers"])

_ISSUER = {
    "issuer": "https://login.example.com/",
    "jwksUrl": "https://login.example.com/.well-known/jwks.json",
    "audience": "https://api.example.com",
    "userClaim": "sub",
    "tenantClaim": "org_id",
    "machinesWithoutUser": False,
}
_STORED = {"id": "3Xk9mQ2vT7pL4wZ8rB1nYc", **_ISSUER, "createdTime": "1741103514"}


class CreateIssuer(StrictWireModel):
    """An issuer to trust."""

    model_config = example(_ISSUER)

    issuer: ShortText = Field(min_length=1, description="Exactly as the claim `iss` has it.")
    jwks_url: ShortText = Field(
        default="", description="Where its keys are; left out where its metadata says so (RFC 8414, OpenID)."
    )
    audience: ShortText = Field(min_length=1, description="Must be in the claim `aud`.")
    user_claim: ShortText = Field(default="sub", min_length=1, description="The claim with your own id of the user.")
    tenant_claim: ShortText = Field(
        default="", description="The claim with the tenant's id, a list of them, or an object with a member for each."
    )
    machines_without_user: Flag = Field(
        default=False,
        description="Take a token that lacks `userClaim`, and names a tenant, for that tenant's machine. Only where no "
        "user can get such a token.",
    )


class IssuerBody(WireModel):
    """An issuer as it is stored."""

    id: str
    issuer: str
    jwks_url: str
    audience: str
    user_claim: str
    tenant_claim: str
    machines_without_user: bool
    created_time: str = Field(description="Epoch seconds as text.")


class IssuerAnswer(WireModel):
    """One issuer."""

    model_config = example({"trustedIssuer": _STORED})

    trusted_issuer: IssuerBody


class IssuersAnswer(WireModel):
    """Every issuer of the project."""

    model_config = example({"trustedIssuers": [_STORED]})

    trusted_issuers: list[IssuerBody]


def _body(row: TrustedIssuer) -> IssuerBody:
    return IssuerBody(
        id=row.id,
        issuer=row.issuer,
        jwks_url=row.jwks_url,
        audience=row.audience,
        user_claim=row.user_claim,
        tenant_claim=row.tenant_claim,
        machines_without_user=row.machines_without_user,
        created_time=str(int(row.created_at.timestamp())),
    )


@router.post("/trustedissuer", summary="Trust an issuer", responses=errors(400, 409, 413))
async def create_trusted_issuer(body: CreateIssuer, broker: BrokerDep, principal: KeysKeeper) -> IssuerAnswer:
    """Accept the JWTs of an identity provider from the project's users.

    The key needs `tokens:fetch` and `connect`, and `policies` where a policy asks for claims. It must not expire, nor
    be limited to some apps or networks.
    """
    row = await trusted_issuers.create_issuer(
        broker,
        principal.project_id,
        issuer=body.issuer,
        jwks_url=body.jwks_url,
        audience=body.audience,
        user_claim=body.user_claim,
        tenant_claim=body.tenant_claim,
        machines_without_user=body.machines_without_user,
        maker=principal,
        now=clock.now(),
    )
    return IssuerAnswer(trusted_issuer=_body(row))


@router.get("/trustedissuer", summary="List the trusted issuers", responses=errors())
async def load_trusted_issuers(broker: BrokerDep, principal: KeysKeeper) -> IssuersAnswer:
    """Return the issuers that the project trusts, oldest first. The key must not be limited to some apps."""
    principal.require_every_app()
    rows = await trusted_issuers.list_issuers(broker, principal.project_id)
    return IssuersAnswer(trusted_issuers=[_body(row) for row in rows])


@router.delete("/trustedissuer", summary="Trust an issuer no longer", responses=errors(400, 404))
async def delete_trusted_issuer(
    broker: BrokerDep,
    principal: KeysKeeper,
    id: Annotated[Text, Query(min_length=1, max_length=64, examples=[_STORED["id"]])],
) -> Nothing:
    """Refuse its JWTs, within 5 seconds everywhere. The key needs what it needs to trust an issuer."""
    await trusted_issuers.delete_issuer(broker, principal.project_id, id, remover=principal)
    return Nothing()
