"""End users at their connected accounts, over plain HTTP."""

import re
from collections.abc import Sequence
from typing import Any

import httpx2

from evergrant.broker.projects.projects import update_project
from evergrant.broker.runtime.broker import open_broker
from tests.infra.console import SAME_ORIGIN, words_of
from tests.infra.installation import APP_ID, Installation
from tests.infra.waiting import in_a_thread

RETURN = "https://app.example.com/settings"


def session_url(here: Installation, user_id: str, **fields: Any) -> str:
    """Ask for a user's connected accounts as a backend does, and return the link."""
    answer = here.backend.post("accounts/session", {"userId": user_id, "returnUrl": RETURN, **fields})
    assert answer.status_code == 200, answer.text
    return str(answer.json()["url"])


def embed_in(here: Installation, *origins: str) -> None:
    """Let these origins show the project's connected accounts, and no others."""

    async def allow() -> None:
        async with open_broker(here.settings) as broker:
            await update_project(broker, here.backend.project_id, embed_origins=origins)

    in_a_thread(allow())


class Visitor:
    """A browser at the page of connected accounts; redirects within evergrant are followed."""

    def __init__(self, here: Installation, *, base: str = "/accounts") -> None:
        self.url, self.base, self.browser = here.url, base, here.browser()

    def get(self, path: str, **options: Any) -> httpx2.Response:
        """Go to an address of evergrant's; redirects are not followed."""
        return self.browser.http.get(httpx2.URL(self.url).join(path), **options)

    def open(self, link: str = "") -> httpx2.Response:
        """Go to a link, or to the page."""
        return self.get(link or self.base, follow_redirects=True)

    def post(self, act: str, **options: Any) -> httpx2.Response:
        """Send a form of the page: `connect` or `disconnect`. Redirects are not followed."""
        data = options.pop("data", {})
        headers = {**SAME_ORIGIN, **options.pop("headers", {})}
        return self.browser.http.post(f"{self.url}{self.base}/{act}", data=data, headers=headers)

    def connect(self, app_id: str = APP_ID, **fields: str) -> httpx2.Response:
        """Press Connect."""
        return self.post("connect", data={"app": app_id, **fields})

    def disconnect(self, grant_id: str) -> httpx2.Response:
        """Press Disconnect."""
        return self.post("disconnect", data={"account": grant_id})

    def go_through(self, link: str, **choices: Any) -> httpx2.Response:
        """Make a trip, and return the page on which it ends."""
        callback = self.browser.allow(self.browser.agree(link), **choices)
        return self.get(callback, follow_redirects=True)


def accounts_in(page: httpx2.Response) -> Sequence[str]:
    """Return the ids of the connections that a page offers to end."""
    return re.findall(r'name="account" value="([0-9a-f]+)"', page.text)


def said(page: httpx2.Response) -> str:
    """Return what a page says."""
    return words_of(page)
