"""A token that works, as fetches and exchanges write it."""

from typing import Any

from pydantic import Field

from evergrant.broker.tokens.fetch import Token
from evergrant.catalog.api import Carried
from evergrant.web.api.wire import WireModel, epoch, example


class TokenBody(WireModel):
    """A token that works now."""

    id: str = Field(description="The connection's id.")
    app_id: str
    user_id: str = Field(description="Empty for a tenant's token.")
    token_sub: str = Field(description="The user's id at the provider; empty when unknown.")
    access_token: str = Field(
        description="Of credentials with several fields, the one value that calls carry, without its prefix; of Basic, "
        "the base64 text. Empty where calls carry none by itself: use `headers`."
    )
    access_token_type: str = Field(
        description="`apikey` for a key. Of credentials with several fields, the scheme before `accessToken` in "
        "`Authorization`, `apikey` where it goes elsewhere, and `credentials` where calls need more than this value."
    )
    access_token_expiry: str = Field(description="Epoch seconds as text; empty when the provider gave no end.")
    has_refresh_token: bool = Field(
        description="Whether evergrant gets the next token by itself: with a refresh token, or from credentials."
    )
    refresh_token: str | None = Field(
        default=None, description="Only with `withRefreshToken`. Credentials that tokens are obtained from never are."
    )
    last_refresh_time: str = Field(description="Epoch seconds as text; empty before the first refresh.")
    last_refresh_error: str
    scopes: list[str]
    tenant_id: str | None = None
    granted_by: str | None = None
    external_identifier: str | None = None
    details: dict[str, str] | None = Field(
        default=None,
        description="What calls to the provider's API need beside the token (its shop, instance or company), by "
        "variable of the app's template; left out where there is nothing. Of credentials with several fields, those "
        "too.",
    )
    headers: dict[str, str] | None = Field(
        default=None,
        description="Ready headers for calls to the provider's API, with the credentials in them. Only for credentials "
        "with several fields.",
    )
    query: dict[str, str] | None = Field(default=None, description="Ready query parameters, likewise.")


class TokenAnswer(WireModel):
    """The answer of every fetch call."""

    model_config = example(
        {
            "token": {
                "id": "9b2f6f0c5d8e4a7190c3b7d1e2f4a586",
                "appId": "google-contacts",
                "userId": "alice",
                "tokenSub": "113456789012345678901",
                "accessToken": "ya29.a0AfB...",
                "accessTokenType": "Bearer",
                "accessTokenExpiry": "1741107113",
                "hasRefreshToken": True,
                "lastRefreshTime": "1741103514",
                "lastRefreshError": "",
                "scopes": ["https://www.googleapis.com/auth/contacts.readonly"],
            }
        }
    )

    token: TokenBody


def token_body(token: Token) -> dict[str, Any]:
    """Write a token as the SDKs read it: what a plain user's token does not have is left out, not empty."""
    view = token.grant
    body: dict[str, Any] = {
        "id": view.id,
        "appId": view.app_id,
        "userId": view.user_id,
        "tokenSub": view.token_sub,
        "accessToken": token.access_token.get_secret_value(),
        "accessTokenType": view.access_token_type,
        "accessTokenExpiry": epoch(view.expires_at),
        "hasRefreshToken": view.refresh_token is not None,
    }
    if token.refresh_token is not None:
        body["refreshToken"] = token.refresh_token.get_secret_value()
    body |= {
        "lastRefreshTime": epoch(view.last_refresh_time),
        "lastRefreshError": view.last_refresh_error,
        "scopes": view.scopes,
    }
    if view.tenant_id:
        body["tenantId"] = view.tenant_id
    if view.granted_by:
        body["grantedBy"] = view.granted_by
    if view.external_identifier:
        body["externalIdentifier"] = view.external_identifier
    if view.details:
        body["details"] = view.details
    if token.carried is not None:
        body |= carried_members(token.carried)
    return body


def carried_members(carried: Carried) -> dict[str, Any]:
    """Write how calls carry several fields; what there is none of is left out."""
    parts = {"headers": dict(carried.headers), "query": dict(carried.query)}
    return {name: part for name, part in parts.items() if part}
