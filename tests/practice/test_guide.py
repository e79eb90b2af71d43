"""The guide, with a far side that plays evergrant."""

import html
import json
import subprocess
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest
from fastapi import FastAPI

from evergrant.practice.guide import create_guide, create_practice_site
from evergrant.practice.provider import create_provider
from evergrant.practice.state import ProviderState
from evergrant.practice.world import PERSONS
from tests.conftest import Clock

EVERGRANT = "http://127.0.0.1:8420"
ORIGIN = "http://127.0.0.1:8421"
OUTBOUND = "/v1/mgmt/outbound"


class FakeEvergrant:
    """Answers by path; what was asked is in `asked`."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.answers: dict[str, tuple[int, dict[str, Any]]] = {}
        self.away = False

    def __call__(self, request: httpx2.Request) -> httpx2.Response:
        if self.away:
            raise httpx2.ConnectError("refused")
        assert request.headers["authorization"] == "Bearer P123:evg_key"
        path = request.url.path.removeprefix(OUTBOUND)
        self.asked.append((path, json.loads(request.content)))
        status, body = self.answers.get(path, (404, {"errorCode": "E111504", "errorMessage": "connect first"}))
        return httpx2.Response(status, json=body)


class Visitor:
    """A browser at the guide."""

    def __init__(self, site: FastAPI, evergrant: FakeEvergrant, provider: ProviderState) -> None:
        self.evergrant = evergrant
        self.provider = provider
        self.http = httpx2.AsyncClient(transport=httpx2.ASGITransport(site), base_url=ORIGIN)

    async def press(self, step: str, **form: str) -> str:
        """Press the button of `step` and return the page it leads to."""
        answer = await self.http.post(f"/steps/{step}", data=form)
        assert answer.status_code == 303, answer.text
        assert answer.headers["location"].startswith("/#step-")
        return await self.page()

    async def page(self, path: str = "/") -> str:
        answer = await self.http.get(path)
        assert answer.status_code == 200
        return html.unescape(answer.text)

    def hand_out_a_token(self, clock: Clock, *, scopes: list[str]) -> str:
        """Let evergrant answer with a token that the provider really issued."""
        family = self.provider.start_family(client_id="shop", person=PERSONS["practice-ada"], scopes=scopes)
        token = self.provider.issue(family).access_token
        now = int(clock.now.timestamp())
        self.evergrant.answers["/app/user/token"] = (
            200,
            {
                "token": {
                    "accessToken": token,
                    "accessTokenExpiry": str(now + 60),
                    "lastRefreshTime": str(now),
                }
            },
        )
        return token


@pytest.fixture
async def visitor() -> AsyncIterator[Visitor]:
    evergrant = FakeEvergrant()
    provider = create_provider(
        issuer=f"{ORIGIN}/provider", clients={"shop": "it's secret"}, redirect_uris=[f"{EVERGRANT}/callback"]
    )
    mounts = {
        EVERGRANT: httpx2.MockTransport(evergrant),
        ORIGIN: httpx2.ASGITransport(provider, root_path="/provider"),
    }
    async with httpx2.AsyncClient(mounts=mounts) as http:
        guide = create_guide(
            evergrant_url=EVERGRANT,
            project_id="P123",
            management_key="evg_key",
            origin=ORIGIN,
            provider=provider.state.provider,
            http=http,
        )
        site = create_practice_site(guide=guide, provider=provider)
        yield Visitor(site, evergrant, provider.state.provider)


async def test_the_first_page_shows_five_steps_and_a_banner(visitor: Visitor) -> None:
    page = await visitor.page()
    assert "Not for production" in page
    for number in range(1, 6):
        assert f'id="step-{number}"' in page
    assert not visitor.evergrant.asked, "nothing is called before somebody presses a button"


async def test_the_app_is_created_from_the_providers_metadata(visitor: Visitor) -> None:
    visitor.evergrant.answers["/app/create"] = (200, {"app": {"id": "practice"}})
    page = await visitor.press("create")
    assert "HTTP 200" in page
    ((path, body),) = visitor.evergrant.asked
    assert path == "/app/create"
    assert body["discoveryUrl"] == f"{ORIGIN}/provider"
    assert (body["clientId"], body["clientSecret"]) == ("shop", "it's secret")
    assert body["defaultScopes"] == ["openid", "contacts.readonly"]


async def test_an_app_that_is_there_already_is_fine(visitor: Visitor) -> None:
    visitor.evergrant.answers["/app/create"] = (409, {"errorCode": "E111507", "errorMessage": "taken"})
    assert "is there already, so you can go on" in await visitor.press("create")


async def test_the_commands_do_what_the_buttons_do_and_survive_a_shell(visitor: Visitor) -> None:
    page = await visitor.page()
    command = page.split('aria-label="Command of step 1"><code>')[1].split("</code>")[0]
    printed = subprocess.run(
        ["sh", "-c", command.replace("curl", "printf '%s\\n'", 1)], capture_output=True, text=True, check=True
    ).stdout
    assert f"{EVERGRANT}{OUTBOUND}/app/create" in printed
    assert "Authorization: Bearer P123:evg_key" in printed
    sent = json.loads(printed[printed.index("{") :])
    await visitor.press("create")
    assert visitor.evergrant.asked == [("/app/create", sent)]


async def test_the_command_of_step_4_takes_the_token_out_of_the_answer(visitor: Visitor) -> None:
    page = await visitor.page()
    command = page.split('aria-label="Command of step 4"><code>')[1].split("</code>")[0]
    curl = """curl() {
        case "$*" in
            *api/contacts*) printf '%s\\n' "$@" ;;
            *) printf '{"token": {"id": "x", "accessToken":"the-token", "accessTokenType":"Bearer"}}' ;;
        esac
    }
    """
    printed = subprocess.run(["sh", "-c", curl + command], capture_output=True, text=True, check=True).stdout
    assert printed.splitlines() == [f"{ORIGIN}/provider/api/contacts", "-H", "Authorization: Bearer the-token"]


async def test_connecting_opens_the_link_that_evergrant_gave(visitor: Visitor) -> None:
    visitor.evergrant.answers["/app/connect"] = (200, {"url": f"{EVERGRANT}/connect/ticket"})
    answer = await visitor.http.post("/steps/connect", data={"userId": "bob"})
    assert (answer.status_code, answer.headers["location"]) == (303, f"{EVERGRANT}/connect/ticket")
    options = {"redirectUrl": f"{ORIGIN}/connected"}
    assert visitor.evergrant.asked == [("/app/connect", {"appId": "practice", "userId": "bob", "options": options})]


async def test_a_user_id_that_makes_no_sense_calls_nobody(visitor: Visitor) -> None:
    assert "1 to 64 letters" in await visitor.press("connect", userId="<script>")
    assert not visitor.evergrant.asked


async def test_a_link_that_is_not_a_web_address_is_not_followed(visitor: Visitor) -> None:
    visitor.evergrant.answers["/app/connect"] = (200, {"url": "javascript:alert(1)"})
    assert 'href="javascript:' not in await visitor.press("connect", userId="alice")  # it shows what came


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("outboundAppId=practice&outboundStatus=connected", "evergrant holds the tokens now"),
        ("outboundAppId=practice&outboundStatus=failed&err=access_denied", "You said no"),
        (
            "outboundStatus=failed&err=server_error&errDescription=It+broke",
            "No connection was made: It broke",
        ),
    ],
)
async def test_the_way_back_is_told_in_words(visitor: Visitor, query: str, words: str) -> None:
    answer = await visitor.http.get(f"/connected?{query}")
    assert answer.status_code == 303
    assert words in await visitor.page()


async def test_words_from_the_query_are_not_markup(visitor: Visitor) -> None:
    await visitor.http.get("/connected?outboundStatus=failed&err=x&errDescription=<script>alert(1)</script>")
    assert "<script>alert" not in (await visitor.http.get("/")).text


async def test_the_token_is_fetched_and_shown(visitor: Visitor, clock: Clock) -> None:
    token = visitor.hand_out_a_token(clock, scopes=["contacts.readonly"])
    assert f'"accessToken": "{token}"' in await visitor.press("fetch")
    body = {"appId": "practice", "userId": "alice", "scopes": ["contacts.readonly"]}
    assert ("/app/user/token", body) in visitor.evergrant.asked


async def test_the_token_opens_the_contacts(visitor: Visitor, clock: Clock) -> None:
    visitor.hand_out_a_token(clock, scopes=["contacts.readonly"])
    assert "Margaret Fiction" in await visitor.press("call")


async def test_force_refresh_asks_for_a_new_token(visitor: Visitor, clock: Clock) -> None:
    visitor.hand_out_a_token(clock, scopes=["contacts.readonly"])
    await visitor.press("force")
    assert any(body.get("options") == {"forceRefresh": True} for _path, body in visitor.evergrant.asked)


async def test_the_live_panel_shows_the_token_change(visitor: Visitor, clock: Clock) -> None:
    first = visitor.hand_out_a_token(clock, scopes=["contacts.readonly"])
    await visitor.press("fetch")
    clock.advance(45)
    panel = await visitor.page("/live")
    assert first[-4:] in panel
    assert ">15</span> s" in panel
    second = visitor.hand_out_a_token(clock, scopes=["contacts.readonly"])
    panel = await visitor.page("/live")
    assert panel.index(second[-4:]) < panel.rindex(first[-4:])
    assert 'content="3"' in await visitor.page("/watch")


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ((404, {"errorCode": "E111503"}), "Do step 1 first"),
        ((404, {"errorCode": "E111504"}), "Do step 2 first"),
        (
            (404, {"errorCode": "E111504", "details": {"missingScopes": ["contacts.readonly"]}}),
            "did not grant",
        ),
        (
            (404, {"errorCode": "E111504", "details": {"reason": "reauthorization_required"}}),
            "This connection is over",
        ),
        ((503, {"errorCode": "E111505", "errorMessage": "The provider is away."}), "The provider is away."),
        ((500, {}), "HTTP 500"),
    ],
)
async def test_a_refusal_says_what_to_do_next(visitor: Visitor, answer: tuple[int, dict[str, Any]], words: str) -> None:
    visitor.evergrant.answers["/app/user/token"] = answer
    assert words in await visitor.press("fetch")


async def test_an_evergrant_that_is_away_is_said_so(visitor: Visitor) -> None:
    visitor.evergrant.away = True
    assert "evergrant does not answer" in await visitor.press("create")


async def test_a_button_pressed_by_another_sites_page_does_nothing(visitor: Visitor) -> None:
    for step in ("create", "connect", "fetch", "call", "force"):
        answer = await visitor.http.post(f"/steps/{step}", headers={"Sec-Fetch-Site": "same-site"})
        assert answer.status_code == 403
    assert not visitor.evergrant.asked


async def test_the_key_is_not_shown_under_somebody_elses_host_name(visitor: Visitor) -> None:
    answer = await visitor.http.get("/", headers={"Host": "evil.example"})
    assert answer.status_code == 400
    assert "evg_key" not in answer.text


@pytest.mark.parametrize(
    "address",
    [
        "/.well-known/oauth-authorization-server/provider",
        "/provider/.well-known/oauth-authorization-server",
        "/provider/.well-known/openid-configuration",
    ],
)
async def test_the_mounted_provider_is_discovered_at_every_address_in_use(visitor: Visitor, address: str) -> None:
    metadata = (await visitor.http.get(address)).json()
    assert metadata["issuer"] == f"{ORIGIN}/provider"
    page = await visitor.page("/provider/")
    assert (await visitor.http.get("/provider/static/practice.css")).status_code == 200
    assert "/provider/static/practice.css" in page
