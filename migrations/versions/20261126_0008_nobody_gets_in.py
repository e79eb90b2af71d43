"""levels of policies, machines by a positive sign, closed projects, checkpoints of the audit log, restored grants.

Revision: 0008, after 0007
"""

import sqlalchemy as sa
from alembic import op

revision: str = "0008"
down_revision: str | None = "0007"
branch_labels: str | None = None
depends_on: str | None = None

EMPTY_LIST = sa.text("'[]'")
IS_RESTORED = sa.text("restored_at IS NOT NULL")
ALL_PERMISSIONS_BEFORE = {
    "apps:read",
    "apps:write",
    "connect",
    "tokens:fetch",
    "tokens:fetch:refresh_token",
    "tokens:write",
    "keys",
    "audit",
    "webhooks",
}
KEYS = sa.table(
    "management_keys",
    sa.column("project_id", sa.String),
    sa.column("id", sa.String),
    sa.column("permissions", sa.JSON),
    sa.column("app_ids", sa.JSON),
    sa.column("allowed_cidrs", sa.JSON),
    sa.column("expires_at", sa.DateTime(timezone=True)),
)


def upgrade() -> None:
    """Bring the schema forward."""
    op.add_column("access_policies", sa.Column("levels", sa.JSON(), nullable=False, server_default=EMPTY_LIST))
    op.add_column(
        "trusted_issuers",
        sa.Column("machines_without_user", sa.Boolean(), nullable=False, server_default=sa.false()),
    )
    op.add_column(
        "outbound_apps", sa.Column("revoke_replaced", sa.Boolean(), nullable=False, server_default=sa.false())
    )
    op.add_column("revocations", sa.Column("reason", sa.String(length=16), nullable=False, server_default="deleted"))
    for name in ("external_identifier", "granted_by", "person"):
        op.add_column("revocations", sa.Column(name, sa.String(length=255), nullable=False, server_default=""))
    op.add_column("revocations", sa.Column("token_sub", sa.String(), nullable=False, server_default=""))
    op.add_column("data_keys", sa.Column("binds_owner", sa.Boolean(), nullable=False, server_default=sa.false()))
    op.add_column(
        "authorization_requests", sa.Column("destinations", sa.String(length=32), nullable=False, server_default="")
    )
    op.add_column("projects", sa.Column("closed_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column("projects", sa.Column("shred_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column("projects", sa.Column("shredded_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column("grants", sa.Column("restored_at", sa.DateTime(timezone=True), nullable=True))
    with op.batch_alter_table("grants", schema=None) as batch_op:
        batch_op.create_index(
            "ix_grants_restored",
            ["project_id", "app_id", "next_refresh_at", "fresh_until"],
            postgresql_where=IS_RESTORED,
            sqlite_where=IS_RESTORED,
        )
    op.add_column("outbound_apps", sa.Column("restored_pace", sa.Integer(), nullable=True))
    op.create_table(
        "audit_checkpoints",
        sa.Column("project_id", sa.String(length=31), nullable=False),
        sa.Column("sequence", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("hash", sa.LargeBinary(length=32), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("project_id"),
    )
    for key in op.get_bind().execute(sa.select(KEYS)).all():
        unlimited = not key.app_ids and not key.allowed_cidrs and key.expires_at is None
        if unlimited and set(key.permissions) >= ALL_PERMISSIONS_BEFORE:  # it may do everything, as it could before
            _set_permissions(key, {*key.permissions, "policies"})


def _set_permissions(key: sa.Row[tuple[object, ...]], permissions: set[str]) -> None:
    which = (KEYS.c.project_id == key.project_id, KEYS.c.id == key.id)
    op.get_bind().execute(sa.update(KEYS).where(*which).values(permissions=sorted(permissions)))


def downgrade() -> None:
    """Take it back."""
    for key in op.get_bind().execute(sa.select(KEYS)).all():
        if "policies" in key.permissions:
            _set_permissions(key, {*key.permissions} - {"policies"})
    op.drop_table("audit_checkpoints")
    op.drop_index("ix_grants_restored", table_name="grants")
    for table, columns in (
        ("grants", ("restored_at",)),
        ("projects", ("shredded_at", "shred_at", "closed_at")),
        ("authorization_requests", ("destinations",)),
        ("data_keys", ("binds_owner",)),
        ("revocations", ("token_sub", "person", "granted_by", "external_identifier", "reason")),
        ("outbound_apps", ("restored_pace", "revoke_replaced")),
        ("trusted_issuers", ("machines_without_user",)),
        ("access_policies", ("levels",)),
    ):
        with op.batch_alter_table(table, schema=None) as batch_op:
            for column in columns:
                batch_op.drop_column(column)
