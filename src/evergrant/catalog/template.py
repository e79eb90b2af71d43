"""A template: what is true of a provider whoever registers a client with it. Only what the engine acts on is in it.

`docs/catalogue.md` is the table of all fields. Names are those of RFC 8414 and RFC 7591 wherever these have one.
"""

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from evergrant.catalog import checks
from evergrant.catalog.words import (
    Description,
    Headers,
    Issuer,
    OptionalPageUrl,
    OptionalUrl,
    PageUrl,
    Params,
    Pointers,
    Regex,
    Renames,
    Scope,
    Seconds,
    Slug,
    Title,
    Url,
    VariableName,
)

Category = Literal[
    "accounting",
    "ai",
    "analytics",
    "ats",
    "banking",
    "cms",
    "communication",
    "crm",
    "design",
    "dev-tools",
    "e-commerce",
    "education",
    "erp",
    "gaming",
    "hr",
    "iam",
    "invoicing",
    "knowledge-base",
    "legal",
    "marketing",
    "media",
    "other",
    "payment",
    "productivity",
    "social",
    "sports",
    "storage",
    "support",
    "surveys",
    "ticketing",
    "video",
]
AuthMethod = Literal["client_secret_post", "client_secret_basic", "none", "private_key_jwt", "client_secret_jwt"]
Hook = Literal["apple_client_secret"]
"""What no data can say. `apple_client_secret`: the secret is a key that signs a short-lived ES256 JWT."""
Source = Literal["app", "user", "callback", "token", "context"]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, str_strip_whitespace=True)


class DcrPreset(_Strict):
    """A server at which evergrant registers by itself (RFC 7591): its address says everything else."""

    id: Slug
    name: Title
    category: Annotated[str, Field(min_length=1)]
    discovery_url: Url
    """An MCP server's own address, another protected resource's (RFC 9728), or an issuer's."""
    documentation_url: Url
    verification: Annotated[str, Field(min_length=1)]
    """How sure the facts are, in words."""


class Variable(_Strict):
    """A value that differs from app to app, or from connection to connection; written `{name}` where it is used."""

    title: Title
    source: Source = "app"
    """Who gives it: the operator when the app is made, the user who connects, the browser's way back (`callback`),
    the token endpoint's answer, or the answer to `context_request`."""
    from_: Annotated[str, Field(alias="from", max_length=200)] = ""
    """Of a captured one: the callback's parameter, or a JSON pointer (RFC 6901) into the answer."""
    pattern: Regex = ""
    """The whole value must match. Demanded where it is part of a URL."""
    enum: tuple[str, ...] = ()
    default: str = ""
    example: str = ""
    required: bool | None = None
    """Left out: true for what operator or user give, unless there is a default; false for what is captured."""

    @property
    def is_captured(self) -> bool:
        """Whether it comes from an answer, and not from a person."""
        return self.source in ("callback", "token", "context")

    @property
    def is_required(self) -> bool:
        """Whether a connection without a value for it cannot be made."""
        return self.required if self.required is not None else not (self.is_captured or self.default)

    def problem_with(self, value: str) -> str:
        """Say what is wrong with `value` and what to use instead; empty when it is good."""
        return checks.problem_with(value, enum=self.enum, pattern=self.pattern, example=self.example)

    @model_validator(mode="after")
    def _whole(self) -> Self:
        checks.check_variable(self)
        return self


class TokenResponseShape(_Strict):
    """Where a token answer keeps what RFC 6749 section 5.1 keeps at the top. Of several places the first wins."""

    access_token: Pointers = ("/access_token",)
    refresh_token: Pointers = ("/refresh_token",)
    expires_in: Pointers = ("/expires_in",)
    expires_at: Pointers = ()
    scope: Pointers = ("/scope",)
    error: Pointers = ("/error",)
    error_description: Pointers = ("/error_description",)
    expires_unit: Literal["s", "ms", "min"] = "s"
    expires_at_format: Literal["epoch", "epoch_ms", "iso"] = "epoch"


class TokenExchange(_Strict):
    """A step of the provider's own by which one access token is traded for another."""

    when: tuple[Literal["connect", "refresh"], ...] = Field(min_length=1)
    """`connect`: after the code was redeemed. `refresh`: instead of the refresh token grant."""
    method: Literal["GET", "POST"] = "GET"
    url: Url
    params: Params = Field(default_factory=dict)


class ContextRequest(_Strict):
    """One request after a connect, by the new access token, to learn what API calls need."""

    method: Literal["GET", "POST"] = "GET"
    url: Url
    headers: Headers = Field(default_factory=lambda: {"Authorization": "Bearer {access_token}"})
    json_body: str = ""
    """Sent as it is, for the providers that answer only GraphQL."""


