"""Data keys: each project's keys for sealing, wrapped by a master key. Deleting them shreds all that they sealed."""

from datetime import datetime

from sqlalchemy import BigInteger, CheckConstraint, ForeignKey, LargeBinary, String, false
from sqlalchemy.orm import Mapped, mapped_column

from evergrant.db.base import Base
from evergrant.db.types import UtcDateTime


class DataKeyRow(Base):
    """One wrapped data key. The newest that binds owners seals, all of them open."""

    __tablename__ = "data_keys"
    __table_args__ = (CheckConstraint("seals_reserved >= 0", name="seals_reserved"),)

    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id", ondelete="CASCADE"), primary_key=True)
    id: Mapped[str] = mapped_column(String(16), primary_key=True)
    master_key_id: Mapped[str] = mapped_column(String(12))
    wrapped: Mapped[bytes] = mapped_column(LargeBinary)
    seals_reserved: Mapped[int] = mapped_column(BigInteger, default=0)
    """How many seals processes have set aside for themselves: an upper bound of the messages under this key."""
    binds_owner: Mapped[bool] = mapped_column(default=False, server_default=false())
    """Whether what is sealed under it opens for one owner only; earlier versions' do not. It is part of the wrap."""
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
