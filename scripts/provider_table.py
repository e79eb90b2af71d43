"""Writes docs/providers.md, the table of the app library with what the last audit found: `make catalog-table`."""

import json
import textwrap
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from evergrant.app_types import AppType
from evergrant.catalog.loader import dcr_presets, load_catalogue
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
_OTHERS = {
    AppType.API_KEY: ("API keys", "API keys"),
    AppType.CLIENT_CREDENTIALS: ("client credentials", "Client credentials"),
    AppType.JWT_BEARER: ("signed assertions", "Signed assertions"),
    AppType.SIGNED_JWT: ("JWTs that evergrant signs", "JWTs that evergrant signs"),
    AppType.LOGIN: ("logins", "Logins"),
    AppType.INSTALLATION: ("installed apps", "Installed apps"),
}
"""The other kinds, in words for a sentence and for a heading."""
_PKCE = {"supported": "sent", "required": "required", "absent": "no"}


def main() -> None:
    """Write the page from the entries as they are, and the kept result of the last audit."""
    PAGE.write_text(page(load_catalogue(), json.loads(RESULT.read_text(encoding="utf-8"))), encoding="utf-8")


def page(templates: Mapping[str, Template], audit: Mapping[str, Any]) -> str:
    """Return the whole page."""
    oauth = [entry for entry in templates.values() if entry.app_type == "oauth"]
    kinds = Counter(entry.app_type for entry in templates.values())
    others = ", ".join(f"{kinds[kind]} for {words}" for kind, (words, _) in _OTHERS.items() if kinds[kind])
    with_api = sum(bool(entry.api.base_url) for entry in templates.values())
    tried = sum(bool(entry.api.check) for entry in templates.values())
    named = sum(bool(entry.issuer) for entry in oauth)
    confirmed = sum(entry.verification == "confirmed" for entry in oauth)
    entries, apis = audit["entries"], audit.get("apis", {})
    two = sum(len(entries.get(entry.id, {}).get("agree", ())) >= 2 for entry in oauth)
    packages = ", ".join(f"{name} {version}" for name, version in audit["packages"].items())
    head = [
        "# Providers",
        "",
        *_wrapped(
            f"The [app library](catalogue.md) has {len(templates)} templates: {len(oauth)} for OAuth, {confirmed} of "
            f"them confirmed; {others}. {with_api} know where their provider's API is, and {tried} a call of it that "
            f"tells whether a credential works. {named} know their provider's issuer, with which `iss` is compared "
            "(RFC 9207). The page is made from the entries: `make catalog-table`."
        ),
        "",
        f"The last column is the audit of {audit['date']} (`make catalog-audit`): which of {len(audit['packages'])}",
        f"public packages have the same authorization and token endpoints. Two or more have for {two} templates. A",
        "package that is not named knows other endpoints, mostly older ones, or does not know the provider. Packages",
        "copy from each other, and none of them was asked whether it works: agreement is a hint, and no proof.",
        *_wrapped(f"Compared were: {packages}."),
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
            "API",
            "verification",
            "reviewed",
            "packages that agree",
        ),
    ]
    rows = [_row(entry, entries.get(entry.id, {}), apis.get(entry.id, {})) for entry in oauth]
    return "\n".join([*head, *rows, *_other_kinds(templates, apis), *_presets()]) + "\n"


def _other_kinds(templates: Mapping[str, Template], apis: Mapping[str, Any]) -> Iterator[str]:
    columns = ("name", "id", "category", "what is uploaded", "where it goes", "API", "verification", "reviewed")
    for kind, (_, title) in _OTHERS.items():
        of_it = [entry for entry in templates.values() if entry.app_type == kind]
        if of_it:
            yield from ("", f"## {title}", "", *_header(*columns))
            yield from (_other_row(entry, apis.get(entry.id, {})) for entry in of_it)


def _presets() -> Iterator[str]:
    yield from ("", "## Servers at which evergrant registers by itself", "")
    yield from _wrapped(
        "MCP servers and the like need no template: an app with the address as its `discoveryUrl` and `useDcr` finds "
        "everything else ([how](apps.md))."
    )
    yield from ("", *_header("name", "category", "address", "verification"))
    for preset in dcr_presets().values():
        name = f"[{preset.name}]({preset.documentation_url})"
        yield _line([name, preset.category, f"`{preset.discovery_url}`", preset.verification])


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(text, 120, break_on_hyphens=False, break_long_words=False)


def _row(entry: Template, audited: Mapping[str, Any], api: Mapping[str, Any]) -> str:
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
        _api(entry, api),
        verification,
        _reviewed(entry),
        told,
    ]
    return _line(cells)


def _reviewed(entry: Template) -> str:
    return entry.reviewed.isoformat() if entry.reviewed else "never"


def _api(entry: Template, audited: Mapping[str, Any]) -> str:
    """Return the base, and how sure it is: what the entry says, and how many packages have it too."""
    if not entry.api.base_url:
        return ""
    agreeing = len(audited.get("agree", ()))
    told = f"; {agreeing} package{'s' * (agreeing != 1)}" if agreeing else ""
    return f"`{entry.api.base_url}` ({entry.api.verification}{told})"


def _other_row(entry: Template, audited: Mapping[str, Any]) -> str:
    name = f"[{entry.name}]({entry.documentation_url})"
    cells = [name, f"`{entry.id}`", entry.category, _uploaded(entry), _place(entry), _api(entry, audited)]
    return _line([*cells, entry.verification, _reviewed(entry)])


def _uploaded(entry: Template) -> str:
    asked = [field.title for field in entry.fields.values() if field.is_asked_for]
    asked += [variable.title for variable in entry.variables.values() if variable.source == "user"]
    if not entry.fields and entry.app_type == AppType.API_KEY:
        asked.insert(0, "a key")
    return ", ".join(asked) or "nothing: the app's own client"


def _place(entry: Template) -> str:
    key = entry.api.credential
    place = f"{key.place}: `{key.name}: {key.prefix}…`"
    if key.place == "basic":
        place = "HTTP Basic, as the user name" if key.username == "{token}" else "HTTP Basic"
    elif "{token}" in entry.api.base_url:
        place = "in the path"
    elif key.place == "query":
        place = f"query: `{key.name}=…`"
    return place


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
