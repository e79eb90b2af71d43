"""A template: what is true of a provider whoever registers a client with it.

Only what the engine acts on is in it, what people are told, and what the tests of every entry need to play its part.

`docs/catalogue.md` is the table of all fields. Names are those of RFC 8414 and RFC 7591 wherever these have one.
"""

from datetime import date
from typing import Annotated, Literal

from pydantic import Field

from evergrant.app_types import AppType
from evergrant.catalog.api import Api
from evergrant.catalog.field import CredentialField
from evergrant.catalog.field_types import (
    Description,
    Issuer,
    OptionalPageUrl,
    OptionalUrl,
    PageUrl,
    Scope,
    ScopePattern,
    Seconds,
    Slug,
    StrictModel,
    Title,
    VariableName,
)
from evergrant.catalog.retirement import Retirement
from evergrant.catalog.variable import Variable
from evergrant.oauth2.hooks import HookName
from evergrant.oauth2.quirk_types import Headers, Parameters, Renames, Url
from evergrant.oauth2.quirks import ContextRequest, DeadAnswer, ResponseShape, RevocationStyle, TokenExchange
from evergrant.oauth2.source_types import Assertion, LoginStep

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


class DcrPreset(StrictModel):
    """A server at which evergrant registers by itself (RFC 7591), and which its address is enough to find."""

    id: Slug
    name: Title
    category: Annotated[str, Field(min_length=1)]
    discovery_url: Url
    """An MCP server's own address, another protected resource's (RFC 9728), or an issuer's."""
    documentation_url: Url
    verification: Annotated[str, Field(min_length=1)]
    """How sure the facts are, in words."""


class Template(StrictModel):
    """What is true of one provider. An empty field means: it has none. `validation` checks that fields fit together."""

    id: Slug
    name: Title
    category: Category
    app_type: AppType = AppType.OAUTH
    documentation_url: PageUrl
    """Where the provider says how to register a client, or get a key."""
    setup_hint: Description = ""
    """What people stumble over when they register a client there."""
    verification: Literal["confirmed", "unconfirmed"]
    sources: Annotated[int, Field(ge=0)] = 0
    """How many independent sources agree on the endpoints."""
    remark: Description = ""
    """What is uncertain, or was chosen among several."""
    reviewed: date | None = None
    """When somebody last held it against the provider's own pages."""
    retires: tuple[Retirement, ...] = ()
    """What ends at the provider: addresses that apps may still have, or all that this template is about."""
    replaced_by: Slug | Literal[""] = ""
    """The template to use instead, where all of it ends."""

    issuer: Issuer = ""
    authorization_endpoint: OptionalPageUrl = ""
    """May have a fragment. Behind one that begins with "/" stand the parameters; another stays at the end."""
    token_endpoint: OptionalUrl = ""
    refresh_endpoint: OptionalUrl = ""
    revocation_endpoint: OptionalUrl = ""
    """Only where the provider revokes as RFC 7009 says; else `revocation`."""
    revoke_replaced: bool = False
    """Revoking one token leaves the same person's newer consents alone, so that replaced ones are revoked."""
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
    scope_aliases: dict[ScopePattern, tuple[ScopePattern, ...]] = Field(default_factory=dict)
    """A scope, and its other spellings in this provider's answers."""
    scope_includes: dict[ScopePattern, tuple[ScopePattern, ...]] = Field(default_factory=dict)
    """A scope, and lesser ones that it contains, so that the provider leaves them out of its answers."""

    authorization_params: Parameters = Field(default_factory=dict)
    redirect_uri: str = ""
    """A variable of source `app`, `{name}`: what the provider wants to see instead of our callback address."""
    token_params: Parameters = Field(default_factory=dict)
    refresh_params: Parameters = Field(default_factory=dict)
    token_request_method: Literal["POST", "GET"] = "POST"
    token_request_format: Literal["form", "json", "query"] = "form"
    token_request_headers: Headers = Field(default_factory=dict)
    parameter_names: Renames = Field(default_factory=dict)
    """Other names for the protocol's parameters, in every request; empty: not sent."""
    authorization_parameter_names: Renames = Field(default_factory=dict)
    token_parameter_names: Renames = Field(default_factory=dict)
    callback_parameter_names: Renames = Field(default_factory=dict)

    token_response: ResponseShape = ResponseShape()
    dead_refresh_token: tuple[DeadAnswer, ...] = ()
    """What the provider says to a dead refresh token, in its own words."""
    default_expires_in: Seconds | Literal["never"] | None = None
    """The lifetime where the answer does not state one."""
    refresh_margin: Seconds | None = None
    """Refresh this long before the end, not earlier and not later."""
    refresh_token_rotation: Literal["rotates", "stable", "unknown"] = "unknown"
    refresh_token_reuse_seconds: Seconds = 0
    """For so long a refresh token works once more after it was replaced."""
    refresh_token_idle_seconds: Seconds = 0
    """After so long without use a refresh token dies."""
    refresh_token_max_seconds: Seconds = 0
    """So long after the consent a refresh token dies, however often it is used or rotated."""

    variables: dict[VariableName, Variable] = Field(default_factory=dict)
    context_request: ContextRequest | None = None
    token_exchange: tuple[TokenExchange, ...] = ()
    revocation: RevocationStyle | None = None
    hook: HookName | None = None

    fields: dict[VariableName, CredentialField] = Field(default_factory=dict)
    """What a connection's credentials consist of. An entry of API keys without any takes one key, `{token}`."""
    assertion: Assertion | None = None
    login: tuple[LoginStep, ...] = ()
    installation_check: OptionalUrl = ""
    api: Api = Api()

    @property
    def token_url(self) -> str:
        """Where credentials are sent for tokens: the token endpoint, or the first step of a login."""
        return self.token_endpoint or (self.login[0].url if self.login else "")

    @property
    def retirement(self) -> Retirement | None:
        """When all of it ends or ended, if the provider has said so."""
        return next((each for each in self.retires if each.field is None), None)
