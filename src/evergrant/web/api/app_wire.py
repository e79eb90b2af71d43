"""Outbound apps as they are sent, and how what is sent becomes an app's definition."""

from dataclasses import fields
from typing import Annotated, Any, Self

from pydantic import Field, Strict, model_validator

from evergrant.app_types import AppType
from evergrant.broker.apps.definition import AppDefinition
from evergrant.web.api.app_examples import DEFINED, SECRET
from evergrant.web.api.wire import (
    AppId,
    Flag,
    PastedText,
    SecretText,
    ShortText,
    SigningKey,
    StrictWireModel,
    Text,
    WireModel,
    example,
)


class UrlParam(StrictWireModel):
    """One extra parameter of a request to the provider."""

    key: ShortText = ""
    name: ShortText = Field(default="", description="The same as `key`, in the SDKs' spelling; either will do.")
    value: ShortText = ""

    @model_validator(mode="after")
    def _one_name(self) -> Self:
        if self.key and self.name and self.key != self.name:
            raise ValueError("key and name are two spellings of one thing: give one of them")
        self.key = self.name = self.key or self.name
        return self


class ScopeDescription(StrictWireModel):
    """What a scope means, in words for the consent page."""

    value: ShortText
    description: ShortText = ""


class AppFields(StrictWireModel):
    """What an operator says about an app. Every field but the name may be left out."""

    name: PastedText = Field(min_length=1, description="Shown to users; unique in the project.")
    description: ShortText = ""
    logo: PastedText = Field(default="", description="https URL or data:image URL.")
    client_id: ShortText = Field(default="", description="From the provider.")
    client_secret: SecretText | None = Field(
        default=None,
        description="From the provider. Write-only; left out of an update, the stored one stays. An update by which it "
        "would go elsewhere must bring it.",
    )
    signing_key: SigningKey | None = Field(
        default=None,
        description="(ours) What signs the assertions of apps that have them: a private key in PEM or as a JWK. "
        "Write-only, and kept like the secret.",
    )
    discovery_url: ShortText = Field(
        default="",
        description="An issuer, its metadata (RFC 8414, OpenID) or a protected resource such as an MCP server "
        "(RFC 9728): fills what is left out.",
    )
    authorization_url: ShortText = ""
    authorization_url_params: list[UrlParam] = Field(default_factory=list, max_length=50)
    token_url: ShortText = ""
    token_url_params: list[UrlParam] = Field(default_factory=list, max_length=50)
    revocation_url: ShortText = ""
    default_scopes: list[ShortText] = Field(default_factory=list, max_length=500)
    default_redirect_url: ShortText = Field(default="", description="Where the browser goes after the trip.")
    callback_domain: ShortText = Field(default="", description="Host for the callback instead of the public URL's.")
    pkce: Flag = Field(default=True, description="Off only where the provider refuses PKCE.")
    access_type: PastedText = Field(
        default="", description="offline or online, where the provider knows `access_type`."
    )
    prompt: list[ShortText] = Field(
        default_factory=list, max_length=10, description="none, login, consent, select_account"
    )
    app_type: AppType | None = Field(
        default=None,
        description="`oauth` when left out of a creation. `apikey`: each owner uploads a key, and nobody connects. The "
        "others (ours) obtain their tokens from credentials: see the template.",
    )
    use_dcr: Flag | None = Field(
        default=None, description="Get a client id by ourselves, at the first connect, where `clientId` is empty."
    )
    dcr_url: ShortText | None = Field(default=None, description="Where to register (RFC 7591); discovered, else given.")
    tenant_id: Annotated[Text, Field(max_length=2_000)] | None = Field(
        default=None, description="The only tenant that may use the app."
    )
    template_id: ShortText | None = Field(default=None, description="The template that the app was made from.")

    variables: dict[ShortText, ShortText] | None = Field(
        default=None,
        max_length=50,
        description="Values of the template's variables: a tenant, a host. Where whoever connects may give one, the "
        "app's counts for everybody.",
    )

    # ours: an update that leaves them out keeps what is stored, so that SDKs which do not know them change nothing
    issuer: ShortText | None = Field(default=None, description="The provider's issuer, for `iss` and id_tokens.")
    userinfo_url: ShortText | None = Field(default=None, description="Asked for the user's id where no id_token comes.")
    jwks_url: ShortText | None = Field(default=None, description="The keys that id_tokens are signed with.")
    resource: ShortText | None = Field(
        default=None, description="What tokens are for (RFC 8707), an MCP server's own URL for example."
    )
    token_endpoint_auth_method: ShortText | None = Field(
        default=None,
        description="client_secret_post, client_secret_basic, none, private_key_jwt or client_secret_jwt (RFC 7591).",
    )
    scopes: list[ScopeDescription] | None = Field(default=None, max_length=500, description="For the consent page.")
    scope_translations: dict[ShortText, dict[ShortText, ShortText]] | None = Field(
        default=None,
        max_length=20,
        description="The words of `scopes` in other languages: by language (`de`), then by scope.",
    )
    skip_consent_page: Flag | None = Field(
        default=None, description="Go to the provider without evergrant's page; takes `requireConfirmation` too."
    )
    require_confirmation: Flag | None = Field(
        default=None, description="A connection counts only after your backend confirmed who came back."
    )
    revoke_replaced: Flag | None = Field(default=None, description="Revoke what a newer consent replaces.")
    refresh_policy: ShortText | None = Field(
        default=None,
        description="`proactive` refreshes in the background before a fetch would have to wait; `on_demand` does not.",
    )
    refresh_token_idle_seconds: Annotated[int, Strict()] | None = Field(
        default=None,
        ge=0,
        description="After so many seconds without use the provider's refresh tokens die, so evergrant uses them well "
        "before, whatever the policy. 0 for never.",
    )
    own_callback: Flag | None = Field(
        default=None,
        description="Moves an app from before to a callback address of its own; every app that is made now has one, "
        "and keeps it.",
    )
    api_base_url: ShortText | None = Field(
        default=None,
        description="Where the provider's API is that calls go to, instead of the template's. May hold variables.",
    )
    api_further: dict[ShortText, ShortText] | None = Field(
        default=None,
        max_length=20,
        description='Further bases by name, beside the template\'s: `{"uploads": "https://uploads.example.com"}`.',
    )
    api_headers: dict[ShortText, ShortText] | None = Field(
        default=None,
        max_length=50,
        description="Sent with each call, unless the caller sends the same. May hold variables, `{client_id}` and "
        "`{client_secret}`.",
    )
    api_forbidden: list[ShortText] | None = Field(
        default=None,
        max_length=200,
        description="Calls that nobody makes, beside the template's: `POST /admin/**`; `*` for any method or one "
        "segment.",
    )