class Revocation(_Strict):
    """How a provider revokes that does not do it as RFC 7009 says."""

    url: Url
    method: Literal["POST", "GET", "DELETE"] = "POST"
    format: Literal["form", "json", "query"] = "form"
    params: Params = Field(default_factory=dict)
    """`{token}` is the one that is revoked; it may stand in `url` and `headers` too."""
    headers: Headers = Field(default_factory=dict)
    auth: Literal["client", "basic", "bearer", "none"] = "client"
    """`client`: as at the token endpoint. `basic`: always HTTP Basic. `bearer`: by the access token."""
    token: Literal["refresh_token", "access_token"] = "access_token"


class ApiKey(_Strict):
    """Where an API expects the key: told to whoever fetches it, since evergrant calls no API by itself."""

    place: Annotated[Literal["header", "query", "basic"], Field(alias="in")] = "header"
    """`basic`: HTTP Basic with the key as the user name, or as the password beside `username`."""
    name: str = "Authorization"
    prefix: Annotated[str, StringConstraints(strip_whitespace=False)] = ""
    """Before the key, with its space: `"Bearer "`."""
    username: str = ""
    """Of `basic`: what stands beside the key; it may hold `{variables}`."""


class Template(_Strict):
    """One provider. What is empty, it has none of."""

    id: Slug
    name: Title
    category: Category
    app_type: Literal["oauth", "apikey"] = "oauth"
    documentation_url: PageUrl
    """Where the provider says how to register a client, or get a key."""
    setup_hint: Description = ""
    """What people stumble over when they register a client there."""
    verification: Literal["confirmed", "unconfirmed"]
    sources: Annotated[int, Field(ge=0)] = 0
    """How many independent sources agree on the endpoints."""
    remark: Description = ""
    """What is uncertain, or was chosen among several."""

    issuer: Issuer = ""
    authorization_endpoint: OptionalPageUrl = ""
    """May have a fragment. Behind one that begins with "/" stand the parameters; another stays at the end."""
    token_endpoint: OptionalUrl = ""
    refresh_endpoint: OptionalUrl = ""
    revocation_endpoint: OptionalUrl = ""
    """Only where the provider revokes as RFC 7009 says; else `revocation`."""
    introspection_endpoint: OptionalUrl = ""
    """Asked for the expiry when the token answer does not state one (RFC 7662)."""
    userinfo_endpoint: OptionalUrl = ""
    jwks_uri: OptionalUrl = ""

    token_endpoint_auth_methods_supported: Annotated[tuple[AuthMethod, ...], Field(min_length=1)] = (
        "client_secret_post",
    )
    """The first is used."""
    token_endpoint_auth_signing_alg: Literal["", "RS256", "PS256", "ES256", "HS256"] = ""
    pkce: Literal["supported", "required", "absent"] = "supported"
    default_scopes: tuple[Scope, ...] = ()
    scope_separator: Literal[" ", ",", "+"] = " "
    scopes: dict[Scope, Description] = Field(default_factory=dict)
    """Scopes in words, for the consent page."""

    authorization_params: Params = Field(default_factory=dict)
    redirect_uri: str = ""
    """A variable of source `app`, `{name}`: what the provider wants to see instead of our callback address."""
    token_params: Params = Field(default_factory=dict)
    refresh_params: Params = Field(default_factory=dict)
    token_request_method: Literal["POST", "GET"] = "POST"
    token_request_format: Literal["form", "json", "query"] = "form"
    token_request_headers: Headers = Field(default_factory=dict)
    parameter_names: Renames = Field(default_factory=dict)
    """Other names for the protocol's parameters, in every request; empty: not sent."""
    authorization_parameter_names: Renames = Field(default_factory=dict)
    token_parameter_names: Renames = Field(default_factory=dict)
    callback_parameter_names: Renames = Field(default_factory=dict)

    token_response: TokenResponseShape = TokenResponseShape()
    dead_errors: tuple[str, ...] = ()
    """The provider's own error codes, or whole descriptions where the code says something else, that mean: this refresh
    token is dead."""
    default_expires_in: Seconds | Literal["never"] | None = None
    """The lifetime where the answer does not state one."""
    refresh_margin: Seconds | None = None
    """Refresh this long before the end, not earlier and not later."""
    refresh_token_rotation: Literal["rotates", "stable", "unknown"] = "unknown"
    refresh_token_reuse_seconds: Seconds = 0
    """For so long a refresh token works once more after it was replaced."""
    refresh_token_idle_seconds: Seconds = 0
    """After so long without use a refresh token dies."""

    variables: dict[VariableName, Variable] = Field(default_factory=dict)
    context_request: ContextRequest | None = None
    token_exchange: tuple[TokenExchange, ...] = ()
    revocation: Revocation | None = None
    hook: Hook | None = None
    api_key: ApiKey | None = None

    @model_validator(mode="after")
    def _whole(self) -> Self:
        checks.check_template(self)
        return self

    @property
    def response_mode(self) -> str:
        """How the browser brings the answer back: `form_post` is a POST."""
        return self.authorization_params.get("response_mode", "")
