"""Uploading many owners' tokens at once: all of them or none."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from evergrant.app_types import AppType
from evergrant.broker.apps.apps import list_apps
from evergrant.broker.connections.upload import (
    PreparedUpload,
    TokenUpload,
    check_upload,
    prepare_upload,
    record_upload,
    replacement_of,
    store_upload,
    subject_of,
)
from evergrant.broker.grants.replacing import until_as_read
from evergrant.broker.runtime.broker import Broker
from evergrant.broker.runtime.principal import Principal
from evergrant.db import OutboundApp
from evergrant.db.grant import scope_key
from evergrant.errors import AppNotFound, EvergrantError, InvalidValue


@dataclass(frozen=True, slots=True)
class BatchItem:
    """One upload of a batch."""

    upload: TokenUpload
    verify_refresh: bool = False
    """Not in a batch: it is a failure of the item that asks for it."""


@dataclass(frozen=True, slots=True)
class BatchFailure:
    """One item's reason why nothing was stored."""

    upload: TokenUpload
    error: EvergrantError


async def upload_batch(
    broker: Broker, principal: Principal, items: Sequence[BatchItem], *, now: datetime
) -> list[BatchFailure]:
    """Store all of them in one transaction, or none where any fails, and return the failures.

    No provider is asked for tokens. id_tokens are validated where the provider's keys can be had.
    """
    project_id = principal.project_id
    wanted = sorted({item.upload.app_id for item in items})
    apps = {app.id: app for app in await list_apps(broker, project_id, only=wanted)} if wanted else {}
    failures: list[BatchFailure] = []
    seen: set[tuple[object, ...]] = set()
    for item in items:
        try:
            _check_item(broker, principal, apps, item, seen, now=now)
        except EvergrantError as error:
            failures.append(BatchFailure(item.upload, error))
    if failures or not items:
        return failures
    prepared: list[PreparedUpload] = []
    for item in items:
        app = apps[item.upload.app_id]
        subject = await subject_of(broker, app, item.upload, now=now)
        prepared.append(await prepare_upload(broker, app, item.upload, subject=subject, now=now))
    return await _store_batch(broker, project_id, apps, prepared, now=now)


@until_as_read
async def _store_batch(
    broker: Broker,
    project_id: str,
    apps: Mapping[str, OutboundApp],
    prepared: Sequence[PreparedUpload],
    *,
    now: datetime,
) -> list[BatchFailure]:
    # By app, so that two batches lock apps in the same order and cannot block each other.
    ordered = sorted(prepared, key=lambda prepared: prepared.upload.app_id)
    replacements = [await replacement_of(broker, apps[one.upload.app_id], one, now=now) for one in ordered]
    storing = prepared[0]
    try:
        async with broker.database.write() as session:
            for one, replacement in zip(ordered, replacements, strict=True):
                storing = one
                await store_upload(broker, session, project_id, one, replacement, app_type=AppType.OAUTH, now=now)
            for one in prepared:
                await record_upload(session, project_id, one)
    except (AppNotFound, InvalidValue) as error:  # the app was changed meanwhile
        return [BatchFailure(storing.upload, error)]
    return []


def _check_item(
    broker: Broker,
    principal: Principal,
    apps: dict[str, OutboundApp],
    item: BatchItem,
    seen: set[tuple[object, ...]],
    *,
    now: datetime,
) -> None:
    upload = item.upload
    principal.require_app(upload.app_id)
    app = apps.get(upload.app_id)
    if app is None:
        raise AppNotFound
    if item.verify_refresh:
        raise InvalidValue.of(("verifyRefresh", "is not for batches: upload these tokens one by one"))
    check_upload(broker, app, upload, now=now)
    scopes = app.default_scopes if upload.scopes is None else upload.scopes
    key = (upload.app_id, upload.owner, upload.external_identifier, scope_key(scopes))
    if key in seen:
        raise InvalidValue.of(("scopes", "this owner, app and scopes are in the batch twice: keep one"))
    seen.add(key)
