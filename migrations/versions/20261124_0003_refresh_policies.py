"""refresh policies.

Revision: 0003, after 0002
"""

import sqlalchemy as sa
from alembic import op

revision: str = "0003"
down_revision: str | None = "0002"
branch_labels: str | None = None
depends_on: str | None = None


def upgrade() -> None:
    """Bring the schema forward."""
    with op.batch_alter_table("grants", schema=None) as batch_op:
        batch_op.add_column(sa.Column("last_fetched_at", sa.DateTime(timezone=True), nullable=True))
        batch_op.add_column(sa.Column("interrupted_at", sa.DateTime(timezone=True), nullable=True))
        batch_op.drop_index(batch_op.f("ix_grants_due"), sqlite_where=sa.text("next_refresh_at IS NOT NULL"))
        batch_op.create_index(
            "ix_grants_due",
            ["project_id", "app_id", "next_refresh_at"],
            unique=False,
            postgresql_where=sa.text("next_refresh_at IS NOT NULL"),
            sqlite_where=sa.text("next_refresh_at IS NOT NULL"),
        )

    with op.batch_alter_table("outbound_apps", schema=None) as batch_op:
        batch_op.add_column(
            sa.Column("refresh_policy", sa.String(length=16), nullable=False, server_default="proactive")
        )
        batch_op.add_column(sa.Column("refresh_token_idle_seconds", sa.Integer(), nullable=False, server_default="0"))


def downgrade() -> None:
    """Take it back."""
    with op.batch_alter_table("outbound_apps", schema=None) as batch_op:
        batch_op.drop_column("refresh_token_idle_seconds")
        batch_op.drop_column("refresh_policy")

    with op.batch_alter_table("grants", schema=None) as batch_op:
        batch_op.drop_index(
            "ix_grants_due",
            postgresql_where=sa.text("next_refresh_at IS NOT NULL"),
            sqlite_where=sa.text("next_refresh_at IS NOT NULL"),
        )
        batch_op.create_index(
            batch_op.f("ix_grants_due"),
            ["next_refresh_at"],
            unique=False,
            postgresql_where=sa.text("next_refresh_at IS NOT NULL"),
            sqlite_where=sa.text("next_refresh_at IS NOT NULL"),
        )
        batch_op.drop_column("interrupted_at")
        batch_op.drop_column("last_fetched_at")
