"""Webhooks: where a project wants to be told what happens, and what is still to be told, or was.

A delivery is written in the transaction of what it tells about, and carries the text that is sent, so that it is the
same at every attempt whatever has changed meanwhile.
"""

from datetime import datetime

from sqlalchemy import JSON, CheckConstraint, ForeignKey, ForeignKeyConstraint, Index, String, Text, text
from sqlalchemy.orm import Mapped, mapped_column

from evergrant.crypto.sealed import Sealed
from evergrant.db.base import Base
from evergrant.db.types import SealedBytes, UtcDateTime


class Webhook(Base):
    """An address of the customer's that is called when something happens."""

    __tablename__ = "webhooks"

    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id", ondelete="CASCADE"), primary_key=True)
    id: Mapped[str] = mapped_column(String(22), primary_key=True)
    url: Mapped[str] = mapped_column()
    description: Mapped[str] = mapped_column(default="")
    event_types: Mapped[list[str]] = mapped_column(JSON, default=list)
    """Only these. Empty: all."""
    secret: Mapped[Sealed] = mapped_column(SealedBytes)
    previous_secret: Mapped[Sealed | None] = mapped_column(SealedBytes)
    """The one before, which signs beside the new one until `previous_secret_until`."""
    previous_secret_until: Mapped[datetime | None] = mapped_column(UtcDateTime)
    secret_version: Mapped[int] = mapped_column(default=1)
    """Counts every change of the secrets."""
    enabled: Mapped[bool] = mapped_column(default=True)
    disabled_reason: Mapped[str] = mapped_column(String(16), default="")
    """Why evergrant disabled it by itself: `gone` or `failing`; empty where somebody did."""
    failing_since: Mapped[datetime | None] = mapped_column(UtcDateTime)
    """The first failure since a delivery was accepted; none while there is no trouble."""
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)


class WebhookDelivery(Base):
    """One event for one webhook: to be delivered, delivered, or given up."""

    __tablename__ = "webhook_deliveries"
    __table_args__ = (
        ForeignKeyConstraint(["project_id", "webhook_id"], ["webhooks.project_id", "webhooks.id"], ondelete="CASCADE"),
        CheckConstraint("status IN ('pending', 'delivered', 'failed')", name="status"),
        # The log of a webhook, newest first; and what goes with it when it is deleted.
        Index("ix_webhook_deliveries_webhook", "project_id", "webhook_id", "id"),
        # What was given up, which the log filters by and which is replayed together.
        Index(
            "ix_webhook_deliveries_failed",
            "project_id",
            "webhook_id",
            "id",
            postgresql_where=text("status = 'failed'"),
            sqlite_where=text("status = 'failed'"),
        ),
        # Each webhook is a queue of its own, so that one that is down is not in the way of the others.
        Index(
            "ix_webhook_deliveries_due",
            "project_id",
            "webhook_id",
            "next_attempt_at",
            postgresql_where=text("next_attempt_at IS NOT NULL"),
            sqlite_where=text("next_attempt_at IS NOT NULL"),
        ),
        Index("ix_webhook_deliveries_created_at", "created_at"),
    )

    project_id: Mapped[str] = mapped_column(String(31), primary_key=True)
    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    """What the receiver knows it by (`webhook-id`), the same at every attempt. In the order of time."""
    webhook_id: Mapped[str] = mapped_column(String(22))
    event_type: Mapped[str] = mapped_column(String(64))
    payload: Mapped[str] = mapped_column(Text)
    """The JSON text that is signed and sent. Ids and reasons, never secrets."""
    status: Mapped[str] = mapped_column(String(16), default="pending")
    attempts: Mapped[int] = mapped_column(default=0)
    """Attempts begun, since it was written or replayed."""
    next_attempt_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    """When it is due; none when it is over."""
    last_attempt_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    last_status_code: Mapped[int | None] = mapped_column()
    """What the receiver answered to the last attempt; none where it gave no answer."""
    last_error: Mapped[str] = mapped_column(default="")
    """What was wrong with the last attempt, in our words; empty when nothing was."""
    lease_owner: Mapped[str | None] = mapped_column(String(32))
    lease_until: Mapped[datetime | None] = mapped_column(UtcDateTime)
    """Until then, by the database's clock, only `lease_owner` may deliver it."""
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
