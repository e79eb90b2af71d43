"""The rows of connect trips: `start` makes them and sends browsers out, `outcomes` ends them."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from pydantic import SecretStr
from sqlalchemy import func, or_, update
from sqlalchemy.ext.asyncio import AsyncSession

from evergrant import clock
from evergrant.broker.apps.apps import load_app
from evergrant.broker.audit.record import record
from evergrant.broker.projects.projects import load_project
from evergrant.broker.runtime.broker import Broker
from evergrant.broker.runtime.places import slot_in
from evergrant.crypto.opaque import digest, equal
from evergrant.crypto.sealed import Slot
from evergrant.db import AuthorizationRequest, OutboundApp, Project
from evergrant.errors import CannotOpenSealed, ConnectFailed, Unavailable
from evergrant.oauth2.authorization import CodeVerifier
from evergrant.oauth2.scopes import words_for

log = logging.getLogger(__name__)

RESULT_PATH = "/connect-result"
"""Our own page, where trips end whose application gave no address to return to."""


@dataclass(frozen=True)
class Authorization:
    """An authorization request with the app and the project that it belongs to."""

    request: AuthorizationRequest
    app: OutboundApp
    project: Project


async def load_authorization(broker: Broker, request: AuthorizationRequest) -> Authorization:
    """Return an authorization request with its app and its project.

    Raises:
        AppNotFound: the app was deleted meanwhile.
    """
    app = await load_app(broker, request.project_id, request.app_id)
    async with broker.database.read() as session:
        return Authorization(request, app, await load_project(session, request.project_id))


def is_browser_of(request: AuthorizationRequest, browser: str) -> bool:
    """Tell whether this is the browser in which the person agreed to a trip, or cancelled it."""
    return request.browser_digest is not None and equal(request.browser_digest, digest(browser))


def check_not_moved(authorization: Authorization, destinations: str) -> None:
    """Check that an app's destinations, as a digest, are what they were when the browser left for the provider.

    Raises:
        ConnectFailed: somebody has changed where codes and tokens of this trip would go.
    """
    request = authorization.request
    if request.destinations not in ("", destinations):  # none is known of a trip that an earlier version began
        raise ConnectFailed(
            "app_changed",
            f"The addresses of {authorization.app.name} were changed while the connection was under way. Start again.",
        )


async def finish_request(broker: Broker, request: AuthorizationRequest, *, browser: str, now: datetime) -> bool:
    """Mark a request as over; false if it was already, or is another browser's.

    One UPDATE decides between two that race. A link that nobody has used becomes that of this browser, which may ask
    for the outcome again.
    """
    statement = (
        update(AuthorizationRequest)
        .where(
            AuthorizationRequest.project_id == request.project_id,
            AuthorizationRequest.id == request.id,
            AuthorizationRequest.finished_at.is_(None),
            or_(AuthorizationRequest.browser_digest.is_(None), AuthorizationRequest.browser_digest == digest(browser)),
        )
        .values(finished_at=now, browser_digest=digest(browser), state=None)
        .returning(AuthorizationRequest.id)
    )
    async with broker.database.write() as session:
        return (await session.execute(statement)).scalar_one_or_none() is not None


async def record_connect(
    session: AsyncSession, request: AuthorizationRequest, action: str, *, data: Mapping[str, Any]
) -> None:
    """Append an audit record about a request, as the last statement of the caller's transaction."""
    await record(
        session,
        request.project_id,
        action,
        app_id=request.app_id,
        user_id=request.user_id or request.granted_by,
        tenant_id=request.tenant_id,
        data={**data, "externalIdentifier": request.external_identifier} if request.external_identifier else data,
    )


async def record_connect_failure(broker: Broker, request: AuthorizationRequest, err: str) -> None:
    """Record that connecting failed, by its error code. If the database is away, it has failed all the same."""
    try:
        async with broker.database.write() as session:
            await record_connect(session, request, "grant.connect_failed", data={"err": err})
    except Unavailable:
        log.exception("could not record that connecting failed")


