"""Uploading credentials: a key, several fields that belong together, or what tokens are obtained from.

What is tried first and refused is not stored.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from pydantic import SecretStr

from evergrant.app_types import AppType
from evergrant.broker.apps.api_call import check_credential
from evergrant.broker.apps.apps import load_app
from evergrant.broker.apps.definition import scope_problems
from evergrant.broker.apps.provider_client import ProviderClient
from evergrant.broker.apps.variables import details_problems, known_values, missing_variables, template_of
from evergrant.broker.connections.credential_fields import THE_KEY, fields_asked, read_fields
from evergrant.broker.connections.upload import (
    TokenUpload,
    details_of,
    prepare_upload,
    scopes_of,
    upload_problems,
)
from evergrant.broker.connections.upload_one import store_prepared, try_and_store
from evergrant.broker.grants.credentials import CREDENTIALS_TYPE, as_secret, with_found
from evergrant.broker.grants.grants import ResourceOwner
from evergrant.broker.runtime.broker import Broker
from evergrant.broker.runtime.principal import Principal
from evergrant.catalog.template import Template
from evergrant.db import OutboundApp
from evergrant.errors import CredentialsRefused, EgressRefused, GrantRefused, InvalidValue, UpstreamRejected
from evergrant.oauth2 import sources
from evergrant.oauth2.id_token import Subject
from evergrant.oauth2.token_response import TokenResponse

WITHOUT = "Nothing was stored; verify: false stores it unchecked."


@dataclass(frozen=True, kw_only=True)
class CredentialsUpload:
    """Credentials of one owner for an app of any kind but `oauth`."""

    app_id: str
    owner: ResourceOwner
    fields: Mapping[str, str] = field(repr=False)
    """By the names of the catalogue entry's fields."""
    details: Mapping[str, str] = field(default_factory=dict)
    """Values of the app's variables that belong to this connection."""
    scopes: tuple[str, ...] | None = None
    """What tokens are asked for; None for the app's default scopes. Keys have none."""
    external_identifier: str = ""


async def upload_credentials(
    broker: Broker, principal: Principal, upload: CredentialsUpload, *, verify: bool, now: datetime
) -> None:
    """Store credentials; they take the place of the same owner's connection with the same scopes.

    With `verify` they are tried first: the first token is obtained and stored with them, or the check call of the app's
    entry is made with the key, where it has one.

    Raises:
        AppNotFound: there is no such app.
        InvalidValue: a field is missing or wrong, the app takes other uploads or lacks something, or it moved
            meanwhile.
        PermissionDenied: the management key is limited to other apps.
        CredentialsRefused: the provider refused them.
        UpstreamRejected, UpstreamUnavailable: they could not be tried. Nothing is written in any of these cases.
        Unavailable: as `try_and_store`.
    """
    principal.require_app(upload.app_id)
    app = await load_app(broker, principal.project_id, upload.app_id)
    fields, problems = _read(broker, app, upload)
    if problems:
        raise InvalidValue.of(*problems)
    await _store_credentials(broker, app, upload, fields, verify=verify, now=now)


async def upload_api_key(
    broker: Broker,
    principal: Principal,
    *,
    app_id: str,
    owner: ResourceOwner,
    api_key: SecretStr,
    details: Mapping[str, str],
    verify: bool = False,
    now: datetime,
) -> None:
    """Store an owner's API key: `upload_credentials` where an app with API keys takes but one field.

    Raises:
        EvergrantError: as `upload_credentials`.
    """
    principal.require_app(app_id)
    app = await load_app(broker, principal.project_id, app_id)
    owner_and_kind = upload_problems(app, owner, app_type=AppType.API_KEY)
    if owner_and_kind:
        raise InvalidValue.of(*owner_and_kind)
    asked = fields_asked(template_of(broker, app), app)
    names = [name for name, one in asked.items() if one.required] or list(asked)
    if len(names) != 1:
        raise InvalidValue.of(("appId", f"the app '{app.id}' takes {', '.join(names)}: use credentials/upload"))
    given = {names[0]: api_key.get_secret_value()}
    upload = CredentialsUpload(app_id=app_id, owner=owner, fields=given, details=details)
    fields, problems = _read(broker, app, upload)
    if problems:
        raise InvalidValue.of(*(("apiKey" if at == f"fields.{names[0]}" else at, problem) for at, problem in problems))
    await _store_credentials(broker, app, upload, fields, verify=verify, now=now)


