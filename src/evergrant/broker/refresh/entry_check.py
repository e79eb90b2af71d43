"""Tells whether a journal's entry can land at all: another version may have written it, or somebody have edited it."""

import logging
from dataclasses import replace
from datetime import datetime

from sqlalchemy import JSON, Column

from evergrant.broker.runtime.journal_entry import Entry
from evergrant.crypto.sealed import Sealed
from evergrant.db.grant import GRANTS
from evergrant.db.types import SealedBytes, UtcDateTime

log = logging.getLogger(__name__)

OF_A_RECORD = {"action": str, "data": dict, "actor": str, "remote_address": str}
NEEDED_ANEW = ("app_id", "user_id", "tenant_id", "external_identifier", "scope_key", "scopes", "consented_at")
"""The columns without which there is no new row."""


def without_unknown_columns(entry: Entry) -> Entry:
    """Return an entry without the columns that this version does not know: the tokens beside them are what counts."""
    unknown = entry.values.keys() - GRANTS.c.keys()
    if not unknown or "access_token" not in entry.values:
        return entry
    log.warning("a journal entry has columns of another version", extra={"columns": ", ".join(sorted(unknown))})
    return replace(entry, values={name: value for name, value in entry.values.items() if name not in unknown})


def flaw_of(entry: Entry) -> str:
    """Return why no database will ever take an entry; empty if one may."""
    for name, value in entry.values.items():
        column = GRANTS.c.get(name)
        if column is None:
            return f"there is no column {name}"
        if not _fits(column, value):
            return f"the value of {name} is none that such a column has"
    if entry.seen_version:
        return ""
    audit = entry.audit or {}
    if any(not isinstance(audit.get(name), kind) for name, kind in OF_A_RECORD.items()):
        return "it does not say what the audit log is to have"
    return next((f"{name} is missing" for name in NEEDED_ANEW if entry.values.get(name) is None), "")


def _fits(column: Column[object], value: object) -> bool:
    if value is None:
        return bool(column.nullable)
    if isinstance(column.type, SealedBytes):
        return isinstance(value, Sealed)
    if isinstance(column.type, UtcDateTime):
        return isinstance(value, datetime) and value.tzinfo is not None
    if isinstance(column.type, JSON):
        return isinstance(value, list | dict)
    return isinstance(value, column.type.python_type) and not isinstance(value, bool)
