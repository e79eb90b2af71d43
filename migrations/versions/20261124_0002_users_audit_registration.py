"""api keys, audit log, users by jwt, registration, revocation.

Revision: 0002, after 0001
"""

import sqlalchemy as sa
from alembic import op

revision: str = "0002"
down_revision: str | None = "0001"
branch_labels: str | None = None
depends_on: str | None = None


def upgrade() -> None:
    """Bring the schema forward."""
    op.create_table(
        "access_policies",
        sa.Column("project_id", sa.String(length=31), nullable=False),
        sa.Column("id", sa.String(length=22), nullable=False),
        sa.Column("app_id", sa.String(length=64), nullable=False),
        sa.Column("action", sa.String(length=16), nullable=False),
        sa.Column("claims", sa.JSON(), nullable=False),
        sa.Column("key_ids", sa.JSON(), nullable=False),
        sa.Column("scopes", sa.JSON(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("action IN ('fetch', 'connect')", name=op.f("ck_access_policies_action")),
        sa.ForeignKeyConstraint(
            ["project_id"], ["projects.id"], name=op.f("fk_access_policies_projects"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("project_id", "id", name=op.f("pk_access_policies")),
    )
    with op.batch_alter_table("access_policies", schema=None) as batch_op:
        batch_op.create_index("ix_access_policies_project_id_app_id", ["project_id", "app_id"], unique=False)

    op.create_table(
        "audit_events",
        sa.Column("project_id", sa.String(length=31), nullable=False),
        sa.Column("sequence", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("occurred_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("action", sa.String(length=64), nullable=False),
        sa.Column("actor", sa.String(), nullable=False),
        sa.Column("remote_address", sa.String(length=45), nullable=False),
        sa.Column("app_id", sa.String(length=64), nullable=False),
        sa.Column("user_id", sa.String(length=255), nullable=False),
        sa.Column("tenant_id", sa.String(length=255), nullable=False),
        sa.Column("data", sa.JSON(), nullable=False),
        sa.Column("previous_hash", sa.LargeBinary(length=32), nullable=False),
        sa.Column("hash", sa.LargeBinary(length=32), nullable=False),
        sa.ForeignKeyConstraint(
            ["project_id"], ["projects.id"], name=op.f("fk_audit_events_projects"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("project_id", "sequence", name=op.f("pk_audit_events")),
    )
    with op.batch_alter_table("audit_events", schema=None) as batch_op:
        batch_op.create_index("ix_audit_events_project_id_occurred_at", ["project_id", "occurred_at"], unique=False)

    op.create_table(
        "revocations",
        sa.Column("project_id", sa.String(length=31), nullable=False),
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("grant_id", sa.String(length=32), nullable=False),
        sa.Column("app_id", sa.String(length=64), nullable=False),
        sa.Column("app_name", sa.String(length=200), nullable=False),
        sa.Column("user_id", sa.String(length=255), nullable=False),
        sa.Column("tenant_id", sa.String(length=255), nullable=False),
        sa.Column("revocation_url", sa.String(), nullable=False),
        sa.Column("client_id", sa.String(), nullable=False),
        sa.Column("client_secret", sa.LargeBinary(), nullable=True),
        sa.Column("auth_method", sa.String(length=32), nullable=False),
        sa.Column("token", sa.LargeBinary(), nullable=False),
        sa.Column("token_type_hint", sa.String(length=32), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("next_attempt_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["project_id"], ["projects.id"], name=op.f("fk_revocations_projects"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("project_id", "id", name=op.f("pk_revocations")),
    )
    with op.batch_alter_table("revocations", schema=None) as batch_op:
        batch_op.create_index("ix_revocations_next_attempt_at", ["next_attempt_at"], unique=False)

    op.create_table(
        "trusted_issuers",
        sa.Column("project_id", sa.String(length=31), nullable=False),
        sa.Column("id", sa.String(length=22), nullable=False),
        sa.Column("issuer", sa.String(), nullable=False),
        sa.Column("jwks_url", sa.String(), nullable=False),
        sa.Column("audience", sa.String(), nullable=False),
        sa.Column("user_claim", sa.String(), nullable=False),
        sa.Column("tenant_claim", sa.String(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["project_id"], ["projects.id"], name=op.f("fk_trusted_issuers_projects"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("project_id", "id", name=op.f("pk_trusted_issuers")),
        sa.UniqueConstraint("project_id", "issuer", name=op.f("uq_trusted_issuers_project_id_issuer")),
    )
    with op.batch_alter_table("management_keys", schema=None) as batch_op:
        batch_op.add_column(sa.Column("description", sa.String(), nullable=False, server_default=""))

    with op.batch_alter_table("grants", schema=None) as batch_op:
        batch_op.alter_column("access_token", existing_type=sa.LargeBinary(), nullable=True)

    with op.batch_alter_table("outbound_apps", schema=None) as batch_op:
        batch_op.add_column(sa.Column("app_type", sa.String(length=16), nullable=False, server_default="oauth"))
        batch_op.add_column(sa.Column("tenant_id", sa.String(length=255), nullable=False, server_default=""))
        batch_op.add_column(sa.Column("template_id", sa.String(length=64), nullable=False, server_default=""))
        batch_op.add_column(sa.Column("use_dcr", sa.Boolean(), nullable=False, server_default=sa.false()))
        batch_op.add_column(sa.Column("dcr_url", sa.String(), nullable=False, server_default=""))
        batch_op.add_column(sa.Column("resource", sa.String(), nullable=False, server_default=""))
        batch_op.add_column(sa.Column("client_id_metadata", sa.Boolean(), nullable=False, server_default=sa.false()))
        batch_op.add_column(sa.Column("registered_redirect_uri", sa.String(), nullable=False, server_default=""))
        batch_op.add_column(sa.Column("client_secret_expires_at", sa.DateTime(timezone=True), nullable=True))

    with op.batch_alter_table("grants", schema=None) as batch_op:
        batch_op.add_column(sa.Column("resources", sa.JSON(), nullable=False, server_default="[]"))


def downgrade() -> None:
    """Take it back."""
    # What 0001 cannot hold goes: connections that have not got an access token yet.
    op.execute("DELETE FROM grants WHERE access_token IS NULL")
    with op.batch_alter_table("grants", schema=None) as batch_op:
        batch_op.alter_column("access_token", existing_type=sa.LargeBinary(), nullable=False)

    with op.batch_alter_table("grants", schema=None) as batch_op:
        batch_op.drop_column("resources")

    with op.batch_alter_table("outbound_apps", schema=None) as batch_op:
        batch_op.drop_column("client_secret_expires_at")
        batch_op.drop_column("registered_redirect_uri")
        batch_op.drop_column("client_id_metadata")
        batch_op.drop_column("resource")
        batch_op.drop_column("dcr_url")
        batch_op.drop_column("use_dcr")
        batch_op.drop_column("template_id")
        batch_op.drop_column("tenant_id")
        batch_op.drop_column("app_type")

    with op.batch_alter_table("management_keys", schema=None) as batch_op:
        batch_op.drop_column("description")

    op.drop_table("trusted_issuers")
    with op.batch_alter_table("revocations", schema=None) as batch_op:
        batch_op.drop_index("ix_revocations_next_attempt_at")

    op.drop_table("revocations")
    with op.batch_alter_table("audit_events", schema=None) as batch_op:
        batch_op.drop_index("ix_audit_events_project_id_occurred_at")

    op.drop_table("audit_events")
    with op.batch_alter_table("access_policies", schema=None) as batch_op:
        batch_op.drop_index("ix_access_policies_project_id_app_id")

    op.drop_table("access_policies")
