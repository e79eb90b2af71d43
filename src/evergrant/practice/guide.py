"""The guide: plays the backend of an application and walks a newcomer through evergrant's HTTP API."""

import re
import shlex
from typing import Any
from urllib.parse import urlsplit

import httpx2
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, RedirectResponse
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.responses import Response

from evergrant.practice.calls import Answer, Call, make
from evergrant.practice.guide_state import Live, Walk, access_token, explain, look, outcome_of
from evergrant.practice.pages import page, static_files
from evergrant.practice.provider import metadata
from evergrant.practice.state import ProviderState
from evergrant.practice.world import SCOPES as WORDS

APP_ID = "practice"
SCOPES = ("openid", "contacts.readonly")
ASKABLE = (*SCOPES, "contacts")
USER_ID = re.compile(r"[A-Za-z0-9@._+-]{1,64}")
OUTBOUND = "/v1/mgmt/outbound"


class Calls:
    """The calls of the walk; the page shows what the buttons make."""

    def __init__(
        self,
        *,
        evergrant_url: str,
        project_id: str,
        management_key: str,
        origin: str,
        provider: ProviderState,
    ) -> None:
        self.evergrant_url = evergrant_url
        self.project_id = project_id
        self.management_key = management_key
        self.origin = origin
        self.provider = provider

    def create(self) -> Call:
        """Step 1: register the practice provider's client as an outbound app."""
        client_id, client_secret = next(iter(self.provider.clients.items()))
        return self._post(
            "app/create",
            {
                "id": APP_ID,
                "name": "Practice contacts",
                "discoveryUrl": self.provider.issuer,
                "apiBaseUrl": f"{self.provider.issuer}/api",
                "clientId": client_id,
                "clientSecret": client_secret,
                "scopes": [{"value": scope, "description": WORDS[scope]} for scope in ASKABLE],
                "defaultScopes": SCOPES,
            },
        )

    def connect(self, user_id: str) -> Call:
        """Step 2: ask for the link that the user's browser opens."""
        options = {"redirectUrl": f"{self.origin}/connected"}
        return self._post("app/connect", {"appId": APP_ID, "userId": user_id, "options": options})

    def fetch(self, user_id: str, *, force: bool = False) -> Call:
        """Steps 3 and 5: ask for a token that works."""
        body: dict[str, Any] = {"appId": APP_ID, "userId": user_id, "scopes": ["contacts.readonly"]}
        if force:
            body["options"] = {"forceRefresh": True}
        return self._post("app/user/token", body)

    def contacts(self, token: str) -> Call:
        """Step 4: use it."""
        return Call("GET", f"{self.provider.issuer}/api/contacts", token)

    def contacts_curl(self, user_id: str) -> str:
        """Return step 4 as commands: the token is short-lived, so it is asked for at the moment of use."""
        pick = """sed -n 's/.*"accessToken": *"\\([^"]*\\)".*/\\1/p'"""
        use = self.contacts("$TOKEN").curl().replace("'", '"')
        return f"TOKEN=$({self.fetch(user_id).curl().replace('curl', 'curl -s', 1)} |\n  {pick})\n\n{use}"

    def agent(self) -> str:
        """Return step 6: what runs the example's agent, in a checkout."""
        named = {
            "EVERGRANT": self.evergrant_url,
            "PROJECT_ID": self.project_id,
            "MANAGEMENT_KEY": self.management_key,
        }
        told = " \\\n  ".join(f"{name}={shlex.quote(value)}" for name, value in named.items())
        return f"{told} \\\n  .venv/bin/python examples/agent/backend.py"

    def _post(self, path: str, body: dict[str, Any]) -> Call:
        bearer = f"{self.project_id}:{self.management_key}"
        return Call("POST", f"{self.evergrant_url}{OUTBOUND}/{path}", bearer, body)


