"""Which older versions of evergrant may run on this schema."""

from sqlalchemy import String
from sqlalchemy.orm import Mapped, mapped_column

from evergrant.db.base import Base


class SchemaFloor(Base):
    """One row: the last migration of the oldest version whose processes may run on this schema too."""

    __tablename__ = "schema_floor"

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    """Always 1."""
    revision: Mapped[str] = mapped_column(String(32))
