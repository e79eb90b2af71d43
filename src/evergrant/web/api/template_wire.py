"""A provider that is known already, as the calls of the app library write it."""

from typing import Literal

from pydantic import Field

from evergrant.app_types import AppType
from evergrant.catalog.template import Template
from evergrant.web.api.app_wire import ScopeDescription
from evergrant.web.api.wire import WireModel

DISCORD = {
    "id": "discord",
    "name": "Discord",
    "category": "communication",
    "appType": "oauth",
    "kind": "OAuth consent",
    "authorizationUrl": "https://discord.com/oauth2/authorize",
    "tokenUrl": "https://discord.com/api/oauth2/token",
    "revocationUrl": "https://discord.com/api/oauth2/token/revoke",
    "defaultScopes": ["identify"],
    "scopes": [{"value": "identify", "description": "See your user name and avatar"}],
    "documentationUrl": "https://discord.com/developers/docs/topics/oauth2",
    "variables": [],
    "fields": [],
    "api": {
        "baseUrl": "https://discord.com/api/v10",
        "further": {},
        "verification": "confirmed",
        "sources": 2,
        "credential": {"in": "header", "name": "Authorization", "prefix": "Bearer "},
        "headers": [],
        "check": "GET /users/@me",
    },
    "setupHint": "",
    "verification": "confirmed",
    "sources": 11,
    "remark": "",
    "reviewed": "2026-11-26",
    "retires": [],
    "replacedBy": "",
}


class VariableBody(WireModel):
    """A value that a provider's addresses or requests need, or that its answers bring."""

    name: str
    title: str
    source: Literal["app", "user", "callback", "token", "context"] = Field(
        description="Who gives it: the app, whoever connects, or an answer of the provider."
    )
    required: bool
    pattern: str = Field(description="A regular expression that the whole value matches; empty for anything.")
    enum: list[str] = Field(description="The only values, if there are any.")
    default: str
    example: str


class ApiKeyBody(WireModel):
    """Where the provider's API expects the key."""

    place: Literal["header", "query", "basic"] = Field(
        alias="in", description="`basic`: HTTP Basic with the key as the user name, or beside `username`."
    )
    name: str = Field(description="Of the header or the query parameter.")
    prefix: str = Field(description="Before the key: `Bearer `, for example.")
    username: str = Field(
        description="With `basic`: the user name, and the key is the password. It may hold `{variables}`, whose values "
        "come with the key in `details`, or are the app's."
    )


class CredentialFieldBody(WireModel):
    """What whoever uploads credentials enters."""

    name: str = Field(description="By which `credentials/upload` takes it.")
    title: str
    hint: str = Field(description="Where people find it; empty where the title says it all.")
    pattern: str = Field(description="A regular expression that the whole value matches; empty for anything.")
    example: str
    secret: bool = Field(description="Whether to hide it while it is entered.")
    multiline: bool = Field(description="Whether it has lines: a private key, a key file.")
    required: bool


class ApiCredentialBody(WireModel):
    """Where a call of the provider's API carries the credential."""

    place: Literal["header", "query", "basic"] = Field(alias="in")
    name: str = Field(description="Of the header or the query parameter.")
    prefix: str = Field(description="Before the value in the header: `Bearer `, for example.")


class ApiBody(WireModel):
    """The provider's API. Its texts may hold `{variables}`, whose values come with a token in `details`."""

    base_url: str = Field(description="Empty where it is not known.")
    further: dict[str, str] = Field(description="Other bases, by name.")
    verification: Literal["confirmed", "unconfirmed"] = Field(description="Whether independent sources agree.")
    sources: int = Field(description="How many do.")
    credential: ApiCredentialBody
    headers: list[str] = Field(description="Names of headers that every call needs beside it.")
    check: str = Field(
        description="The harmless call by which evergrant tries a credential; empty where there is none."
    )


class RetirementBody(WireModel):
    """An address of a provider that ends on a day, or all that its template is about."""

    on: str = Field(description="The first day without it, as YYYY-MM-DD.")
    page: str = Field(description="Where the provider says so.")
    address: str = Field(description="What ends; apps may still have it. Empty: everything.")


