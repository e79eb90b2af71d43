"""Uploading what users have elsewhere already: API keys, and OAuth tokens that move here without a new consent."""

import asyncio
import logging
import re
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from pydantic import SecretStr
from sqlalchemy.ext.asyncio import AsyncSession

from evergrant import clock
from evergrant.broker.app_definition import scope_problems
from evergrant.broker.apps import load_app, provider_client
from evergrant.broker.audit import record
from evergrant.broker.grants import (
    Lifetime,
    ResourceOwner,
    SealedTokens,
    lifetime,
    lock_app,
    new_grant_id,
    owner_problems,
    save_tokens,
    seal_answer,
    token_slot,
)
from evergrant.broker.landing import until_it_works
from evergrant.broker.principal import Principal
from evergrant.broker.runtime import Broker
from evergrant.db import Grant, OutboundApp
from evergrant.errors import (
    ConnectFailed,
    InvalidValue,
    MissingArgument,
    ReauthorizationRequired,
    RefreshTokenRefused,
    UpstreamError,
    UpstreamUnavailable,
)
from evergrant.oauth2 import token_endpoint
from evergrant.oauth2.id_token import validate_id_token

log = logging.getLogger(__name__)

API_KEY = "apikey"
"""Both the type of such apps and the `accessTokenType` of what they hold."""
VERIFY_SECONDS = 30.0


@dataclass(frozen=True, kw_only=True)
class TokenUpload:
    """OAuth tokens from elsewhere. At least one of `refresh_token` and `access_token` must be there."""

    app_id: str
    owner: ResourceOwner
    refresh_token: SecretStr | None = None
    access_token: SecretStr | None = None
    access_token_expiry: int = 0
    """Epoch seconds; 0 when unknown."""
    access_token_type: str = ""
    scopes: tuple[str, ...] | None = None
    """What the tokens were granted for; None for the app's default scopes."""
    external_identifier: str = ""
    id_token: SecretStr | None = None
    granted_by: str = ""


@dataclass(frozen=True, slots=True)
class PreparedUpload:
    """An upload that passed every check, sealed for its grant."""

    upload: TokenUpload
    grant_id: str
    scopes: tuple[str, ...]
    token_sub: str
    tokens: SealedTokens


async def upload_api_key(
    broker: Broker, principal: Principal, *, app_id: str, owner: ResourceOwner, api_key: SecretStr, now: datetime
) -> None:
    """Store an owner's API key; it takes the place of the one before.

    Raises:
        AppNotFound: there is no such app.
        InvalidValue: the app does not hold API keys or is another tenant's, or the key has characters that none has.
        PermissionDenied: the management key is limited to other apps.
    """
    principal.require_app(app_id)
    app = await load_app(broker, principal.project_id, app_id)
    problems = _app_problems(app, owner, app_type=API_KEY)
    if not api_key.get_secret_value().isprintable() or not api_key.get_secret_value().strip():
        problems.append(("apiKey", "must not be blank nor contain line breaks and other control characters"))
    if problems:
        raise InvalidValue.of(*problems)
    upload = TokenUpload(app_id=app_id, owner=owner, access_token=api_key, access_token_type=API_KEY, scopes=())
    prepared = await prepare(broker, app, upload, token_sub="", now=now)
    async with broker.database.write() as session:
        await store(session, principal.project_id, prepared, app_type=API_KEY, now=now)
        await record_upload(session, principal.project_id, prepared)


