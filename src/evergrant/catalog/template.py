"""A template: what is true of a provider whoever registers a client with it. Only what the engine acts on is in it."""

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

Url = Annotated[str, Field(pattern=r"^https://[^\s{}]+$", max_length=2_000)]
OptionalUrl = Annotated[str, Field(pattern=r"^(https://[^\s{}]+)?$", max_length=2_000)]
Issuer = Annotated[str, Field(pattern=r"^(https://\S+)?$", max_length=2_000)]
"""May hold `{tenantid}`, as Microsoft publishes it."""
Word = Annotated[str, Field(pattern=r"^[\x21\x23-\x5b\x5d-\x7e]+$")]
"""A scope (RFC 6749 section 3.3)."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, str_strip_whitespace=True)


class TemplateScope(_Strict):
    """A scope of the provider, in words for the consent page."""

    value: Word
    description: Annotated[str, Field(min_length=1, max_length=200)]


class DcrPreset(_Strict):
    """A server at which evergrant registers by itself (RFC 7591): its address says everything else."""

    id: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")]
    name: Annotated[str, Field(min_length=1, max_length=200)]
    category: Annotated[str, Field(min_length=1)]
    discovery_url: Url
    """An MCP server's own address, another protected resource's (RFC 9728), or an issuer's."""
    documentation_url: Url
    verification: Annotated[str, Field(min_length=1)]
    """How sure the facts are, in words."""


class Template(_Strict):
    """One provider. An empty string means: it has none."""

    id: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")]
    name: Annotated[str, Field(min_length=1, max_length=200)]
    category: Annotated[str, Field(min_length=1)]
    app_type: Literal["oauth", "apikey"] = "oauth"
    documentation_url: Url
    verification: Annotated[str, Field(min_length=1)]
    """How sure the facts are, in words."""

    issuer: Issuer = ""
    authorization_url: OptionalUrl = ""
    token_url: OptionalUrl = ""
    revocation_url: OptionalUrl = ""
    """Only where the provider revokes as RFC 7009 says."""
    userinfo_url: OptionalUrl = ""
    jwks_url: OptionalUrl = ""
    token_endpoint_auth_method: Literal["client_secret_post", "client_secret_basic", "none"] = "client_secret_post"
    pkce: bool = True
    access_type: Literal["", "offline", "online"] = ""
    prompt: tuple[Literal["none", "login", "consent", "select_account"], ...] = ()
    authorization_params: dict[str, str] = Field(default_factory=dict)
    default_scopes: tuple[Word, ...] = ()
    scopes: tuple[TemplateScope, ...] = ()

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if self.app_type == "oauth" and not (self.authorization_url and self.token_url):
            raise ValueError("an oauth template needs authorization_url and token_url")
        if self.app_type == "apikey" and (self.authorization_url or self.token_url or self.revocation_url):
            raise ValueError("an apikey template has no endpoints")
        undescribed = set(self.default_scopes) - {scope.value for scope in self.scopes}
        if undescribed:
            raise ValueError(f"describe in scopes: {', '.join(sorted(undescribed))}")
        return self
