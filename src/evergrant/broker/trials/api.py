"""Asks a provider's API whether a connection's credential works there. The credential is used, and nobody gets it."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Select, select

from evergrant import clock, placeholders
from evergrant.app_types import AppType
from evergrant.broker.apps.api_call import check_credential, checked_by
from evergrant.broker.apps.apps import load_app
from evergrant.broker.apps.check_result import CheckResult
from evergrant.broker.apps.variables import template_of
from evergrant.broker.audit.record import actor, record
from evergrant.broker.grants.credentials import CREDENTIALS_TYPE, are_credentials, fields_in, with_found
from evergrant.broker.grants.events import GrantEventKind, record_event
from evergrant.broker.grants.grants import ResourceOwner, owner_of, token_slot
from evergrant.broker.refresh.refresh import refresh_grant
from evergrant.broker.runtime.broker import Broker
from evergrant.broker.trials.trial import TEST_USER
from evergrant.catalog.template import Template
from evergrant.db import Grant, GrantDirectory, GrantStatus, OutboundApp
from evergrant.errors import (
    EvergrantError,
    GrantRefused,
    TokenNotFound,
    Unavailable,
    UpstreamError,
    UpstreamRejected,
    UpstreamUnavailable,
)


@dataclass(frozen=True, slots=True)
class ApiAnswer:
    """What an API said to a credential."""

    good: bool
    text: str
    remedy: str = ""
    error: str = ""
    """A short code: the status like `http_403`, or ours."""


async def check_api(
    broker: Broker,
    project_id: str,
    app_id: str,
    *,
    owner: ResourceOwner,
    external_identifier: str = "",
    now: datetime,
) -> CheckResult | None:
    """Ask the API with a connection's credential; None where the app's entry has no call for it.

    Without an owner it is the app's newest active connection. A token that is due is refreshed first. What came of it
    is in the connection's timeline and in the audit log.

    Raises:
        AppNotFound: there is no such app.
    """
    app = await load_app(broker, project_id, app_id)
    if checked_by(broker, app) is None:
        return None
    query = _newest(app, owner, external_identifier)
    async with broker.database.read() as session:
        grant = await session.scalar(query)
    if grant is None and (owner.user_id or owner.tenant_id or external_identifier):
        return CheckResult("api", False, "This owner has no active connection of the app.")
    if grant is None:
        return CheckResult("api", True, "Nobody is connected: the API can be asked when somebody is.")
    try:
        grant = await _fresh(broker, grant, now=now)
    except Unavailable:
        raise
    except EvergrantError as error:
        return CheckResult("api", False, f"The connection's token could not be renewed. {error.message}")
    answer = await ask_api(broker, app, grant)
    await _note(broker, grant, answer)
    return CheckResult("api", answer.good, f"{answer.text} {answer.remedy}".strip())


def _newest(app: OutboundApp, owner: ResourceOwner, external_identifier: str) -> Select[Grant]:
    query = (
        select(Grant)
        .join(GrantDirectory, (GrantDirectory.project_id == Grant.project_id) & (GrantDirectory.grant_id == Grant.id))
        .where(GrantDirectory.project_id == app.project_id, GrantDirectory.app_id == app.id)
        .where(Grant.status == GrantStatus.ACTIVE, Grant.user_id != TEST_USER)
        .order_by(GrantDirectory.consented_at.desc(), GrantDirectory.grant_id.desc())
        .limit(1)
    )
    if owner.user_id or owner.tenant_id:
        mine = (GrantDirectory.user_id == owner.user_id, GrantDirectory.tenant_id == owner.tenant_id)
        query = query.where(*mine, Grant.external_identifier == external_identifier)
    elif external_identifier:
        query = query.where(Grant.external_identifier == external_identifier)
    return query


async def _fresh(broker: Broker, grant: Grant, *, now: datetime) -> Grant:
    """Return the grant with a token that a fetch would hand out: renewed if that is due.

    Raises:
        ReauthorizationRequired, UpstreamRejected, UpstreamUnavailable, TokenNotFound: as `refresh_grant`, and there is
            no valid token left.
    """
    if grant.access_token is not None and (grant.fresh_until is None or now < grant.fresh_until):
        return grant
    ends = grant.expires_at
    lives = grant.access_token is not None and (ends is None or now < ends)
    if grant.refresh_token is None:
        if lives:
            return grant
        raise TokenNotFound("Its access token has ended, and there is no refresh token: connect again.")
    try:
        return await refresh_grant(broker, grant.project_id, grant.id, seen_version=grant.token_version)
    except (UpstreamUnavailable, UpstreamRejected):
        if lives and (ends is None or clock.now() < ends):
            return grant
        raise


async def ask_api(broker: Broker, app: OutboundApp, grant: Grant) -> ApiAnswer:
    """Make the check call of an app's entry, which has one, with a connection's credential as it is stored."""
    template = template_of(broker, app)
    check = template.api.check if template is not None else ""
    token, fields = await _credential(broker, app, grant)
    try:
        status = await check_credential(broker, app, details=grant.details, token=token, fields=fields)
    except UpstreamError as error:
        return ApiAnswer(False, error.message, _api_remedy(template, app, error), error.provider_error)
    return ApiAnswer(True, f"It answered {status} to {check}.")


async def _credential(broker: Broker, app: OutboundApp, grant: Grant) -> tuple[str, Mapping[str, str]]:
    """Return a connection's token, or its one key, and the fields of its credentials.

    Whether they are fields the app and the row say, and never a token that only begins as those do: what a field is
    called stands in for variables.
    """
    owner, fields, token = owner_of(grant), {}, ""
    template, is_obtained = template_of(broker, app), AppType(app.app_type).is_obtained
    has_fields = {"access_token": grant.access_token_type == CREDENTIALS_TYPE, "refresh_token": is_obtained}
    for name in ("access_token", "refresh_token"):
        sealed = getattr(grant, name)
        if sealed is not None:
            opened = await broker.vault.open(token_slot(owner, grant.id, name), sealed)
            if has_fields[name] and are_credentials(opened):
                fields = with_found(template, fields_in(opened))
            elif name == "access_token":
                token = opened.get_secret_value()
    return token, fields


def _api_remedy(template: Template | None, app: OutboundApp, error: UpstreamError) -> str:
    if isinstance(error, UpstreamUnavailable):
        return "Test again later: it says nothing of the credential."
    if error.provider_error == "missing_variable":
        return "Give it under the app's variables, or connect again."
    if isinstance(error, GrantRefused):
        if error.provider_error == "http_403":
            return "It may be too small for this call: ask for a scope that allows it, or give it that right there."
        again = "Connect again" if AppType(app.app_type).is_consented else "Upload credentials that work"
        return f"It may have been revoked there, or be of another of its environments. {again}."
    names = placeholders.names_in(template.api.base_url) if template is not None else []
    held = f" and the values of {', '.join(names)}" if names else ""
    return f"Compare the API's address{held} with the provider's documentation."


async def _note(broker: Broker, grant: Grant, answer: ApiAnswer) -> None:
    data = {} if answer.good else {"error": answer.error or "failed"}
    async with broker.database.write() as session:
        kind, who = GrantEventKind.TESTED, actor.get().name
        await record_event(session, grant.project_id, grant.id, kind, at=clock.now(), actor=who, data=data)
        await record(
            session,
            grant.project_id,
            "token.tested",
            app_id=grant.app_id,
            user_id=grant.user_id,
            tenant_id=grant.tenant_id,
            data={"grantId": grant.id, **data},
        )
