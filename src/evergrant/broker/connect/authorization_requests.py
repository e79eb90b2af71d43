"""The rows of connect trips: `start` makes them and sends browsers out, `callback` ends them."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from sqlalchemy import update
from sqlalchemy.ext.asyncio import AsyncSession

from evergrant.broker.apps.apps import load_app
from evergrant.broker.audit.record import record
from evergrant.broker.projects.projects import load_project
from evergrant.broker.runtime.broker import Broker
from evergrant.crypto.sealed import Slot
from evergrant.db import AuthorizationRequest, OutboundApp, Project
from evergrant.errors import ConnectFailed, Unavailable

log = logging.getLogger(__name__)


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


async def finish_request(broker: Broker, request: AuthorizationRequest, *, now: datetime) -> str | None:
    """Mark a request as over; None if it was already. One UPDATE decides between two answers that race."""
    statement = (
        update(AuthorizationRequest)
        .where(
            AuthorizationRequest.project_id == request.project_id,
            AuthorizationRequest.id == request.id,
            AuthorizationRequest.finished_at.is_(None),
        )
        .values(finished_at=now)
        .returning(AuthorizationRequest.id)
    )
    async with broker.database.write() as session:
        return (await session.execute(statement)).scalar_one_or_none()


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


def failure_url(authorization: Authorization, error: ConnectFailed) -> str:
    """Return where the browser goes when connecting failed; empty for evergrant's own page."""
    return with_params(
        authorization.request.redirect_url,
        {
            "outboundAppId": authorization.app.id,
            "outboundStatus": "failed",
            "err": error.error,
            "errDescription": error.message,
        },
    )


def described_scopes(authorization: Authorization) -> Sequence[tuple[str, str]]:
    """Return the scopes that will be asked for, each with its description or an empty one."""
    return [(scope, authorization.app.scope_descriptions.get(scope, "")) for scope in authorization.request.scopes]


def with_params(url: str, params: Mapping[str, str]) -> str:
    """Return `url` with these query parameters, in place of its own of the same names; an empty URL stays empty."""
    if not url:
        return ""
    parts = urlsplit(url)
    query = [(key, value) for key, value in parse_qsl(parts.query, keep_blank_values=True) if key not in params]
    return urlunsplit(parts._replace(query=urlencode([*query, *params.items()])))


def verifier_slot(request: AuthorizationRequest) -> Slot:
    """Return the place that a request's PKCE verifier is sealed for."""
    return Slot(request.project_id, "authorization_requests", "code_verifier", request.id)
