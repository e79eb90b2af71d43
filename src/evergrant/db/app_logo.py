"""Logos that operators have uploaded. No page of a user loads a picture from anywhere else."""

from datetime import datetime

from sqlalchemy import ForeignKeyConstraint, LargeBinary, String
from sqlalchemy.orm import Mapped, mapped_column

from evergrant.db.base import Base
from evergrant.db.types import UtcDateTime


class AppLogo(Base):
    """An app's logo: a PNG, JPEG or WebP that was looked at before it was stored."""

    __tablename__ = "app_logos"
    __table_args__ = (
        ForeignKeyConstraint(
            ["project_id", "app_id"], ["outbound_apps.project_id", "outbound_apps.id"], ondelete="CASCADE"
        ),
    )

    project_id: Mapped[str] = mapped_column(String(31), primary_key=True)
    app_id: Mapped[str] = mapped_column(String(64), primary_key=True)
    media_type: Mapped[str] = mapped_column(String(32))
    content: Mapped[bytes] = mapped_column(LargeBinary)
    version: Mapped[str] = mapped_column(String(16))
    """The beginning of the content's digest: what the address changes with."""
    updated_at: Mapped[datetime] = mapped_column(UtcDateTime)
