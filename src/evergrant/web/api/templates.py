"""The app library: templates of providers, and apps made from them."""

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Any

from fastapi import Depends, Path, Query, Request, Response
from pydantic import Field, ValidationError
from pydantic.alias_generators import to_camel

from evergrant import clock
from evergrant.broker.apps import apps
from evergrant.broker.apps.definition import AppDefinition
from evergrant.broker.apps.templates import definition_of, find_template, search_templates
from evergrant.broker.runtime.principal import Permission
from evergrant.catalog.loader import dcr_presets
from evergrant.catalog.template import Template
from evergrant.errors import InvalidValue, NotFound
from evergrant.web.api.app_answer_wire import AppAnswer, app_body
from evergrant.web.api.app_wire import AppFields, CreateApp, named_fields
from evergrant.web.api.template_wire import DISCORD, TemplateBody, template_body
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
from evergrant.web.routing import ApiRouter

router = ApiRouter(prefix="/v1/mgmt/outbound", tags=["templates"])

READER = Depends(require(Permission.APPS_READ))
FIXED = frozenset({"appType", "templateId"})
"""What the template decides for good."""
OVERRIDABLE = frozenset(to_camel(name) for name in AppFields.model_fields) - FIXED


class TemplateAnswer(WireModel):
    """One template."""

    model_config = example({"template": DISCORD})

    template: TemplateBody


class TemplatesAnswer(WireModel):
    """All templates."""

    model_config = example({"templates": [DISCORD]})

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


@router.get(
    "/templates",
    summary="List the templates",
    response_model=TemplatesAnswer,
    responses=errors(400),
    dependencies=[READER],
)
async def list_templates(
    request: Request,
    broker: BrokerDep,
    search: Annotated[
        PastedText,
        Query(max_length=200, description="Words in the id, the name or the category.", examples=["google calendar"]),
    ] = "",
) -> Response:
    """Return every provider that is known already, or those that `search` finds."""
    state = request.app.state
    if not hasattr(state, "written_templates"):  # once: writing hundreds keeps other calls waiting
        state.written_templates = await asyncio.to_thread(_written, broker.catalogue)
    parts = [state.written_templates[template.id] for template in search_templates(broker.catalogue, search)]
    return Response(b'{"templates":[' + b",".join(parts) + b"]}", media_type="application/json")


def _written(catalogue: Mapping[str, Template]) -> dict[str, bytes]:
    return {one.id: template_body(one).model_dump_json(by_alias=True).encode() for one in catalogue.values()}


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
    return replace(given, **named_fields(wanted, given.id))


_NO_SUCH_FIELD = "there is no such field; check its spelling"
