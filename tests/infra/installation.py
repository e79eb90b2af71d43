"""A whole installation for one test: evergrant, a practice provider, an app between them, and people with browsers."""

import contextlib
import re
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import httpx2

from evergrant.broker.apps.provider_client import CALLBACK_PATH
from evergrant.broker.operations.setup import InitResult, initialise
from evergrant.practice.provider import create_provider
from evergrant.practice.state import ProviderState
from evergrant.settings import Settings
from evergrant.web.app import create_app
from tests.infra.serving import LiveApp, free_port
from tests.infra.waiting import PATIENCE, in_a_thread

APP_ID = "practice"
CLIENT_ID = "evergrant"
CLIENT_SECRET = "the provider's secret for evergrant"
SCOPES = ["contacts.readonly", "openid"]
BACK = "https://app.example.com/done"
"""Where connect trips return to. Nobody listens there: the tests look at the redirect."""


@dataclass
class Provider:
    """The practice provider, as evergrant reaches it."""

    url: str
    state: ProviderState
    http: httpx2.Client = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self.http = httpx2.Client(base_url=self.url, timeout=PATIENCE, trust_env=False)

    def lets_in(self, token: dict[str, Any], *, path: str = "/api/contacts") -> bool:
        """Tell whether a protected resource takes the access token of evergrant's answer."""
        headers = {"Authorization": f"Bearer {token['accessToken']}"}
        return self.http.get(path, headers=headers).status_code == 200

    @property
    def registration(self) -> dict[str, Any]:
        """What `app/create` is told about it."""
        return {
            "id": APP_ID,
            "name": "Practice contacts",
            "clientId": CLIENT_ID,
            "clientSecret": CLIENT_SECRET,
            "discoveryUrl": self.url,
            "defaultScopes": SCOPES,
        }


@contextmanager
def practice_provider(*public_urls: str, access_token_seconds: int = 3600) -> Iterator[Provider]:
    """Run a practice provider that knows the callback addresses of all apps at the evergrants of `public_urls`."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    app = create_provider(
        issuer=url,
        clients={CLIENT_ID: CLIENT_SECRET},
        redirect_uris=[url for ours in public_urls for url in (f"{ours}{CALLBACK_PATH}", f"{ours}{CALLBACK_PATH}/*")],
        access_token_seconds=access_token_seconds,
    )
    provider = Provider(url, app.state.provider)
    with LiveApp(app, port=port), provider.http:
        yield provider


@dataclass
class Backend:
    """The customer's backend: it holds a management key and calls evergrant's API."""

    url: str
    project_id: str
    management_key: str
    http: httpx2.Client = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self.http = httpx2.Client(
            base_url=self.url,
            headers={"Authorization": f"Bearer {self.project_id}:{self.management_key}"},
            timeout=PATIENCE,
            trust_env=False,
        )

    def post(self, path: str, body: Any) -> httpx2.Response:
        """Call an outbound-apps API: `path` is what follows /v1/mgmt/outbound/."""
        return self.http.post(f"/v1/mgmt/outbound/{path}", json=body)

    def get(self, path: str) -> httpx2.Response:
        """The same for GET."""
        return self.http.get(f"/v1/mgmt/outbound/{path}")

    def create_app(self, registration: dict[str, Any]) -> dict[str, Any]:
        """Create an app that must be accepted, and return it."""
        answer = self.post("app/create", registration)
        assert answer.status_code == 200, answer.text
        app: dict[str, Any] = answer.json()["app"]
        return app

    def new_app(self, registration: dict[str, Any], **fields: Any) -> str:
        """Create an app of the caller's own that differs from a registration in these fields, and return its id."""
        app_id = f"app-{uuid.uuid4().hex[:12]}"
        self.create_app({**registration, "id": app_id, "name": app_id, **fields})
        return app_id

    def app(self, app_id: str = APP_ID) -> dict[str, Any]:
        """Load an app that must be there."""
        answer = self.get(f"app/{app_id}")
        assert answer.status_code == 200, answer.text
        app: dict[str, Any] = answer.json()["app"]
        return app

    def change_app(self, **fields: Any) -> None:
        """Change these fields of the usual app."""
        answer = self.post("app/update", {"app": {**self.app(), **fields}})
        assert answer.status_code == 200, answer.text

    def connect_url(self, user_id: str = "alice", **fields: Any) -> str:
        """Start a connect trip and return its link."""
        fields.setdefault("options", {"redirectUrl": BACK})
        answer = self.post("app/connect", {"appId": APP_ID, "userId": user_id, **fields})
        assert answer.status_code == 200, answer.text
        return str(answer.json()["url"])

    def fetch(self, user_id: str = "alice", **fields: Any) -> httpx2.Response:
        """Fetch a user's token by scopes."""
        return self.post("app/user/token", {"appId": APP_ID, "userId": user_id, "scopes": SCOPES, **fields})

    def token(self, user_id: str = "alice", **fields: Any) -> dict[str, Any]:
        """Fetch a token that must be there."""
        answer = self.fetch(user_id, **fields)
        assert answer.status_code == 200, answer.text
        token: dict[str, Any] = answer.json()["token"]
        return token


