"""The page that a link shows to a browser that has not proved yet whose it is: it says who asks, and nothing of whom.

The page of a connect trip and that of an approval both begin with it. Its form is sent to their own address, with the
decision `login`.
"""

from fastapi import Request
from fastapi.responses import RedirectResponse, Response

from evergrant import clock
from evergrant.broker.connect.browser_logins import begin_login
from evergrant.broker.connect.verification import ProofWanted, issuer_host
from evergrant.db import OutboundApp, Project
from evergrant.web.consent import tile_for
from evergrant.web.deps import get_broker
from evergrant.web.locale import LANGUAGES
from evergrant.web.templating import PAGE_HEADERS
from evergrant.web.visitor import visitor_page


async def sign_in_first(
    request: Request, wanted: ProofWanted, *, project: Project, app: OutboundApp, agent: str
) -> Response:
    """Ask somebody to sign in where the project's users do. `agent` is what they know the agent by, if they do."""
    broker = get_broker(request)
    return visitor_page(
        request,
        "sign_in_first.html",
        purpose=wanted.purpose,
        project=project,
        app=app,
        tile=await tile_for(broker, app),
        agent=agent,
        host=await issuer_host(broker, wanted),
        languages=LANGUAGES,
    )


async def leave_to_sign_in(request: Request, wanted: ProofWanted, *, browser: str) -> Response:
    """Send a browser to the issuer, from where it comes back to the page that it is at."""
    then = page_again(request)
    url = await begin_login(get_broker(request), wanted, browser=browser, return_path=then, now=clock.now())
    return RedirectResponse(url, 303, PAGE_HEADERS)


def page_again(request: Request) -> str:
    """Return our page that a browser is at, in the language that it has chosen there."""
    language = request.query_params.get("lang", "")
    return f"{request.scope['path']}?lang={language}" if language in LANGUAGES else str(request.scope["path"])
