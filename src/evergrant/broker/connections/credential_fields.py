"""The fields of credentials that an app takes: what whoever uploads enters, and what is wrong with it."""

from collections.abc import Collection, Mapping

from evergrant.app_types import AppType
from evergrant.broker.apps.variables import Problems
from evergrant.catalog.field import CredentialField
from evergrant.catalog.template import Template
from evergrant.db import OutboundApp
from evergrant.pasted import trimmed

THE_KEY = "token"
"""The one field of an app with API keys whose catalogue entry names none."""
_CLIENT = {
    "client_id": CredentialField(title="Client ID", secret=False),
    "client_secret": CredentialField(title="Client secret"),
}
"""The fields of a client of the connection's own (RFC 6749 section 4.4)."""


def fields_asked(
    template: Template | None, app: OutboundApp, given: Collection[str] = ()
) -> dict[str, CredentialField]:
    """Return the fields that somebody enters, by name; none where everything that is needed is the app's.

    `given` are the names of those that somebody has entered already: a client of one's own is given whole or, where the
    app has one, not at all.
    """
    kind = AppType(app.app_type)
    if template is not None and template.fields:
        asked = {name: field for name, field in template.fields.items() if field.is_asked_for}
    elif kind is AppType.API_KEY:
        asked = {THE_KEY: CredentialField(title="API key")}
    else:
        asked = dict(_CLIENT) if kind is AppType.CLIENT_CREDENTIALS else {}
    if kind is AppType.CLIENT_CREDENTIALS and app.client_id and _CLIENT.keys().isdisjoint(given):
        optional = {name: asked[name].model_copy(update={"required": False}) for name in _CLIENT if name in asked}
        asked |= optional
    return asked


def read_fields(
    template: Template | None, app: OutboundApp, given: Mapping[str, str]
) -> tuple[dict[str, str], Problems]:
    """Return the fields as they are stored, and what is wrong with them, by field; never a value.

    They are taken without what a paste leaves around them; the lines of a private key stay.
    """
    given = {name: value for name, value in given.items() if value}
    asked = fields_asked(template, app, given)
    problems: Problems = []
    fields: dict[str, str] = {}
    own = template.fields if template is not None else {}
    for name, value in given.items():
        field = asked.get(name)
        if field is None:
            problems.append((f"fields.{name}", _not_asked(asked)))
            continue
        # A password of which nobody says what it looks like may begin with a blank, or end with one.
        is_plain = field.pattern or not field.secret or name not in own
        fields[name] = trimmed(value) if is_plain else value.strip("\r\n")
        if problem := field.problem_with(fields[name]):
            problems.append((f"fields.{name}", problem))
    problems += [
        (f"fields.{name}", f"is required: {field.title}{f'. {field.hint}' if field.hint else ''}")
        for name, field in asked.items()
        if field.required and name not in given
    ]
    return fields, problems or _problems_inside(template, fields)


def _problems_inside(template: Template | None, fields: Mapping[str, str]) -> Problems:
    """Return what is wrong with what stands inside others: the parts of a key file."""
    wrong: dict[str, list[str]] = {}
    for field in template.fields.values() if template is not None else ():
        if template is None or field.inside not in fields:
            continue
        found = field.found_in(fields[field.inside])
        # A private key in a key file has lines, whether its own table says so or not.
        has_lines = template.fields[field.inside].multiline or field.multiline
        problem = field.model_copy(update={"multiline": has_lines}).problem_with(found) if found else ""
        if not found and field.required:
            problem = "is not in it, so paste the whole of it"
        if problem:
            wrong.setdefault(field.inside, []).append(f"{field.title}: {problem}")
    return [(f"fields.{name}", "; ".join(texts)) for name, texts in wrong.items()]


def _not_asked(asked: Collection[str]) -> str:
    return f"there is no such field; use {', '.join(asked)}" if asked else "this app takes no fields: leave it out"
