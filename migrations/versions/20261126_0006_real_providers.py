"""what was asked for beside what was granted, ends of refresh tokens, callback addresses of apps, outcomes of trips.

Revision: 0006, after 0005
"""

import sqlalchemy as sa
from alembic import op

revision: str = "0006"
down_revision: str | None = "0005"
branch_labels: str | None = None
depends_on: str | None = None

HAS_ITS_OWN = sa.text("callback_id <> ''")


def upgrade() -> None:
    """Bring the schema forward."""
    with op.batch_alter_table("grants", schema=None) as batch_op:
        batch_op.add_column(sa.Column("requested_scopes", sa.JSON(), nullable=False, server_default="[]"))
        batch_op.add_column(sa.Column("refresh_token_expires_at", sa.DateTime(timezone=True), nullable=True))
        batch_op.add_column(sa.Column("token_sub_problem", sa.String(), nullable=False, server_default=""))

    with op.batch_alter_table("outbound_apps", schema=None) as batch_op:
        batch_op.add_column(sa.Column("callback_id", sa.String(length=32), nullable=False, server_default=""))
        batch_op.create_index(
            "ix_outbound_apps_callback_id",
            ["callback_id"],
            unique=True,
            postgresql_where=HAS_ITS_OWN,
            sqlite_where=HAS_ITS_OWN,
        )

    with op.batch_alter_table("authorization_requests", schema=None) as batch_op:
        batch_op.add_column(sa.Column("state", sa.LargeBinary(), nullable=True))
        batch_op.add_column(sa.Column("outcome", sa.LargeBinary(), nullable=True))


def downgrade() -> None:
    """Take it back."""
    with op.batch_alter_table("authorization_requests", schema=None) as batch_op:
        batch_op.drop_column("outcome")
        batch_op.drop_column("state")

    with op.batch_alter_table("outbound_apps", schema=None) as batch_op:
        batch_op.drop_index("ix_outbound_apps_callback_id")
        batch_op.drop_column("callback_id")

    with op.batch_alter_table("grants", schema=None) as batch_op:
        batch_op.drop_column("token_sub_problem")
        batch_op.drop_column("refresh_token_expires_at")
        batch_op.drop_column("requested_scopes")
