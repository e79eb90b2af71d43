"""the console: operators' sessions, what its lists and charts read; pages of users: sessions, labels, branding, logos.

Revision: 0009, after 0008
"""

import sqlalchemy as sa
from alembic import op

revision: str = "0009"
down_revision: str | None = "0008"
branch_labels: str | None = None
depends_on: str | None = None

EMPTY_LIST = sa.text("'[]'")
EMPTY_OBJECT = sa.text("'{}'")
NEEDS_ATTENTION = sa.text("status <> 'active' OR last_refresh_error <> ''")
IS_ENDING = sa.text("kind IN ('replaced', 'superseded', 'deleted')")
ALL_PERMISSIONS_BEFORE = {
    "apps:read",
    "apps:write",
    "connect",
    "tokens:fetch",
    "tokens:fetch:refresh_token",
    "tokens:write",
    "keys",
    "policies",
    "audit",
    "webhooks",
}
KEYS = sa.table(
    "management_keys",
    sa.column("project_id", sa.String),
    sa.column("id", sa.String),
    sa.column("permissions", sa.JSON),
)
INSTANT = sa.DateTime(timezone=True)
PROJECT = sa.String(length=31)


def _by_beginning() -> sa.types.TypeEngine[str]:
    """Return the type of an id that is found by its beginning: compared by its bytes on every database."""
    return sa.String(length=255).with_variant(sa.String(length=255, collation="C"), "postgresql")


def upgrade() -> None:
    """Bring the schema forward."""
    _add_columns()
    _create_tables_for_connections()
    _create_tables_for_sessions()
    _create_tables_for_looks()
    op.execute(
        "INSERT INTO grant_directory (project_id, grant_id, app_id, user_id, tenant_id, token_sub, consented_at)"
        " SELECT project_id, id, app_id, user_id, tenant_id, token_sub, consented_at FROM grants"
    )
    # Who has an app already is past the first steps.
    op.execute(
        "UPDATE projects SET start_dismissed_at = created_at"
        " WHERE EXISTS (SELECT 1 FROM outbound_apps WHERE outbound_apps.project_id = projects.id)"
    )
    for key in op.get_bind().execute(sa.select(KEYS)).all():
        if set(key.permissions) >= ALL_PERMISSIONS_BEFORE:  # it may list connections anyway, and shall say "all"
            _set_permissions(key, {*key.permissions, "connections:read"})


def _set_permissions(key: sa.Row[tuple[object, ...]], permissions: set[str]) -> None:
    which = (KEYS.c.project_id == key.project_id, KEYS.c.id == key.id)
    op.get_bind().execute(sa.update(KEYS).where(*which).values(permissions=sorted(permissions)))


def _add_columns() -> None:
    for table, column in (
        ("projects", sa.Column("embed_origins", sa.JSON(), nullable=False, server_default=EMPTY_LIST)),
        ("projects", sa.Column("start_dismissed_at", INSTANT, nullable=True)),
        ("outbound_apps", sa.Column("client_secret_at", INSTANT, nullable=True)),
        ("outbound_apps", sa.Column("scope_translations", sa.JSON(), nullable=False, server_default=EMPTY_OBJECT)),
        ("management_keys", sa.Column("last_used_address", sa.String(length=64), nullable=False, server_default="")),
        ("management_keys", sa.Column("replaces", sa.String(length=22), nullable=False, server_default="")),
        ("trusted_issuers", sa.Column("last_kid", sa.String(), nullable=False, server_default="")),
        ("trusted_issuers", sa.Column("last_seen_at", INSTANT, nullable=True)),
        ("authorization_requests", sa.Column("user_label", sa.String(length=120), nullable=False, server_default="")),
        ("authorization_requests", sa.Column("tenant_label", sa.String(length=120), nullable=False, server_default="")),
        ("authorization_requests", sa.Column("locale", sa.String(length=16), nullable=False, server_default="")),
        ("authorization_requests", sa.Column("made_by", sa.String(length=300), nullable=False, server_default="")),
        ("authorization_requests", sa.Column("trial_id", sa.String(length=22), nullable=False, server_default="")),
        ("authorization_requests", sa.Column("portal_id", sa.String(length=22), nullable=False, server_default="")),
    ):
        op.add_column(table, column)
    for name, columns in (
        ("ix_grants_attention", ["status", "consented_at", "id"]),
        ("ix_grants_attention_app", ["app_id", "status", "consented_at", "id"]),
        ("ix_grants_attention_id", ["status", "id"]),
    ):
        where = NEEDS_ATTENTION
        op.create_index(name, "grants", ["project_id", *columns], postgresql_where=where, sqlite_where=where)
    _add_indexes()


def _add_indexes() -> None:
    for name, table, columns, where in (
        ("ix_audit_events_action", "audit_events", ["action", "sequence"], None),
        ("ix_audit_events_actor", "audit_events", ["actor", "sequence"], None),
        ("ix_audit_events_user", "audit_events", ["user_id", "sequence"], sa.text("user_id <> ''")),
        ("ix_audit_events_app", "audit_events", ["app_id", "sequence"], sa.text("app_id <> ''")),
        ("ix_webhook_deliveries_failed", "webhook_deliveries", ["webhook_id", "id"], sa.text("status = 'failed'")),
    ):
        op.create_index(name, table, ["project_id", *columns], postgresql_where=where, sqlite_where=where)


