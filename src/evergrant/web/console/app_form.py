"""An app as one form: what its fields hold, how what was sent becomes a definition, and what two people changed.

Fields are called as on the wire, so that an error names the one that is meant. The client secret is none of them: it
is sent when somebody types it, and never shown.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from pydantic.alias_generators import to_camel

from evergrant.app_types import AppType
from evergrant.broker.apps.definition import AppDefinition, definition_as_stored
from evergrant.catalog.template import Template
from evergrant.db import OutboundApp
from evergrant.errors import InvalidValue
from evergrant.web.forms import Form

Values = dict[str, Any]
"""What a form's fields hold, by name."""

LABELS = {
    "name": "Outbound name",
    "description": "Description",
    "callbackDomain": "Callback domain",
    "ownCallback": "Callback address of its own",
    "clientId": "Client ID",
    "tokenEndpointAuthMethod": "How to authenticate",
    "useDcr": "Register by itself",
    "dcrUrl": "Registration endpoint",
    "scopes": "Scopes",
    "defaultRedirectUrl": "Redirect URL",
    "authorizationUrl": "Authorization endpoint",
    "tokenUrl": "Token endpoint",
    "consentPage": "Hosted consent page",
    "requireConfirmation": "Require confirmation",
    "revocationUrl": "Revocation endpoint",
    "userinfoUrl": "Userinfo endpoint",
    "jwksUrl": "JWKS endpoint",
    "issuer": "Issuer",
    "discoveryUrl": "Discovery URL",
    "resource": "Resource",
    "authorizationUrlParams": "Parameters of the authorization request",
    "tokenUrlParams": "Parameters of token requests",
    "pkce": "PKCE",
    "accessType": "Access type",
    "prompt": "Prompt",
    "refreshPolicy": "Refresh policy",
    "idleDays": "Days until an unused refresh token dies",
    "revokeReplaced": "Revoke what a newer consent replaces",
    "tenantId": "Tenant",
    "apiBaseUrl": "API address",
    "apiFurther": "Further API addresses",
    "apiHeaders": "Headers of API calls",
    "apiForbidden": "Forbidden API calls",
    "variables": "Variables",
}
"""The fields in the order of the page, by their names."""
OF_THE_API = ("apiBaseUrl", "apiFurther", "apiHeaders", "apiForbidden")
OF_ANY_APP = ("name", "description", "tenantId", *OF_THE_API, "variables")
"""The fields that an app with API keys has too."""
OF_OBTAINED = (
    *OF_ANY_APP,
    "clientId",
    "tokenEndpointAuthMethod",
    "scopes",
    "tokenUrl",
    "resource",
    "tokenUrlParams",
    "refreshPolicy",
)
"""Those of an app that gets its tokens without a browser."""
NAMES_IN_ERRORS = {
    "defaultScopes": "scopes",
    "skipConsentPage": "consentPage",
    "refreshTokenIdleSeconds": "idleDays",
}
"""Fields that an error calls by another name than the form."""

_FLAGS = ("ownCallback", "useDcr", "consentPage", "requireConfirmation", "pkce", "revokeReplaced")
_MAPS = {"apiFurther": "api_further", "apiHeaders": "api_headers"}
_PAIRS = ("authorizationUrlParams", "tokenUrlParams", *_MAPS)
_LISTS = ("scopes", *_PAIRS, "prompt", "apiForbidden", "variables")
_TEXTS = tuple(name for name in LABELS if name not in (*_FLAGS, *_LISTS, "idleDays"))
_COLUMNS = {
    to_camel(column): column for column in AppDefinition.__dataclass_fields__ if to_camel(column) in (*_TEXTS, *_FLAGS)
}
MOST_LETTERS = 2_000
MOST_LETTERS_OF_RULES = 20_000
DAY = 86_400


def fields_of(app_type: str) -> Sequence[str]:
    """Return the names of the fields that an app of this type has."""
    kind = AppType(app_type)
    if kind == AppType.API_KEY:
        return OF_ANY_APP
    return tuple(LABELS) if kind.is_consented else OF_OBTAINED


