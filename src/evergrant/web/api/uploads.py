"""Uploading OAuth tokens that users have elsewhere already."""

from typing import Annotated, Any

from pydantic import Field

from evergrant import clock
from evergrant.broker.connections.upload import TokenUpload
from evergrant.broker.connections.upload_batch import BatchFailure, BatchItem, upload_batch
from evergrant.broker.connections.upload_one import upload_tokens
from evergrant.broker.grants.grants import ResourceOwner
from evergrant.web.api.upload_wire import DETAILS, Details, InTenant, TenantOwner, UserOwner
from evergrant.web.api.wire import (
    AppId,
    EpochSeconds,
    Flag,
    Nothing,
    OptionalId,
    PastedText,
    ShortText,
    TokenText,
    WireModel,
    errors,
    example,
)
from evergrant.web.deps import BrokerDep, TokensWriter
from evergrant.web.routing import ApiRouter

router = ApiRouter(prefix="/v1/mgmt/outbound/app", tags=["uploads"])

_TOKENS = {
    "refreshToken": "1//0gFromTheOldPlace",
    "accessToken": "ya29.a0AfB...",
    "accessTokenExpiry": 1741107113,
    "scopes": ["https://www.googleapis.com/auth/contacts.readonly"],
}
_USER = {"appId": "google-contacts", "userId": "alice"}
_TENANT = {"appId": "google-contacts", "tenantId": "acme"}


class UploadedTokens(WireModel):
    """OAuth tokens, whoever's they are."""

    app_id: AppId
    refresh_token: TokenText | None = Field(default=None, description="This or `accessToken`, or both.")
    access_token: TokenText | None = Field(
        default=None, description="Without one, the first fetch gets one with the refresh token."
    )
    access_token_expiry: EpochSeconds = Field(
        default=0, description="Epoch seconds, as a number or in text; 0 or empty when unknown."
    )
    access_token_type: Annotated[PastedText, Field(max_length=100)] = Field(
        default="", description="`Bearer` when left out."
    )
    scopes: list[ShortText] | None = Field(
        default=None, max_length=500, description="What they were granted for; left out, the app's default scopes."
    )
    external_identifier: OptionalId = Field(
        default="", description="Tells several accounts of one owner at one provider apart."
    )
    id_token: TokenText | None = Field(
        default=None, description="Names `tokenSub` if it is valid for the app; otherwise it is ignored."
    )
    granted_by: OptionalId = Field(default="", description="Who consented, where that is not the owner.")
    details: Details = Field(default_factory=dict, description=DETAILS)
    verify_refresh: Flag = Field(
        default=False,
        description="Use the refresh token first, store what the provider answers, and nothing if it refuses.",
    )

    def upload(self, owner: ResourceOwner) -> TokenUpload:
        """Take the fields."""
        return TokenUpload(
            app_id=self.app_id,
            owner=owner,
            refresh_token=self.refresh_token or None,
            access_token=self.access_token or None,
            access_token_expiry=self.access_token_expiry,
            access_token_type=self.access_token_type,
            scopes=None if self.scopes is None else tuple(self.scopes),
            external_identifier=self.external_identifier,
            id_token=self.id_token or None,
            granted_by=self.granted_by,
            details=self.details,
        )


class UploadUserTokens(UploadedTokens):
    """A user's OAuth tokens."""

    model_config = example({**_USER, **_TOKENS, "verifyRefresh": True})

    user_id: UserOwner
    tenant_id: InTenant = ""

    def owner(self) -> ResourceOwner:
        """Return whose they are."""
        return ResourceOwner(self.user_id, self.tenant_id)


class UploadTenantTokens(UploadedTokens):
    """A tenant's OAuth tokens."""

    model_config = example({**_TENANT, **_TOKENS, "grantedBy": "alice"})

    tenant_id: TenantOwner

    def owner(self) -> ResourceOwner:
        """Return whose they are."""
        return ResourceOwner("", self.tenant_id)


