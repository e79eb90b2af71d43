"""Apps from the catalogue: find a template, and make the definition of an app from it."""

import difflib
from collections.abc import Mapping

from evergrant.app_types import AppType
from evergrant.broker.apps.definition import ACCESS_TYPES, PROMPTS, AppDefinition
from evergrant.catalog.template import Template
from evergrant.errors import InvalidValue


def find_template(catalogue: Mapping[str, Template], template_id: str) -> Template:
    """Return a template.

    Raises:
        InvalidValue: there is none with this id; the message names one with a similar id, where there is one.
    """
    template = catalogue.get(template_id)
    if template is None:
        close = difflib.get_close_matches(template_id, list(catalogue), n=1)
        hint = f"; did you mean {close[0]}?" if close else ": see the list (GET templates, or evergrant templates list)"
        raise InvalidValue.of(("templateId", f"there is no such template{hint}"))
    return template


def search_templates(catalogue: Mapping[str, Template], words: str) -> list[Template]:
    """Return the templates that have all of these words in their id, name or category; all of them for no words."""
    wanted = words.lower().split()
    return [
        template
        for template in catalogue.values()
        if all(word in f"{template.id} {template.name} {template.category}".lower() for word in wanted)
    ]


def definition_of(template: Template) -> AppDefinition:
    """Return the app that a template describes, with its `{variables}` as they stand.

    What only the engine acts on (names of parameters, places in answers, ...) is not copied: it is looked up by
    `template_id` whenever the provider is called.
    """
    if template.app_type == AppType.API_KEY:
        return AppDefinition(name=template.name, app_type=template.app_type, template_id=template.id)
    params = {name: value for name, value in template.authorization_params.items() if value}
    # An app has fields of its own for two of them. What these cannot hold stays a parameter.
    access_type = params.pop("access_type") if params.get("access_type") in ACCESS_TYPES else ""
    words = params.get("prompt", "").split()
    prompt = words if set(words) <= set(PROMPTS) else []
    if prompt:
        del params["prompt"]
    return AppDefinition(
        name=template.name,
        app_type=template.app_type,
        template_id=template.id,
        issuer=template.issuer,
        authorization_url=template.authorization_endpoint,
        authorization_url_params=tuple(params.items()),
        token_url=template.token_url,
        revocation_url=template.revocation_endpoint,
        userinfo_url=template.userinfo_endpoint,
        jwks_url=template.jwks_uri,
        token_endpoint_auth_method=template.token_endpoint_auth_methods_supported[0],
        pkce=template.pkce != "absent",
        access_type=access_type,
        prompt=prompt,
        default_scopes=template.default_scopes,
        scope_descriptions=dict(template.scopes),
        refresh_token_idle_seconds=template.refresh_token_idle_seconds,
    )
