"""What each table's sealed values are bound to, beside their place: the plain columns that say where they go.

Whoever can write the database, and has no master key, could otherwise give one owner's row to another. What is bound
does not change for as long as the value is there.
"""

import json
from collections.abc import Mapping
from typing import Any

from evergrant.crypto.sealed import Slot

BOUND: Mapping[str, tuple[str, ...]] = {
    "grants": ("app_id", "user_id", "tenant_id", "external_identifier"),
    "authorization_requests": ("app_id", "user_id", "tenant_id", "external_identifier", "redirect_url"),
    "revocations": ("app_id", "revocation_url", "client_id", "auth_method", "quirks"),
    "approvals": ("app_id", "user_id", "tenant_id", "agent_id", "session_id", "method", "base"),
    "browser_logins": ("purpose", "subject_id", "issuer_id", "user_id"),
    "trusted_issuers": ("issuer", "login_client_id"),
}
"""By table. Client secrets and webhooks' secrets are bound to their place alone: what is beside them may change."""


def slot_in(table: str, row: Any, column: str) -> Slot:
    """Return the place of a sealed value in a row that has at least the columns that it is bound to."""
    bound = tuple(_text(getattr(row, name)) for name in BOUND.get(table, ()))
    return Slot(row.project_id, table, column, row.id, bound)


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True, separators=(",", ":"))