class CreateApp(AppFields):
    """An app to create."""

    model_config = example({**DEFINED, **SECRET})

    id: PastedText = Field(default="", description="Yours, or left out for a generated one. Cannot be changed later.")


class UpdatedApp(AppFields):
    """The whole new definition: a field that is left out is emptied. What a load returns can be sent back."""

    id: AppId
    # returned by a load, decided by evergrant: accepted and ignored
    callback_url: Any = None
    registration_expires_at: Any = None
    has_client_secret: Any = None
    has_signing_key: Any = None
    created_time: Any = None
    updated_time: Any = None
    health: Any = None
    warnings: Any = None


class UpdateApp(StrictWireModel):
    """An app to update."""

    model_config = example({"app": {**DEFINED, "name": "Contacts"}})

    app: UpdatedApp


class DeleteApp(WireModel):
    """An app to delete, with everything connected through it."""

    model_config = example({"id": "google-contacts"})

    id: AppId


def definition(body: AppFields, app_id: str) -> AppDefinition:
    """Return what a request says about an app: each field has the same name, but for those that are spelt out here."""
    differing: dict[str, Any] = {
        "id": app_id,
        "authorization_url_params": [(param.key, param.value) for param in body.authorization_url_params],
        "token_url_params": [(param.key, param.value) for param in body.token_url_params],
        "scope_descriptions": (
            None if body.scopes is None else {scope.value: scope.description for scope in body.scopes}
        ),
    }
    same = {field.name: getattr(body, field.name) for field in fields(AppDefinition) if field.name not in differing}
    return AppDefinition(**differing, **same)


def named_fields(body: AppFields, app_id: str) -> dict[str, Any]:
    """Return what a request says about an app in the fields that it names, by the names that a definition has."""
    whole = definition(body, app_id)
    names = [stored_as(name) for name in type(body).model_fields if name in body.model_fields_set]
    return {name: getattr(whole, name) for name in names}


def stored_as(name: str) -> str:
    """Return the name that an app and its definition have for a field: the same, but for one."""
    return "scope_descriptions" if name == "scopes" else name
