"""A project's webhooks: making, changing and deleting them, and replacing their secrets."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from urllib.parse import urlsplit

from pydantic import SecretStr
from sqlalchemy import ColumnElement, delete, func, or_, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from evergrant.broker.audit.record import record
from evergrant.broker.runtime.authority import Authority, require_no_more
from evergrant.broker.runtime.broker import Broker
from evergrant.broker.runtime.places import slot_in
from evergrant.broker.runtime.principal import Permission, Principal
from evergrant.broker.webhooks.outbox import SUBSCRIBABLE
from evergrant.crypto.opaque import new_id
from evergrant.crypto.sealed import Slot
from evergrant.crypto.webhook_signature import is_webhook_secret, new_webhook_secret
from evergrant.db import Webhook, WebhookDelivery
from evergrant.db.types import database_now
from evergrant.errors import AlreadyExists, InvalidValue, NotFound
from evergrant.oauth2.transport import check_url

MAX_WEBHOOKS = 50
"""How many webhooks one project may have: each event is written once for each of them."""
OVERLAP_SECONDS = 86_400
"""How long a replaced secret signs beside the new one, unless the caller says otherwise."""
MAX_OVERLAP_SECONDS = 30 * 86_400
IS_DISABLED = "The webhook is disabled."
_WHAT_IT_DOES = Authority(permissions=frozenset({Permission.WEBHOOKS}))
"""A webhook tells of every app, wherever its receiver is, for ever."""


@dataclass(frozen=True)
class WebhookWithSecret:
    """A webhook and its newest secret: this is the only time that it is known."""

    webhook: Webhook
    secret: SecretStr


@dataclass(frozen=True, kw_only=True)
class WebhookDefinition:
    """What a caller sets of a webhook."""

    url: str
    description: str = ""
    event_types: Sequence[str] = ()
    """The types of events that it is told; empty for all."""


def require_may_change_webhooks(principal: Principal) -> None:
    """Check that whoever makes, changes or removes a webhook could see all that it tells.

    Raises:
        PermissionDenied: they could not.
    """
    require_no_more(principal, _WHAT_IT_DOES, what="a webhook")


async def create_webhook(
    broker: Broker,
    project_id: str,
    definition: WebhookDefinition,
    *,
    webhook_id: str = "",
    secret: SecretStr | None = None,
    now: datetime,
) -> WebhookWithSecret:
    """Make a webhook. It is told what happens from now on. Without a `secret` that the caller chose, it gets a new one.

    Raises:
        AlreadyExists: there is one with this `webhook_id`.
        InvalidValue: an argument cannot be used, or there are too many; nothing is written.
    """
    check_webhook(broker, definition, secret)
    webhook = Webhook(
        project_id=project_id,
        id=webhook_id or new_id(22),
        url=definition.url,
        description=definition.description,
        event_types=_ordered(definition.event_types),
        created_at=now,
    )
    secret = secret or new_webhook_secret()
    webhook.secret = await broker.vault.seal(webhook_secret_slot(webhook, "secret"), secret)
    async with broker.database.write() as session:
        counted = select(func.count()).select_from(Webhook).where(Webhook.project_id == project_id)
        if (await session.execute(counted)).scalar_one() >= MAX_WEBHOOKS:
            raise InvalidValue.of(("url", f"a project can have {MAX_WEBHOOKS} webhooks: delete one first"))
        session.add(webhook)
        try:
            await session.flush()
        except IntegrityError:
            raise AlreadyExists("This webhook was made already, and its secret was shown then.") from None
        # The host alone: the rest of a webhook's URL may be as good as a password.
        data = {"webhookId": webhook.id, "host": urlsplit(webhook.url).hostname, "eventTypes": webhook.event_types}
        await record(session, project_id, "webhook.created", data=data)
    return WebhookWithSecret(webhook, secret)


async def update_webhook(
    broker: Broker, project_id: str, webhook_id: str, definition: WebhookDefinition, *, enabled: bool
) -> Webhook:
    """Replace a webhook's definition. While it is disabled nothing is written for it; what was waiting has failed.

    Raises:
        InvalidValue: an argument cannot be used; nothing is changed.
        NotFound: the project has no such webhook.
    """
    check_webhook(broker, definition)
    async with broker.database.write() as session:
        webhook = await _get_webhook(session, project_id, webhook_id, lock=True)
        before = (webhook.url, webhook.description, webhook.event_types, webhook.enabled)
        webhook.url, webhook.description = definition.url, definition.description
        webhook.event_types = _ordered(definition.event_types)
        if enabled and not webhook.enabled:
            webhook.failing_since, webhook.disabled_reason = None, ""
        webhook.enabled = enabled
        await session.flush()
        if not enabled:
            await _give_up(session, webhook)
        after = (webhook.url, webhook.description, webhook.event_types, webhook.enabled)
        names = ("url", "description", "eventTypes", "enabled")
        changed = [name for name, old, new in zip(names, before, after, strict=True) if old != new]
        await record(session, project_id, "webhook.updated", data={"webhookId": webhook.id, "fields": changed})
    return webhook


async def disable_webhook(session: AsyncSession, webhook: Webhook, *, reason: str, data: dict[str, object]) -> None:
    """Disable a webhook whose receiver does not accept, as the last step of the caller's transaction.

    `reason`: its receiver has `gone`, or has been `failing` for too long. `data` is for the audit record.
    """
    webhook.enabled, webhook.disabled_reason = False, reason
    await session.flush()
    await _give_up(session, webhook)
    data = {"webhookId": webhook.id, "reason": reason, **data}
    await record(session, webhook.project_id, "webhook.disabled", data=data)


async def _give_up(session: AsyncSession, webhook: Webhook) -> None:
    """Let waiting deliveries fail, so that the log does not promise what will not happen; they can be replayed."""
    await session.execute(
        update(WebhookDelivery)
        .where(
            WebhookDelivery.project_id == webhook.project_id,
            WebhookDelivery.webhook_id == webhook.id,
            WebhookDelivery.status == "pending",
            delivery_is_free(),  # an attempt under way writes down itself what came of it
        )
        .values(status="failed", next_attempt_at=None, last_error=IS_DISABLED)
        .execution_options(synchronize_session=False)
    )


async def delete_webhook(broker: Broker, project_id: str, webhook_id: str) -> None:
    """Delete a webhook and the log of its deliveries. What was waiting is not delivered.

    Raises:
        NotFound: the project has no such webhook.
    """
    async with broker.database.write() as session:
        statement = (
            delete(Webhook)
            .where(Webhook.project_id == project_id, Webhook.id == webhook_id)
            .returning(Webhook.id)
            .execution_options(synchronize_session=False)
        )
        if (await session.execute(statement)).one_or_none() is None:
            raise _not_found(project_id, webhook_id)
        await record(session, project_id, "webhook.deleted", data={"webhookId": webhook_id})


async def list_webhooks(broker: Broker, project_id: str) -> list[Webhook]:
    """Return a project's webhooks, oldest first."""
    query = select(Webhook).where(Webhook.project_id == project_id)
    async with broker.database.read() as session:
        return list(await session.scalars(query.order_by(Webhook.created_at, Webhook.id)))


