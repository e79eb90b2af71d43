"""How a trip ends: once, whoever comes first; and who comes again in the browser that agreed is told the same.

Browsers come back twice: a second click on Allow, a provider's page that redirects by itself, Back, a reload. The first
to arrive ends the trip. The others wait for it, and are sent to the application with the outcome that there is.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime, timedelta
from urllib.parse import urlsplit

from sqlalchemy import select

from evergrant import clock
from evergrant.broker.apps.quirks import quirks_of
from evergrant.broker.connect.authorization_requests import (
    Authorization,
    fail_trip,
    failure_location,
    finish_request,
    is_browser_of,
    load_authorization,
    outcome_slot,
    record_connect_failure,
)
from evergrant.broker.connect.callback import complete_connect
from evergrant.broker.runtime.broker import Broker
from evergrant.crypto.opaque import digest
from evergrant.db import AuthorizationRequest
from evergrant.errors import ConnectFailed
from evergrant.oauth2.authorization import AuthorizationResponse

log = logging.getLogger(__name__)

WAIT = timedelta(seconds=30)
"""How long the outcome of a trip may take that another process is ending: longer than a provider call."""
LOOK_AGAIN_SECONDS = 0.5
COUNTED = frozenset(
    [
        "app_changed",
        "callback_mismatch",
        "cross_site",
        "expired",
        "installation_pending",
        "invalid_client",
        "invalid_grant",
        "invalid_id_token",
        "invalid_request",
        "invalid_response",
        "invalid_scope",
        "invalid_target",
        "invalid_userinfo",
        "issuer_mismatch",
        "login_required",
        "not_proved",
        "server_error",
        "temporarily_unavailable",
        "unauthorized_client",
        "unsupported_response_type",
    ]
)
"""Reasons by which failed trips are counted apart. Whatever else a provider says is `other`: it may say anything."""


async def find_by_answer(
    broker: Broker, params: Mapping[str, str], *, browser: str, path: str, now: datetime
) -> Authorization:
    """Return the trip that a provider's answer at `path` belongs to. Nothing is used up.

    Raises:
        ConnectFailed: the state is unknown, or this is not the browser that left.
    """
    if not params.get("state"):
        return await _find_without_state(broker, params, browser=browser, path=path, now=now)
    query = select(AuthorizationRequest).where(AuthorizationRequest.state_digest == digest(params["state"]))
    async with broker.database.read() as session:
        request = (await session.execute(query)).scalar_one_or_none()
    if request is None:
        raise _unknown()
    if not is_browser_of(request, browser):
        if broker.limits.denials.allows((request.project_id, request.id)):
            await record_connect_failure(broker, request, "browser_mismatch")
        raise ConnectFailed(
            "browser_mismatch",
            "The connection was started in another browser. Start again in this one, with cookies on.",
        )
    return await load_authorization(broker, request)


async def _find_without_state(
    broker: Broker, params: Mapping[str, str], *, browser: str, path: str, now: datetime
) -> Authorization:
    """Find the trip by the browser alone: some providers leave the state out when the person says no.

    It has to be the only one that is open there. A code without a state is never taken: it may be anybody's.
    """
    query = select(AuthorizationRequest).where(
        AuthorizationRequest.browser_digest == digest(browser), AuthorizationRequest.state_digest.is_not(None)
    )
    async with broker.database.read() as session:
        found = list(await session.scalars(query.order_by(AuthorizationRequest.created_at))) if browser else []
    here = [request for request in found if urlsplit(request.redirect_uri).path == path]
    under_way = [request for request in here if request.finished_at is None and request.expires_at > now]
    if not here or len(under_way) > 1:
        raise _unknown()
    authorization = await load_authorization(broker, (under_way or here)[-1])
    if AuthorizationResponse.parse(params, quirks_of(broker, authorization.app)).code:
        raise _unknown()
    return authorization


def _unknown() -> ConnectFailed:
    return ConnectFailed("invalid_state", "This answer belongs to no connection that was started here.")


async def end_with_answer(
    broker: Broker, authorization: Authorization, params: Mapping[str, str], *, browser: str, path: str
) -> str:
    """End a trip with the provider's answer, unless it has ended, and return where the browser goes."""

    async def complete() -> str:
        return await complete_connect(broker, authorization, params, path=path, now=clock.now())

    return await _end_once(broker, authorization, browser=browser, ending=complete)


async def end_with_failure(broker: Broker, authorization: Authorization, error: ConnectFailed, *, browser: str) -> str:
    """End a trip without a connection, unless it has ended, and return where the browser goes.

    Raises:
        ConnectFailed: another browser was faster.
    """

    async def fail() -> str:
        raise error

    return await _end_once(broker, authorization, browser=browser, ending=fail)


async def _end_once(
    broker: Broker, authorization: Authorization, *, browser: str, ending: Callable[[], Awaitable[str]]
) -> str:
    key = (authorization.request.project_id, authorization.request.id, digest(browser))
    # Shielded: a browser that goes on to another page does not take the outcome from the one that waits.
    return await asyncio.shield(broker.trips.start(key, lambda: _end(broker, authorization, browser, ending)))


async def _end(broker: Broker, authorization: Authorization, browser: str, ending: Callable[[], Awaitable[str]]) -> str:
    try:
        if await finish_request(broker, authorization.request, browser=browser, now=clock.now()):
            location = await ending()
            _note_end(broker, authorization, "finished")
            return location
    except ConnectFailed as error:
        known = error.error if error.error in COUNTED else "other"
        _note_end(broker, authorization, "cancelled" if error.error == "access_denied" else f"failed:{known}")
        return await fail_trip(broker, authorization, error)
    except Exception:  # ours to mend; the application still gets its user back
        log.exception("could not finish a connect trip", extra={"app": authorization.app.id})
        _note_end(broker, authorization, "failed:server_error")
        return await fail_trip(
            broker, authorization, ConnectFailed("server_error", "evergrant could not finish the connection.")
        )
    return await outcome_of(broker, authorization, browser=browser)


def _note_end(broker: Broker, authorization: Authorization, outcome: str) -> None:
    request = authorization.request
    broker.activity.note(request.project_id, request.app_id, f"connect:{outcome}")


async def outcome_of(broker: Broker, authorization: Authorization, *, browser: str) -> str:
    """Return where the browser goes by a trip that is over; wait while another process is about to know.

    Raises:
        ConnectFailed: `ticket_used`, where this is another browser than the one that agreed.
    """
    key = (authorization.request.project_id, authorization.request.id)
    while True:
        async with broker.database.read() as session:
            request = await session.get(AuthorizationRequest, key)
        if request is None or not is_browser_of(request, browser):
            raise ConnectFailed(
                "ticket_used", "This link was used already. Go back to the application and start again."
            )
        if request.outcome is not None:
            return (await broker.vault.open(outcome_slot(request), request.outcome)).get_secret_value()
        if request.finished_at is None or request.finished_at + WAIT <= clock.now():
            break
        await asyncio.sleep(LOOK_AGAIN_SECONDS)
    return failure_location(
        authorization,
        ConnectFailed("server_error", "evergrant was interrupted while it made the connection. Connect again."),
    )
