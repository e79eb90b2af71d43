"""The first half of a connect trip: from a backend's request to the provider's page in the user's browser.

A link can be sent to the wrong person, followed by a robot, copied, replayed. So: the ticket in the link is used up by
the one browser that agrees; that browser is bound by a cookie; the provider's answer must come back through the same
browser, with a state that is used up, for the same app, from the issuer that was asked.
"""

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from pydantic import SecretStr
from sqlalchemy import and_, or_, select, update

from evergrant.app_types import AppType
from evergrant.broker.access import policies
from evergrant.broker.apps.apps import load_app
from evergrant.broker.apps.definition import missing_for_connect, prompt_problems, resource_problems, scope_problems
from evergrant.broker.apps.destinations import digest_of
from evergrant.broker.apps.dynamic_registration import ensure_registered
from evergrant.broker.apps.provider_client import callback_url, provider_client, public_origin
from evergrant.broker.apps.variables import missing_variables, template_of, tidied, user_variable_problems
from evergrant.broker.connect.authorization_requests import (
    Authorization,
    check_not_moved,
    is_browser_of,
    load_authorization,
    open_verifier,
    record_connect,
    state_slot,
    verifier_slot,
)
from evergrant.broker.connect.outcomes import end_with_failure, outcome_of
from evergrant.broker.connect.verification import Verification, how_to_verify, require_proof
from evergrant.broker.grants.grants import ResourceOwner, owner_problems
from evergrant.broker.projects.projects import load_project
from evergrant.broker.projects.redirects import check_redirect_url
from evergrant.broker.runtime.admission import CONNECT
from evergrant.broker.runtime.broker import Broker
from evergrant.broker.runtime.principal import Permission, Principal
from evergrant.crypto.opaque import digest, new_opaque
from evergrant.db import AuthorizationRequest, OutboundApp, Project
from evergrant.errors import ConnectFailed, InvalidValue
from evergrant.oauth2.authorization import CodeVerifier, authorization_url

TICKET_LIFETIME = timedelta(minutes=10)
TRIP_LIFETIME = timedelta(minutes=15)
"""How long the user may take at the provider."""
MADE_BY_LENGTH = 300
AGENT_NAME_LENGTH = 200


@dataclass(frozen=True, kw_only=True)
class ConnectRequest:
    """A backend's request to connect somebody to an app."""

    app_id: str
    owner: ResourceOwner
    granted_by: str = ""
    external_identifier: str = ""
    scopes: tuple[str, ...] = ()
    redirect_url: str = ""
    prompt: tuple[str, ...] = ()
    login_hint: str = ""
    resources: tuple[str, ...] = ()
    variables: Mapping[str, str] = field(default_factory=dict)
    """Values of the app's variables; what is left out, the user is asked for."""
    trial_id: str = ""
    """The test connection that this is the trip of: it ends at a page of ours, which is on no project's list."""
    user_label: str = ""
    """Who the user is, in words that they know: shown to them, and used for nothing else."""
    tenant_label: str = ""
    locale: str = ""
    """The language of the pages, as a BCP 47 tag; empty for the browser's."""
    portal_id: str = ""
    """The visit of connected accounts that it begins from; empty for none."""
    trip_id: str = ""
    """What the request will be called, for whoever asks for its outcome; empty for any name."""
    by_agent: bool = False
    """Whether an agent asks for it, which cannot vouch for who opens the link. An agent's session always does."""


