"""Operators at the console: their sessions, the one-time links that begin one, and trips to their identity provider.

A session is a row and no signed cookie, so that it ends at once with what it rests on, and can be listed and ended.
"""

from datetime import datetime

from sqlalchemy import ForeignKey, Index, LargeBinary, String
from sqlalchemy.orm import Mapped, mapped_column

from evergrant.db.base import Base
from evergrant.db.types import UtcDateTime


class ConsoleSession(Base):
    """One browser in which an operator is signed in. Only a digest of its cookie is stored."""

    __tablename__ = "console_sessions"
    __table_args__ = (Index("ix_console_sessions_digest", "digest", unique=True),)

    id: Mapped[str] = mapped_column(String(22), primary_key=True)
    digest: Mapped[bytes] = mapped_column(LargeBinary(32))
    project_id: Mapped[str | None] = mapped_column(ForeignKey("projects.id", ondelete="CASCADE"))
    """The only project that it may see; none for every project of this installation."""
    key_id: Mapped[str] = mapped_column(String(22), default="")
    """The management key that it rests on, and ends with; empty for another way."""
    operator: Mapped[str] = mapped_column(String(255))
    """Who it is, as the audit log calls them."""
    way: Mapped[str] = mapped_column(String(16))
    """How they signed in: `link`, `key` or `oidc`."""
    role: Mapped[str] = mapped_column(String(16), default="")
    """What they may do; empty where the key says it."""
    signed_in_at: Mapped[datetime] = mapped_column(UtcDateTime)
    seen_at: Mapped[datetime] = mapped_column(UtcDateTime)
    """Accurate to a minute."""
    expires_at: Mapped[datetime] = mapped_column(UtcDateTime)


class ConsoleCode(Base):
    """A one-time link to the console, as a digest. It is deleted when it is used."""

    __tablename__ = "console_codes"

    digest: Mapped[bytes] = mapped_column(LargeBinary(32), primary_key=True)
    project_id: Mapped[str | None] = mapped_column(ForeignKey("projects.id", ondelete="CASCADE"))
    role: Mapped[str] = mapped_column(String(16))
    made_by: Mapped[str] = mapped_column(String(255))
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    expires_at: Mapped[datetime] = mapped_column(UtcDateTime)


class ConsoleDeparture(Base):
    """A browser that is at the operators' identity provider, and what must match when it comes back."""

    __tablename__ = "console_departures"

    state_digest: Mapped[bytes] = mapped_column(LargeBinary(32), primary_key=True)
    browser_digest: Mapped[bytes] = mapped_column(LargeBinary(32))
    then: Mapped[str] = mapped_column(String(2048))
    """The console's page that was asked for."""
    expires_at: Mapped[datetime] = mapped_column(UtcDateTime)