class TemplateBody(WireModel):
    """A provider that is known already."""

    id: str
    name: str
    category: str
    app_type: AppType
    kind: str = Field(description="The same in words.")
    authorization_url: str
    token_url: str
    revocation_url: str = Field(description="Empty where the provider does not revoke as RFC 7009 says.")
    default_scopes: list[str]
    scopes: list[ScopeDescription]
    variables: list[VariableBody] = Field(description="Values that differ from app to app, or user to user.")
    api_key: ApiKeyBody | None = Field(
        default=None, description="Of a template of API keys that are one value; else null."
    )
    fields: list[CredentialFieldBody] = Field(description="What a connection's credentials consist of, if of several.")
    api: ApiBody | None = Field(default=None, description="Null where nothing is known of it.")
    documentation_url: str = Field(description="Where the provider says how to register a client, or get a key.")
    setup_hint: str = Field(description="What people stumble over when they register a client there.")
    verification: Literal["confirmed", "unconfirmed"] = Field(description="Whether independent sources agree.")
    sources: int = Field(description="How many do.")
    remark: str = Field(description="What is uncertain.")
    reviewed: str = Field(description="The day of the last look at the provider's own pages, as YYYY-MM-DD, or empty.")
    retires: list[RetirementBody] = Field(description="What the provider has announced to end, or has ended.")
    replaced_by: str = Field(description="The template to use instead, where all of it ends.")


def _variable_bodies(template: Template) -> list[VariableBody]:
    return [
        VariableBody(
            name=name,
            title=variable.title,
            source=variable.source,
            required=variable.is_required,
            pattern=variable.pattern,
            enum=list(variable.enum),
            default=variable.default,
            example=variable.example,
        )
        for name, variable in template.variables.items()
        if variable.source != "variable"  # that one follows from another: nobody gives it, and no answer brings it
    ]


def _api_key_body(template: Template) -> ApiKeyBody | None:
    if template.app_type != AppType.API_KEY or template.fields:
        return None
    how = template.api.credential
    beside = how.username if how.place == "basic" and how.username != "{token}" else ""
    return ApiKeyBody.model_validate({"in": how.place, "name": how.name, "prefix": how.prefix, "username": beside})


def _field_bodies(template: Template) -> list[CredentialFieldBody]:
    return [
        CredentialFieldBody(
            name=name,
            title=field.title,
            hint=field.hint,
            pattern=field.pattern,
            example=field.example,
            secret=field.secret,
            multiline=field.multiline,
            required=field.required,
        )
        for name, field in template.fields.items()
        if field.is_asked_for
    ]


def _api_body(template: Template) -> ApiBody | None:
    api = template.api
    if not api.base_url and not api.check and template.app_type != AppType.API_KEY:
        return None
    how = api.credential
    name, prefix = ("Authorization", "Basic ") if how.place == "basic" else (how.name, how.prefix)
    return ApiBody(
        base_url=api.base_url,
        further=dict(api.further),
        verification=api.verification,
        sources=api.sources,
        credential=ApiCredentialBody.model_validate({"in": how.place, "name": name, "prefix": prefix}),
        headers=list(api.headers),
        check=api.check,
    )


def template_body(template: Template) -> TemplateBody:
    """Write a template for the wire."""
    return TemplateBody(
        id=template.id,
        name=template.name,
        category=template.category,
        app_type=template.app_type,
        kind=template.app_type.in_words,
        authorization_url=template.authorization_endpoint,
        token_url=template.token_url,
        revocation_url=template.revocation_endpoint,
        default_scopes=list(template.default_scopes),
        scopes=[ScopeDescription(value=value, description=text) for value, text in template.scopes.items()],
        variables=_variable_bodies(template),
        api_key=_api_key_body(template),
        fields=_field_bodies(template),
        api=_api_body(template),
        documentation_url=template.documentation_url,
        setup_hint=template.setup_hint,
        verification=template.verification,
        sources=template.sources,
        remark=template.remark,
        reviewed=template.reviewed.isoformat() if template.reviewed else "",
        retires=[
            RetirementBody(on=each.on.isoformat(), page=each.page, address=each.value) for each in template.retires
        ],
        replaced_by=template.replaced_by,
    )
