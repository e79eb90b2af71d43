"""Grants: a recorded consent with its tokens. Everything in evergrant revolves around these rows."""

import hashlib
from collections.abc import Iterable
from datetime import datetime
from enum import StrEnum
from typing import cast

from sqlalchemy import JSON, CheckConstraint, ForeignKeyConstraint, Index, String, Table, text
from sqlalchemy.orm import Mapped, mapped_column

from evergrant.crypto.sealed import Sealed
from evergrant.db.base import Base
from evergrant.db.types import SealedBytes, UtcDateTime


class GrantStatus(StrEnum):
    """Whether a grant can be used."""

    ACTIVE = "active"
    PENDING = "pending"
    """Connected, but the application has not yet confirmed that the right person did it: unusable and invisible."""
    REAUTHORIZATION_REQUIRED = "reauthorization_required"
    """Dead: only the user can mend it, by connecting again."""


NEEDS_ATTENTION = "status <> 'active' OR last_refresh_error <> ''"
"""What the indexes of unhealthy grants have in them."""
ATTENTION = text(f"({NEEDS_ATTENTION})")
"""The same for a query, which has to say it in these very words, and without parameters, to be answered by them."""


class Grant(Base):
    """One owner's consent for one app and one set of scopes.

    The owner is a user, a user in a tenant, or a tenant; an empty `user_id` or `tenant_id` means "none". The three
    levels never substitute for each other.
    """

    __tablename__ = "grants"
    __table_args__ = (
        ForeignKeyConstraint(
            ["project_id", "app_id"], ["outbound_apps.project_id", "outbound_apps.id"], ondelete="CASCADE"
        ),
        CheckConstraint("user_id <> '' OR tenant_id <> ''", name="has_owner"),
        CheckConstraint("status IN ('active', 'pending', 'reauthorization_required')", name="status"),
        # The fetch call's index: an owner's grants for an app, by scope set. Not unique: a provider may narrow two
        # grants to the same scopes, and refusing to store what it answered would lose a rotated token.
        Index(
            "ix_grants_owner",
            "project_id",
            "app_id",
            "user_id",
            "tenant_id",
            "external_identifier",
            "scope_key",
        ),
        # The sweep's index: only what will ever be due is in it. By app, because each app is a queue of its own: one
        # whose provider is down or slow must not be in the way of the others.
        Index(
            "ix_grants_due",
            "project_id",
            "app_id",
            "next_refresh_at",
            postgresql_where=text("next_refresh_at IS NOT NULL"),
            sqlite_where=text("next_refresh_at IS NOT NULL"),
        ),
        # Those that came back from a backup: few are in it, and for a while.
        Index(
            "ix_grants_restored",
            "project_id",
            "app_id",
            "next_refresh_at",
            "fresh_until",
            postgresql_where=text("restored_at IS NOT NULL"),
            sqlite_where=text("restored_at IS NOT NULL"),
        ),
        # What is not healthy: few rows, for lists and counts. A query must repeat the condition.
        Index(
            "ix_grants_attention",
            "project_id",
            "status",
            "consented_at",
            "id",
            postgresql_where=text(NEEDS_ATTENTION),
            sqlite_where=text(NEEDS_ATTENTION),
        ),
        # The same by app, for its own list and for counting; and by id, for the API's list.
        Index(
            "ix_grants_attention_app",
            "project_id",
            "app_id",
            "status",
            "consented_at",
            "id",
            postgresql_where=text(NEEDS_ATTENTION),
            sqlite_where=text(NEEDS_ATTENTION),
        ),
        Index(
            "ix_grants_attention_id",
            "project_id",
            "status",
            "id",
            postgresql_where=text(NEEDS_ATTENTION),
            sqlite_where=text(NEEDS_ATTENTION),
        ),
        # Those of which somebody is to be told that they will end. Few rows are in it.
        Index(
            "ix_grants_warn_at",
            "warn_at",
            postgresql_where=text("warn_at IS NOT NULL"),
            sqlite_where=text("warn_at IS NOT NULL"),
        ),
    )

    project_id: Mapped[str] = mapped_column(String(31), primary_key=True)
    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    app_id: Mapped[str] = mapped_column(String(64))
    user_id: Mapped[str] = mapped_column(String(255), default="")
    tenant_id: Mapped[str] = mapped_column(String(255), default="")
    external_identifier: Mapped[str] = mapped_column(String(255), default="")
    scope_key: Mapped[str] = mapped_column(String(32))
    """Of what was asked for where all of it was granted, else of what was granted. A fetch finds the row by it."""
    scopes: Mapped[list[str]] = mapped_column(JSON)
    """What the provider granted, as it answered last: what was asked for in the words of the app, then the rest."""
    requested_scopes: Mapped[list[str]] = mapped_column(JSON, default=list)
    """What the consent was asked for, in the words of the app; none where it is not known."""
    resources: Mapped[list[str]] = mapped_column(JSON, default=list)
    """What the tokens were asked for (RFC 8707), where the trip named it; else the app's resource counts."""
    details: Mapped[dict[str, str]] = mapped_column(JSON, default=dict)
    """What is true of this connection alone: the values it was made with, and what the provider told. No secrets."""
    status: Mapped[str] = mapped_column(String(32), default=GrantStatus.ACTIVE)
    token_sub: Mapped[str] = mapped_column(default="")
    token_sub_problem: Mapped[str] = mapped_column(default="")
    """Why `token_sub` is empty although the provider said who connected, for the operator."""
    granted_by: Mapped[str] = mapped_column(String(255), default="")
    """The user who consented, where that is not the owner: a tenant's grant."""
    consented_at: Mapped[datetime] = mapped_column(UtcDateTime)

    access_token: Mapped[Sealed | None] = mapped_column(SealedBytes)
    """None until the first fetch, where only a refresh token was uploaded."""
    access_token_type: Mapped[str] = mapped_column(default="Bearer")
    refresh_token: Mapped[Sealed | None] = mapped_column(SealedBytes)
    id_token: Mapped[Sealed | None] = mapped_column(SealedBytes)
    expires_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    """When the access token ends; none where the provider gave no end."""
    fresh_until: Mapped[datetime | None] = mapped_column(UtcDateTime)
    """`expires_at` less the margin: from here on a fetch refreshes first."""
    refresh_token_expires_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    """When the refresh token itself ends, where the provider says; none where it does not."""
    warn_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    """When webhooks are told that the refresh token will end, unless a refresh moves its end before; none for never."""

    last_refresh_time: Mapped[datetime | None] = mapped_column(UtcDateTime)
    last_refresh_error: Mapped[str] = mapped_column(default="")
    refresh_failures: Mapped[int] = mapped_column(default=0)
    """Failed refreshes since the last that worked."""
    refresh_not_before: Mapped[datetime | None] = mapped_column(UtcDateTime)
    """No call to the provider before this instant, not even for a waiting caller."""
    next_refresh_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    """When the background refresher takes the grant up; none for never."""
    interrupted_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    """When a refresh ended without an answer that could be read: the provider may have rotated the token, or not."""
    restored_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    """When the row came back from a backup: its refresh token may be spent since. None once a refresh has worked."""
    token_version: Mapped[int] = mapped_column(default=1)
    """Counts every storing of tokens, so that a change is seen without opening anything."""
    lease_owner: Mapped[str | None] = mapped_column(String(32))
    lease_until: Mapped[datetime | None] = mapped_column(UtcDateTime)
    """Until then, by the database's clock, only `lease_owner` may refresh."""


GRANTS = cast(Table, Grant.__table__)
"""The bare table, for the statements that run for every refresh: without the ORM they cost a third."""


def scope_key(scopes: Iterable[str]) -> str:
    """Return the value under which a set of scopes is stored and found; order and repetition do not matter."""
    return hashlib.sha256(" ".join(sorted(set(scopes))).encode()).hexdigest()[:32]
