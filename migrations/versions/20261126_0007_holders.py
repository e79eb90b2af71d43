"""holders of leases, uses beside the grants, warnings before refresh tokens end.

Revision: 0007, after 0006
"""

import sqlalchemy as sa
from alembic import op

revision: str = "0007"
down_revision: str | None = "0006"
branch_labels: str | None = None
depends_on: str | None = None

IS_WARNED_OF = sa.text("warn_at IS NOT NULL")


def upgrade() -> None:
    """Bring the schema forward."""
    op.create_table(
        "holders",
        sa.Column("id", sa.String(length=16), nullable=False),
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("beat_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_table(
        "grant_uses",
        sa.Column("project_id", sa.String(length=31), nullable=False),
        sa.Column("grant_id", sa.String(length=32), nullable=False),
        sa.Column("fetched_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["project_id", "grant_id"], ["grants.project_id", "grants.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("project_id", "grant_id"),
    )
    with op.batch_alter_table("grants", schema=None) as batch_op:
        batch_op.add_column(sa.Column("warn_at", sa.DateTime(timezone=True), nullable=True))
        batch_op.create_index(
            "ix_grants_warn_at", ["warn_at"], postgresql_where=IS_WARNED_OF, sqlite_where=IS_WARNED_OF
        )

    # Uses move to their own table; the column stays for processes of the version before that still run.
    op.execute(
        "INSERT INTO grant_uses (project_id, grant_id, fetched_at)"
        " SELECT project_id, id, last_fetched_at FROM grants WHERE last_fetched_at IS NOT NULL"
    )
    # What waits for a confirmation is not refreshed, so it is not due either.
    op.execute("UPDATE grants SET next_refresh_at = NULL WHERE status = 'pending'")


def downgrade() -> None:
    """Take it back."""
    with op.batch_alter_table("grants", schema=None) as batch_op:
        batch_op.drop_index("ix_grants_warn_at")
        batch_op.drop_column("warn_at")
    op.drop_table("grant_uses")
    op.drop_table("holders")
