"""The app library: templates of providers, and apps made from them."""

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Path
from pydantic import Field, ValidationError
from pydantic.alias_generators import to_camel

from evergrant import clock
from evergrant.broker import apps
from evergrant.broker.app_definition import AppDefinition
from evergrant.broker.principal import Permission
from evergrant.catalog.loader import dcr_presets, templates
from evergrant.catalog.template import Template
from evergrant.errors import InvalidValue, NotFound
from evergrant.web.api.apps import AppAnswer, AppFields, CreateApp, ScopeDescription, ShortText, app_body, definition
from evergrant.web.api.wire import OptionalId, SecretText, StrictWireModel, Text, WireModel, errors, example
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
    "verification": "endpoints agree across 11 independent sources",
}


class TemplateBody(WireModel):
    """A provider that is known already."""

    id: str
    name: str
    category: str
    app_type: Literal["oauth", "apikey"]
    authorization_url: str
    token_url: str
    revocation_url: str = Field(description="Empty where the provider does not revoke as RFC 7009 says.")
    default_scopes: list[str]
    scopes: list[ScopeDescription]
    documentation_url: str = Field(description="Where the provider says how to register a client, or get a key.")
    verification: str = Field(description="How sure these facts are.")


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
    id: Text = Field(default="", description="Yours, or left out for a generated one.")
    client_id: ShortText = ""
    client_secret: SecretText | None = None
    tenant_id: OptionalId = ""
    overrides: dict[str, Any] = Field(
        default_factory=dict, description="Fields of `app/create`, each instead of the template's."
    )


class CreateFromDcrPreset(StrictWireModel):
    """An app that registers by itself, made from a preset."""

    model_config = example({"dcrPresetId": "linear", "tenantId": "acme"})

    dcr_preset_id: ShortText = Field(min_length=1)
    tenant_id: OptionalId = Field(default="", description="The only tenant that may use the app.")


def template_body(template: Template) -> TemplateBody:
    """Write a template for the wire."""
    return TemplateBody(
        id=template.id,
        name=template.name,
        category=template.category,
        app_type=template.app_type,
        authorization_url=template.authorization_url,
        token_url=template.token_url,
        revocation_url=template.revocation_url,
        default_scopes=list(template.default_scopes),
        scopes=[ScopeDescription(value=scope.value, description=scope.description) for scope in template.scopes],
        documentation_url=template.documentation_url,
        verification=template.verification,
    )


def fields_of(template: Template) -> dict[str, Any]:
    """Return the fields of `app/create` that a template fills."""
    fields: dict[str, Any] = {"name": template.name, "appType": template.app_type, "templateId": template.id}
    if template.app_type == "apikey":
        return fields
    return fields | {
        "issuer": template.issuer,
        "authorizationUrl": template.authorization_url,
        "authorizationUrlParams": [
            {"key": key, "value": value} for key, value in template.authorization_params.items()
        ],
        "tokenUrl": template.token_url,
        "revocationUrl": template.revocation_url,
        "userinfoUrl": template.userinfo_url,
        "jwksUrl": template.jwks_url,
        "tokenEndpointAuthMethod": template.token_endpoint_auth_method,
        "pkce": template.pkce,
        "accessType": template.access_type,
        "prompt": list(template.prompt),
        "defaultScopes": list(template.default_scopes),
        "scopes": [scope.model_dump() for scope in template.scopes],
    }


@router.get("/templates", summary="List the templates", responses=errors(), dependencies=[READER])
async def list_templates() -> TemplatesAnswer:
    """Return every provider that is known already."""
    return TemplatesAnswer(templates=[template_body(template) for template in templates().values()])


@router.get("/templates/{id}", summary="Load a template", responses=errors(400, 404), dependencies=[READER])
async def load_template(
    template_id: Annotated[Text, Path(alias="id", max_length=64, examples=["discord"])],
) -> TemplateAnswer:
    """Return one template."""
    template = templates().get(template_id)
    if template is None:
        raise NotFound("There is no template with this id.")
    return TemplateAnswer(template=template_body(template))


@router.post(
    "/app/create/bytemplate", summary="Create an outbound app from a template", responses=errors(400, 409, 413)
)
async def create_app_by_template(body: CreateFromTemplate, broker: BrokerDep, principal: AppsWriter) -> AppAnswer:
    """Configure a known provider: its endpoints, scopes and habits are the template's unless you override them."""
    principal.require_every_app()
    template = templates().get(body.template_id)
    if template is None:
        raise InvalidValue.of(("templateId", "there is no such template: GET templates lists them"))
    wanted = _with_overrides(template, body)
    app = await apps.create_app(broker, principal.project_id, definition(wanted, wanted.id), now=clock.utcnow())
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
    app = await apps.create_app(broker, principal.project_id, wanted, now=clock.utcnow())
    return AppAnswer(app=app_body(broker, app))


def _with_overrides(template: Template, body: CreateFromTemplate) -> CreateApp:
    problems = [
        (f"overrides.{name}", "is the template's: it cannot be overridden" if name in FIXED else _NO_SUCH_FIELD)
        for name in body.overrides
        if name not in OVERRIDABLE
    ]
    if problems:
        raise InvalidValue.of(*problems)
    given: dict[str, Any] = {
        "id": body.id,
        "clientId": body.client_id,
        "clientSecret": body.client_secret,
        "tenantId": body.tenant_id,
    }
    fields = fields_of(template) | {name: value for name, value in given.items() if value}
    fields |= {name: value for name, value in body.overrides.items() if value is not None}
    try:
        return CreateApp.model_validate(fields)
    except ValidationError as error:
        raise invalid_request(error.errors(include_url=False, include_input=False)).under("overrides") from None


_NO_SUCH_FIELD = "there is no such field; check its spelling"