def _read(broker: Broker, app: OutboundApp, upload: CredentialsUpload) -> tuple[dict[str, str], list[tuple[str, str]]]:
    """Return the fields as they are stored, and what is wrong with the upload, by field."""
    problems = upload_problems(app, upload.owner, app_type=app.app_type)
    if app.app_type == AppType.OAUTH:
        problems.append(("appId", f"the app '{app.id}' takes OAuth tokens: use oauthtoken/upload"))
    if problems:
        return {}, problems
    template = template_of(broker, app)
    if missing := _missing_in_app(template, app):
        problems.append(("appId", f"the app '{app.id}' cannot be used yet: it lacks {', '.join(missing)}"))
    fields, wrong = read_fields(template, app, upload.fields)
    problems += wrong
    if upload.scopes and app.app_type == AppType.API_KEY:
        problems.append(("scopes", "a key has none: leave it out"))
    problems += scope_problems("scopes", upload.scopes or ())
    problems += details_problems(template, app, upload.details)
    return fields, problems


def _missing_in_app(template: Template | None, app: OutboundApp) -> list[str]:
    """Return what an app lacks, by the wire's names, whatever a connection brings."""
    missing = [f"variables.{name}" for name in missing_variables(template, app.variables)]
    kind = AppType(app.app_type)
    if kind is AppType.CLIENT_CREDENTIALS and not app.token_url:
        missing.append("tokenUrl")
    elif kind.is_obtained and kind is not AppType.CLIENT_CREDENTIALS and template is None:
        missing.append("templateId")
    assertion = template.assertion if template is not None else None
    if assertion is not None and "{signing_key}" in assertion.key and app.signing_key is None:
        missing.append("signingKey")
    return missing


async def _store_credentials(
    broker: Broker,
    app: OutboundApp,
    upload: CredentialsUpload,
    fields: Mapping[str, str],
    *,
    verify: bool,
    now: datetime,
) -> None:
    kind = AppType(app.app_type)
    if kind.is_obtained:
        tokens = _as_tokens(upload, refresh_token=as_secret(fields), scopes=upload.scopes)
        if verify:
            await _obtain_and_store(broker, app, tokens, fields)
            return
    else:
        tokens = _key_of(broker, app, upload, fields)
        if verify:
            await _try_key(broker, app, tokens, fields)
    prepared = await prepare_upload(broker, app, tokens, subject=Subject(), now=now)
    await store_prepared(broker, app, prepared, now=now)


def _as_tokens(
    upload: CredentialsUpload,
    *,
    scopes: tuple[str, ...] | None,
    refresh_token: SecretStr | None = None,
    access_token: SecretStr | None = None,
    access_token_type: str = "",
) -> TokenUpload:
    return TokenUpload(
        app_id=upload.app_id,
        owner=upload.owner,
        refresh_token=refresh_token,
        access_token=access_token,
        access_token_type=access_token_type,
        scopes=scopes,
        external_identifier=upload.external_identifier,
        details=upload.details,
    )


def _key_of(broker: Broker, app: OutboundApp, upload: CredentialsUpload, fields: Mapping[str, str]) -> TokenUpload:
    """Return the upload of a key: itself, or its fields with all that a fetch needs to make headers of them."""
    template = template_of(broker, app)
    if template is None or not template.fields:
        key = SecretStr(fields[THE_KEY])
        return _as_tokens(upload, access_token=key, access_token_type=AppType.API_KEY, scopes=())
    details = details_of(broker, app, _as_tokens(upload, scopes=()))
    values = known_values(template, app.variables, details)
    secret = as_secret(fields, template_id=template.id, values=values)
    return _as_tokens(upload, access_token=secret, access_token_type=CREDENTIALS_TYPE, scopes=())


async def _try_key(broker: Broker, app: OutboundApp, tokens: TokenUpload, fields: Mapping[str, str]) -> None:
    try:
        await check_credential(
            broker,
            app,
            details=details_of(broker, app, tokens),
            token=fields.get(THE_KEY, ""),
            fields=with_found(template_of(broker, app), fields),
        )
    except GrantRefused as error:
        message = f"{error.message} Nothing was stored."
        raise CredentialsRefused(message, provider_error=error.provider_error) from error
    except UpstreamRejected as error:
        raise error.reworded(f"{error.message} {WITHOUT}", type(error)) from error


async def _obtain_and_store(broker: Broker, app: OutboundApp, tokens: TokenUpload, fields: Mapping[str, str]) -> None:
    async def obtain(provider: ProviderClient) -> TokenResponse:
        try:
            return await sources.obtain(
                broker.http,
                provider.server,
                provider.client,
                AppType(app.app_type),
                fields=with_found(template_of(broker, app), fields),
                scopes=scopes_of(app, tokens),
                resources=[app.resource] if app.resource else (),
                quirks=provider.quirks,
            )
        except EgressRefused:
            raise
        except UpstreamRejected as error:
            if not fields:  # all that was presented is the app's
                raise
            # The error's own message asks to correct the app, whose settings are not what was tried.
            refused = (
                f"{app.name} refuses these credentials: {error.said.rstrip('.')}." if error.said else error.message
            )
            message = f"{refused} Nothing was stored."
            raise CredentialsRefused(message, provider_error=error.provider_error) from error

    await try_and_store(broker, app, tokens, obtain, subject=Subject())
