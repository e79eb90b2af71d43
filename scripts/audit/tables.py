"""Reads what packages say that keep their providers as data."""

import json
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
    yield from _rows(source, {name: row for name, row in whole.items() if row.get("auth_mode") == "OAUTH2"})


def _rows(source: str, rows: dict[str, dict[str, Any]]) -> Iterator[Claim]:
    for name, row in rows.items():
        facts: dict[str, tuple[str, ...]] = {}
        for key, value in row.items():
            if field_of(key) and isinstance(value, str):
                for part in value.split("||"):
                    add(facts, field_of(key), part)
        if row.get("disable_pkce") is True:
            facts["pkce"] = ("absent",)
        claim = Claim(source, name, facts)
        if claim.is_whole:
            yield claim