async def begin_connect(broker: Broker, principal: Principal, wanted: ConnectRequest, *, now: datetime) -> str:
    """Record an authorization request and return the link to send the user's browser to. It works for 10 minutes.

    Raises:
        PermissionDenied: the key may not use this app, a user connects for somebody else, or a policy forbids it.
        AppNotFound: there is no such app.
        InvalidValue: the app lacks what a connect trip needs, or an option cannot be used; nothing is written.
        RateLimited: the user has begun too many trips.
        UpstreamRejected, UpstreamUnavailable: the app registers by itself, and the server would not or could not.
    """
    project_id, owner = principal.project_id, wanted.owner
    user_id = wanted.granted_by or owner.user_id
    principal.require_app(wanted.app_id)
    principal.require_for(Permission.CONNECT, user_id=user_id, tenant_id=owner.tenant_id)
    if principal.session is not None:
        principal.require_owner(owner.user_id, owner.tenant_id)  # not its tenant's own, either
        limits = principal.session.apps[wanted.app_id]
        identifier = limits.identifier_for(wanted.external_identifier)
        wanted = replace(wanted, external_identifier=identifier, scopes=limits.scopes_to_connect(wanted.scopes))
    app = await load_app(broker, project_id, wanted.app_id)
    scopes = list(dict.fromkeys(wanted.scopes or app.default_scopes))
    await policies.check_policies(
        broker, principal, app.id, CONNECT, owner=owner, granted_by=wanted.granted_by, scopes=scopes
    )
    async with broker.database.read() as session:
        project = await load_project(session, project_id)
    wanted = replace(wanted, variables=tidied(template_of(broker, app), wanted.variables))
    _check_connect_request(broker, project, app, wanted)
    if principal.is_user:
        broker.limits.connects.take((project_id, principal.name))
    redirect_url, verification = wanted.redirect_url or app.default_redirect_url, Verification()
    if wanted.by_agent or principal.session is not None:
        verification = await how_to_verify(broker, principal, user_id=user_id, returns=bool(redirect_url))
    app = await ensure_registered(broker, app, now=now)
    ticket = new_opaque()
    request = AuthorizationRequest(
        project_id=project_id,
        id=wanted.trip_id or secrets.token_hex(16),
        app_id=app.id,
        user_id=owner.user_id,
        tenant_id=owner.tenant_id,
        granted_by=wanted.granted_by,
        external_identifier=wanted.external_identifier,
        scopes=scopes,
        redirect_url=redirect_url,
        prompt=list(wanted.prompt or app.prompt),
        login_hint=wanted.login_hint,
        resources=list(wanted.resources or ([app.resource] if app.resource else ())),
        variables={name: value for name, value in wanted.variables.items() if value},
        trial_id=wanted.trial_id,
        user_label=wanted.user_label,
        tenant_label=wanted.tenant_label,
        locale=wanted.locale,
        made_by=principal.name[:MADE_BY_LENGTH],
        portal_id=wanted.portal_id,
        verify=verification.way,
        login_issuer_id=verification.issuer_id,
        agent_name=_agent_name(principal) if verification.way else "",
        ticket_digest=digest(ticket),
        created_at=now,
        expires_at=now + TICKET_LIFETIME,
    )
    async with broker.database.write() as session:
        session.add(request)
        await record_connect(session, request, "connect.started", data={"scopes": request.scopes})
    broker.activity.note(project_id, app.id, "connect:started")
    return f"{public_origin(broker.settings.public_url, app)}/connect/{ticket}"


def _agent_name(principal: Principal) -> str:
    """Return what a person knows an agent by; empty where its credential says nothing."""
    named = principal.session.agent_name if principal.session is not None else ""
    return (named or principal.agent)[:AGENT_NAME_LENGTH]


def _check_connect_request(broker: Broker, project: Project, app: OutboundApp, wanted: ConnectRequest) -> None:
    problems: list[tuple[str, str]] = []
    missing = missing_for_connect(app)
    missing += [f"variables.{name}" for name in missing_variables(template_of(broker, app), app.variables)]
    if not AppType(app.app_type).is_consented:
        what = "API keys" if app.app_type == AppType.API_KEY else "credentials"
        problems.append(("appId", f"the app '{app.id}' takes {what}: upload them, nobody can connect it"))
    elif missing:
        problems.append(("appId", f"the app '{app.id}' is not complete: it lacks {', '.join(missing)}"))
    problems += owner_problems(app, wanted.owner)
    # The default too: its origin may have been taken off the list since it was stored.
    field, url = "options.redirectUrl", wanted.redirect_url
    if not url:
        field, url = "defaultRedirectUrl", app.default_redirect_url
    if url and not wanted.trial_id:
        try:
            check_redirect_url(broker, project, url, field=field)
        except InvalidValue as error:
            problems += [(entry["field"], entry["problem"]) for entry in error.details["fields"]]
    problems += scope_problems("options.scopes", wanted.scopes, template_of(broker, app))
    problems += prompt_problems("options.prompt", wanted.prompt)
    problems += resource_problems("options.resources", wanted.resources)
    problems += user_variable_problems(template_of(broker, app), app, wanted.variables, field="options.variables")
    if problems:
        raise InvalidValue.of(*problems)


async def find_by_ticket(broker: Broker, ticket: str) -> Authorization:
    """Return the authorization that a connect link stands for; `check_not_used` says whether a browser may go on.

    Raises:
        ConnectFailed: the link is unknown.
    """
    query = select(AuthorizationRequest).where(AuthorizationRequest.ticket_digest == digest(ticket))
    async with broker.database.read() as session:
        request = (await session.execute(query)).scalar_one_or_none()
    if request is None:
        raise ConnectFailed("invalid_ticket", "This link is not valid. Go back to the application and start again.")
    return await load_authorization(broker, request)


