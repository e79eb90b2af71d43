"""Reads what packages say that keep their providers as data."""

import json
import re
from collections.abc import Iterator
from typing import Any

import yaml

from scripts.audit.claims import Claim, add, field_of


def json_in(source: str, path: str, text: str) -> Iterator[Claim]:  # noqa: ARG001 - all readers are called alike
    """Yield what a JSON table of providers says; OAuth 1 is passed over."""
    yield from _rows(source, {name: row for name, row in json.loads(text).items() if row.get("oauth") != 1})


def yaml_in(source: str, path: str, text: str) -> Iterator[Claim]:  # noqa: ARG001 - all readers are called alike
    """Yield what a YAML table of providers says; an `alias` begins with another row, and `a || b` offers a choice."""
    table = yaml.safe_load(text)
    whole = {name: {**table.get(row.get("alias"), {}), **row} for name, row in table.items()}
    yield from _rows(source, {name: row for name, row in whole.items() if row.get("auth_mode") != "OAUTH1"})


def _rows(source: str, rows: dict[str, dict[str, Any]]) -> Iterator[Claim]:
    for name, row in rows.items():
        facts: dict[str, tuple[str, ...]] = {}
        for key, value in row.items() if row.get("auth_mode", "OAUTH2") == "OAUTH2" else ():
            if field_of(key) and isinstance(value, str):
                for part in value.split("||"):
                    add(facts, field_of(key), part)
        if row.get("disable_pkce") is True:
            facts["pkce"] = ("absent",)
        _api(facts, row)
        claim = Claim(source, name, facts)
        if claim.is_whole or claim.is_of_an_api:
            yield claim


def _api(facts: dict[str, tuple[str, ...]], row: dict[str, Any]) -> None:
    """Add where a row's API is, and where a call of it carries the credential."""
    proxy = row.get("proxy") or {}
    for part in str(proxy.get("base_url", "")).split("||"):
        add(facts, "api_base", part)
    for place in ("headers", "query"):
        for name, value in (proxy.get(place) or {}).items():
            if re.search(r"\$\{(apiKey|accessToken|credentials)", str(value)):
                basic = str(value).lower().startswith("basic ")
                add(facts, "placement", "basic" if basic else f"{place.removesuffix('s')} {name.lower()}")
    if row.get("auth_mode") == "BASIC":
        facts.setdefault("placement", ("basic",))
