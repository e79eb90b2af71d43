"""Uploads: API keys and OAuth tokens that users have elsewhere already are checked, sealed and stored."""

import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from pydantic import SecretStr
from sqlalchemy.ext.asyncio import AsyncSession

from evergrant import clock
from evergrant.app_types import AppType
from evergrant.broker.apps.definition import scope_problems
from evergrant.broker.apps.destinations import digest_of
from evergrant.broker.apps.provider_client import provider_client
from evergrant.broker.apps.quirks import quirks_of, scope_words
from evergrant.broker.apps.variables import details_of_user, details_problems, template_of, tidied
from evergrant.broker.audit.record import actor, record
from evergrant.broker.grants.credentials import CREDENTIALS_TYPE, are_credentials
from evergrant.broker.grants.events import GrantEventKind, record_event
from evergrant.broker.grants.granted_scopes import GrantedScopes
from evergrant.broker.grants.grants import (
    Consent,
    ResourceOwner,
    SealedTokens,
    lock_app,
    new_grant_id,
    owner_key,
    owner_problems,
    save_tokens,
    token_slot,
)
from evergrant.broker.grants.lifetimes import NO_END, Lifetime, lifetime, unknown_end
from evergrant.broker.grants.replacing import Replacement
from evergrant.broker.revocations.replaced import prepare_replacement
from evergrant.broker.runtime.broker import Broker
from evergrant.db import Grant, OutboundApp
from evergrant.errors import (
    ConnectFailed,
    InvalidValue,
    MissingArgument,
)
from evergrant.oauth2.id_token import Subject, identify
from evergrant.oauth2.quirks import Quirks
from evergrant.oauth2.scopes import Proofs
from evergrant.oauth2.stated_ends import jwt_end

log = logging.getLogger(__name__)

_HOW_ELSE = {AppType.OAUTH: "OAuth tokens: use oauthtoken/upload", AppType.API_KEY: "API keys: use apikey/upload"}
"""By what call an app of each kind is uploaded to; those of all other kinds take credentials."""
_NO_JWT = frozenset({AppType.API_KEY, CREDENTIALS_TYPE})
"""The `accessTokenType` of what is no token of a provider's, and tells no end of itself."""


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
    details: Mapping[str, str] = field(default_factory=dict)
    """What a connect trip would have asked the user, or learnt: values of the app's variables."""


@dataclass(frozen=True, slots=True)
class PreparedUpload:
    """An upload that passed every check, sealed for its grant."""

    upload: TokenUpload
    grant_id: str
    consent: Consent
    tokens: SealedTokens
    destinations: str
    """Where the app's credentials go for which it was checked."""


def check_upload(broker: Broker, app: OutboundApp, upload: TokenUpload, *, now: datetime) -> None:
    """Check an upload against its app.

    Raises:
        MissingArgument: there is no token in it.
        InvalidValue: naming every field that is wrong.
    """
    if upload.refresh_token is None and upload.access_token is None:
        raise MissingArgument.of(("refreshToken", "give refreshToken, accessToken or both"))
    problems = upload_problems(app, upload.owner, app_type=AppType.OAUTH)
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
        elif token is not None and are_credentials(token):  # it would be read as fields that nobody has checked
            problems.append((name, "is no token: it begins as credentials do that evergrant keeps"))
    if not re.fullmatch(r"[A-Za-z0-9._-]*", upload.access_token_type):
        problems.append(("accessTokenType", "use one word, like Bearer"))
    elif upload.access_token_type == CREDENTIALS_TYPE:
        problems.append(("accessTokenType", "is of keys that have several fields: use one like Bearer"))
    problems += scope_problems("scopes", upload.scopes or (), template_of(broker, app))
    problems += details_problems(template_of(broker, app), app, upload.details)
    if upload.refresh_token is None and 0 < upload.access_token_expiry <= now.timestamp():
        problems.append(("accessTokenExpiry", "has passed, and there is no refresh token: nothing would work"))
    if problems:
        raise InvalidValue.of(*problems)


def upload_problems(app: OutboundApp, owner: ResourceOwner, *, app_type: str) -> list[tuple[str, str]]:
    """Return what is wrong with an upload for this owner to this app, by field."""
    problems = owner_problems(app, owner)
    if app.app_type != app_type:
        takes = _HOW_ELSE.get(AppType(app.app_type), "credentials: use credentials/upload")
        problems.append(("appId", f"the app '{app.id}' takes {takes}"))
    return problems


async def subject_of(broker: Broker, app: OutboundApp, upload: TokenUpload, *, now: datetime) -> Subject:
    """Return whom the upload's id_token names, or why it is not believed: it cannot be verified, or is another's."""
    if upload.id_token is None:
        return Subject()
    provider = await provider_client(broker, app)
    try:
        found = await identify(
            broker.http, provider.server, provider.client, upload.id_token, nonce=None, pkce=False, now=now
        )
    except ConnectFailed as error:
        found = Subject(problem=error.message)
    if found.problem:
        log.info("an uploaded id_token is ignored", extra={"app": app.id, "why": found.problem})
    return found


