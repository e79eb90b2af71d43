"""scale: the schema says which older versions may run on it, and processes what they must have in common.

Revision: 0012, after 0011
"""

import sqlalchemy as sa
from alembic import op

revision: str = "0012"
down_revision: str | None = "0011"
branch_labels: str | None = None
depends_on: str | None = None
oldest_code: str = "0011"


def upgrade() -> None:
    """Bring the schema forward."""
    op.create_table(
        "schema_floor",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("revision", sa.String(length=32), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_schema_floor")),
    )
    op.add_column("holders", sa.Column("traits", sa.String(length=512), server_default="", nullable=False))


def downgrade() -> None:
    """Take it back."""
    op.drop_column("holders", "traits")
    op.drop_table("schema_floor")