def create_guide(
    *,
    evergrant_url: str,
    project_id: str,
    management_key: str,
    origin: str,
    provider: ProviderState,
    http: httpx2.AsyncClient,
) -> FastAPI:
    """Build the guide for the one person who started the demo.

    Args:
        evergrant_url: evergrant's origin.
        project_id: the project the demo made.
        management_key: its key; the page shows it, so this app must not be served beyond loopback.
        origin: the guide's own origin, where connect trips come back.
        provider: whose client is registered, and whose counters the live panel shows.
        http: the client for evergrant and the resource; the caller closes it.
    """
    calls = Calls(
        evergrant_url=evergrant_url,
        project_id=project_id,
        management_key=management_key,
        origin=origin,
        provider=provider,
    )
    walk = Walk()
    app = FastAPI(title="Guide", docs_url=None, redoc_url=None, openapi_url=None)
    # The page shows a key: a name that somebody else's DNS points at loopback must not read it.
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=_names_of(origin))
    app.mount("/static", static_files())

    async def look_now() -> Live | None:
        if not (walk.connection and walk.connection.connected) and not walk.sightings:
            return None
        return look(await make(calls.fetch(walk.user_id), http), walk, provider)

    @app.get("/")
    async def guide() -> Response:
        return page(
            "guide.html",
            # No form-action: CSP counts redirects, step 2 leads to evergrant, and CSP cannot name [::1].
            base="",
            calls=calls,
            walk=walk,
            live=await look_now(),
            explain=explain,
            app_id=APP_ID,
            console=f"{evergrant_url}/console",
        )

    @app.get("/live")
    async def live() -> Response:
        return page("live.html", base="", live=await look_now(), explain=explain)

    @app.get("/watch")
    async def watch() -> Response:
        return page("watch.html", form_action="'none'", base="", live=await look_now(), explain=explain)

    @app.post("/steps/create")
    async def create(request: Request) -> Response:
        if _from_elsewhere(request):
            return _refuse()
        walk.answers["create"] = await make(calls.create(), http)
        return _to_step(1)

    @app.post("/steps/connect")
    async def connect(request: Request) -> Response:
        if _from_elsewhere(request):
            return _refuse()
        user_id = str((await request.form()).get("userId", "")).strip()
        if not USER_ID.fullmatch(user_id):
            walk.answers["connect"] = Answer(
                0, "", {"errorMessage": "A user id has 1 to 64 letters, digits or any of @._+-"}
            )
            return _to_step(2)
        walk.change_user(user_id)
        walk.connection = None
        answer = walk.answers["connect"] = await make(calls.connect(user_id), http)
        url = str(answer.fields.get("url", ""))
        return RedirectResponse(url, 303) if answer.ok and _is_web(url) else _to_step(2)

    @app.get("/connected")
    async def connected(request: Request) -> Response:
        walk.connection = outcome_of(request.query_params)
        return _to_step(2)

    @app.post("/steps/{step}")
    async def fetch(request: Request, step: str) -> Response:
        if _from_elsewhere(request):
            return _refuse()
        if step not in ("fetch", "force", "call"):
            return JSONResponse({"error": "no such step"}, 404)
        answer = await make(calls.fetch(walk.user_id, force=step == "force"), http)
        walk.see(answer)
        if step == "call" and answer.ok:
            answer = await make(calls.contacts(access_token(answer)), http)
        walk.answers[step] = answer
        return _to_step({"fetch": 3, "call": 4, "force": 5}[step])

    return app


def create_practice_site(*, guide: FastAPI, provider: FastAPI) -> FastAPI:
    """Put the provider under the path of its issuer, on the guide's origin.

    The metadata is then also at the address that RFC 8414 section 3.1 makes of an issuer with a path.
    """
    state: ProviderState = provider.state.provider
    path = urlsplit(state.issuer).path

    @guide.get(f"/.well-known/oauth-authorization-server{path}")
    async def discovery() -> dict[str, Any]:
        return metadata(state)

    guide.mount(path, provider)
    return guide


def _names_of(origin: str) -> list[str]:
    host = urlsplit(origin).hostname or ""
    return ["localhost", host, f"[{host}]"]


def _to_step(number: int) -> Response:
    return RedirectResponse(f"/#step-{number}", 303)


def _is_web(url: str) -> bool:
    return urlsplit(url).scheme in ("http", "https")


def _from_elsewhere(request: Request) -> bool:
    """Tell whether another site's page sent this form: browsers say so, other callers send no such header."""
    return request.headers.get("Sec-Fetch-Site", "none") not in ("same-origin", "none")


def _refuse() -> Response:
    return JSONResponse({"error": "use the buttons of the guide"}, 403)
