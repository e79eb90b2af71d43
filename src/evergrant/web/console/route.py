"""What every request to the console goes through: who may reach it, forged forms, and errors as pages."""

from collections.abc import Callable, Coroutine
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlencode

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from fastapi.routing import APIRoute

from evergrant.broker.runtime.broker import Broker
from evergrant.errors import (
    Busy,
    EvergrantError,
    KeyServiceUnavailable,
    LinkIsOver,
    NotFound,
    PermissionDenied,
    SignInTooOld,
    Unavailable,
)
from evergrant.logs import request_id
from evergrant.web.asked import address_of
from evergrant.web.console.desk import HEADERS, SIGN_IN_PATH, Desk, SignInFirst, desk_before_outage
from evergrant.web.deps import get_broker, refuse_odd_text
from evergrant.web.errors import invalid_request
from evergrant.web.same_origin import is_from_us
from evergrant.web.templating import render

HEADINGS = {
    400: "That cannot be used",
    403: "You may not do that",
    404: "There is nothing here",
    409: "That is taken already",
    429: "Too many requests",
    502: "The provider refused",
    503: "Something does not answer",
}
DATABASE_AWAY = "The database does not answer"


class ConsoleRoute(APIRoute):
    """A route of the console. It is in no API document."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{**kwargs, "include_in_schema": False})

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Wrap FastAPI's handler: errors become pages in the console's frame."""
        handle = super().get_route_handler()

        async def handled(request: Request) -> Response:
            broker = get_broker(request)
            if not _reaches_console(request, broker):
                raise NotFound  # as if there were no console
            try:
                if not is_from_us(request, broker):
                    raise PermissionDenied("This form can only be sent from the console's own pages.")
                await refuse_odd_text(request)
                return await handle(request)
            except SignInFirst:
                return _to_sign_in(request)
            except RequestValidationError as error:
                return error_page(request, invalid_request(error.errors()))
            except EvergrantError as error:
                if error.status >= 500 and error.status not in (502, 503):
                    raise
                return error_page(request, error)

        return handled


def _reaches_console(request: Request, broker: Broker) -> bool:
    settings = broker.settings
    if not settings.console or not settings.console_networks:
        return settings.console
    address = address_of(request.scope)
    return bool(address) and any(ip_address(address) in network for network in settings.console_networks)


def _to_sign_in(request: Request) -> Response:
    """Ask to sign in, and come back to the page that was asked for. A form is not sent again by itself."""
    then = _address(request) if request.method == "GET" else ""
    return RedirectResponse(f"{SIGN_IN_PATH}?{urlencode({'then': then})}" if then else SIGN_IN_PATH, 303, HEADERS)


def _address(request: Request) -> str:
    path, query = str(request.scope["path"]), request.url.query
    return path + (f"?{query}" if query else "")


def error_page(request: Request, error: EvergrantError) -> Response:
    """Answer with what went wrong, in the console's frame where it is known whose it is."""
    desk: Desk | None = getattr(request.state, "desk", None)
    is_away = isinstance(error, Unavailable) and not isinstance(error, Busy | KeyServiceUnavailable)
    if desk is None and is_away:
        desk = desk_before_outage(request)
    headers = {"Retry-After": str(error.retry_after)} if error.retry_after is not None else {}
    values = {
        "heading": DATABASE_AWAY
        if is_away
        else "This link is over"
        if isinstance(error, LinkIsOver)
        else HEADINGS.get(error.status, "That did not work"),
        "message": "Fetches fail too. This page asks again every 5 seconds." if is_away else error.message,
        "reference": request_id.get(),
        "sign_in_again": SIGN_IN_PATH if isinstance(error, SignInTooOld) else "",
        "retry": _address(request) if error.status == 503 and request.method == "GET" else "",
    }
    if desk is not None:
        return desk.page("error.html", status=error.status, headers=headers, **values)
    text = render("console/outside_error.html", **values)
    return HTMLResponse(text, error.status, {**HEADERS, **headers})
