"""Uploading one connection's tokens, which may be tried at the provider first, and storing any one upload."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import datetime

from evergrant import clock
from evergrant.broker.apps.apps import load_app
from evergrant.broker.apps.destinations import digest_of
from evergrant.broker.apps.provider_client import ProviderClient, callback_url, provider_client
from evergrant.broker.apps.variables import allowed_captures, template_of
from evergrant.broker.audit.record import actor
from evergrant.broker.connections.upload import (
    PreparedUpload,
    TokenUpload,
    check_same_destinations,
    check_upload,
    consent_of,
    details_of,
    prepare_upload,
    record_upload,
    replacement_of,
    scopes_of,
    store_upload,
    subject_of,
)
from evergrant.broker.grants.grants import (
    SEALS_OF_ANSWER,
    Consent,
    SealedTokens,
    columns_of_consent,
    new_grant_id,
    owner_key,
    seal_answer,
)
from evergrant.broker.grants.replacing import until_as_read
from evergrant.broker.refresh.landing import AnswerInHand, ask_for_lifetime
from evergrant.broker.revocations.late_answers import revoke_late_answer
from evergrant.broker.runtime.broker import Broker
from evergrant.broker.runtime.journal_entry import Entry
from evergrant.broker.runtime.principal import Principal
from evergrant.broker.runtime.vault import Sealer
from evergrant.db import Grant, OutboundApp
from evergrant.errors import MissingArgument, ReauthorizationRequired, RefreshTokenRefused
from evergrant.oauth2 import follow_up, token_endpoint
from evergrant.oauth2.id_token import Subject
from evergrant.oauth2.odd_parts import part_or
from evergrant.oauth2.quirks import Quirks
from evergrant.oauth2.token_response import TokenResponse

Ask = Callable[[ProviderClient], Awaitable[TokenResponse]]
"""Asks an app's provider for tokens with what is uploaded."""


@until_as_read
async def store_prepared(broker: Broker, app: OutboundApp, prepared: PreparedUpload, *, now: datetime) -> None:
    """Store one upload that was not tried.

    Raises:
        AppNotFound, InvalidValue: as `store_upload`.
    """
    replacement = await replacement_of(broker, app, prepared, now=now)
    async with broker.database.write() as session:
        await store_upload(broker, session, app.project_id, prepared, replacement, app_type=app.app_type, now=now)
        await record_upload(session, app.project_id, prepared)


async def upload_tokens(
    broker: Broker, principal: Principal, upload: TokenUpload, *, verify_refresh: bool, now: datetime
) -> None:
    """Store tokens; they take the place of the same owner's connection with the same scopes.

    With `verify_refresh` the refresh token is used first, and what the provider answers is stored.

    Raises:
        AppNotFound: there is no such app.
        MissingArgument, InvalidValue: a field is missing or wrong, or the app moved meanwhile.
        PermissionDenied: the management key is limited to other apps.
        RefreshTokenRefused: the provider refused the refresh token.
        UpstreamRejected, UpstreamUnavailable: it could not be verified. Nothing is written in any of these cases.
        Unavailable: this process stops while the database is away. The journal has it then, and it is stored later.
    """
    principal.require_app(upload.app_id)
    app = await load_app(broker, principal.project_id, upload.app_id)
    check_upload(broker, app, upload, now=now)
    subject = await subject_of(broker, app, upload, now=now)
    if not verify_refresh:
        prepared = await prepare_upload(broker, app, upload, subject=subject, now=now)
        await store_prepared(broker, app, prepared, now=now)
        return
    refresh_token = upload.refresh_token
    if refresh_token is None:
        raise MissingArgument.of(("refreshToken", "is required with verifyRefresh"))

    async def refresh(provider: ProviderClient) -> TokenResponse:
        try:
            return await token_endpoint.refresh(
                broker.http,
                provider.server,
                provider.client,
                refresh_token=refresh_token,
                granted=scopes_of(app, upload),
                redirect_uri=callback_url(broker, app),
                quirks=provider.quirks,
            )
        except ReauthorizationRequired as error:
            message = f"{error.message.removesuffix(token_endpoint.CONNECT_AGAIN)} Nothing was stored."
            raise RefreshTokenRefused(message, provider_error=error.provider_error) from error

    await try_and_store(broker, app, upload, refresh, subject=subject)