class UploadUserTokensBatch(WireModel):
    """Users' OAuth tokens, all or none. The body may be 10 MiB."""

    model_config = example({"tokens": [{**_USER, **_TOKENS}]})

    tokens: list[UploadUserTokens] = Field(max_length=1_000)


class UploadTenantTokensBatch(WireModel):
    """Tenants' OAuth tokens, all or none. The body may be 10 MiB."""

    model_config = example({"tokens": [{**_TENANT, **_TOKENS}]})

    tokens: list[UploadTenantTokens] = Field(max_length=1_000)


class UploadFailure(WireModel):
    """Why nothing was stored, as far as this item is concerned."""

    app_id: str
    user_id: str | None = None
    tenant_id: str | None = None
    error_code: str
    reason: str


class BatchAnswer(WireModel):
    """Empty when everything was stored; otherwise nothing was."""

    model_config = example(
        {
            "failures": [
                {
                    "appId": "google-contacts",
                    "userId": "alice",
                    "errorCode": "E011002",
                    "reason": "refreshToken: give refreshToken, accessToken or both",
                }
            ]
        }
    )

    failures: list[UploadFailure]


@router.post("/user/oauthtoken/upload", summary="Upload a user's OAuth tokens", responses=errors(400, 404, 413, 502))
async def upload_user_tokens(body: UploadUserTokens, broker: BrokerDep, principal: TokensWriter) -> Nothing:
    """Store tokens that were issued elsewhere to the same client; the user need not consent again."""
    await _upload(body, body.owner(), broker, principal)
    return Nothing()


@router.post(
    "/tenant/oauthtoken/upload", summary="Upload a tenant's OAuth tokens", responses=errors(400, 404, 413, 502)
)
async def upload_tenant_tokens(body: UploadTenantTokens, broker: BrokerDep, principal: TokensWriter) -> Nothing:
    """Store a tenant's own tokens that were issued elsewhere to the same client; nobody need consent again."""
    await _upload(body, body.owner(), broker, principal)
    return Nothing()


async def _upload(body: UploadedTokens, owner: ResourceOwner, broker: BrokerDep, principal: TokensWriter) -> None:
    await upload_tokens(broker, principal, body.upload(owner), verify_refresh=body.verify_refresh, now=clock.now())


def _batch_errors() -> dict[int | str, dict[str, Any]]:
    documented = errors(400, 413)
    documented[413] = {**documented[413], "description": "The body is larger than 10 MiB."}
    return documented


@router.post("/user/oauthtoken/batch/upload", summary="Upload many users' OAuth tokens", responses=_batch_errors())
async def upload_user_tokens_batch(
    body: UploadUserTokensBatch, broker: BrokerDep, principal: TokensWriter
) -> BatchAnswer:
    """Store many users' tokens: all of them or, where any item fails, none. Items cannot have `verifyRefresh`."""
    items = [BatchItem(item.upload(item.owner()), item.verify_refresh) for item in body.tokens]
    return _answer(await upload_batch(broker, principal, items, now=clock.now()))


@router.post("/tenant/oauthtoken/batch/upload", summary="Upload many tenants' OAuth tokens", responses=_batch_errors())
async def upload_tenant_tokens_batch(
    body: UploadTenantTokensBatch, broker: BrokerDep, principal: TokensWriter
) -> BatchAnswer:
    """Store many tenants' tokens: all of them or, where any item fails, none. Items cannot have `verifyRefresh`."""
    items = [BatchItem(item.upload(item.owner()), item.verify_refresh) for item in body.tokens]
    return _answer(await upload_batch(broker, principal, items, now=clock.now()))


def _answer(failures: list[BatchFailure]) -> BatchAnswer:
    return BatchAnswer(
        failures=[
            UploadFailure(
                app_id=failure.upload.app_id,
                user_id=failure.upload.owner.user_id or None,
                tenant_id=failure.upload.owner.tenant_id or None,
                error_code=failure.error.code,
                reason=failure.error.message,
            )
            for failure in failures
        ]
    )