async def fail_trip(broker: Broker, authorization: Authorization, error: ConnectFailed) -> str:
    """Keep and record that a trip ended without a connection, and return where the browser goes.

    If the database is away, the browser is sent there all the same.
    """
    request, location = authorization.request, failure_location(authorization, error)
    try:
        sealed = await broker.vault.seal(outcome_slot(request), SecretStr(location))
        statement = (
            update(AuthorizationRequest)
            .where(AuthorizationRequest.project_id == request.project_id, AuthorizationRequest.id == request.id)
            .values(
                finished_at=func.coalesce(AuthorizationRequest.finished_at, clock.now()),
                state=None,
                code_verifier=None,
                outcome=sealed,
            )
            .execution_options(synchronize_session=False)
        )
        async with broker.database.write() as session:
            await session.execute(statement)
            await record_connect(session, request, "grant.connect_failed", data={"err": error.error})
    except (Unavailable, CannotOpenSealed):  # its project may have been shredded meanwhile
        log.exception("could not record that connecting failed")
    return location


def failure_location(authorization: Authorization, error: ConnectFailed) -> str:
    """Return where the browser goes when connecting failed: back to the application, or to evergrant's own page."""
    back = with_params(
        authorization.request.redirect_url,
        {
            "outboundAppId": authorization.app.id,
            "outboundStatus": "failed",
            "err": error.error,
            "errDescription": error.message,
        },
    )
    return back or own_result(authorization.request, err=error.error)


def own_result(request: AuthorizationRequest, *, err: str = "") -> str:
    """Return the address of our own page about how a trip ended. What it says there, the trip decides."""
    return f"{RESULT_PATH}?{urlencode({**({'err': err} if err else {}), 'trip': request.id})}"


@dataclass(frozen=True, slots=True)
class DescribedScope:
    """A scope, and what it means in words; empty where nobody has said."""

    scope: str
    words: str
    english: str
    """The same as it is kept for all languages: English, if the app's operator has not written otherwise."""
    is_translated: bool


def described_scopes(authorization: Authorization, language: str = "en") -> Sequence[DescribedScope]:
    """Return the scopes that will be asked for, with their words in a language where there are such."""
    app = authorization.app
    translated = app.scope_translations.get(language, {})
    described = []
    for scope in authorization.request.scopes:
        english, own = words_for(scope, app.scope_descriptions), words_for(scope, translated)
        described.append(DescribedScope(scope, own or english, english, bool(own)))
    return described


def with_params(url: str, params: Mapping[str, str]) -> str:
    """Return `url` with these query parameters, in place of its own of the same names; an empty URL stays empty."""
    if not url:
        return ""
    parts = urlsplit(url)
    query = [(key, value) for key, value in parse_qsl(parts.query, keep_blank_values=True) if key not in params]
    return urlunsplit(parts._replace(query=urlencode([*query, *params.items()])))


def values_of(request: AuthorizationRequest) -> dict[str, str]:
    """Return the values of the app's variables that the caller and the user gave."""
    return {**request.variables, **request.answers}


def ends_with_its_test(request: AuthorizationRequest) -> bool:
    """Tell whether the connection is a test's own, which nobody may fetch and which ends with the test."""
    return bool(request.trial_id and request.external_identifier)


def needs_confirmation(authorization: Authorization) -> bool:
    """Tell whether the application has to say who came back: the app wants it, or an agent has begun the trip."""
    return authorization.app.require_confirmation or authorization.request.verify == "confirmation"


def verifier_slot(request: AuthorizationRequest) -> Slot:
    """Return the place that a request's PKCE verifier is sealed for."""
    return slot_in("authorization_requests", request, "code_verifier")


async def open_verifier(broker: Broker, request: AuthorizationRequest) -> CodeVerifier | None:
    """Return a request's PKCE verifier; None where the app goes without."""
    if request.code_verifier is None:
        return None
    opened = await broker.vault.open(verifier_slot(request), request.code_verifier)
    return CodeVerifier.from_secret(opened.get_secret_value())


def state_slot(request: AuthorizationRequest) -> Slot:
    """Return the place that a request's state is sealed for."""
    return slot_in("authorization_requests", request, "state")


def outcome_slot(request: AuthorizationRequest) -> Slot:
    """Return the place that a request's outcome is sealed for."""
    return slot_in("authorization_requests", request, "outcome")
