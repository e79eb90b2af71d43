"""Uses of grants, beside the grants' own rows, which a fetch must not change and a landing must not wait for."""

from datetime import datetime

from sqlalchemy import ForeignKeyConstraint, String
from sqlalchemy.orm import Mapped, mapped_column

from evergrant.db.base import Base
from evergrant.db.types import UtcDateTime


class GrantUse(Base):
    """When a grant's token was last handed out, to about a day."""

    __tablename__ = "grant_uses"
    __table_args__ = (
        ForeignKeyConstraint(["project_id", "grant_id"], ["grants.project_id", "grants.id"], ondelete="CASCADE"),
    )

    project_id: Mapped[str] = mapped_column(String(31), primary_key=True)
    grant_id: Mapped[str] = mapped_column(String(32), primary_key=True)
    fetched_at: Mapped[datetime] = mapped_column(UtcDateTime)
