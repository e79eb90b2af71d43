"""Uploading API keys, and credentials that consist of fields or that tokens are obtained from."""

from typing import Annotated

from pydantic import AfterValidator, Field, SecretStr, Strict

from evergrant import clock
from evergrant.broker.connections.credentials_upload import CredentialsUpload, upload_api_key, upload_credentials
from evergrant.broker.grants.grants import ResourceOwner
from evergrant.catalog.field import MAX_LENGTH
from evergrant.web.api.upload_wire import DETAILS, Details, InTenant, TenantOwner, UserOwner
from evergrant.web.api.wire import (
    AppId,
    Flag,
    Nothing,
    OptionalId,
    SecretText,
    ShortText,
    WireModel,
    errors,
    example,
    storable,
)
from evergrant.web.deps import BrokerDep, TokensWriter
from evergrant.web.routing import ApiRouter

router = ApiRouter(prefix="/v1/mgmt/outbound/app", tags=["uploads"])


def _storable(value: SecretStr) -> SecretStr:
    storable(value.get_secret_value())
    return value


FieldText = Annotated[SecretStr, Strict(), AfterValidator(_storable), Field(max_length=MAX_LENGTH)]
"""A field's value as it was pasted: what blanks and lines mean, its catalogue entry says."""
_KEY = {"appId": "openai", "apiKey": "sk-from-the-provider"}
_CREDENTIALS = {
    "appId": "our-tracker",
    "fields": {"username": "alice", "password": "from-the-provider"},
    "details": {"host": "tracker.acme.example"},
}


class UploadedKey(WireModel):
    """An API key, whoever's it is."""

    app_id: AppId
    api_key: SecretText = Field(min_length=1, description="Takes the place of the one before.")
    details: Details = Field(default_factory=dict, description=DETAILS)
    verify: Flag = Field(
        default=False,
        description="Try the key at the provider's API first, where the template knows how, and store nothing if it "
        "is refused.",
    )


class UploadUserApiKey(UploadedKey):
    """A user's API key."""

    model_config = example({**_KEY, "userId": "alice"})

    user_id: UserOwner
    tenant_id: InTenant = ""


class UploadTenantApiKey(UploadedKey):
    """A tenant's API key."""

    model_config = example({**_KEY, "tenantId": "acme"})

    tenant_id: TenantOwner


class UploadedCredentials(WireModel):
    """Credentials, whoever's they are."""

    app_id: AppId
    fields: dict[ShortText, FieldText] = Field(
        default_factory=dict,
        max_length=50,
        description="What `GET templates/{id}` lists under `fields`, by name. An app with API keys whose template has "
        "none takes `token`; one with client credentials takes `client_id` and `client_secret` of the connection's "
        "own, and must where the app has none.",
    )
    details: Details = Field(default_factory=dict, description=DETAILS)
    scopes: list[ShortText] | None = Field(
        default=None,
        max_length=500,
        description="What tokens are asked for; left out, the app's default scopes. API keys have none.",
    )
    external_identifier: OptionalId = Field(
        default="", description="Tells several accounts of one owner at one provider apart."
    )
    verify: Flag = Field(
        default=True,
        description="Obtain the first token first, or try a key at the provider's API where the template knows how, "
        "and store nothing if the credentials are refused.",
    )

    def upload(self, owner: ResourceOwner) -> CredentialsUpload:
        """Take the fields."""
        return CredentialsUpload(
            app_id=self.app_id,
            owner=owner,
            fields={name: value.get_secret_value() for name, value in self.fields.items()},
            details=self.details,
            scopes=None if self.scopes is None else tuple(self.scopes),
            external_identifier=self.external_identifier,
        )


class UploadUserCredentials(UploadedCredentials):
    """A user's credentials."""

    model_config = example({**_CREDENTIALS, "userId": "alice"})

    user_id: UserOwner
    tenant_id: InTenant = ""


class UploadTenantCredentials(UploadedCredentials):
    """A tenant's credentials."""

    model_config = example({**_CREDENTIALS, "tenantId": "acme"})

    tenant_id: TenantOwner


@router.post("/user/apikey/upload", summary="Upload a user's API key", responses=errors(400, 404, 413, 502))
async def upload_user_api_key(body: UploadUserApiKey, broker: BrokerDep, principal: TokensWriter) -> Nothing:
    """Store the key that a user has for an API-key app."""
    return await _upload_key(body, ResourceOwner(body.user_id, body.tenant_id), broker, principal)


@router.post("/tenant/apikey/upload", summary="Upload a tenant's API key", responses=errors(400, 404, 413, 502))
async def upload_tenant_api_key(body: UploadTenantApiKey, broker: BrokerDep, principal: TokensWriter) -> Nothing:
    """Store the key that a tenant has for an API-key app."""
    return await _upload_key(body, ResourceOwner("", body.tenant_id), broker, principal)


@router.post("/user/credentials/upload", summary="Upload a user's credentials", responses=errors(400, 404, 413, 502))
async def upload_user_credentials(body: UploadUserCredentials, broker: BrokerDep, principal: TokensWriter) -> Nothing:
    """Store what a user has for an app of any kind but `oauth`: a key, fields, or what tokens are obtained from.

    It takes the place of the same user's with the same scopes.
    """
    return await _upload(body, ResourceOwner(body.user_id, body.tenant_id), broker, principal)


@router.post(
    "/tenant/credentials/upload", summary="Upload a tenant's credentials", responses=errors(400, 404, 413, 502)
)
async def upload_tenant_credentials(
    body: UploadTenantCredentials, broker: BrokerDep, principal: TokensWriter
) -> Nothing:
    """Store what a tenant has for an app of any kind but `oauth`, in the place of what it had with the same scopes."""
    return await _upload(body, ResourceOwner("", body.tenant_id), broker, principal)


async def _upload_key(body: UploadedKey, owner: ResourceOwner, broker: BrokerDep, principal: TokensWriter) -> Nothing:
    await upload_api_key(
        broker,
        principal,
        app_id=body.app_id,
        owner=owner,
        api_key=body.api_key,
        details=body.details,
        verify=body.verify,
        now=clock.now(),
    )
    return Nothing()


async def _upload(
    body: UploadedCredentials, owner: ResourceOwner, broker: BrokerDep, principal: TokensWriter
) -> Nothing:
    await upload_credentials(broker, principal, body.upload(owner), verify=body.verify, now=clock.now())
    return Nothing()