async def load_webhook(broker: Broker, project_id: str, webhook_id: str) -> Webhook:
    """Return a webhook.

    Raises:
        NotFound: the project has no such webhook.
    """
    async with broker.database.read() as session:
        return await _get_webhook(session, project_id, webhook_id)


async def rotate_secret(
    broker: Broker,
    project_id: str,
    webhook_id: str,
    *,
    overlap_seconds: int = OVERLAP_SECONDS,
    version: int | None = None,
    chosen: SecretStr | None = None,
    now: datetime,
) -> WebhookWithSecret:
    """Give a webhook a new secret, or the one that the caller has `chosen`.

    The one before signs beside it for `overlap_seconds`, at most 30 days.

    Of two earlier ones the older ends at once: there are never more than two. `version` is the `secret_version` that
    the caller has seen: a form that is sent twice changes nothing the second time.

    Raises:
        AlreadyExists: the secret is not of this `version` any more.
        InvalidValue: the overlap is too long, or the chosen secret is none; nothing is changed.
        NotFound: the project has no such webhook.
    """
    if not 0 <= overlap_seconds <= MAX_OVERLAP_SECONDS:
        raise InvalidValue.of(("overlapSeconds", f"use 0 to {MAX_OVERLAP_SECONDS:,}"))
    if problems := _webhook_secret_problems(chosen):
        raise InvalidValue.of(*problems)
    while True:
        webhook = await load_webhook(broker, project_id, webhook_id)
        if version not in (None, webhook.secret_version):
            raise AlreadyExists("This secret was replaced already, and the new one was shown then.")
        secret, previous = chosen or new_webhook_secret(), None
        if overlap_seconds:
            old = await broker.vault.open(webhook_secret_slot(webhook, "secret"), webhook.secret)
            previous = await broker.vault.seal(webhook_secret_slot(webhook, "previous_secret"), old)
        statement = (
            update(Webhook)
            # Somebody may rotate at the same moment: a secret that was handed out must be one that signs.
            .where(is_webhook(project_id, webhook_id), Webhook.secret_version == webhook.secret_version)
            .values(
                secret=await broker.vault.seal(webhook_secret_slot(webhook, "secret"), secret),
                previous_secret=previous,
                previous_secret_until=now + timedelta(seconds=overlap_seconds) if overlap_seconds else None,
                secret_version=Webhook.secret_version + 1,
            )
            .returning(Webhook)
            .execution_options(synchronize_session=False)
        )
        async with broker.database.write() as session:
            changed = (await session.execute(statement)).scalar_one_or_none()
            if changed is None:
                continue
            data = {"webhookId": webhook_id, "overlapSeconds": overlap_seconds}
            await record(session, project_id, "webhook.secret_rotated", data=data)
            return WebhookWithSecret(changed, secret)


