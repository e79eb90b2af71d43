"""Where a browser may be sent back to: by scheme, host and port, whatever the spelling."""

import asyncio

import pytest

from evergrant.broker.projects.projects import load_project, update_project
from evergrant.broker.projects.redirects import check_redirect_url, origin_of
from evergrant.broker.runtime.broker import open_broker
from evergrant.errors import InvalidValue, NotFound
from evergrant.settings import Settings
from tests.infra.installation import new_project


@pytest.mark.parametrize(
    ("url", "origin"),
    [
        ("https://app.example.com", "https://app.example.com"),
        ("https://app.example.com/done?x=1#y", "https://app.example.com"),
        ("https://APP.Example.COM:443/", "https://app.example.com"),
        ("HTTPS://app.example.com", "https://app.example.com"),
        ("https://app.example.com:8443/", "https://app.example.com:8443"),
        ("http://localhost:3000/done", "http://localhost:3000"),
        ("http://127.0.0.1:80/", "http://127.0.0.1"),
        ("http://[::1]:3000/", "http://[::1]:3000"),
    ],
)
def test_an_origin_is_scheme_host_and_port(url: str, origin: str) -> None:
    assert origin_of(url, field="redirectUrl") == origin


@pytest.mark.parametrize(
    "url",
    [
        "",
        "app.example.com",
        "//app.example.com",
        "/done",
        "https://",
        "https:app.example.com",
        "http://app.example.com",
        "http://localhost.example.com",
        "javascript:alert(1)",
        "data:text/html,x",
        "file:///etc/passwd",
        "myapp://done",
        "https://user@app.example.com",
        "https://user:password@app.example.com",
        "https://app.example.com\\@evil.example",
        "https://evil.example\\app.example.com",
        "https://app.example.com\t.evil.example",
        "https://app.example.com\n",
        " https://app.example.com",
        "https://app.example.com:99999",
        "https://app.example.com:port",
        "https://[::1",
    ],
)
def test_what_a_browser_could_read_otherwise_is_refused(url: str) -> None:
    with pytest.raises(InvalidValue) as error:
        origin_of(url, field="redirectUrl")
    assert error.value.details["fields"][0]["field"] == "redirectUrl"


def test_only_listed_origins_and_evergrants_own_are_returned_to(settings: Settings) -> None:
    project_id = new_project(settings).project_id

    async def ends() -> dict[str, bool]:
        async with open_broker(settings) as broker:
            async with broker.database.read() as session:
                project = await load_project(session, project_id)
            allowed = {}
            for url in (
                "https://app.example.com/any/path",
                f"{settings.public_url}/connect-result",
                "https://app.example.com:8443/",
                "https://sub.app.example.com/",
                "https://example.com/",
                "https://app.example.com.evil.example/",
            ):
                try:
                    check_redirect_url(broker, project, url, field="redirectUrl")
                    allowed[url] = True
                except InvalidValue:
                    allowed[url] = False
            return allowed

    assert list(asyncio.run(ends()).values()) == [True, True, False, False, False, False]


def test_replacing_the_list_is_all_or_nothing(settings: Settings) -> None:
    project_id = new_project(settings).project_id

    async def replace() -> list[str]:
        async with open_broker(settings) as broker:
            with pytest.raises(InvalidValue):
                await update_project(
                    broker, project_id, redirect_origins=["https://new.example.com", "http://new.example.com"]
                )
            with pytest.raises(NotFound):
                await update_project(broker, "Pnobody", redirect_origins=[])
            async with broker.database.read() as session:
                return (await load_project(session, project_id)).redirect_origins

    assert asyncio.run(replace()) == ["https://app.example.com"]