class Browser:
    """A person's browser: it keeps cookies, and follows a redirect only when told to."""

    def __init__(self) -> None:
        # As browsers do with the forms of a page; to a page that is opened, it does not matter.
        headers = {"Sec-Fetch-Site": "same-origin"}
        self.http = httpx2.Client(headers=headers, timeout=PATIENCE, trust_env=False)

    def open(self, url: str) -> httpx2.Response:
        """Go to an address."""
        return self.http.get(url)

    def agree(self, connect_url: str) -> str:
        """Open a connect link, press Connect, and return the provider's address that the browser is sent to."""
        assert self.open(connect_url).status_code == 200
        answer = self.http.post(connect_url, data={"decision": "connect"})
        assert answer.status_code == 303, answer.text
        return answer.headers["location"]

    def allow(
        self,
        authorize_url: str,
        *,
        person: str = "practice-ada",
        scopes: Sequence[str] | None = None,
        action: str = "allow",
    ) -> str:
        """Choose a person at the practice provider, press Allow (or Deny), and return the callback address."""
        page = self.open(authorize_url)
        assert page.status_code == 200, page.text
        fields: dict[str, Any] = {
            name: value.replace("&amp;", "&")
            for name, value in re.findall(r'<input type="hidden" name="([^"]+)" value="([^"]*)"', page.text)
        }
        asked = dict(parse_qsl(urlsplit(authorize_url).query)).get("scope", "").split()
        fields |= {"person": person, "decision": action, "scope": list(asked if scopes is None else scopes)}
        answer = self.http.post(_form_action(page, authorize_url), data=fields)
        assert answer.status_code == 303, answer.text
        return answer.headers["location"]

    def connect(self, connect_url: str, **choices: Any) -> dict[str, str]:
        """Make the whole trip and return the parameters that come back to the application."""
        answer = self.open(self.allow(self.agree(connect_url), **choices))
        assert answer.status_code == 303, answer.text
        return came_back(answer)


def came_back(answer: httpx2.Response) -> dict[str, str]:
    """Return the parameters of a redirect."""
    return dict(parse_qsl(urlsplit(answer.headers["location"]).query))


def _form_action(page: httpx2.Response, url: str) -> str:
    found = re.search(r'<form[^>]*action="([^"]+)"', page.text)
    return str(httpx2.URL(url).join(found.group(1).replace("&amp;", "&"))) if found else url


@dataclass
class Installation:
    """A running evergrant with one project, its backend and the practice provider that it knows as `practice`."""

    settings: Settings
    backend: Backend
    provider: Provider
    _browsers: list[Browser] = field(default_factory=list)

    def browser(self) -> Browser:
        """A new person's browser."""
        self._browsers.append(Browser())
        return self._browsers[-1]

    def close(self) -> None:
        """Close every connection that was opened here."""
        self.backend.http.close()
        for browser in self._browsers:
            browser.http.close()

    @property
    def url(self) -> str:
        """Where evergrant is."""
        return self.settings.public_url

    def connected(self, user_id: str = "alice", **fields: Any) -> Browser:
        """Connect a user through a browser of its own, which is returned."""
        browser = self.browser()
        result = browser.connect(self.backend.connect_url(user_id, **fields))
        assert result["outboundStatus"] == "connected", result
        return browser


def refreshes(here: Installation) -> int:
    """Return how many refreshes have reached the provider."""
    return here.provider.state.token_calls["refresh_token"]


def new_project(settings: Settings) -> InitResult:
    """Make a project that may return to `BACK`."""
    return in_a_thread(initialise(settings, project_name="Shop", redirect_origins=["https://app.example.com"]))


@contextmanager
def installation(settings: Settings, *, access_token_seconds: int = 3600) -> Iterator[Installation]:
    """Run everything. The background refresher is off: tests that want it say so in `settings`."""
    made = new_project(settings)
    port = urlsplit(settings.public_url).port or 0
    with contextlib.ExitStack() as stack:
        provider = stack.enter_context(
            practice_provider(settings.public_url, access_token_seconds=access_token_seconds)
        )
        stack.enter_context(LiveApp(create_app(settings), port=port))
        backend = Backend(settings.public_url, made.project_id, made.management_key)
        here = Installation(settings, backend, provider)
        stack.callback(here.close)
        backend.create_app(provider.registration)
        yield here