def values_of(app: OutboundApp | AppDefinition) -> Values:
    """Return what the fields hold for an app, or for what a template describes."""
    values: Values = {name: getattr(app, column) for name, column in _COLUMNS.items()}
    asked, words = list(app.default_scopes), app.scope_descriptions or {}
    values["scopes"] = [[True, scope, words.get(scope, "")] for scope in asked]
    values["scopes"] += [[False, scope, text] for scope, text in words.items() if scope not in asked]
    values["authorizationUrlParams"] = [list(pair) for pair in app.authorization_url_params]
    values["tokenUrlParams"] = [list(pair) for pair in app.token_url_params]
    for name, column in _MAPS.items():
        values[name] = [list(pair) for pair in (getattr(app, column) or {}).items()]
    values["apiForbidden"] = "\n".join(app.api_forbidden or ())
    values["prompt"] = list(app.prompt)
    values["consentPage"] = not app.skip_consent_page
    values["idleDays"] = _days(app.refresh_token_idle_seconds or 0)
    values["variables"] = dict(app.variables or {})
    return {name: values[name] for name in LABELS}


def standard_of(template: Template | None, described: AppDefinition | None) -> Values:
    """Return the fields that an app takes from its template, as the template has them."""
    if template is None or described is None or template.app_type == AppType.API_KEY:
        return {}
    whole, fields = values_of(described), fields_of(template.app_type)
    names = ("authorizationUrl", "tokenUrl", "revocationUrl", "userinfoUrl", "jwksUrl", "issuer", "pkce", "prompt")
    others = ("tokenEndpointAuthMethod", "accessType", "authorizationUrlParams", "scopes", "idleDays")
    return {name: whole[name] for name in (*names, *others) if name in fields}


def read(form: Form, stored: Values, app_type: str) -> Values:
    """Return what was sent. What this type of app has no field for is as stored, like a text that no field showed."""
    fields = fields_of(app_type)
    sent: Values = {name: form.text(name).replace("\r\n", "\n") if form.has(name) else stored[name] for name in _TEXTS}
    sent |= {name: form.has(name) for name in _FLAGS}
    sent["ownCallback"] = sent["ownCallback"] or stored["ownCallback"]
    asked = set(form.all("scopeAsked"))
    rows = zip(form.every("scopeValue"), form.every("scopeWords"), strict=False)
    sent["scopes"] = [[str(row) in asked, scope, words] for row, (scope, words) in enumerate(rows)]
    for name in _PAIRS:
        pairs = zip(form.every(f"{name}.key"), form.every(f"{name}.value"), strict=False)
        sent[name] = [[key, value] for key, value in pairs]
    rules = form.text("apiForbidden") if form.has("apiForbidden") else stored["apiForbidden"]
    sent["apiForbidden"] = "\n".join(line.strip() for line in rules.splitlines() if line.strip())
    sent["prompt"] = form.all("prompt")
    sent["idleDays"] = form.text("idleDays")
    given = {name.removeprefix("variables."): value for name, value in form.pairs if name.startswith("variables.")}
    sent["variables"] = {name: value.strip() for name, value in given.items() if value.strip()}
    return {name: sent[name] if name in fields else stored[name] for name in LABELS}


def without_empty_rows(values: Values) -> Values:
    """Return the same without rows in which nobody has written anything."""
    scopes = [row for row in values["scopes"] if row[1]]
    return {**values, "scopes": scopes, **{name: [p for p in values[name] if any(p)] for name in _PAIRS}}