async def signing_secrets(broker: Broker, webhook: Webhook, *, now: datetime) -> list[SecretStr]:
    """Return the secrets that sign a message now, opened, the newest first."""
    secrets = [await broker.vault.open(webhook_secret_slot(webhook, "secret"), webhook.secret)]
    until = webhook.previous_secret_until
    if webhook.previous_secret is not None and until is not None and now < until:
        secrets.append(
            await broker.vault.open(webhook_secret_slot(webhook, "previous_secret"), webhook.previous_secret)
        )
    return secrets


def webhook_secret_slot(webhook: Webhook, column: str) -> Slot:
    """Return the place that one of a webhook's secrets is sealed for."""
    return slot_in("webhooks", webhook, column)


def is_webhook(project_id: str, webhook_id: str) -> ColumnElement[bool]:
    """Return the condition for one webhook of one project."""
    return (Webhook.project_id == project_id) & (Webhook.id == webhook_id)


def delivery_is_free() -> ColumnElement[bool]:
    """Return the condition that nobody is delivering a delivery right now."""
    return or_(WebhookDelivery.lease_owner.is_(None), WebhookDelivery.lease_until < database_now())


async def load_enabled(session: AsyncSession, project_id: str, webhook_id: str) -> Webhook:
    """Return a webhook that is enabled, and cannot be changed nor deleted until the transaction ends.

    Raises:
        NotFound: the project has no such webhook.
        InvalidValue: it is disabled.
    """
    webhook = await _get_webhook(session, project_id, webhook_id, lock=True)
    if not webhook.enabled:
        raise InvalidValue.of(("id", "this webhook is disabled: enable it first"))
    return webhook


async def _get_webhook(session: AsyncSession, project_id: str, webhook_id: str, *, lock: bool = False) -> Webhook:
    query = select(Webhook).where(is_webhook(project_id, webhook_id))
    if lock:
        query = query.with_for_update(key_share=True)  # deliveries can be written meanwhile
    webhook = (await session.execute(query)).scalar_one_or_none()
    if webhook is None:
        raise _not_found(project_id, webhook_id)
    return webhook


def _not_found(project_id: str, webhook_id: str) -> NotFound:
    return NotFound(f"Project '{project_id}' has no webhook '{webhook_id}'.")


def check_webhook(broker: Broker, definition: WebhookDefinition, secret: SecretStr | None = None) -> None:
    """Check what somebody wants of a webhook, and the secret that they have chosen for it, if any.

    Raises:
        InvalidValue: naming every wrong field.
    """
    problems = _webhook_secret_problems(secret)
    try:
        check_url(definition.url, what="it", egress_allow=broker.http.egress_allow)
    except ValueError as error:
        problems.append(("url", str(error)))
    if set(definition.event_types) - set(SUBSCRIBABLE):
        problems.append(("eventTypes", f"use {', '.join(SUBSCRIBABLE)}, or none of them for all"))
    if problems:
        raise InvalidValue.of(*problems)


def _webhook_secret_problems(secret: SecretStr | None) -> list[tuple[str, str]]:
    if secret is None or is_webhook_secret(secret):
        return []
    return [("secret", "is whsec_ and the Base64 of 24 to 64 random bytes: make it with 'openssl rand -base64 32'")]


def _ordered(event_types: Sequence[str]) -> list[str]:
    return [event for event in SUBSCRIBABLE if event in event_types]
