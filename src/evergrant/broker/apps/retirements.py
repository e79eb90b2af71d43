"""What of an app ends at its provider, by what the catalogue says: addresses that it was made with, or everything."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date

from evergrant import placeholders
from evergrant.broker.apps.variables import Values, known_values
from evergrant.catalog.retirement import Endpoint
from evergrant.catalog.template import Template
from evergrant.db import OutboundApp

_FIELD_OF_APP: dict[Endpoint, tuple[str, str]] = {
    "authorization_endpoint": ("authorization_url", "authorizationUrl"),
    "token_endpoint": ("token_url", "tokenUrl"),
    "revocation_endpoint": ("revocation_url", "revocationUrl"),
    "userinfo_endpoint": ("userinfo_url", "userinfoUrl"),
    "jwks_uri": ("jwks_url", "jwksUrl"),
}
"""The column of an app, and its name on the wire."""


@dataclass(frozen=True, slots=True)
class Ending:
    """Something that an app needs, and that ends."""

    code: str
    on: date
    text: str
    """What ends, when, who says so, and what to do."""


def endings(app: OutboundApp, template: Template | None, *, today: date) -> Iterator[Ending]:
    """Yield what of an app has ended or will, with the remedy."""
    if template is None:
        return
    if template.retirement is not None:
        yield Ending("provider_ends", template.retirement.on, _end_of(template, today))
    values = known_values(template, app.variables, {})
    for each in template.retires:
        if each.field is None:
            continue
        column, name = _FIELD_OF_APP[each.field]
        address, old = (placeholders.fill(text, values) for text in (getattr(app, column), each.value))
        if address == old:
            ends = "ended" if each.on <= today else "ends"
            remedy = _remedy(name, getattr(template, each.field), address, template, values)
            yield Ending("address_ends", each.on, f"{address} {ends} on {each.on} ({each.page}): {remedy}.")


def _remedy(name: str, instead: str, address: str, template: Template, values: Values) -> str:
    """Say what to write into the field `name` of an app, or into a variable, instead of an address that ends."""
    filled = placeholders.fill(instead, values)
    if filled != address:
        return f"set {name} to {filled}" if instead else f"empty {name}"
    # The app has the template's address, and a value in it that ends.
    defaults = [f"{key} to {template.variables[key].default}" for key in placeholders.names_in(instead)]
    return f"set variables.{' and '.join(defaults)}"


def why_ended(template: Template, *, today: date) -> str:
    """Say why no app can be made from a template any more; empty if one can."""
    return _end_of(template, today) if template.retirement and template.retirement.on <= today else ""


def _end_of(template: Template, today: date) -> str:
    retirement = template.retirement
    if retirement is None:
        return ""
    ends = "ended" if retirement.on <= today else "ends"
    remedy = f": use the template {template.replaced_by}, with new connections" if template.replaced_by else ""
    return f"{template.name} {ends} on {retirement.on} ({retirement.page}){remedy}."
