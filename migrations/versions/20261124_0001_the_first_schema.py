"""the first schema.

Revision: 0001, after
"""

import sqlalchemy as sa
from alembic import op

revision: str = "0001"
down_revision: str | None = None
branch_labels: str | None = None
depends_on: str | None = None


def upgrade() -> None:
    """Bring the schema forward."""
    op.create_table(
        "projects",
        sa.Column("id", sa.String(length=31), nullable=False),
        sa.Column("name", sa.String(length=200), nullable=False),
        sa.Column("redirect_origins", sa.JSON(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("length(id) BETWEEN 1 AND 31", name=op.f("ck_projects_id_length")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_projects")),
    )
    op.create_table(
        "data_keys",
        sa.Column("project_id", sa.String(length=31), nullable=False),
        sa.Column("id", sa.String(length=16), nullable=False),
        sa.Column("master_key_id", sa.String(length=12), nullable=False),
        sa.Column("wrapped", sa.LargeBinary(), nullable=False),
        sa.Column("seals_reserved", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("seals_reserved >= 0", name=op.f("ck_data_keys_seals_reserved")),
        sa.ForeignKeyConstraint(
            ["project_id"], ["projects.id"], name=op.f("fk_data_keys_projects"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("project_id", "id", name=op.f("pk_data_keys")),
    )
    op.create_table(
        "management_keys",
        sa.Column("project_id", sa.String(length=31), nullable=False),
        sa.Column("id", sa.String(length=22), nullable=False),
        sa.Column("name", sa.String(length=200), nullable=False),
        sa.Column("digest", sa.LargeBinary(length=32), nullable=False),
        sa.Column("permissions", sa.JSON(), nullable=False),
        sa.Column("app_ids", sa.JSON(), nullable=False),
        sa.Column("allowed_cidrs", sa.JSON(), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("disabled", sa.Boolean(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("last_used_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(
            ["project_id"], ["projects.id"], name=op.f("fk_management_keys_projects"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("project_id", "id", name=op.f("pk_management_keys")),
        sa.UniqueConstraint("project_id", "digest", name=op.f("uq_management_keys_project_id_digest")),
    )
    op.create_table(
        "outbound_apps",
        sa.Column("project_id", sa.String(length=31), nullable=False),
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("name", sa.String(length=200), nullable=False),
        sa.Column("description", sa.String(), nullable=False),
        sa.Column("logo", sa.String(), nullable=False),
        sa.Column("client_id", sa.String(), nullable=False),
        sa.Column("client_secret", sa.LargeBinary(), nullable=True),
        sa.Column("token_endpoint_auth_method", sa.String(length=32), nullable=False),
        sa.Column("discovery_url", sa.String(), nullable=False),
        sa.Column("issuer", sa.String(), nullable=False),
        sa.Column("authorization_url", sa.String(), nullable=False),
        sa.Column("authorization_url_params", sa.JSON(), nullable=False),
        sa.Column("token_url", sa.String(), nullable=False),
        sa.Column("token_url_params", sa.JSON(), nullable=False),
        sa.Column("revocation_url", sa.String(), nullable=False),
        sa.Column("userinfo_url", sa.String(), nullable=False),
        sa.Column("jwks_url", sa.String(), nullable=False),
        sa.Column("iss_required", sa.Boolean(), nullable=False),
        sa.Column("default_scopes", sa.JSON(), nullable=False),
        sa.Column("scope_descriptions", sa.JSON(), nullable=False),
        sa.Column("default_redirect_url", sa.String(), nullable=False),
        sa.Column("callback_domain", sa.String(), nullable=False),
        sa.Column("pkce", sa.Boolean(), nullable=False),
        sa.Column("access_type", sa.String(length=16), nullable=False),
        sa.Column("prompt", sa.JSON(), nullable=False),
        sa.Column("skip_consent_page", sa.Boolean(), nullable=False),
        sa.Column("require_confirmation", sa.Boolean(), nullable=False),
        sa.Column("unhealthy_since", sa.DateTime(timezone=True), nullable=True),
        sa.Column("unhealthy_reason", sa.String(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["project_id"], ["projects.id"], name=op.f("fk_outbound_apps_projects"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("project_id", "id", name=op.f("pk_outbound_apps")),
        sa.UniqueConstraint("project_id", "name", name=op.f("uq_outbound_apps_project_id_name")),
    )
    op.create_table(
        "authorization_requests",
        sa.Column("project_id", sa.String(length=31), nullable=False),
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("app_id", sa.String(length=64), nullable=False),
        sa.Column("user_id", sa.String(length=255), nullable=False),
        sa.Column("tenant_id", sa.String(length=255), nullable=False),
        sa.Column("granted_by", sa.String(length=255), nullable=False),
        sa.Column("external_identifier", sa.String(length=255), nullable=False),
        sa.Column("scopes", sa.JSON(), nullable=False),
        sa.Column("redirect_url", sa.String(), nullable=False),
        sa.Column("prompt", sa.JSON(), nullable=False),
        sa.Column("login_hint", sa.String(), nullable=False),
        sa.Column("resources", sa.JSON(), nullable=False),
        sa.Column("ticket_digest", sa.LargeBinary(length=32), nullable=False),
        sa.Column("state_digest", sa.LargeBinary(length=32), nullable=True),
        sa.Column("browser_digest", sa.LargeBinary(length=32), nullable=True),
        sa.Column("code_verifier", sa.LargeBinary(), nullable=True),
        sa.Column("nonce", sa.String(), nullable=False),
        sa.Column("redirect_uri", sa.String(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("confirmation_digest", sa.LargeBinary(length=32), nullable=True),
        sa.Column("grant_id", sa.String(length=32), nullable=False),
        sa.ForeignKeyConstraint(
            ["project_id", "app_id"],
            ["outbound_apps.project_id", "outbound_apps.id"],
            name=op.f("fk_authorization_requests_outbound_apps"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("project_id", "id", name=op.f("pk_authorization_requests")),
    )
    with op.batch_alter_table("authorization_requests", schema=None) as batch_op:
        batch_op.create_index("ix_authorization_requests_expires_at", ["expires_at"], unique=False)
        batch_op.create_index("ix_authorization_requests_state_digest", ["state_digest"], unique=True)
        batch_op.create_index("ix_authorization_requests_ticket_digest", ["ticket_digest"], unique=True)

    op.create_table(
        "grants",
        sa.Column("project_id", sa.String(length=31), nullable=False),
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("app_id", sa.String(length=64), nullable=False),
        sa.Column("user_id", sa.String(length=255), nullable=False),
        sa.Column("tenant_id", sa.String(length=255), nullable=False),
        sa.Column("external_identifier", sa.String(length=255), nullable=False),
        sa.Column("scope_key", sa.String(length=32), nullable=False),
        sa.Column("scopes", sa.JSON(), nullable=False),
        sa.Column("status", sa.String(length=32), nullable=False),
        sa.Column("token_sub", sa.String(), nullable=False),
        sa.Column("granted_by", sa.String(length=255), nullable=False),
        sa.Column("consented_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("access_token", sa.LargeBinary(), nullable=False),
        sa.Column("access_token_type", sa.String(), nullable=False),
        sa.Column("refresh_token", sa.LargeBinary(), nullable=True),
        sa.Column("id_token", sa.LargeBinary(), nullable=True),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("fresh_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("last_refresh_time", sa.DateTime(timezone=True), nullable=True),
        sa.Column("last_refresh_error", sa.String(), nullable=False),
        sa.Column("refresh_failures", sa.Integer(), nullable=False),
        sa.Column("refresh_not_before", sa.DateTime(timezone=True), nullable=True),
        sa.Column("next_refresh_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("token_version", sa.Integer(), nullable=False),
        sa.Column("lease_owner", sa.String(length=32), nullable=True),
        sa.Column("lease_until", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "status IN ('active', 'pending', 'reauthorization_required')", name=op.f("ck_grants_status")
        ),
        sa.CheckConstraint("user_id <> '' OR tenant_id <> ''", name=op.f("ck_grants_has_owner")),
        sa.ForeignKeyConstraint(
            ["project_id", "app_id"],
            ["outbound_apps.project_id", "outbound_apps.id"],
            name=op.f("fk_grants_outbound_apps"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("project_id", "id", name=op.f("pk_grants")),
    )
    with op.batch_alter_table("grants", schema=None) as batch_op:
        batch_op.create_index(
            "ix_grants_due",
            ["next_refresh_at"],
            unique=False,
            postgresql_where=sa.text("next_refresh_at IS NOT NULL"),
            sqlite_where=sa.text("next_refresh_at IS NOT NULL"),
        )
        batch_op.create_index(
            "ix_grants_owner",
            ["project_id", "app_id", "user_id", "tenant_id", "external_identifier", "scope_key"],
            unique=False,
        )
    if op.get_bind().dialect.name == "postgresql":
        # Leases come and go on these rows all day: leave room for the new versions on the same page, and clean up
        # early, or the index of due grants fills with dead entries.
        op.execute(
            "ALTER TABLE grants SET (fillfactor = 85, autovacuum_vacuum_scale_factor = 0.02, "
            "autovacuum_vacuum_threshold = 1000)"
        )


def downgrade() -> None:
    """Take it back."""
    with op.batch_alter_table("grants", schema=None) as batch_op:
        batch_op.drop_index("ix_grants_owner")
        batch_op.drop_index(
            "ix_grants_due",
            postgresql_where=sa.text("next_refresh_at IS NOT NULL"),
            sqlite_where=sa.text("next_refresh_at IS NOT NULL"),
        )

    op.drop_table("grants")
    with op.batch_alter_table("authorization_requests", schema=None) as batch_op:
        batch_op.drop_index("ix_authorization_requests_ticket_digest")
        batch_op.drop_index("ix_authorization_requests_state_digest")
        batch_op.drop_index("ix_authorization_requests_expires_at")

    op.drop_table("authorization_requests")
    op.drop_table("outbound_apps")
    op.drop_table("management_keys")
    op.drop_table("data_keys")
    op.drop_table("projects")
