"""Writes docs/providers.md, the table of the app library with what the last audit found: `make catalog-table`."""

import json
import textwrap
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from evergrant.catalog.loader import load_catalogue
from evergrant.catalog.template import Template
from evergrant.oauth2.quirks import ResponseShape

PAGE = Path(__file__).parents[1] / "docs" / "providers.md"
RESULT = Path(__file__).with_name("catalog_audit.json")
_METHODS = {
    "client_secret_post": "secret in the body",
    "client_secret_basic": "HTTP Basic",
    "none": "none",
    "private_key_jwt": "signed JWT (own key)",
    "client_secret_jwt": "signed JWT (secret)",
}
_PKCE = {"supported": "sent", "required": "required", "absent": "no"}


def main() -> None:
    """Write the page from the entries as they are, and the kept result of the last audit."""
    PAGE.write_text(page(load_catalogue(), json.loads(RESULT.read_text(encoding="utf-8"))), encoding="utf-8")


def page(templates: Mapping[str, Template], audit: Mapping[str, Any]) -> str:
    """Return the whole page."""
    oauth = [entry for entry in templates.values() if entry.app_type == "oauth"]
    keys = [entry for entry in templates.values() if entry.app_type == "apikey"]
    named = sum(bool(entry.issuer) for entry in oauth)
    confirmed = sum(entry.verification == "confirmed" for entry in oauth)
    entries = audit["entries"]
    two = sum(len(entries.get(entry.id, {}).get("agree", ())) >= 2 for entry in oauth)
    packages = ", ".join(f"{name} {version}" for name, version in audit["packages"].items())
    head = [
        "# Providers",
        "",
        f"The [app library](catalogue.md) has {len(templates)} templates: {len(oauth)} for OAuth, {confirmed} of them",
        f"confirmed, and {len(keys)} for API keys. {named} of them know their provider's issuer, with which `iss` is",
        "compared (RFC 9207).",
        "The page is made from the entries: `make catalog-table`.",
        "",
        f"The last column is the audit of {audit['date']} (`make catalog-audit`): which of {len(audit['packages'])}",
        f"public packages have the same authorization and token endpoints. Two or more have for {two} templates. A",
        "package that is not named knows other endpoints, mostly older ones, or does not know the provider. Packages",
        "copy from each other, and none of them was asked whether it works: agreement is a hint, and no proof.",
        *textwrap.wrap(f"Compared were: {packages}.", 120, break_on_hyphens=False),
        "",
        "What the columns say: [the fields](catalogue.md#fields). `?` is not known.",
        "",
        "## OAuth",
        "",
        *_header(
            "name",
            "id",
            "category",
            "client authentication",
            "PKCE",
            "refresh tokens",
            "habits",
            "verification",
            "reviewed",
            "packages that agree",
        ),
    ]
    rows = [_row(entry, entries.get(entry.id, {})) for entry in oauth]
    tail = [
        "",
        "## API keys",
        "",
        "| name | id | category | where the key goes | verification | reviewed |",
        "|---|---|---|---|---|---|",
    ]
    return "\n".join([*head, *rows, *tail, *(_key_row(entry) for entry in keys)]) + "\n"


def _row(entry: Template, audited: Mapping[str, Any]) -> str:
    methods = " or ".join(_METHODS[method] for method in entry.token_endpoint_auth_methods_supported)
    agreeing = audited.get("agree", [])
    told = f"{len(agreeing)}: {', '.join(agreeing)}" if agreeing else "none"
    if not audited:
        told = "not audited yet"
    verification = f"{entry.verification} ({entry.sources})"
    cells = [
        f"[{entry.name}]({entry.documentation_url})",
        f"`{entry.id}`",
        entry.category,
        "own signed JWT" if entry.hook else methods,
        _PKCE[entry.pkce],
        _refreshing(entry),
        "; ".join(_habits(entry)) or "as the RFCs say",
        verification,
        _reviewed(entry),
        told,
    ]
    return _line(cells)


