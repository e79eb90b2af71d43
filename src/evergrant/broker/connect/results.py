"""What our own page may say about how a trip ended: to the browser that made it, and by the trip itself."""

from dataclasses import dataclass
from urllib.parse import parse_qs, urlsplit

from sqlalchemy import select

from evergrant.broker.connect.authorization_requests import RESULT_PATH, load_authorization, outcome_slot
from evergrant.broker.runtime.broker import Broker
from evergrant.crypto.opaque import digest
from evergrant.db import AuthorizationRequest, Grant, GrantStatus, OutboundApp, Project
from evergrant.errors import AppNotFound, CannotOpenSealed


@dataclass(frozen=True, slots=True)
class TripResult:
    """How a trip ended."""

    app: OutboundApp
    project: Project
    locale: str
    err: str
    """The error code; empty where an account was connected."""
    account: str
    """What the account is called at the provider, where it has a name that people know; else empty."""
    is_pending: bool
    """Whether the application has to confirm it yet."""


async def find_result(broker: Broker, trip_id: str, *, browser: str) -> TripResult | None:
    """Return how a trip ended that this browser made and that has ended here; else None."""
    if not browser or not trip_id:
        return None
    ours = (AuthorizationRequest.browser_digest == digest(browser), AuthorizationRequest.id == trip_id)
    async with broker.database.read() as session:
        request = (await session.execute(select(AuthorizationRequest).where(*ours))).scalar_one_or_none()
        if request is None or request.outcome is None:
            return None
        grant = await session.get(Grant, (request.project_id, request.grant_id)) if request.grant_id else None
    try:
        location = (await broker.vault.open(outcome_slot(request), request.outcome)).get_secret_value()
        authorization = await load_authorization(broker, request)
    except (AppNotFound, CannotOpenSealed):  # its app or project has gone meanwhile
        return None
    parts = urlsplit(location)
    if parts.netloc or parts.path != RESULT_PATH:
        return None
    return TripResult(
        app=authorization.app,
        project=authorization.project,
        locale=request.locale,
        err=parse_qs(parts.query).get("err", [""])[0],
        account=_account_of(grant) if grant is not None else "",
        is_pending=grant is not None and grant.status == GrantStatus.PENDING,
    )


def _account_of(grant: Grant) -> str:
    """Return an account's e-mail address, if that is known: numbers and opaque ids tell nobody anything."""
    return next((name for name in (grant.details.get("email", ""), grant.token_sub) if "@" in name), "")
