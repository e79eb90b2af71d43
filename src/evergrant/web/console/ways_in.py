"""What the ways in to the console share: pages for nobody yet, the session's cookie, and where to go then."""

from urllib.parse import urlsplit

from fastapi.responses import HTMLResponse, RedirectResponse, Response

from evergrant.broker.operators.sessions import LONGEST
from evergrant.broker.runtime.broker import Broker
from evergrant.web.console.desk import HEADERS, cookie_name
from evergrant.web.templating import render


def inside(then: str) -> str:
    """Return an address of the console, or nothing: nobody may be sent elsewhere by a link to the sign-in page."""
    return then if then.startswith("/console/") and "\\" not in then and "//" not in then else ""


def outside(template: str, *, status: int = 200, **values: object) -> HTMLResponse:
    """Answer with a page for somebody who is not signed in."""
    return HTMLResponse(render(f"console/{template}", **values), status, HEADERS)


def go_to(path: str) -> Response:
    """Send the browser on."""
    return RedirectResponse(path, 303, HEADERS)


def with_session(response: Response, broker: Broker, cookie: str) -> Response:
    """Let the browser keep its session."""
    keep(response, broker, cookie_name(broker), cookie, seconds=int(LONGEST.total_seconds()))
    return response


def keep(response: Response, broker: Broker, name: str, value: str, *, seconds: int) -> None:
    """Set a cookie that no script reads; 0 seconds forget it."""
    response.set_cookie(
        name,
        value,
        max_age=seconds,
        path="/",
        secure=not broker.settings.is_loopback_trial,
        httponly=True,
        samesite="lax",
    )


def sign_in_page(
    broker: Broker, then: str, *, status: int = 200, project: str = "", wrong: str = "", refused: str = ""
) -> HTMLResponse:
    """Answer with the ways in that there are. `wrong` is about the key, `refused` about another way."""
    settings = broker.settings
    return outside(
        "sign_in.html",
        status=status,
        then=inside(then),
        by_key=settings.console_key_sign_in,
        provider=urlsplit(settings.console_oidc_issuer).hostname or "",
        project=project,
        wrong=wrong,
        refused=refused,
    )
