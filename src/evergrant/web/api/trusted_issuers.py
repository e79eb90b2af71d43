"""Trusted issuers: whose JWTs identify a project's users."""

from typing import Annotated

from fastapi import Query
from pydantic import Field

from evergrant import clock
from evergrant.broker.access import token_trial
from evergrant.broker.access.token_trial import TokenVerdict
from evergrant.broker.projects import trusted_issuers
from evergrant.broker.runtime.broker import Broker
from evergrant.db import TrustedIssuer
from evergrant.web.api.wire import (
    Flag,
    Nothing,
    SecretText,
    ShortText,
    StrictWireModel,
    Text,
    TokenText,
    WireModel,
    epoch,
    errors,
    example,
)
from evergrant.web.deps import BrokerDep, KeysKeeper
from evergrant.web.routing import ApiRouter

router = ApiRouter(prefix="/v1/mgmt", tags=["trusted issuers"])

_ISSUER = {
    "issuer": "https://login.example.com/",
    "jwksUrl": "https://login.example.com/.well-known/jwks.json",
    "audience": "https://api.example.com",
    "userClaim": "sub",
    "tenantClaim": "org_id",
    "machinesWithoutUser": False,
    "mcp": True,
    "login": {"clientId": "evergrant-login", "clientSecret": "..."},
}
_STORED = {
    "id": "3Xk9mQ2vT7pL4wZ8rB1nYc",
    **_ISSUER,
    "login": {
        "clientId": "evergrant-login",
        "hasClientSecret": True,
        "redirectUri": "https://connect.example.com/login/callback",
    },
    "lastKid": "2025-03",
    "lastSeenTime": "1741103514",
    "createdTime": "1741103514",
}


class IssuerLogin(StrictWireModel):
    """Our client at the issuer, which signs in browsers that open an agent's link."""

    client_id: ShortText = Field(
        min_length=1, description="Registered with the redirect URI `<public>/login/callback`."
    )
    client_secret: SecretText | None = Field(
        default=None, description="Left out for a public client. It is sealed, and no call returns it."
    )


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
    mcp: Flag = Field(
        default=False, description="Send MCP clients to this issuer for their tokens. Its metadata must be readable."
    )
    login: IssuerLogin | None = Field(
        default=None,
        description="Let whoever opens an agent's link sign in at this issuer, to show that it is the user's browser. "
        "Its metadata must be readable.",
    )


class IssuerLoginBody(WireModel):
    """Our client at the issuer, as it is stored."""

    client_id: str
    has_client_secret: bool
    redirect_uri: str = Field(description="To be registered at the issuer, exactly so.")


class IssuerBody(WireModel):
    """An issuer as it is stored."""

    id: str
    issuer: str
    jwks_url: str
    audience: str
    user_claim: str
    tenant_claim: str
    machines_without_user: bool
    mcp: bool
    login: IssuerLoginBody | None = Field(default=None, description="Null where browsers cannot sign in there.")
    last_kid: str = Field(description="The id of the key that signed the last token that was accepted.")
    last_seen_time: str = Field(description="When that was, to the minute. Epoch seconds as text; empty for never.")
    created_time: str = Field(description="Epoch seconds as text.")


class TryToken(StrictWireModel):
    """A token to look at."""

    model_config = example({"token": "eyJhbGciOiJFUzI1NiJ9..."})

    token: TokenText = Field(description="The JWT, with or without the project before it. It is not kept.")


class ClaimCheckBody(WireModel):
    """One thing that was looked at."""

    claim: str = Field(description="The claim; or `JWT` for its form, and `signature`.")
    good: bool
    says: str = Field(description="What was found, as a sentence.")


class AppVerdictBody(WireModel):
    """What the token may do with one app."""

    app_id: str
    action: str = Field(description="`fetch` or `connect`.")
    allowed: bool
    scopes: list[str] = Field(description="At most these; empty for any.")
    why: str


