"""Connections without their secrets: listing, deleting, revoking, refreshing on request."""

from typing import Annotated, Literal

from fastapi import APIRouter, Query
from pydantic import Field

from evergrant import clock
from evergrant.broker.connections import deletion, listing
from evergrant.broker.connections.listing import GrantFilter, GrantMetadata
from evergrant.errors import MissingArgument
from evergrant.web.api.wire import Nothing, OptionalId, PastedText, Text, WireModel, epoch, errors, example
from evergrant.web.cors import BrowserRoute
from evergrant.web.deps import BrokerDep, FetcherOrUser, TokensWriter

router = APIRouter(prefix="/v1/mgmt/outbound", tags=["connections"])

_ID = "9b2f6f0c5d8e4a7190c3b7d1e2f4a586"
TokenId = Annotated[Text, Field(min_length=1, max_length=32)]
AnApp = Annotated[
    PastedText, Query(alias="appId", max_length=64, description="Of this app.", examples=["google-contacts"])
]
AUser = Annotated[OptionalId, Query(alias="userId", description="Of this user.", examples=["alice"])]
ATenant = Annotated[
    OptionalId, Query(alias="tenantId", description="Within this tenant, or the tenant's own.", examples=["acme"])
]
_METADATA = {
    "id": _ID,
    "appId": "google-contacts",
    "userId": "alice",
    "tenantId": "",
    "externalIdentifier": "",
    "status": "active",
    "scopes": ["https://www.googleapis.com/auth/contacts.readonly"],
    "requestedScopes": ["https://www.googleapis.com/auth/contacts.readonly"],
    "tokenSub": "113456789012345678901",
    "tokenSubProblem": "",
    "grantedBy": "",
    "accessTokenType": "Bearer",
    "accessTokenExpiry": "1741107113",
    "hasRefreshToken": True,
    "refreshTokenExpiry": "",
    "connectedTime": "1741103514",
    "lastRefreshTime": "",
    "lastRefreshError": "",
    "details": {},
}


class TokenMetadata(WireModel):
    """A connection without its secrets."""

    id: str
    app_id: str
    user_id: str = Field(description="Empty for a tenant's own.")
    tenant_id: str
    external_identifier: str
    status: Literal["active", "pending", "reauthorization_required"] = Field(
        description="`pending` awaits its confirmation; `reauthorization_required` can only be connected again."
    )
    scopes: list[str] = Field(description="What was granted: as it was asked for, then what the provider added.")
    requested_scopes: list[str] = Field(description="What the consent was asked for; empty where that is not known.")
    token_sub: str = Field(description="The user's id at the provider; empty when it is not known.")
    token_sub_problem: str = Field(
        description="Why `tokenSub` is empty although the provider said who connected; empty otherwise."
    )
    granted_by: str
    access_token_type: str = Field(description="`apikey` for an API key.")
    access_token_expiry: str = Field(description="Epoch seconds as text; empty when unknown.")
    has_refresh_token: bool
    refresh_token_expiry: str = Field(
        description="Epoch seconds as text: when the refresh token itself ends; empty where no end is known."
    )
    connected_time: str = Field(description="Epoch seconds as text: the consent, or the upload.")
    last_refresh_time: str = Field(description="Epoch seconds as text; empty before the first refresh.")
    last_refresh_error: str
    details: dict[str, str] = Field(description="Its shop, instance or company, by variable of the app's template.")


class TokensAnswer(WireModel):
    """A page of connections."""

    model_config = example({"tokens": [_METADATA], "nextCursor": ""})

    tokens: list[TokenMetadata]
    next_cursor: str = Field(description="`cursor` of the next page; empty on the last.")


class TokenMetadataAnswer(WireModel):
    """One connection."""

    model_config = example({"token": {**_METADATA, "lastRefreshTime": "1741106000"}})

    token: TokenMetadata


class AppIdsAnswer(WireModel):
    """Apps for which there is a connection that works."""

    model_config = example({"appIds": ["google-contacts"]})

    app_ids: list[str]


class WhichToken(WireModel):
    """One connection."""

    model_config = example({"id": _ID})

    id: TokenId


class RevokeAnswer(WireModel):
    """What has come of revoking at the provider; here, the connection is deleted in any case."""

    model_config = example({"outcome": "revoked"})

    outcome: Literal["revoked", "pending", "unsupported"] = Field(
        description="`pending`: the provider is away, it is tried again for days. `unsupported`: it has no revocation, "
        "or refuses it; the audit log says why."
    )


