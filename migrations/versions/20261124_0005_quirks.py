"""variables of apps and connections, and how a revocation is made.

Revision: 0005, after 0004
"""

import sqlalchemy as sa
from alembic import op

revision: str = "0005"
down_revision: str | None = "0004"
branch_labels: str | None = None
depends_on: str | None = None


def upgrade() -> None:
    """Bring the schema forward."""
    with op.batch_alter_table("outbound_apps", schema=None) as batch_op:
        batch_op.add_column(sa.Column("variables", sa.JSON(), nullable=False, server_default="{}"))

    with op.batch_alter_table("grants", schema=None) as batch_op:
        batch_op.add_column(sa.Column("details", sa.JSON(), nullable=False, server_default="{}"))

    with op.batch_alter_table("authorization_requests", schema=None) as batch_op:
        batch_op.add_column(sa.Column("variables", sa.JSON(), nullable=False, server_default="{}"))

    with op.batch_alter_table("revocations", schema=None) as batch_op:
        batch_op.add_column(sa.Column("quirks", sa.JSON(), nullable=False, server_default="{}"))


def downgrade() -> None:
    """Take it back."""
    with op.batch_alter_table("revocations", schema=None) as batch_op:
        batch_op.drop_column("quirks")

    with op.batch_alter_table("authorization_requests", schema=None) as batch_op:
        batch_op.drop_column("variables")

    with op.batch_alter_table("grants", schema=None) as batch_op:
        batch_op.drop_column("details")

    with op.batch_alter_table("outbound_apps", schema=None) as batch_op:
        batch_op.drop_column("variables")