def check_not_used(request: AuthorizationRequest, *, browser: str) -> None:
    """Check that a link is not another browser's.

    Raises:
        ConnectFailed: another browser has used it.
    """
    if (request.state_digest is not None or request.finished_at is not None) and not is_browser_of(request, browser):
        raise _used()


def _used() -> ConnectFailed:
    return ConnectFailed("ticket_used", "This link was used already. Go back to the application and start again.")


async def leave_for_provider(
    broker: Broker,
    authorization: Authorization,
    *,
    browser: str,
    now: datetime,
    answers: Mapping[str, str] | None = None,
) -> str:
    """Use the ticket up, bind the request to this browser and return the provider's address.

    The browser that left may come back to the link and leave again. It takes the same state along, so that whichever
    of its tabs comes back first ends the trip. `answers` are the user's to what `variables.questions` asks, and good;
    None leaves those that there are.

    Raises:
        ConnectFailed: another browser was faster, the app has moved since this one left, or it has not proved yet whose
            it is.
        UpstreamRejected: the provider's address, or a scope, needs a variable that has no value; nothing is used up.
    """
    request, app = authorization.request, authorization.app
    await require_proof(broker, authorization, browser=digest(browser))
    if answers is None:
        answers = request.answers
    answers = {name: value for name, value in answers.items() if value}
    provider = await provider_client(broker, app, {**request.variables, **answers})
    state = new_opaque()
    verifier = CodeVerifier.new() if app.pkce else None
    destinations = digest_of(broker.catalogue, app)
    if request.state is not None:
        check_not_moved(authorization, destinations)
        state = (await broker.vault.open(state_slot(request), request.state)).get_secret_value()
        verifier = await open_verifier(broker, request)
    nonce = request.nonce or (new_opaque() if "openid" in request.scopes else "")
    redirect_uri = callback_url(broker, app)
    url = authorization_url(
        provider.server,
        provider.client,
        redirect_uri=redirect_uri,
        state=state,
        scopes=request.scopes,
        code_verifier=verifier,
        nonce=nonce or None,
        prompt=request.prompt,
        login_hint=request.login_hint,
        resources=request.resources,
        quirks=provider.quirks,
    )
    sealed_verifier = None
    if verifier is not None:
        sealed_verifier = await broker.vault.seal(verifier_slot(request), SecretStr(verifier.secret()))
    sealed_state = await broker.vault.seal(state_slot(request), SecretStr(state))
    statement = (
        update(AuthorizationRequest)
        .where(
            AuthorizationRequest.project_id == request.project_id,
            AuthorizationRequest.id == request.id,
            or_(
                AuthorizationRequest.state_digest.is_(None),
                # A code that another tab gets must not be redeemed where the app was moved to meanwhile.
                and_(
                    AuthorizationRequest.state_digest == digest(state),
                    AuthorizationRequest.destinations.in_([destinations, ""]),
                ),
            ),
            AuthorizationRequest.finished_at.is_(None),
        )
        .values(
            state_digest=digest(state),
            state=sealed_state,
            browser_digest=digest(browser),
            code_verifier=sealed_verifier,
            nonce=nonce,
            redirect_uri=redirect_uri,
            destinations=destinations,
            answers=answers,
            locale=request.locale,
            expires_at=now + TRIP_LIFETIME,
        )
        .returning(AuthorizationRequest.id)
    )
    async with broker.database.write() as session:
        left = (await session.execute(statement)).one_or_none() is not None
    return url if left else await _follow(broker, authorization, browser=browser, answers=answers, now=now)


async def _follow(
    broker: Broker, authorization: Authorization, *, browser: str, answers: Mapping[str, str], now: datetime
) -> str:
    """Go where the trip is, after somebody was faster: a second press of the button in the same browser, perhaps."""
    key = (authorization.request.project_id, authorization.request.id)
    async with broker.database.read() as session:
        current = await session.get(AuthorizationRequest, key)
    if current is None or not is_browser_of(current, browser):
        raise _used()
    if current.finished_at is not None:
        return await outcome_of(broker, authorization, browser=browser)
    if current.state is None:  # it left under an earlier version
        raise _used()
    authorization = replace(authorization, request=current)
    return await leave_for_provider(broker, authorization, browser=browser, answers=answers, now=now)


async def cancel_connect(broker: Broker, authorization: Authorization, *, browser: str) -> str:
    """Use the ticket up without connecting, and return where the browser goes.

    Raises:
        ConnectFailed: another browser was faster.
    """
    cancelled = ConnectFailed("access_denied", "The user cancelled.")
    return await end_with_failure(broker, authorization, cancelled, browser=browser)
