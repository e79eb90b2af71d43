"""Holders: the processes that hold leases on grants, and when each was last there."""

from datetime import datetime

from sqlalchemy import String
from sqlalchemy.orm import Mapped, mapped_column

from evergrant.db.base import Base
from evergrant.db.types import UtcDateTime

HOLDER_ID_LENGTH = 16
"""So many characters of a lease's owner are the id of its holder."""


class Holder(Base):
    """One process, from its first lease on. Its row goes when it has ended and holds nothing any more."""

    __tablename__ = "holders"

    id: Mapped[str] = mapped_column(String(HOLDER_ID_LENGTH), primary_key=True)
    """Random, and new for each process."""
    name: Mapped[str] = mapped_column(String(255))
    """What an operator knows it by: its host and its process id."""
    started_at: Mapped[datetime] = mapped_column(UtcDateTime)
    beat_at: Mapped[datetime] = mapped_column(UtcDateTime)
    """When it last showed that it is there, by the database's clock."""
    traits: Mapped[str] = mapped_column(String(512), default="", server_default="")
    """Fingerprints of what it must have in common with the others, in JSON. Earlier versions leave it empty."""
