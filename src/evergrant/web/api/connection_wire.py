"""One connection without its secrets, as the calls that list and show connections write it."""

from typing import Annotated, Literal

from fastapi import Query
from pydantic import Field

from evergrant.broker.connections.browsing import ConnectionState, Wanted
from evergrant.broker.connections.metadata import GrantMetadata
from evergrant.web.api.wire import OptionalId, PastedText, Text, WireModel, epoch, example

EXAMPLE_ID = "9b2f6f0c5d8e4a7190c3b7d1e2f4a586"
TokenId = Annotated[Text, Field(min_length=1, max_length=32)]
OneToken = Annotated[TokenId, Query(alias="id", examples=[EXAMPLE_ID], description="The connection's id.")]
AnApp = Annotated[
    PastedText, Query(alias="appId", max_length=64, description="Of this app.", examples=["google-contacts"])
]
AUser = Annotated[OptionalId, Query(alias="userId", description="Of this user.", examples=["alice"])]
ATenant = Annotated[
    OptionalId, Query(alias="tenantId", description="Within this tenant, or the tenant's own.", examples=["acme"])
]
EXAMPLE_METADATA = {
    "id": EXAMPLE_ID,
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
    access_token_type: str = Field(
        description="`apikey` for an API key, `credentials` for several fields that are one."
    )
    access_token_expiry: str = Field(description="Epoch seconds as text; empty when unknown.")
    has_refresh_token: bool = Field(
        description="Whether evergrant gets the next token by itself: with a refresh token, or from credentials."
    )
    refresh_token_expiry: str = Field(
        description="Epoch seconds as text: when the refresh token itself ends; empty where no end is known."
    )
    connected_time: str = Field(description="Epoch seconds as text: the consent, or the upload.")
    last_refresh_time: str = Field(description="Epoch seconds as text; empty before the first refresh.")
    last_refresh_error: str
    details: dict[str, str] = Field(
        description="Its shop, instance or company, by variable of the app's template; and `email` and `name` of the "
        "account, where the provider said them."
    )


class TokenMetadataAnswer(WireModel):
    """One connection."""

    model_config = example({"token": {**EXAMPLE_METADATA, "lastRefreshTime": "1741106000"}})

    token: TokenMetadata


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


def wanted_of(app_id: str, user_id: str, tenant_id: str, state: str, search: str, order: str = "") -> Wanted:
    """Read which connections are looked for."""
    return Wanted(
        app_id=app_id,
        user_id=user_id,
        tenant_id=tenant_id,
        state=ConnectionState(state) if state else None,
        search=search,
        oldest_first=order == "oldest",
    )
