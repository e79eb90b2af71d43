"""Operators at the console: signed in without a detour, over plain HTTP or in a Chromium."""

import re
from collections.abc import Mapping
from datetime import timedelta
from html import unescape
from typing import Any

import httpx2

from evergrant import clock
from evergrant.broker.operators.one_time_links import make_link
from evergrant.broker.operators.roles import ADMIN
from evergrant.broker.operators.sessions import begin_session
from evergrant.broker.runtime.broker import open_broker
from evergrant.settings import Settings
from evergrant.web.console.desk import cookie_name
from tests.infra.waiting import PATIENCE, in_a_thread

SAME_ORIGIN = {"Sec-Fetch-Site": "same-origin"}


def one_time_link(settings: Settings, *, role: str = ADMIN, project_id: str | None = None) -> str:
    """Return a link that signs one browser in, as `evergrant console` prints it."""

    async def make() -> str:
        async with open_broker(settings) as broker:
            return await make_link(broker, role=role, project_id=project_id, now=clock.now())

    return in_a_thread(make())


def cookie_of(
    settings: Settings, *, role: str = ADMIN, project_id: str | None = None, age: timedelta = timedelta()
) -> tuple[str, str]:
    """Begin a session, as of so long ago, and return its cookie's name and value."""

    async def begin() -> tuple[str, str]:
        async with open_broker(settings) as broker:
            now = clock.now() - age
            value = await begin_session(
                broker, operator=f"the {role}", way="link", role=role, project_id=project_id, now=now
            )
            return cookie_name(broker), value

    return in_a_thread(begin())


class Operator:
    """A browser in which an operator is signed in, for whoever looks at answers and not at pages."""

    def __init__(self, settings: Settings, project_id: str, *, role: str = ADMIN, age: timedelta = timedelta()) -> None:
        name, value = cookie_of(settings, role=role, age=age)
        self.project_id = project_id
        self.http = httpx2.Client(
            base_url=settings.public_url, cookies={name: value}, timeout=PATIENCE, trust_env=False
        )

    def get(self, path: str = "") -> httpx2.Response:
        """Open a page: what follows the project in its address, or with a leading slash all of it."""
        return self.http.get(self._address(path))

    def post(self, path: str, data: Mapping[str, Any] | None = None, **options: Any) -> httpx2.Response:
        """Send a form as one of the console's own pages does; redirects are not followed."""
        return self.http.post(self._address(path), data=data or {}, headers=SAME_ORIGIN, **options)

    def _address(self, path: str) -> str:
        return path if path.startswith("/") else f"/console/{self.project_id}/{path}".rstrip("/")


def words_of(answer: httpx2.Response) -> str:
    """Return what a page says, without markup and with single spaces."""
    body = re.sub(r"<(script|style|head)\b.*?</\1>", " ", answer.text, flags=re.DOTALL)
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", body)).split())
