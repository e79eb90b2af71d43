"""The cookie by which a browser is known again that follows a link: through its trip, its login, its approval."""

from fastapi import Request
from fastapi.responses import Response

from evergrant.broker.runtime.broker import Broker

COOKIE_SECONDS = 1800


def cookie_name(broker: Broker) -> str:
    """Return the cookie's name."""
    # A __Host- cookie needs Secure, which plain http cannot have; only loopback trials run on that.
    return "evergrant-connect" if broker.settings.is_loopback_trial else "__Host-evergrant-connect"


def browser_id(request: Request, broker: Broker) -> str:
    """Return what a browser is known by; empty where it is not known."""
    return request.cookies.get(cookie_name(broker), "")


def with_cookie(response: Response, broker: Broker, browser: str) -> Response:
    """Let a browser be known again."""
    response.set_cookie(
        cookie_name(broker),
        browser,
        max_age=COOKIE_SECONDS,
        path="/",
        secure=not broker.settings.is_loopback_trial,
        httponly=True,
        samesite="lax",
    )
    return response