def check(values: Values) -> None:
    """Check what a definition cannot say, or does not ask about.

    Raises:
        InvalidValue: naming every field that is too long, or no number.
    """
    texts: list[tuple[str, str]] = [(name, values[name]) for name in (*_TEXTS, "idleDays")]
    texts += [("scopes", text) for _, *both in values["scopes"] for text in both]
    texts += [(name, text) for name in _PAIRS for pair in values[name] for text in pair]
    texts += [(f"variables.{name}", text) for name, text in values["variables"].items()]
    long = {name for name, text in texts if len(text) > MOST_LETTERS}
    problems = [(name, f"use at most {MOST_LETTERS:,} characters") for name in sorted(long)]
    many = [("scopes", len(values["scopes"]), 500), *((name, len(values[name]), 50) for name in _PAIRS)]
    problems += [(name, f"use at most {most}") for name, count, most in many if count > most]
    if len(values["apiForbidden"]) > MOST_LETTERS_OF_RULES:
        problems.append(("apiForbidden", f"use at most {MOST_LETTERS_OF_RULES:,} characters"))
    problems += [
        (name, f"'{key}' stands there twice: keep one")
        for name in _MAPS
        for key, count in Counter(key for key, _ in values[name]).items()
        if count > 1
    ]
    if _seconds(values["idleDays"]) is None:
        problems.append(("idleDays", "use a number of days, or nothing for never"))
    if problems:
        raise InvalidValue.of(*problems)


def definition_of_form(values: Values, app: OutboundApp) -> AppDefinition:
    """Return the definition that a form describes; what it has no field for is as the app has it."""
    api: dict[str, Any] = {column: dict(values[name]) for name, column in _MAPS.items()}
    api["api_forbidden"] = values["apiForbidden"].splitlines()
    if app.app_type == AppType.API_KEY:
        own = {"name": values["name"], "description": values["description"], "tenant_id": values["tenantId"]}
        own["api_base_url"] = values["apiBaseUrl"]
        return replace(definition_as_stored(app), **own, **api, variables=values["variables"])
    plain = {column: values[name] for name, column in _COLUMNS.items()}
    idle = app.refresh_token_idle_seconds
    if values["idleDays"] != _days(idle):  # else it may be no whole number of days, and stays what it is
        idle = _seconds(values["idleDays"]) or 0
    scopes = values["scopes"]
    return replace(
        definition_as_stored(app),
        **plain,
        **api,
        default_scopes=[scope for asked, scope, _ in scopes if asked],
        scope_descriptions={scope: words for asked, scope, words in scopes if words or not asked},
        authorization_url_params=values["authorizationUrlParams"],
        token_url_params=values["tokenUrlParams"],
        prompt=values["prompt"],
        skip_consent_page=not values["consentPage"],
        refresh_token_idle_seconds=idle,
        variables=values["variables"],
    )


def changed(values: Values, before: Values) -> list[str]:
    """Return the names of the fields in which these differ."""
    return [name for name in LABELS if values[name] != before[name]]


def marks_of(values: Values) -> str:
    """Return a short mark of each field, which the form takes along: what it held when it was opened."""
    return json.dumps({name: _mark(value) for name, value in values.items()}, separators=(",", ":"))


def touched(values: Values, marks: str) -> list[str]:
    """Return the names of the fields that differ from what a form's marks say; all, where they say nothing."""
    try:
        known = json.loads(marks)
    except ValueError:
        known = {}
    known = known if isinstance(known, dict) else {}
    return [name for name, value in values.items() if known.get(name) != _mark(value)]


def in_words(value: Any) -> str:
    """Return a field's value as a table shows it."""
    match value:
        case bool():
            return "on" if value else "off"
        case Mapping():
            return ", ".join(f"{name} = {text}" for name, text in value.items()) or "empty"
        case str():
            return value or "empty"
    return ", ".join(_row_in_words(row) for row in value) or "none"


def _row_in_words(row: Any) -> str:
    if isinstance(row, str):
        return row
    if len(row) == 2:
        return f"{row[0]} = {row[1]}"
    asked, scope, words = row
    return f"{scope} ({words or 'no words'}{'' if asked else ', not asked for by default'})"


def _mark(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:12]


def _days(seconds: int) -> str:
    return f"{seconds / DAY:.6g}" if seconds else ""


def _seconds(days: str) -> int | None:
    """Return days in seconds; None where that is no number."""
    try:
        number = float(days or "0")
    except ValueError:
        return None
    return round(number * DAY) if 0 <= number < 1_000_000 else None