def metadata(grant: GrantMetadata) -> TokenMetadata:
    """Write a connection for the wire."""
    return TokenMetadata.model_validate(
        {
            "id": grant.id,
            "app_id": grant.app_id,
            "user_id": grant.user_id,
            "tenant_id": grant.tenant_id,
            "external_identifier": grant.external_identifier,
            "status": grant.status,
            "scopes": grant.scopes,
            "requested_scopes": grant.requested_scopes,
            "token_sub": grant.token_sub,
            "token_sub_problem": grant.token_sub_problem,
            "granted_by": grant.granted_by,
            "access_token_type": grant.access_token_type,
            "access_token_expiry": epoch(grant.expires_at),
            "has_refresh_token": grant.has_refresh_token,
            "refresh_token_expiry": epoch(grant.refresh_token_expires_at),
            "connected_time": epoch(grant.consented_at),
            "last_refresh_time": epoch(grant.last_refresh_time),
            "last_refresh_error": grant.last_refresh_error,
            "details": grant.details,
        }
    )


async def list_apps_with_user_token(
    broker: BrokerDep, principal: FetcherOrUser, user_id: AUser = "", tenant_id: ATenant = ""
) -> AppIdsAnswer:
    """Return the apps that a user has connected, within a tenant if one is given.

    Counted is what works: active, and not expired without a way to refresh. With a user's JWT, `userId` may be left
    out, and can be nobody else.
    """
    user_id = user_id or principal.user_id
    if not user_id:
        raise MissingArgument.of(("userId", "is required"))
    principal.require_owner(user_id, tenant_id)
    found = await listing.apps_with_token(broker, principal, user_id=user_id, tenant_id=tenant_id, now=clock.now())
    return AppIdsAnswer(app_ids=found)


async def list_tokens(
    broker: BrokerDep,
    principal: FetcherOrUser,
    app_id: AnApp = "",
    user_id: AUser = "",
    tenant_id: ATenant = "",
    status: Annotated[
        Literal["", "active", "pending", "reauthorization_required"],
        Query(description="In this state.", examples=["active"]),
    ] = "",
    cursor: Annotated[Text, Query(max_length=32, description="`nextCursor` of the page before.", examples=[_ID])] = "",
    limit: Annotated[int, Query(ge=1, le=200, description="How many at most.", examples=[50])] = 50,
) -> TokensAnswer:
    """Return connections without their secrets, in the order of their ids; every filter is optional.

    With a user's JWT, these are the user's own, in the tenants that it names and in none; with a machine's, its
    tenants'.
    """
    which = GrantFilter(app_id=app_id, user_id=user_id, tenant_id=tenant_id, status=status)
    page, following = await listing.list_grants(broker, principal, which, after=cursor, limit=limit)
    return TokensAnswer(tokens=[metadata(grant) for grant in page], next_cursor=following)


for path, handler, summary in (
    ("/apps-with-user-token", list_apps_with_user_token, "List the apps that a user has connected"),
    ("/tokens", list_tokens, "List connections"),
):
    router.add_api_route(
        path, handler, methods=["GET"], summary=summary, responses=errors(400), route_class_override=BrowserRoute
    )


@router.delete("/user/tokens", summary="Delete users' connections", responses=errors(400, 404))
async def delete_user_tokens(
    broker: BrokerDep, principal: TokensWriter, app_id: AnApp = "", user_id: AUser = ""
) -> Nothing:
    """Delete all connections of an app's users, of a user, or of a user for an app; revoke them at the provider.

    One of the two is required. Tenants' own connections stay.
    """
    await deletion.delete_user_tokens(broker, principal, app_id=app_id, user_id=user_id, now=clock.now())
    return Nothing()


@router.delete("/token", summary="Delete a connection", responses=errors(400, 404))
async def delete_token(
    broker: BrokerDep,
    principal: TokensWriter,
    token_id: Annotated[TokenId, Query(alias="id", examples=[_ID], description="The connection's id.")],
) -> Nothing:
    """Delete one connection, and revoke it at the provider where that can be done."""
    await deletion.delete_token(broker, principal, token_id, now=clock.now())
    return Nothing()


@router.post(
    "/token/revoke", summary="Delete a connection and say whether it is revoked", responses=errors(400, 404, 413)
)
async def revoke_token(body: WhichToken, broker: BrokerDep, principal: TokensWriter) -> RevokeAnswer:
    """Do the same as deleting, and answer what came of revoking it at the provider (RFC 7009)."""
    outcome = await deletion.delete_token(broker, principal, body.id, now=clock.now())
    return RevokeAnswer(outcome=outcome.value)


@router.post("/token/refresh", summary="Refresh a connection now", responses=errors(400, 404, 413, 502))
async def refresh_token(body: WhichToken, broker: BrokerDep, principal: TokensWriter) -> TokenMetadataAnswer:
    """Refresh whether it is needed or not. The answer holds no token: fetch it."""
    return TokenMetadataAnswer(token=metadata(await listing.refresh_now(broker, principal, body.id)))
