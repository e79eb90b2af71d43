"""what was asked for beside what was granted, ends of refresh tokens, callback addresses of apps, outcomes of trips.

Revision: 0006, after 0005
"""

import secrets

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
        # A text, as an expression would have SQLite copy the table, and lose all that hangs on its rows.
        batch_op.add_column(sa.Column("own_callback", sa.Boolean(), nullable=False, server_default="0"))
        batch_op.create_index(
            "ix_outbound_apps_callback_id",
            ["callback_id"],
            unique=True,
            postgresql_where=HAS_ITS_OWN,
            sqlite_where=HAS_ITS_OWN,
        )

    apps = sa.table("outbound_apps", sa.column("project_id"), sa.column("id"), sa.column("callback_id"))
    # Known before an app moves to it, so that its operator can register it at the provider first.
    for project_id, app_id in op.get_bind().execute(sa.select(apps.c.project_id, apps.c.id)).all():
        of_this_app = (apps.c.project_id == project_id) & (apps.c.id == app_id)
        op.execute(sa.update(apps).where(of_this_app).values(callback_id=secrets.token_hex(11)))

    with op.batch_alter_table("authorization_requests", schema=None) as batch_op:
        batch_op.add_column(sa.Column("answers", sa.JSON(), nullable=False, server_default="{}"))
        batch_op.add_column(sa.Column("state", sa.LargeBinary(), nullable=True))
        batch_op.add_column(sa.Column("outcome", sa.LargeBinary(), nullable=True))
        batch_op.create_index("ix_authorization_requests_browser_digest", ["browser_digest"])


def downgrade() -> None:
    """Take it back."""
    with op.batch_alter_table("authorization_requests", schema=None) as batch_op:
        batch_op.drop_index("ix_authorization_requests_browser_digest")
        batch_op.drop_column("outcome")
        batch_op.drop_column("state")
        batch_op.drop_column("answers")

    with op.batch_alter_table("outbound_apps", schema=None) as batch_op:
        batch_op.drop_index("ix_outbound_apps_callback_id")
        batch_op.drop_column("own_callback")
        batch_op.drop_column("callback_id")

    with op.batch_alter_table("grants", schema=None) as batch_op:
        batch_op.drop_column("token_sub_problem")
        batch_op.drop_column("refresh_token_expires_at")
        batch_op.drop_column("requested_scopes")