async def upload_tokens(
    broker: Broker, principal: Principal, upload: TokenUpload, *, verify_refresh: bool, now: datetime
) -> None:
    """Store tokens; they take the place of the same owner's connection with the same scopes.

    With `verify_refresh` the refresh token is used first, and what the provider answers is stored.

    Raises:
        AppNotFound: there is no such app.
        MissingArgument, InvalidValue: a field is missing or wrong.
        PermissionDenied: the management key is limited to other apps.
        RefreshTokenRefused: the provider refused the refresh token.
        UpstreamRejected, UpstreamUnavailable: it could not be verified. Nothing is written in any of these cases.
    """
    principal.require_app(upload.app_id)
    app = await load_app(broker, principal.project_id, upload.app_id)
    check_upload(app, upload, now=now)
    token_sub = await subject_of(broker, app, upload, now=now)
    if not verify_refresh:
        prepared = await prepare(broker, app, upload, token_sub=token_sub, now=now)
        async with broker.database.write() as session:
            await store(session, principal.project_id, prepared, app_type="oauth", now=now)
            await record_upload(session, principal.project_id, prepared)
        return
    if upload.refresh_token is None:
        raise MissingArgument.of(("refreshToken", "is required with verifyRefresh"))
    grant_id = new_grant_id()
    # Like a refresh: what the provider answers exists nowhere else, so a caller that hangs up must not stop it.
    flight = broker.refreshes.start(
        (principal.project_id, grant_id),
        lambda: _verify_and_store(broker, app, upload, grant_id=grant_id, token_sub=token_sub),
    )
    await asyncio.shield(flight)


def check_upload(app: OutboundApp, upload: TokenUpload, *, now: datetime) -> None:
    """Check an upload against its app.

    Raises:
        MissingArgument: there is no token in it.
        InvalidValue: naming every field that is wrong.
    """
    if upload.refresh_token is None and upload.access_token is None:
        raise MissingArgument.of(("refreshToken", "give refreshToken, accessToken or both"))
    problems = _app_problems(app, upload.owner, app_type="oauth")
    if not problems and upload.refresh_token is not None:
        missing = [name for name, value in (("clientId", app.client_id), ("tokenUrl", app.token_url)) if not value]
        if missing:
            problems.append(("appId", f"the app '{app.id}' cannot refresh: it lacks {', '.join(missing)}"))
    for name, token in (
        ("refreshToken", upload.refresh_token),
        ("accessToken", upload.access_token),
        ("idToken", upload.id_token),
    ):
        text = token.get_secret_value() if token is not None else "x"
        if not text.isascii() or not text.isprintable() or " " in text:  # RFC 6749 appendix A.12
            problems.append((name, "must be visible ASCII"))
    if not re.fullmatch(r"[A-Za-z0-9._-]*", upload.access_token_type):
        problems.append(("accessTokenType", "use one word, like Bearer"))
    problems += scope_problems("scopes", upload.scopes or ())
    if upload.refresh_token is None and 0 < upload.access_token_expiry <= now.timestamp():
        problems.append(("accessTokenExpiry", "has passed, and there is no refresh token: nothing would work"))
    if problems:
        raise InvalidValue.of(*problems)


def _app_problems(app: OutboundApp, owner: ResourceOwner, *, app_type: str) -> list[tuple[str, str]]:
    problems = owner_problems(app, owner)
    if app.app_type != app_type:
        takes = "API keys: use apikey/upload" if app.app_type == API_KEY else "OAuth tokens: use oauthtoken/upload"
        problems.append(("appId", f"the app '{app.id}' takes {takes}"))
    return problems


async def subject_of(broker: Broker, app: OutboundApp, upload: TokenUpload, *, now: datetime) -> str:
    """Return whom the id_token names, if it can be believed; else nobody, and the upload goes on without."""
    if upload.id_token is None or not app.jwks_url or not app.issuer:
        return ""
    provider = await provider_client(broker, app)
    try:
        return await validate_id_token(
            broker.http, provider.server, provider.client, upload.id_token, nonce=None, now=now
        )
    except (ConnectFailed, UpstreamError) as error:
        log.info("an uploaded id_token is ignored", extra={"app": app.id, "error": error.message})
        return ""


async def prepare(
    broker: Broker, app: OutboundApp, upload: TokenUpload, *, token_sub: str, now: datetime
) -> PreparedUpload:
    """Seal a checked upload for a new grant. Not inside a transaction: sealing may write."""
    grant_id, vault = new_grant_id(), broker.vault
    access = refresh = identity = None
    if upload.access_token is not None:
        access = await vault.seal(token_slot(app.project_id, grant_id, "access_token"), upload.access_token)
    if upload.refresh_token is not None:
        refresh = await vault.seal(token_slot(app.project_id, grant_id, "refresh_token"), upload.refresh_token)
    if upload.id_token is not None and token_sub:
        identity = await vault.seal(token_slot(app.project_id, grant_id, "id_token"), upload.id_token)
    scopes = _scopes(app, upload)
    tokens = SealedTokens(
        access_token=access,
        access_token_type=upload.access_token_type or "Bearer",
        refresh_token=refresh,
        id_token=identity,
        scopes=scopes,
        lifetime=_lifetime(upload, now=now),
    )
    return PreparedUpload(upload, grant_id, scopes, token_sub, tokens)