async def try_and_store(broker: Broker, app: OutboundApp, upload: TokenUpload, ask: Ask, *, subject: Subject) -> None:
    """Get the first token of an upload, and store what the provider answers.

    Like a refresh: that exists nowhere else, so a caller that hangs up does not stop it.

    Raises:
        AppNotFound, InvalidValue: the app went or moved meanwhile.
        EvergrantError: whatever `ask` raises. Nothing is written in any of these cases.
        Unavailable: this process stops while the database is away. The journal has it then, and it is stored later.
    """
    grant_id = new_grant_id()
    flight = broker.refreshes.start(
        (app.project_id, grant_id),
        lambda: _ask_and_store(broker, app, upload, ask, grant_id=grant_id, subject=subject),
    )
    await asyncio.shield(flight)


async def _ask_and_store(
    broker: Broker, app: OutboundApp, upload: TokenUpload, ask: Ask, *, grant_id: str, subject: Subject
) -> Grant:
    details = details_of(broker, app, upload)
    provider = await provider_client(broker, app, details)
    sealer = await broker.vault.reserve(app.project_id, seals=SEALS_OF_ANSWER)
    answer = await ask(provider)
    if answer.refresh_token is None:  # none returned keeps the old one (RFC 6749 section 6)
        answer = replace(answer, refresh_token=upload.refresh_token)
    entry = _entry_of(broker, app, upload, provider.quirks, answer, sealer, grant_id=grant_id, subject=subject)
    in_hand = await AnswerInHand.take(broker, entry)
    grant = Grant(project_id=app.project_id, id=grant_id, token_version=1, **entry.values)
    if not await in_hand.land(broker):
        await revoke_late_answer(broker, entry, app=app)
        current = await load_app(broker, app.project_id, app.id)
        check_same_destinations(broker, current, entry.destinations)
        return grant  # unless the app is gone or moved, the user has connected anew meanwhile
    return await ask_for_lifetime(broker, app, provider, answer, grant, used_at=clock.now())


def _entry_of(
    broker: Broker,
    app: OutboundApp,
    upload: TokenUpload,
    quirks: Quirks,
    answer: TokenResponse,
    sealer: Sealer,
    *,
    grant_id: str,
    subject: Subject,
) -> Entry:
    """Return what the journal keeps of an upload that was just tried: all of its grant."""
    now, who = clock.now(), actor.get()
    captured: dict[str, str] = part_or(
        {}, "details", lambda: allowed_captures(template_of(broker, app), answer.captured)
    )
    details = {**details_of(broker, app, upload), **captured}
    answer = follow_up.with_usual_lifetime(answer, quirks)
    owner = owner_key(app, upload.owner, upload.external_identifier)
    tokens = seal_answer(sealer, owner, grant_id, answer, quirks=quirks, now=now)

    def consent(tokens: SealedTokens) -> Consent:
        return consent_of(broker, app, upload, tokens, subject=subject, details=details)

    plain = consent(replace(tokens, scopes=None))
    consented = part_or(plain, "scopes", lambda: consent(tokens))
    return Entry(
        project_id=app.project_id,
        grant_id=grant_id,
        lease_owner="",
        seen_version=0,
        values=columns_of_consent(app, consented, tokens, now=now),
        audit={
            "action": "token.uploaded",
            "data": {"grantId": grant_id, "scopes": list(consented.scopes.granted)},
            "actor": who.name,
            "remote_address": who.remote_address,
            "destinations": digest_of(broker.catalogue, app),
        },
    )
