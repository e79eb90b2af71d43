"""What an operator does next with a new app, by its kind."""

from evergrant.app_types import AppType
from evergrant.broker.connections.credential_fields import fields_asked
from evergrant.catalog.template import Template
from evergrant.db import OutboundApp


def next_steps(app: OutboundApp, template: Template | None, callback_url: str) -> list[str]:
    """Return what to do until the app works, in its order, a line each."""
    kind, steps = AppType(app.app_type), []
    if kind.is_consented:
        steps.append(f"Register this redirect URI with the provider:\n{callback_url}")
    if kind in (AppType.OAUTH, AppType.INSTALLATION) and not app.client_id:
        steps.append(_client(app, template))
    assertion = template.assertion if template is not None else None
    if assertion is not None and "{signing_key}" in assertion.key and app.signing_key is None:
        steps.append(f"Give it the private key that you get there: evergrant apps update {app.id} --signing-key FILE")
    if not kind.is_consented:
        steps.append(_credentials(app, template))
    return steps


def _client(app: OutboundApp, template: Template | None) -> str:
    where = f" (see {template.documentation_url})" if template is not None else ""
    hint = f" {template.setup_hint}" if template is not None and template.setup_hint else ""
    return f"Then give it the client id that you get there{where}: evergrant apps update {app.id} --client-id ...{hint}"


def _credentials(app: OutboundApp, template: Template | None) -> str:
    asked = fields_asked(template, app)
    names = ", ".join(name for name, field in asked.items() if field.required)
    call = "app/user/credentials/upload"
    if app.app_type == AppType.API_KEY and len(asked) == 1:
        what, call = "It holds API keys: upload each owner's", "app/user/apikey/upload"
    elif names:
        what = f"It takes {names}: upload each owner's"
    else:
        what = "Nothing is asked of an owner: make a connection for each"
    hint = f" {template.setup_hint}" if template is not None and template.setup_hint else ""
    return f"{what} ({call}), or: evergrant connections add {app.id} --user ...{hint}"