class TokenVerdictAnswer(WireModel):
    """What a token may do, and why."""

    model_config = example(
        {
            "accepted": True,
            "checks": [{"claim": "iss", "good": True, "says": "https://login.example.com/ is trusted."}],
            "issuerId": _STORED["id"],
            "userId": "alice",
            "tenantIds": ["acme"],
            "apps": [
                {
                    "appId": "google-contacts",
                    "action": "fetch",
                    "allowed": True,
                    "scopes": [],
                    "why": "no policy limits it",
                }
            ],
        }
    )

    accepted: bool = Field(description="Whether it would be taken as a credential.")
    checks: list[ClaimCheckBody] = Field(description="In their order, up to the one after which nothing can be known.")
    issuer_id: str = Field(description="The trusted issuer; empty where it is none.")
    user_id: str
    tenant_ids: list[str]
    apps: list[AppVerdictBody] = Field(description="What policies let it do; none where it is not accepted.")


class IssuerAnswer(WireModel):
    """One issuer."""

    model_config = example({"trustedIssuer": _STORED})

    trusted_issuer: IssuerBody


class IssuersAnswer(WireModel):
    """Every issuer of the project."""

    model_config = example({"trustedIssuers": [_STORED]})

    trusted_issuers: list[IssuerBody]


def _body(broker: Broker, row: TrustedIssuer) -> IssuerBody:
    login = None
    if row.login_client_id:
        login = IssuerLoginBody(
            client_id=row.login_client_id,
            has_client_secret=row.login_client_secret is not None,
            redirect_uri=trusted_issuers.login_redirect_uri(broker),
        )
    return IssuerBody(
        id=row.id,
        issuer=row.issuer,
        jwks_url=row.jwks_url,
        audience=row.audience,
        user_claim=row.user_claim,
        tenant_claim=row.tenant_claim,
        machines_without_user=row.machines_without_user,
        mcp=row.mcp,
        login=login,
        last_kid=row.last_kid,
        last_seen_time=epoch(row.last_seen_at),
        created_time=epoch(row.created_at),
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
        mcp=body.mcp,
        login_client_id=body.login.client_id if body.login else "",
        login_client_secret=body.login.client_secret if body.login else None,
        maker=principal,
        now=clock.now(),
    )
    return IssuerAnswer(trusted_issuer=_body(broker, row))


@router.get("/trustedissuer", summary="List the trusted issuers", responses=errors())
async def load_trusted_issuers(broker: BrokerDep, principal: KeysKeeper) -> IssuersAnswer:
    """Return the issuers that the project trusts, oldest first. The key must not be limited to some apps."""
    principal.require_every_app()
    rows = await trusted_issuers.list_issuers(broker, principal.project_id)
    return IssuersAnswer(trusted_issuers=[_body(broker, row) for row in rows])


@router.delete("/trustedissuer", summary="Trust an issuer no longer", responses=errors(400, 404))
async def delete_trusted_issuer(
    broker: BrokerDep,
    principal: KeysKeeper,
    id: Annotated[Text, Query(min_length=1, max_length=64, examples=[_STORED["id"]])],
) -> Nothing:
    """Refuse its JWTs, within 5 seconds everywhere. The key needs what it needs to trust an issuer."""
    await trusted_issuers.delete_issuer(broker, principal.project_id, id, remover=principal)
    return Nothing()


@router.post("/trustedissuer/try", summary="Try a user's token", responses=errors(400, 413))
async def try_token(body: TryToken, broker: BrokerDep, principal: KeysKeeper) -> TokenVerdictAnswer:
    """Say claim by claim what a user's JWT may do in this project. It is neither kept nor written to a log."""
    principal.require_every_app()
    token = body.token.get_secret_value()
    return _verdict(await token_trial.try_token(broker, principal.project_id, token, now=clock.now()))


def _verdict(found: TokenVerdict) -> TokenVerdictAnswer:
    return TokenVerdictAnswer(
        accepted=found.accepted,
        checks=[ClaimCheckBody(claim=one.claim, good=one.good, says=one.says) for one in found.checks],
        issuer_id=found.issuer_id,
        user_id=found.user_id,
        tenant_ids=list(found.tenant_ids),
        apps=[
            AppVerdictBody(
                app_id=one.app_id, action=one.action, allowed=one.allowed, scopes=list(one.scopes), why=one.why
            )
            for one in found.apps
        ],
    )
