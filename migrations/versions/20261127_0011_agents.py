"""agents: sessions, calls and their log, approvals, logins that prove whose browser it is.

Revision: 0011, after 0010
"""

import sqlalchemy as sa
from alembic import op

revision: str = "0011"
down_revision: str | None = "0010"
branch_labels: str | None = None
depends_on: str | None = None

EMPTY_LIST = sa.text("'[]'")
EMPTY_OBJECT = sa.text("'{}'")
UNSEALED = sa.text("batch = ''")
INSTANT = sa.DateTime(timezone=True)
PROJECT = sa.String(length=31)
ALL_PERMISSIONS_BEFORE = {
    "apps:read",
    "apps:write",
    "connect",
    "connections:read",
    "tokens:fetch",
    "tokens:fetch:refresh_token",
    "tokens:write",
    "keys",
    "policies",
    "audit",
    "webhooks",
}
NEW_PERMISSIONS = {"calls", "sessions"}
KEYS = sa.table(
    "management_keys",
    sa.column("project_id", sa.String),
    sa.column("id", sa.String),
    sa.column("permissions", sa.JSON),
)


def upgrade() -> None:
    """Bring the schema forward."""
    _add_columns()
    _create_sessions()
    _create_approvals()
    _create_logins()
    _create_call_records()
    for key in op.get_bind().execute(sa.select(KEYS)).all():
        if set(key.permissions) >= ALL_PERMISSIONS_BEFORE:  # it may do everything, and shall go on to
            _set_permissions(key, {*key.permissions, *NEW_PERMISSIONS})


def _set_permissions(key: sa.Row[tuple[object, ...]], permissions: set[str]) -> None:
    which = (KEYS.c.project_id == key.project_id, KEYS.c.id == key.id)
    op.get_bind().execute(sa.update(KEYS).where(*which).values(permissions=sorted(permissions)))


def _add_columns() -> None:
    with op.batch_alter_table("access_policies") as batch_op:
        for name in ("methods", "paths", "agents", "via"):
            batch_op.add_column(sa.Column(name, sa.JSON(), server_default=EMPTY_LIST, nullable=False))
        batch_op.add_column(sa.Column("effect", sa.String(length=8), server_default="allow", nullable=False))
        batch_op.drop_constraint(op.f("ck_access_policies_action"), type_="check")
        batch_op.create_check_constraint(op.f("ck_access_policies_action"), "action IN ('fetch', 'connect', 'call')")
    op.add_column("outbound_apps", sa.Column("api_base_url", sa.String(), server_default="", nullable=False))
    for name in ("api_further", "api_headers"):
        op.add_column("outbound_apps", sa.Column(name, sa.JSON(), server_default=EMPTY_OBJECT, nullable=False))
    op.add_column("outbound_apps", sa.Column("api_forbidden", sa.JSON(), server_default=EMPTY_LIST, nullable=False))
    op.add_column(
        "authorization_requests", sa.Column("verify", sa.String(length=16), server_default="", nullable=False)
    )
    op.add_column(
        "authorization_requests", sa.Column("agent_name", sa.String(length=200), server_default="", nullable=False)
    )
    op.add_column(
        "authorization_requests",
        sa.Column("login_issuer_id", sa.String(length=22), server_default="", nullable=False),
    )
    op.add_column("trusted_issuers", sa.Column("mcp", sa.Boolean(), server_default=sa.false(), nullable=False))
    op.add_column("trusted_issuers", sa.Column("login_client_id", sa.String(), server_default="", nullable=False))
    op.add_column("trusted_issuers", sa.Column("login_client_secret", sa.LargeBinary(), nullable=True))