def _create_tables_for_connections() -> None:
    op.create_table(
        "grant_directory",
        sa.Column("project_id", PROJECT, nullable=False),
        sa.Column("grant_id", sa.String(length=32), nullable=False),
        sa.Column("app_id", sa.String(length=64), nullable=False),
        sa.Column("user_id", _by_beginning(), nullable=False),
        sa.Column("tenant_id", _by_beginning(), nullable=False),
        sa.Column("token_sub", sa.String(), nullable=False),
        sa.Column("consented_at", INSTANT, nullable=False),
        sa.ForeignKeyConstraint(["project_id", "grant_id"], ["grants.project_id", "grants.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("project_id", "grant_id"),
    )
    for name, columns in (
        ("time", ["consented_at", "grant_id"]),
        ("app", ["app_id", "consented_at", "grant_id"]),
        ("user", ["user_id", "consented_at", "grant_id"]),
        ("tenant", ["tenant_id", "consented_at", "grant_id"]),
        ("subject", ["token_sub", "consented_at", "grant_id"]),
        ("app_id", ["app_id", "grant_id"]),
    ):
        op.create_index(f"ix_grant_directory_{name}", "grant_directory", ["project_id", *columns])
    op.create_table(
        "grant_events",
        sa.Column("project_id", PROJECT, nullable=False),
        sa.Column("grant_id", sa.String(length=32), nullable=False),
        sa.Column("id", sa.String(length=48), nullable=False),
        sa.Column("at", INSTANT, nullable=False),
        sa.Column("n", sa.Integer(), nullable=False),
        sa.Column("kind", sa.String(length=32), nullable=False),
        sa.Column("actor", sa.String(length=300), nullable=False),
        sa.Column("data", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("project_id", "grant_id", "id"),
    )
    op.create_index(
        "ix_grant_events_endings", "grant_events", ["at"], postgresql_where=IS_ENDING, sqlite_where=IS_ENDING
    )
    op.create_table(
        "activity",
        sa.Column("project_id", PROJECT, nullable=False),
        sa.Column("app_id", sa.String(length=64), nullable=False),
        sa.Column("hour", INSTANT, nullable=False),
        sa.Column("counter", sa.String(length=64), nullable=False),
        sa.Column("n", sa.BigInteger(), nullable=False),
        sa.Column("ms_sum", sa.BigInteger(), nullable=False),
        sa.Column("ms_max", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("project_id", "hour", "app_id", "counter"),
    )
    op.create_index("ix_activity_hour", "activity", ["hour"])
    op.create_table(
        "grant_counts",
        sa.Column("project_id", PROJECT, nullable=False),
        sa.Column("app_id", sa.String(length=64), nullable=False),
        sa.Column("n", sa.BigInteger(), nullable=False),
        sa.Column("counted_at", INSTANT, nullable=False),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("project_id", "app_id"),
    )


def _create_tables_for_sessions() -> None:
    op.create_table(
        "console_sessions",
        sa.Column("id", sa.String(length=22), nullable=False),
        sa.Column("digest", sa.LargeBinary(length=32), nullable=False),
        sa.Column("project_id", PROJECT, nullable=True),
        sa.Column("key_id", sa.String(length=22), nullable=False),
        sa.Column("operator", sa.String(length=255), nullable=False),
        sa.Column("way", sa.String(length=16), nullable=False),
        sa.Column("role", sa.String(length=16), nullable=False),
        sa.Column("signed_in_at", INSTANT, nullable=False),
        sa.Column("seen_at", INSTANT, nullable=False),
        sa.Column("expires_at", INSTANT, nullable=False),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("ix_console_sessions_digest", "console_sessions", ["digest"], unique=True)
    op.create_table(
        "console_codes",
        sa.Column("digest", sa.LargeBinary(length=32), nullable=False),
        sa.Column("project_id", PROJECT, nullable=True),
        sa.Column("role", sa.String(length=16), nullable=False),
        sa.Column("made_by", sa.String(length=255), nullable=False),
        sa.Column("created_at", INSTANT, nullable=False),
        sa.Column("expires_at", INSTANT, nullable=False),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("digest"),
    )
    op.create_table(
        "console_departures",
        sa.Column("state_digest", sa.LargeBinary(length=32), nullable=False),
        sa.Column("browser_digest", sa.LargeBinary(length=32), nullable=False),
        sa.Column("then", sa.String(length=2048), nullable=False),
        sa.Column("expires_at", INSTANT, nullable=False),
        sa.PrimaryKeyConstraint("state_digest"),
    )
    op.create_table(
        "portal_sessions",
        sa.Column("id", sa.String(length=22), nullable=False),
        sa.Column("project_id", PROJECT, nullable=False),
        sa.Column("code_digest", sa.LargeBinary(length=32), nullable=False),
        sa.Column("digest", sa.LargeBinary(length=32), nullable=True),
        sa.Column("user_id", sa.String(length=255), nullable=False),
        sa.Column("tenant_id", sa.String(length=255), nullable=False),
        sa.Column("user_label", sa.String(length=120), nullable=False),
        sa.Column("tenant_label", sa.String(length=120), nullable=False),
        sa.Column("app_ids", sa.JSON(), nullable=False),
        sa.Column("allow", sa.JSON(), nullable=False),
        sa.Column("scopes", sa.JSON(), nullable=False),
        sa.Column("locale", sa.String(length=16), nullable=False),
        sa.Column("return_url", sa.String(length=2048), nullable=False),
        sa.Column("made_by", sa.String(length=300), nullable=False),
        sa.Column("key_id", sa.String(length=22), nullable=False),
        sa.Column("claims", sa.JSON(), nullable=True),
        sa.Column("created_at", INSTANT, nullable=False),
        sa.Column("opens_until", INSTANT, nullable=False),
        sa.Column("seen_at", INSTANT, nullable=True),
        sa.Column("expires_at", INSTANT, nullable=False),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("ix_portal_sessions_code_digest", "portal_sessions", ["code_digest"], unique=True)
    op.create_index("ix_portal_sessions_digest", "portal_sessions", ["digest"], unique=True)
    op.create_index("ix_portal_sessions_expires_at", "portal_sessions", ["expires_at"])


def _create_tables_for_looks() -> None:
    app = (["project_id", "app_id"], ["outbound_apps.project_id", "outbound_apps.id"])
    op.create_table(
        "app_tests",
        sa.Column("project_id", PROJECT, nullable=False),
        sa.Column("app_id", sa.String(length=64), nullable=False),
        sa.Column("id", sa.String(length=22), nullable=False),
        sa.Column("made_by", sa.String(length=300), nullable=False),
        sa.Column("steps", sa.JSON(), nullable=False),
        sa.Column("grant_id", sa.String(length=32), nullable=False),
        sa.Column("started_at", INSTANT, nullable=False),
        sa.Column("left_at", INSTANT, nullable=True),
        sa.Column("finished_at", INSTANT, nullable=True),
        sa.ForeignKeyConstraint(*app, ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("project_id", "app_id"),
    )
    op.create_table(
        "app_logos",
        sa.Column("project_id", PROJECT, nullable=False),
        sa.Column("app_id", sa.String(length=64), nullable=False),
        sa.Column("media_type", sa.String(length=32), nullable=False),
        sa.Column("content", sa.LargeBinary(), nullable=False),
        sa.Column("version", sa.String(length=16), nullable=False),
        sa.Column("updated_at", INSTANT, nullable=False),
        sa.ForeignKeyConstraint(*app, ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("project_id", "app_id"),
    )
    op.create_table(
        "branding",
        sa.Column("project_id", PROJECT, nullable=False),
        sa.Column("logo_type", sa.String(length=32), nullable=False),
        sa.Column("logo", sa.LargeBinary(), nullable=True),
        sa.Column("accent_light", sa.String(length=7), nullable=False),
        sa.Column("accent_dark", sa.String(length=7), nullable=False),
        sa.Column("corners", sa.String(length=8), nullable=False),
        sa.Column("mode", sa.String(length=8), nullable=False),
        sa.Column("sentence", sa.String(length=200), nullable=False),
        sa.Column("privacy_url", sa.String(length=2048), nullable=False),
        sa.Column("help_url", sa.String(length=2048), nullable=False),
        sa.Column("footer", sa.Boolean(), nullable=False),
        sa.Column("locale", sa.String(length=16), nullable=False),
        sa.Column("version", sa.String(length=16), nullable=False),
        sa.Column("updated_at", INSTANT, nullable=False),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("project_id"),
    )


def downgrade() -> None:
    """Take it back."""
    for key in op.get_bind().execute(sa.select(KEYS)).all():
        if "connections:read" in key.permissions:
            _set_permissions(key, {*key.permissions} - {"connections:read"})
    for table in (
        "branding",
        "app_logos",
        "app_tests",
        "portal_sessions",
        "console_departures",
        "console_codes",
        "console_sessions",
        "grant_counts",
        "activity",
        "grant_events",
        "grant_directory",
    ):
        op.drop_table(table)
    for name in ("ix_grants_attention", "ix_grants_attention_app", "ix_grants_attention_id"):
        op.drop_index(name, table_name="grants")
    op.drop_index("ix_webhook_deliveries_failed", table_name="webhook_deliveries")
    for name in ("action", "actor", "user", "app"):
        op.drop_index(f"ix_audit_events_{name}", table_name="audit_events")
    for table, columns in (
        (
            "authorization_requests",
            ("portal_id", "trial_id", "made_by", "locale", "tenant_label", "user_label"),
        ),
        ("trusted_issuers", ("last_seen_at", "last_kid")),
        ("management_keys", ("replaces", "last_used_address")),
        ("outbound_apps", ("scope_translations", "client_secret_at")),
        ("projects", ("start_dismissed_at", "embed_origins")),
    ):
        with op.batch_alter_table(table, schema=None) as batch_op:
            for column in columns:
                batch_op.drop_column(column)
