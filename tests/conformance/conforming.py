"""An installation whose catalogue is the built-in one, moved to loopback, and every provider of it come to life."""

import contextlib
import re
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx2

from tests.infra.conformance import ConformingProvider, conformance_site
from tests.infra.entries import Entry, as_toml, moved
from tests.infra.installation import BACK, Installation, came_back, installation
from tests.infra.people import someone
from tests.infra.rows import expire
from tests.infra.serving import free_port
from tests.infra.settings import settings_on
from tests.infra.waiting import PATIENCE


@dataclass
class Connection:
    """One person's connection at one provider, made and used as an application's backend does it."""

    here: Installation
    provider: ConformingProvider
    app_id: str = ""
    user: str = ""

    def create_app(self, **fields: Any) -> httpx2.Response:
        """Make an app of the entry, with what its operator must give."""
        self.app_id = f"app-{uuid.uuid4().hex[:12]}"
        self.user = someone()
        wanted = {
            "templateId": self.provider.entry["id"],
            "id": self.app_id,
            "clientId": self.provider.client_id,
            "clientSecret": self.provider.client_secret,
            "variables": self.provider.of_source("app"),
            "overrides": {"name": self.app_id},
        }
        answer = self.here.backend.post("app/create/bytemplate", {**wanted, **fields})
        if answer.status_code == 200:  # who registers evergrant at the provider tells it the app's address
            self.provider.callback = answer.json()["app"]["callbackUrl"]
        return answer

    def connect(self, **fields: Any) -> dict[str, str]:
        """Go through the consent page, to the provider and back; return what comes back to the application."""
        answer = self.create_app(**fields)
        assert answer.status_code == 200, answer.text
        return self.connect_again()

    def connected(self, **fields: Any) -> dict[str, Any]:
        """Connect, which must succeed and please the provider, and fetch the token."""
        back = self.connect(**fields)
        assert self.provider.complaints == []
        assert back["outboundStatus"] == "connected", back
        return self.token()

    def connect_again(self) -> dict[str, str]:
        """The same, for the app that there is."""
        headers = {"Sec-Fetch-Site": "same-origin"}
        with httpx2.Client(headers=headers, timeout=PATIENCE, trust_env=False, verify=False) as browser:
            link = self.here.backend.connect_url(self.user, appId=self.app_id, options={"redirectUrl": BACK})
            answers = {f"variables.{name}": value for name, value in self.provider.of_source("user").items()}
            assert browser.get(link).status_code == 200
            leaving = browser.post(link, data={"decision": "connect", **answers})
            assert leaving.status_code == 303, leaving.text
            there = browser.get(self._read_by_page(leaving.headers["location"]))
            if there.status_code == 302:
                back = browser.get(there.headers["location"])
            else:  # form_post; ours sends the browser on with a GET
                assert there.status_code == 200, self.provider.complaints
                fields = dict(re.findall(r'name="([^"]*)" value="([^"]*)"', there.text))
                posted = browser.post(self.provider.callback, data=fields)
                back = browser.get(f"{self.here.url}{posted.headers['location']}")
            assert back.status_code == 303, (back.text, self.provider.complaints)
            return came_back(back)

    def _read_by_page(self, location: str) -> str:
        """Return what a provider's page makes of an address: parameters behind "#/" are read from there."""
        wanted = urlsplit(self.provider.entry["authorization_endpoint"]).fragment
        address, _, fragment = location.partition("#")
        route, _, query = fragment.partition("?")
        assert route == wanted
        return f"{address}?{query}" if query else address

    def fetch(self, **options: Any) -> httpx2.Response:
        """Fetch the latest token."""
        wanted = {"appId": self.app_id, "userId": self.user, "options": {"withRefreshToken": True, **options}}
        return self.here.backend.post("app/user/token/latest", wanted)

    def token(self, **options: Any) -> dict[str, Any]:
        """Fetch a token that must be there."""
        answer = self.fetch(**options)
        assert answer.status_code == 200, (answer.text, self.provider.complaints, self.provider.refusals)
        token: dict[str, Any] = answer.json()["token"]
        return token

    def expire(self) -> None:
        """Let the access token end, here and at the provider."""
        self.provider.ends_at = 0.0
        expire(self.here.settings, self.user, ", last_refresh_time = '{past}', refresh_not_before = NULL")

    def refreshed(self) -> dict[str, Any]:
        """Let the token end, and fetch."""
        self.expire()
        return self.token()

    def is_dead(self) -> bool:
        """Let the token end, and see whether only the user can mend it."""
        self.expire()
        answer = self.fetch()
        return answer.status_code == 404 and answer.json()["details"].get("reason") == "reauthorization_required"

    def revoke(self) -> str:
        """Revoke the connection and return what came of it."""
        listed = self.here.backend.http.get("/v1/mgmt/outbound/tokens", params={"userId": self.user})
        (found,) = listed.json()["tokens"]
        answer = self.here.backend.post("token/revoke", {"id": found["id"]})
        assert answer.status_code == 200, answer.text
        return str(answer.json()["outcome"])


@dataclass
class World:
    """An installation, and the providers by the id of their entry."""

    here: Installation
    providers: dict[str, ConformingProvider]

    def connection(self, entry_id: str) -> Connection:
        """Return a new person at a provider, who has not connected yet."""
        return Connection(self.here, self.providers[entry_id].forget())


@contextmanager
def world(entries: dict[str, Entry], database_url: str, data_dir: Path) -> Iterator[World]:
    """Run evergrant with these entries, and their providers."""
    folder = data_dir / "entries"
    folder.mkdir()
    site, own = free_port(), f"http://127.0.0.1:{free_port()}"
    providers: dict[str, ConformingProvider] = {}
    for entry_id, entry in entries.items():
        base = f"http://127.0.0.1:{site}/{entry_id}"
        there = moved(entry, base)
        (folder / f"{entry_id}.toml").write_text(as_toml(there), encoding="utf-8")
        providers[entry_id] = ConformingProvider(there, base)
    settings = settings_on(
        database_url,
        data_dir,
        public_url=own,
        catalog_dir=folder,
        refresher=False,
        log_level="warning",
    )
    with contextlib.ExitStack() as stack:
        stack.enter_context(conformance_site(*providers.values(), port=site))
        yield World(stack.enter_context(installation(settings)), providers)