def _create_sessions() -> None:
    op.create_table(
        "agent_sessions",
        sa.Column("project_id", PROJECT, nullable=False),
        sa.Column("id", sa.String(length=22), nullable=False),
        sa.Column("digest", sa.LargeBinary(length=32), nullable=False),
        sa.Column("user_id", sa.String(length=255), nullable=False),
        sa.Column("tenant_id", sa.String(length=255), nullable=False),
        sa.Column("agent_id", sa.String(length=255), nullable=False),
        sa.Column("agent_name", sa.String(length=200), nullable=False),
        sa.Column("act", sa.JSON(), nullable=False),
        sa.Column("apps", sa.JSON(), nullable=False),
        sa.Column("may_connect", sa.Boolean(), nullable=False),
        sa.Column("may_fetch", sa.Boolean(), nullable=False),
        sa.Column("elicitation", sa.String(length=8), nullable=False),
        sa.Column("labels", sa.JSON(), nullable=False),
        sa.Column("allowed_cidrs", sa.JSON(), nullable=False),
        sa.Column("max_calls", sa.Integer(), nullable=True),
        sa.Column("calls", sa.Integer(), nullable=False),
        sa.Column("key_id", sa.String(length=22), nullable=False),
        sa.Column("claims", sa.JSON(), nullable=True),
        sa.Column("made_by", sa.String(length=300), nullable=False),
        sa.Column("created_at", INSTANT, nullable=False),
        sa.Column("expires_at", INSTANT, nullable=False),
        sa.Column("revoked_at", INSTANT, nullable=True),
        sa.ForeignKeyConstraint(
            ["project_id"], ["projects.id"], name=op.f("fk_agent_sessions_projects"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("project_id", "id", name=op.f("pk_agent_sessions")),
    )
    op.create_index("ix_agent_sessions_agent", "agent_sessions", ["project_id", "agent_id", "created_at"])
    op.create_index("ix_agent_sessions_created_at", "agent_sessions", ["project_id", "created_at"])
    op.create_index("ix_agent_sessions_expires_at", "agent_sessions", ["expires_at"])
    op.create_index("ix_agent_sessions_owner", "agent_sessions", ["project_id", "user_id", "created_at"])


def _create_approvals() -> None:
    op.create_table(
        "approvals",
        sa.Column("project_id", PROJECT, nullable=False),
        sa.Column("id", sa.String(length=22), nullable=False),
        sa.Column("ticket_digest", sa.LargeBinary(length=32), nullable=False),
        sa.Column("ticket", sa.LargeBinary(), nullable=False),
        sa.Column("request_digest", sa.LargeBinary(length=32), nullable=False),
        sa.Column("app_id", sa.String(length=64), nullable=False),
        sa.Column("user_id", sa.String(length=255), nullable=False),
        sa.Column("tenant_id", sa.String(length=255), nullable=False),
        sa.Column("external_identifier", sa.String(length=255), nullable=False),
        sa.Column("agent_id", sa.String(length=255), nullable=False),
        sa.Column("agent_name", sa.String(length=200), nullable=False),
        sa.Column("session_id", sa.String(length=22), nullable=False),
        sa.Column("actor", sa.String(length=300), nullable=False),
        sa.Column("method", sa.String(length=16), nullable=False),
        sa.Column("base", sa.String(length=64), nullable=False),
        sa.Column("target", sa.LargeBinary(), nullable=False),
        sa.Column("content_type", sa.String(length=200), nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=True),
        sa.Column("body_bytes", sa.Integer(), nullable=False),
        sa.Column("reason", sa.String(length=200), nullable=False),
        sa.Column("status", sa.String(length=16), nullable=False),
        sa.Column("verify", sa.String(length=16), nullable=False),
        sa.Column("login_issuer_id", sa.String(length=22), nullable=False),
        sa.Column("decided_by", sa.String(length=300), nullable=False),
        sa.Column("decision_reason", sa.String(length=500), nullable=False),
        sa.Column("created_at", INSTANT, nullable=False),
        sa.Column("expires_at", INSTANT, nullable=False),
        sa.Column("decided_at", INSTANT, nullable=True),
        sa.Column("used_at", INSTANT, nullable=True),
        sa.ForeignKeyConstraint(
            ["project_id"], ["projects.id"], name=op.f("fk_approvals_projects"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("project_id", "id", name=op.f("pk_approvals")),
    )
    op.create_index("ix_approvals_expires_at", "approvals", ["expires_at"])
    op.create_index("ix_approvals_created_at", "approvals", ["project_id", "created_at", "id"])
    op.create_index("ix_approvals_owner", "approvals", ["project_id", "user_id", "tenant_id"])
    op.create_index("ix_approvals_request_digest", "approvals", ["project_id", "request_digest"])
    op.create_index("ix_approvals_ticket_digest", "approvals", ["ticket_digest"], unique=True)


def _create_logins() -> None:
    op.create_table(
        "browser_logins",
        sa.Column("project_id", PROJECT, nullable=False),
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("purpose", sa.String(length=16), nullable=False),
        sa.Column("subject_id", sa.String(length=32), nullable=False),
        sa.Column("app_id", sa.String(length=64), nullable=False),
        sa.Column("issuer_id", sa.String(length=22), nullable=False),
        sa.Column("user_id", sa.String(length=255), nullable=False),
        sa.Column("redirect_uri", sa.String(), nullable=False),
        sa.Column("return_path", sa.LargeBinary(), nullable=False),
        sa.Column("state_digest", sa.LargeBinary(length=32), nullable=False),
        sa.Column("browser_digest", sa.LargeBinary(length=32), nullable=False),
        sa.Column("created_at", INSTANT, nullable=False),
        sa.Column("expires_at", INSTANT, nullable=False),
        sa.Column("finished_at", INSTANT, nullable=True),
        sa.Column("outcome", sa.String(length=32), nullable=False),
        sa.ForeignKeyConstraint(
            ["project_id"], ["projects.id"], name=op.f("fk_browser_logins_projects"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("project_id", "id", name=op.f("pk_browser_logins")),
    )
    op.create_index("ix_browser_logins_expires_at", "browser_logins", ["expires_at"])
    op.create_index("ix_browser_logins_subject", "browser_logins", ["project_id", "purpose", "subject_id"])
    op.create_index("ix_browser_logins_state_digest", "browser_logins", ["state_digest"], unique=True)


def _create_call_records() -> None:
    op.create_table(
        "call_records",
        sa.Column("project_id", PROJECT, nullable=False),
        sa.Column("id", sa.String(length=22), nullable=False),
        sa.Column("at", INSTANT, nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("app_id", sa.String(length=64), nullable=False),
        sa.Column("user_id", sa.String(length=255), nullable=False),
        sa.Column("tenant_id", sa.String(length=255), nullable=False),
        sa.Column("grant_id", sa.String(length=32), nullable=False),
        sa.Column("actor", sa.String(length=300), nullable=False),
        sa.Column("agent", sa.String(length=255), nullable=False),
        sa.Column("act", sa.JSON(), nullable=False),
        sa.Column("session_id", sa.String(length=22), nullable=False),
        sa.Column("remote_address", sa.String(length=45), nullable=False),
        sa.Column("method", sa.String(length=16), nullable=False),
        sa.Column("base", sa.String(length=64), nullable=False),
        sa.Column("path", sa.String(), nullable=False),
        sa.Column("status", sa.Integer(), nullable=False),
        sa.Column("source", sa.String(length=16), nullable=False),
        sa.Column("code", sa.String(length=16), nullable=False),
        sa.Column("bytes_sent", sa.BigInteger(), nullable=False),
        sa.Column("bytes_received", sa.BigInteger(), nullable=False),
        sa.Column("ms", sa.Integer(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("policy", sa.String(length=64), nullable=False),
        sa.Column("approval_id", sa.String(length=22), nullable=False),
        sa.Column("batch", sa.String(length=22), nullable=False),
        sa.ForeignKeyConstraint(
            ["project_id"], ["projects.id"], name=op.f("fk_call_records_projects"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("project_id", "id", name=op.f("pk_call_records")),
    )
    for name, column in (("tenant", "tenant_id"), ("agent", "agent"), ("session", "session_id")):
        is_named = sa.text(f"{column} <> ''")
        op.create_index(
            f"ix_call_records_{name}",
            "call_records",
            ["project_id", column, "at", "id"],
            postgresql_where=is_named,
            sqlite_where=is_named,
        )
    op.create_index("ix_call_records_app", "call_records", ["project_id", "app_id", "at", "id"])
    op.create_index("ix_call_records_at", "call_records", ["project_id", "at", "id"])
    op.create_index("ix_call_records_batch", "call_records", ["project_id", "batch"])
    op.create_index(
        "ix_call_records_unsealed", "call_records", ["at"], postgresql_where=UNSEALED, sqlite_where=UNSEALED
    )
    op.create_index("ix_call_records_user", "call_records", ["project_id", "user_id", "at", "id"])
    is_told = sa.text("action <> 'calls.sealed'")
    op.create_index(
        "ix_audit_events_told",
        "audit_events",
        ["project_id", "sequence"],
        postgresql_where=is_told,
        sqlite_where=is_told,
    )


def downgrade() -> None:
    """Take it back; policies about calls go, because nobody enforces them any more."""
    op.drop_index("ix_audit_events_told", "audit_events")
    for table in ("call_records", "browser_logins", "approvals", "agent_sessions"):
        op.drop_table(table)
    for table, names in (
        ("trusted_issuers", ("login_client_secret", "login_client_id", "mcp")),
        ("authorization_requests", ("login_issuer_id", "agent_name", "verify")),
        ("outbound_apps", ("api_forbidden", "api_headers", "api_further", "api_base_url")),
    ):
        for name in names:
            op.drop_column(table, name)
    op.execute("DELETE FROM access_policies WHERE action = 'call'")
    with op.batch_alter_table("access_policies") as batch_op:
        batch_op.drop_constraint(op.f("ck_access_policies_action"), type_="check")
        batch_op.create_check_constraint(op.f("ck_access_policies_action"), "action IN ('fetch', 'connect')")
        for name in ("effect", "via", "agents", "paths", "methods"):
            batch_op.drop_column(name)
    for key in op.get_bind().execute(sa.select(KEYS)).all():
        if NEW_PERMISSIONS & set(key.permissions):
            _set_permissions(key, set(key.permissions) - NEW_PERMISSIONS)