async def prepare_upload(
    broker: Broker, app: OutboundApp, upload: TokenUpload, *, subject: Subject, now: datetime
) -> PreparedUpload:
    """Seal a checked upload for a new grant. Not inside a transaction: sealing may write."""
    grant_id, vault, quirks = new_grant_id(), broker.vault, quirks_of(broker, app)
    refresh_token = upload.refresh_token
    if refresh_token is None and quirks.exchanges("refresh"):
        refresh_token = upload.access_token  # it is what the provider gives the next one for
    owner = owner_key(app, upload.owner, upload.external_identifier)
    access = refresh = identity = None
    if upload.access_token is not None:
        access = await vault.seal(token_slot(owner, grant_id, "access_token"), upload.access_token)
    if refresh_token is not None:
        refresh = await vault.seal(token_slot(owner, grant_id, "refresh_token"), refresh_token)
    if upload.id_token is not None and subject.sub:
        identity = await vault.seal(token_slot(owner, grant_id, "id_token"), upload.id_token)
    tokens = SealedTokens(
        access_token=access,
        access_token_type=upload.access_token_type or "Bearer",
        refresh_token=refresh,
        id_token=identity,
        scopes=None,
        lifetime=_lifetime(upload, quirks, now=now),
    )
    consent = consent_of(broker, app, upload, tokens, subject=subject, details=details_of(broker, app, upload))
    return PreparedUpload(upload, grant_id, consent, tokens, digest_of(broker.catalogue, app))


def consent_of(
    broker: Broker,
    app: OutboundApp,
    upload: TokenUpload,
    tokens: SealedTokens,
    *,
    subject: Subject,
    details: Mapping[str, str],
) -> Consent:
    """Return the consent that an upload stands for."""
    proofs = Proofs(tokens.refresh_token is not None, tokens.id_token is not None)
    return Consent(
        owner=upload.owner,
        external_identifier=upload.external_identifier,
        granted_by=upload.granted_by,
        scopes=GrantedScopes.of(scope_words(broker, app, details), scopes_of(app, upload), tokens.scopes, proofs),
        subject=subject,
        details=details,
    )


def details_of(broker: Broker, app: OutboundApp, upload: TokenUpload) -> dict[str, str]:
    """Return the variables that the connection keeps: the upload's own, and the app's for its users."""
    template = template_of(broker, app)
    given = {name: value for name, value in tidied(template, upload.details).items() if value}
    return {**details_of_user(template, app, given), **given}


def scopes_of(app: OutboundApp, upload: TokenUpload) -> tuple[str, ...]:
    """Return the scopes that the tokens are assumed to have, unless the provider tells."""
    return tuple(dict.fromkeys(app.default_scopes if upload.scopes is None else upload.scopes))


def _lifetime(upload: TokenUpload, quirks: Quirks, *, now: datetime) -> Lifetime:
    """Work out the access token's times: from the end that is given, else from what a JWT says of itself."""
    if upload.access_token is None:
        return NO_END
    ends_at = datetime.fromtimestamp(upload.access_token_expiry, UTC) if upload.access_token_expiry else None
    if ends_at is None and upload.access_token_type not in _NO_JWT:
        ends_at = jwt_end(upload.access_token.get_secret_value())
    if ends_at is None:
        return NO_END if upload.refresh_token is None or quirks.never_ends else unknown_end(now=now)
    left = int(ends_at.timestamp()) - int(now.timestamp())
    if left > 0:
        return lifetime(left, now=now, margin_seconds=quirks.refresh_margin)
    return Lifetime(ends_at, ends_at, now + timedelta(seconds=1))


async def replacement_of(
    broker: Broker, app: OutboundApp, prepared: PreparedUpload, *, now: datetime
) -> Replacement | None:
    """Return what a prepared upload will replace, as it is now. Not inside a transaction: sealing may write."""
    columns = {**prepared.consent.columns(app), **prepared.tokens.columns()}
    new = Grant(project_id=app.project_id, id=prepared.grant_id, **columns)
    return await prepare_replacement(broker, app, new, uploaded=True, now=now)


def check_same_destinations(broker: Broker, current: OutboundApp, destinations: str) -> None:
    """Check that an app's credentials go where they went when an upload for it came.

    Raises:
        InvalidValue: somebody has moved it meanwhile, and the tokens are not for that place.
    """
    if digest_of(broker.catalogue, current) != destinations:
        raise InvalidValue.of(("appId", "its addresses were changed just now: look at the app, and upload again"))


async def store_upload(
    broker: Broker,
    session: AsyncSession,
    project_id: str,
    prepared: PreparedUpload,
    replacement: Replacement | None,
    *,
    app_type: str,
    now: datetime,
) -> Grant:
    """Write a prepared upload.

    Raises:
        AppNotFound: the app was deleted meanwhile.
        InvalidValue: it was changed so that it does not take the upload any more, or moved.
        ReplacedMeanwhile: it would replace others than `replacement` knows.
    """
    upload = prepared.upload
    current = await lock_app(session, project_id, upload.app_id)
    problems = upload_problems(current, upload.owner, app_type=app_type)
    if problems:
        raise InvalidValue.of(*problems)
    check_same_destinations(broker, current, prepared.destinations)
    return await save_tokens(
        session,
        grant_id=prepared.grant_id,
        app=current,
        consent=prepared.consent,
        tokens=prepared.tokens,
        pending=False,
        replacement=replacement,
        now=now,
    )


async def record_upload(session: AsyncSession, project_id: str, prepared: PreparedUpload) -> None:
    """Write an upload into its timeline and the audit log, as the last statements of the transaction."""
    upload, who = prepared.upload, actor.get()
    data = {"from": who.remote_address} if who.remote_address else {}
    await record_event(
        session, project_id, prepared.grant_id, GrantEventKind.UPLOADED, at=clock.now(), actor=who.name, data=data
    )
    await record(
        session,
        project_id,
        "token.uploaded",
        app_id=upload.app_id,
        user_id=upload.owner.user_id,
        tenant_id=upload.owner.tenant_id,
        data={"grantId": prepared.grant_id, "scopes": list(prepared.consent.scopes.granted)},
    )
