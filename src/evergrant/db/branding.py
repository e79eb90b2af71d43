"""How a project's pages look to its users."""

from datetime import datetime

from sqlalchemy import ForeignKey, LargeBinary, String
from sqlalchemy.orm import Mapped, mapped_column

from evergrant.db.base import Base
from evergrant.db.types import UtcDateTime


class Branding(Base):
    """A project's logo, colours and words. Without a row, evergrant's own."""

    __tablename__ = "branding"

    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id", ondelete="CASCADE"), primary_key=True)
    logo_type: Mapped[str] = mapped_column(String(32), default="")
    logo: Mapped[bytes | None] = mapped_column(LargeBinary)
    accent_light: Mapped[str] = mapped_column(String(7), default="")
    """`#rrggbb`; empty for evergrant's."""
    accent_dark: Mapped[str] = mapped_column(String(7), default="")
    corners: Mapped[str] = mapped_column(String(8), default="soft")
    """`square`, `soft` or `round`."""
    mode: Mapped[str] = mapped_column(String(8), default="both")
    """`light`, `dark`, or `both` as the visitor's system says."""
    sentence: Mapped[str] = mapped_column(String(200), default="")
    """The project's own, above what it asks for. Text, no markup."""
    privacy_url: Mapped[str] = mapped_column(String(2048), default="")
    help_url: Mapped[str] = mapped_column(String(2048), default="")
    footer: Mapped[bool] = mapped_column(default=True)
    locale: Mapped[str] = mapped_column(String(16), default="en")
    """For visitors whose language evergrant does not speak."""
    version: Mapped[str] = mapped_column(String(16), default="")
    """What the addresses of theme and logo change with."""
    updated_at: Mapped[datetime] = mapped_column(UtcDateTime)
