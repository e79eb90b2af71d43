"""Management keys: the credential of an operator's backend. Only a digest of each is stored."""

from datetime import datetime

from sqlalchemy import JSON, ForeignKey, LargeBinary, String, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from evergrant.db.base import Base
from evergrant.db.types import UtcDateTime


class ManagementKey(Base):
    """What one key may do, from where, and until when."""

    __tablename__ = "management_keys"
    __table_args__ = (UniqueConstraint("project_id", "digest"),)

    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id", ondelete="CASCADE"), primary_key=True)
    id: Mapped[str] = mapped_column(String(22), primary_key=True)
    name: Mapped[str] = mapped_column(String(200))
    description: Mapped[str] = mapped_column(default="")
    digest: Mapped[bytes] = mapped_column(LargeBinary(32))
    permissions: Mapped[list[str]] = mapped_column(JSON)
    app_ids: Mapped[list[str]] = mapped_column(JSON, default=list)
    """Outbound apps that the key is limited to; empty means every app of the project."""
    allowed_cidrs: Mapped[list[str]] = mapped_column(JSON, default=list)
    """Networks that the key works from; empty means anywhere."""
    expires_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    disabled: Mapped[bool] = mapped_column(default=False)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    last_used_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    """Accurate to a minute: fetching a token must not cost a write."""
    last_used_address: Mapped[str] = mapped_column(String(64), default="", server_default="")
    """Where it was used from then."""
    replaces: Mapped[str] = mapped_column(String(22), default="", server_default="")
    """The key whose place it takes; empty for none."""
