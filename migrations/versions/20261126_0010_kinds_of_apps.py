"""kinds of apps: their names are longer than `oauth` and `apikey`, and some sign with a key of their own.

Revision: 0010, after 0009
"""

import sqlalchemy as sa
from alembic import op

revision: str = "0010"
down_revision: str | None = "0009"
branch_labels: str | None = None
depends_on: str | None = None


def upgrade() -> None:
    """Bring the schema forward."""
    op.add_column("outbound_apps", sa.Column("signing_key", sa.LargeBinary(), nullable=True))
    if op.get_bind().dialect.name == "postgresql":  # SQLite enforces no lengths, and would copy the table
        op.alter_column("outbound_apps", "app_type", type_=sa.String(length=32), existing_type=sa.String(length=16))


def downgrade() -> None:
    """Take it back."""
    op.drop_column("outbound_apps", "signing_key")
    if op.get_bind().dialect.name == "postgresql":
        op.alter_column("outbound_apps", "app_type", type_=sa.String(length=16), existing_type=sa.String(length=32))
