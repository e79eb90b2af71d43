"""What was done, by the hour: every chart reads these rows and counts nothing else."""

from datetime import datetime

from sqlalchemy import BigInteger, ForeignKey, Index, String
from sqlalchemy.orm import Mapped, mapped_column

from evergrant.db.base import Base
from evergrant.db.types import UtcDateTime


class Activity(Base):
    """How often one thing happened to one app within one hour, and how long it took."""

    __tablename__ = "activity"
    __table_args__ = (Index("ix_activity_hour", "hour"),)

    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id", ondelete="CASCADE"), primary_key=True)
    hour: Mapped[datetime] = mapped_column(UtcDateTime, primary_key=True)
    """The beginning of the hour."""
    app_id: Mapped[str] = mapped_column(String(64), primary_key=True)
    """Empty for what belongs to no app."""
    counter: Mapped[str] = mapped_column(String(64), primary_key=True)
    n: Mapped[int] = mapped_column(BigInteger)
    ms_sum: Mapped[int] = mapped_column(BigInteger, default=0)
    """Milliseconds, all together; 0 where time means nothing."""
    ms_max: Mapped[int] = mapped_column(default=0)


class GrantCount(Base):
    """How many grants an app has, counted a while ago."""

    __tablename__ = "grant_counts"

    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id", ondelete="CASCADE"), primary_key=True)
    app_id: Mapped[str] = mapped_column(String(64), primary_key=True)
    n: Mapped[int] = mapped_column(BigInteger)
    counted_at: Mapped[datetime] = mapped_column(UtcDateTime)