def _scopes(app: OutboundApp, upload: TokenUpload) -> tuple[str, ...]:
    return tuple(dict.fromkeys(app.default_scopes if upload.scopes is None else upload.scopes))


def _lifetime(upload: TokenUpload, *, now: datetime) -> Lifetime:
    if upload.access_token is None or not upload.access_token_expiry:
        return Lifetime(None, None, None)
    left = upload.access_token_expiry - int(now.timestamp())
    if left > 0:
        return lifetime(left, now=now)
    ended = datetime.fromtimestamp(upload.access_token_expiry, UTC)
    return Lifetime(ended, ended, now + timedelta(seconds=1))


async def store(
    session: AsyncSession, project_id: str, prepared: PreparedUpload, *, app_type: str, now: datetime
) -> Grant:
    """Write a prepared upload.

    Raises:
        AppNotFound: the app was deleted meanwhile.
        InvalidValue: it was changed so that it does not take the upload any more.
    """
    upload = prepared.upload
    current = await lock_app(session, project_id, upload.app_id)
    problems = _app_problems(current, upload.owner, app_type=app_type)
    if problems:
        raise InvalidValue.of(*problems)
    return await save_tokens(
        session,
        grant_id=prepared.grant_id,
        app=current,
        owner=upload.owner,
        external_identifier=upload.external_identifier,
        granted_by=upload.granted_by,
        scopes=prepared.scopes,
        token_sub=prepared.token_sub,
        tokens=prepared.tokens,
        pending=False,
        now=now,
    )


async def record_upload(session: AsyncSession, project_id: str, prepared: PreparedUpload) -> None:
    """Write an upload into the audit log, as the last statement of the transaction."""
    upload = prepared.upload
    await record(
        session,
        project_id,
        "token.uploaded",
        app_id=upload.app_id,
        user_id=upload.owner.user_id,
        tenant_id=upload.owner.tenant_id,
        data={"grantId": prepared.grant_id, "scopes": list(prepared.scopes)},
    )


async def _verify_and_store(
    broker: Broker, app: OutboundApp, upload: TokenUpload, *, grant_id: str, token_sub: str
) -> Grant:
    assert upload.refresh_token is not None  # noqa: S101 - the caller has looked; this tells the type checker
    provider = await provider_client(broker, app)
    try:
        async with asyncio.timeout(VERIFY_SECONDS):
            answer = await token_endpoint.refresh(
                broker.http, provider.server, provider.client, refresh_token=upload.refresh_token
            )
    except TimeoutError:
        raise UpstreamUnavailable(f"{app.name} did not answer within {VERIFY_SECONDS:.0f} s.") from None
    except ReauthorizationRequired as error:
        message = f"{error.message.removesuffix(token_endpoint.CONNECT_AGAIN)} Nothing was stored."
        raise RefreshTokenRefused(message, provider_error=error.provider_error) from error
    now = clock.utcnow()
    if answer.refresh_token is None:  # none returned keeps the old one (RFC 6749 section 6)
        answer = replace(answer, refresh_token=upload.refresh_token)
    tokens = await until_it_works(broker, lambda: seal_answer(broker, app.project_id, grant_id, answer, now=now))
    scopes = answer.scopes if answer.scopes is not None else _scopes(app, upload)
    prepared = PreparedUpload(upload, grant_id, scopes, token_sub, tokens)

    async def write() -> Grant:
        async with broker.database.write() as session:
            grant = await store(session, app.project_id, prepared, app_type="oauth", now=now)
            await record_upload(session, app.project_id, prepared)
        return grant

    return await until_it_works(broker, write)