def _reviewed(entry: Template) -> str:
    return entry.reviewed.isoformat() if entry.reviewed else "never"


def _key_row(entry: Template) -> str:
    key = entry.api.credential
    place = f"{key.place}: `{key.name}: {key.prefix}…`"
    if key.place == "basic":
        place = "HTTP Basic, as the user name" if key.username == "{token}" else "HTTP Basic"
    elif key.place == "query":
        place = f"query: `{key.name}=…`"
    name = f"[{entry.name}]({entry.documentation_url})"
    return _line([name, f"`{entry.id}`", entry.category, place, entry.verification, _reviewed(entry)])


def _refreshing(entry: Template) -> str:
    told = [{"rotates": "rotate", "stable": "stay", "unknown": "?"}[entry.refresh_token_rotation]]
    if any("refresh" in trade.when for trade in entry.token_exchange):
        told = ["none: the access token is exchanged"]
    if entry.refresh_token_reuse_seconds:
        told.append(f"old one works {_time(entry.refresh_token_reuse_seconds)} more")
    if entry.refresh_token_idle_seconds:
        told.append(f"die after {_time(entry.refresh_token_idle_seconds)} unused")
    if entry.refresh_token_max_seconds:
        told.append(f"die {_time(entry.refresh_token_max_seconds)} after the consent")
    if entry.refresh_margin is not None:
        told.append(f"only in the last {_time(entry.refresh_margin)}")
    return ", ".join(told)


def _habits(entry: Template) -> Iterator[str]:
    """Yield what is unusual about a provider, each in a few words."""
    if entry.retirement:
        instead = f", see `{entry.replaced_by}`" if entry.replaced_by else ""
        yield f"**ends on {entry.retirement.on}{instead}**"
    people = Counter(variable.source for variable in entry.variables.values())
    if people["app"] or people["user"]:
        asked = [name for name, variable in entry.variables.items() if variable.is_asked_for]
        yield f"asks for {', '.join(asked)}"
    if people["callback"] or people["token"] or people["context"]:
        kept = [name for name, variable in entry.variables.items() if variable.is_captured]
        yield f"brings {', '.join(kept)}"
    if entry.scope_separator != " ":
        yield f"scopes joined by `{entry.scope_separator}`"
    if entry.token_request_format != "form":
        yield f"token request as {'JSON' if entry.token_request_format == 'json' else 'query'}"
    if entry.token_request_method == "GET":
        yield "token request by GET"
    renames = (entry.parameter_names, entry.authorization_parameter_names)
    if any((*renames, entry.token_parameter_names, entry.callback_parameter_names)):
        yield "own parameter names"
    extra = [name for name, value in entry.authorization_params.items() if value]
    if extra:
        yield f"authorization adds {', '.join(extra)}"
    if entry.token_params or entry.refresh_params:
        yield f"token request adds {', '.join(sorted({*entry.token_params, *entry.refresh_params}))}"
    if entry.token_request_headers:
        yield "own headers"
    if entry.token_response != ResponseShape():
        yield "own form of answer"
    if entry.default_expires_in is not None:
        never = entry.default_expires_in == "never"
        yield (
            "tokens without a lifetime do not expire"
            if never
            else f"lifetime unstated: {_time(int(entry.default_expires_in))}"
        )
    if entry.context_request:
        yield "a lookup after the connect"
    if any("connect" in trade.when for trade in entry.token_exchange):
        yield "the first token is exchanged"
    if entry.refresh_endpoint:
        yield "refresh elsewhere"
    if entry.revocation:
        yield "own revocation"


def _time(seconds: int) -> str:
    for size, word in ((86400, "day"), (3600, "hour"), (60, "minute")):
        if seconds >= size and seconds % size == 0:
            return f"{seconds // size} {word}{'s' * (seconds != size)}"
    return f"{seconds} seconds"


def _header(*names: str) -> list[str]:
    return [_line(list(names)), "|" + "---|" * len(names)]


def _line(cells: list[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


if __name__ == "__main__":
    main()
