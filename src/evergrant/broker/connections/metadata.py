"""A connection without its secrets: what lists and pages may read of a grant's row."""

from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import Row

from evergrant.db import Grant


class GrantMetadata(NamedTuple):
    """A connection without its secrets."""

    id: str
    app_id: str
    user_id: str
    tenant_id: str
    external_identifier: str
    status: str
    scopes: list[str]
    requested_scopes: list[str]
    token_sub: str
    token_sub_problem: str
    granted_by: str
    access_token_type: str
    consented_at: datetime
    expires_at: datetime | None
    last_refresh_time: datetime | None
    last_refresh_error: str
    refresh_token_expires_at: datetime | None
    next_refresh_at: datetime | None
    refresh_failures: int
    details: dict[str, str]
    has_refresh_token: bool

    @classmethod
    def of(cls, grant: Grant) -> "GrantMetadata":
        """Read a whole row."""
        return cls._make([*(getattr(grant, name) for name in _COLUMNS), grant.refresh_token is not None])

    @classmethod
    def read(cls, row: Row[Any]) -> "GrantMetadata":
        """Read what was selected with `SELECTED`."""
        return cls._make(row)


_COLUMNS = tuple(name for name in GrantMetadata._fields if name != "has_refresh_token")
SELECTED: tuple[Any, ...] = (
    *(getattr(Grant, name) for name in _COLUMNS),
    Grant.refresh_token.is_not(None),
)
"""The columns of a query for them: no sealed one is among these, so that no list carries tokens about."""
