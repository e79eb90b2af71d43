"""The app library: templates of providers, and apps made from them."""

from dataclasses import replace
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Path
from pydantic import Field, ValidationError
from pydantic.alias_generators import to_camel

from evergrant import clock
from evergrant.app_types import AppType
from evergrant.broker.apps import apps
from evergrant.broker.apps.definition import AppDefinition
from evergrant.broker.apps.templates import definition_of, find_template
from evergrant.broker.runtime.principal import Permission
from evergrant.catalog.loader import dcr_presets
from evergrant.catalog.template import Template
from evergrant.errors import InvalidValue, NotFound
from evergrant.web.api.app_wire import (
    AppAnswer,
    AppFields,
    CreateApp,
    ScopeDescription,
    app_body,
    definition,
)
from evergrant.web.api.wire import (
    OptionalId,
    PastedText,
    SecretText,
    ShortText,
    SigningKey,
    StrictWireModel,
    Text,
    WireModel,
    errors,
    example,
)
from evergrant.web.deps import AppsWriter, BrokerDep, require
from evergrant.web.errors import invalid_request

router = APIRouter(prefix="/v1/mgmt/outbound", tags=["templates"])

READER = Depends(require(Permission.APPS_READ))
FIXED = frozenset({"appType", "templateId"})
"""What the template decides for good."""
OVERRIDABLE = frozenset(to_camel(name) for name in AppFields.model_fields) - FIXED
_DISCORD = {
    "id": "discord",
    "name": "Discord",
    "category": "communication",
    "appType": "oauth",
    "authorizationUrl": "https://discord.com/oauth2/authorize",
    "tokenUrl": "https://discord.com/api/oauth2/token",
    "revocationUrl": "https://discord.com/api/oauth2/token/revoke",
    "defaultScopes": ["identify"],
    "scopes": [{"value": "identify", "description": "See your user name and avatar"}],
    "documentationUrl": "https://discord.com/developers/docs/topics/oauth2",
    "variables": [],
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
    authorization_url: str
    token_url: str
    revocation_url: str = Field(description="Empty where the provider does not revoke as RFC 7009 says.")
    default_scopes: list[str]
    scopes: list[ScopeDescription]
    variables: list[VariableBody] = Field(description="Values that differ from app to app, or user to user.")
    api_key: ApiKeyBody | None = Field(default=None, description="Of a template of API keys; else null.")
    documentation_url: str = Field(description="Where the provider says how to register a client, or get a key.")
    setup_hint: str = Field(description="What people stumble over when they register a client there.")
    verification: Literal["confirmed", "unconfirmed"] = Field(description="Whether independent sources agree.")
    sources: int = Field(description="How many do.")
    remark: str = Field(description="What is uncertain.")
    reviewed: str = Field(description="The day of the last look at the provider's own pages, as YYYY-MM-DD, or empty.")
    retires: list[RetirementBody] = Field(description="What the provider has announced to end, or has ended.")
    replaced_by: str = Field(description="The template to use instead, where all of it ends.")


class TemplateAnswer(WireModel):
    """One template."""

    model_config = example({"template": _DISCORD})

    template: TemplateBody


class TemplatesAnswer(WireModel):
    """All templates."""

    model_config = example({"templates": [_DISCORD]})

    templates: list[TemplateBody]


class CreateFromTemplate(StrictWireModel):
    """An app to make from a template."""

    model_config = example(
        {
            "templateId": "google-contacts",
            "clientId": "1234.apps.googleusercontent.com",
            "clientSecret": "GOCSPX-from-the-provider",
            "overrides": {"name": "Contacts", "defaultScopes": ["https://www.googleapis.com/auth/contacts"]},
        }
    )

    template_id: ShortText = Field(min_length=1)
    id: PastedText = Field(default="", description="Yours, or left out for the template's.")
    client_id: ShortText = ""
    client_secret: SecretText | None = None
    signing_key: SigningKey | None = None
    tenant_id: OptionalId = ""
    variables: dict[ShortText, ShortText] = Field(
        default_factory=dict, max_length=50, description="Values of the template's variables."
    )
    overrides: dict[str, Any] = Field(
        default_factory=dict, description="Fields of `app/create`, each instead of the template's."
    )


class CreateFromDcrPreset(StrictWireModel):
    """An app that registers by itself, made from a preset."""

    model_config = example({"dcrPresetId": "linear", "tenantId": "acme"})

    dcr_preset_id: ShortText = Field(min_length=1)
    tenant_id: OptionalId = Field(default="", description="The only tenant that may use the app.")


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


def template_body(template: Template) -> TemplateBody:
    """Write a template for the wire."""
    return TemplateBody(
        id=template.id,
        name=template.name,
        category=template.category,
        app_type=template.app_type,
        authorization_url=template.authorization_endpoint,
        token_url=template.token_endpoint,
        revocation_url=template.revocation_endpoint,
        default_scopes=list(template.default_scopes),
        scopes=[ScopeDescription(value=value, description=text) for value, text in template.scopes.items()],
        variables=_variable_bodies(template),
        api_key=_api_key_body(template),
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


@router.get("/templates", summary="List the templates", responses=errors(), dependencies=[READER])
async def list_templates(broker: BrokerDep) -> TemplatesAnswer:
    """Return every provider that is known already."""
    return TemplatesAnswer(templates=[template_body(template) for template in broker.catalogue.values()])


@router.get("/templates/{id}", summary="Load a template", responses=errors(400, 404), dependencies=[READER])
async def load_template(
    broker: BrokerDep,
    template_id: Annotated[Text, Path(alias="id", max_length=64, examples=["discord"])],
) -> TemplateAnswer:
    """Return one template."""
    template = broker.catalogue.get(template_id)
    if template is None:
        raise NotFound("There is no template with this id.")
    return TemplateAnswer(template=template_body(template))


@router.post(
    "/app/create/bytemplate", summary="Create an outbound app from a template", responses=errors(400, 409, 413)
)
async def create_app_by_template(body: CreateFromTemplate, broker: BrokerDep, principal: AppsWriter) -> AppAnswer:
    """Configure a known provider: its endpoints, scopes and habits are the template's unless you override them."""
    principal.require_every_app()
    wanted = _with_overrides(definition_of(find_template(broker.catalogue, body.template_id)), body)
    app = await apps.create_app(broker, principal.project_id, wanted, now=clock.now())
    return AppAnswer(app=app_body(broker, app))


@router.post(
    "/app/create/bydcrpreset", summary="Create an app that registers by itself", responses=errors(400, 409, 413, 502)
)
async def create_app_by_dcr_preset(body: CreateFromDcrPreset, broker: BrokerDep, principal: AppsWriter) -> AppAnswer:
    """Configure a known MCP server or the like; nobody has to register a client there (RFC 7591)."""
    principal.require_every_app()
    preset = dcr_presets().get(body.dcr_preset_id)
    if preset is None:
        raise InvalidValue.of(("dcrPresetId", f"there is no such preset; use {', '.join(dcr_presets())}"))
    wanted = AppDefinition(
        name=f"{preset.name} ({body.tenant_id})" if body.tenant_id else preset.name,
        discovery_url=preset.discovery_url,
        use_dcr=True,
        tenant_id=body.tenant_id,
    )
    app = await apps.create_app(broker, principal.project_id, wanted, now=clock.now())
    return AppAnswer(app=app_body(broker, app))


def _with_overrides(template: AppDefinition, body: CreateFromTemplate) -> AppDefinition:
    problems = [
        (f"overrides.{name}", "is the template's: it cannot be overridden" if name in FIXED else _NO_SUCH_FIELD)
        for name in body.overrides
        if name not in OVERRIDABLE
    ]
    if problems:
        raise InvalidValue.of(*problems)
    overrides = {name: value for name, value in body.overrides.items() if value is not None}
    try:
        wanted = CreateApp.model_validate({"name": template.name, **overrides})
    except ValidationError as error:
        raise invalid_request(error.errors(include_url=False, include_input=False)).under("overrides") from None
    given = replace(
        template,
        id=body.id or body.template_id,
        client_id=body.client_id,
        client_secret=body.client_secret,
        signing_key=body.signing_key,
        tenant_id=body.tenant_id or None,
        variables=body.variables,
    )
    own = definition(wanted, given.id)
    # The wire's names and the definition's are the same, but for this one.
    names = {{"scopes": "scope_descriptions"}.get(name, name) for name in wanted.model_fields_set - {"id"}}
    return replace(given, **{name: getattr(own, name) for name in names})


_NO_SUCH_FIELD = "there is no such field; check its spelling"
