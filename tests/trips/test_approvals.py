"""Requests that an agent may make only once somebody has said yes: who decides, and what a yes is worth."""

import asyncio
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import expect

from evergrant import clock as wall_clock
from evergrant.broker.calls.approval_decisions import clear_old_approvals
from evergrant.broker.calls.approvals import MAX_BODY, MOST_PENDING, use_approval
from evergrant.broker.calls.asked import AskedCall
from evergrant.broker.grants.grants import ResourceOwner
from evergrant.broker.runtime.agent_limits import AgentLimits, SessionApp
from evergrant.broker.runtime.broker import Broker, open_broker
from evergrant.broker.runtime.principal import Permission, Principal
from evergrant.errors import ApprovalNeeded, ApprovalRefused, EvergrantError, InvalidValue, RateLimited, RequestTooLarge
from tests.conftest import Clock
from tests.infra.chromium import Person, chromium
from tests.infra.console import words_of
from tests.infra.inspection import AXE, Inspector
from tests.infra.installation import APP_ID, CLIENT_ID, CLIENT_SECRET, Backend, Browser, Installation
from tests.infra.npm import npm_package
from tests.infra.people import refused
from tests.infra.rows import rows
from tests.infra.waiting import in_a_thread

ADA, GRACE = "practice-ada", "practice-grace"
sqlite_is_enough = pytest.mark.parametrize("here", ["sqlite"], indirect=True)
BODY = b'{"to": "grace", "amount": "12.50"}'


@pytest.fixture
def login(here: Installation) -> Iterator[None]:
    """The project's users are the people of the practice provider."""
    here.provider.state.redirect_uris.add(f"{here.url}/login/callback")
    client = {"clientId": CLIENT_ID, "clientSecret": CLIENT_SECRET}
    body = {"issuer": here.provider.url, "audience": "api", "userClaim": "sub", "login": client}
    made = here.backend.http.post("/v1/mgmt/trustedissuer", json=body)
    assert made.status_code == 200, made.text
    yield
    here.backend.http.delete("/v1/mgmt/trustedissuer", params={"id": made.json()["trustedIssuer"]["id"]})


@pytest.fixture
def agent(here: Installation) -> Principal:
    """An agent's session, for Ada."""
    return Principal(
        project_id=here.backend.project_id,
        key_id="",
        permissions=frozenset({Permission.CALLS}),
        app_ids=frozenset({APP_ID}),
        networks=(),
        expires_at=None,
        user_id=ADA,
        agent="claude",
        session=AgentLimits(id="s1", agent_name="Claude Code", apps={APP_ID: SessionApp(app_id=APP_ID)}),
    )


def asked(**more: Any) -> AskedCall:
    headers = ((b"content-type", b"application/json"),)
    return AskedCall(**{"app_id": APP_ID, "method": "POST", "path": "/v1/pay", "headers": headers, **more})


async def use_with(
    broker: Broker, agent: Principal, call: AskedCall, *, body: bytes = BODY, owner: str = "", **more: Any
) -> str:
    """Try to use an approval up, as the proxy does before it sends anything; returns its id."""
    whose = ResourceOwner(owner or agent.user_id, "")
    return await use_approval(broker, agent, call, owner=whose, body=body, rule="session", now=wall_clock.now(), **more)


def use(here: Installation, agent: Principal, call: AskedCall, **more: Any) -> str:
    return str(with_broker(here, lambda broker: use_with(broker, agent, call, **more)))


def with_broker(here: Installation, ask: Any) -> Any:
    async def opened() -> Any:
        async with open_broker(here.settings) as broker:
            return await ask(broker)

    return in_a_thread(opened())


def needed(here: Installation, agent: Principal, call: AskedCall, **more: Any) -> dict[str, Any]:
    """Ask, and return what the error says of the approval that it takes."""
    with pytest.raises(ApprovalNeeded) as caught:
        use(here, agent, call, **more)
    return caught.value.details


def decide(here: Installation, approval_id: str, decision: str = "approve", **more: Any) -> Any:
    return here.backend.post("approval/decide", {"id": approval_id, "decision": decision, **more})


def status(here: Installation, approval_id: str) -> str:
    answer = here.backend.http.get("/v1/mgmt/outbound/approval", params={"id": approval_id})
    return str(answer.json()["approval"]["status"])


def audited(here: Installation, action: str, approval_id: str) -> list[dict[str, Any]]:
    return [
        row
        for row in rows(here.settings, "audit_events")
        if row["action"] == action and approval_id in str(row["data"])
    ]


def sign_in(browser: Browser, url: str, person: str) -> Any:
    """Press the page's button, sign in at the issuer, and return what evergrant answers then."""
    left = browser.http.post(url, data={"decision": "login"})
    assert left.status_code == 303, left.text
    return browser.open(browser.allow(left.headers["location"], person=person))


def test_a_yes_is_for_one_request_to_the_byte_by_one_agent_once(here: Installation, agent: Principal) -> None:
    call = asked(path="/v1/once", query="a=1")
    first = needed(here, agent, call)
    assert needed(here, agent, call)["approvalUrl"] == first["approvalUrl"], "asking again asks nobody twice"
    approved = replace(call, approval_id=first["approvalId"])
    assert needed(here, agent, approved)["approvalId"] == first["approvalId"], "it is yet to be decided"
    assert decide(here, first["approvalId"]).json()["approval"]["status"] == "approved"
    assert needed(here, agent, call)["approvalId"] == first["approvalId"], "only who names it uses it up"
    mine = agent.session
    assert mine is not None
    others: list[tuple[Principal, AskedCall, dict[str, Any]]] = [
        (agent, replace(approved, query="a=2"), {}),
        (agent, replace(approved, path="/v1/Once"), {}),
        (agent, replace(approved, method="PUT"), {}),
        (agent, replace(approved, base="uploads"), {}),
        (agent, replace(approved, headers=((b"Content-Type", b"text/plain"),)), {}),
        (agent, replace(approved, headers=(*call.headers, (b"X-Arguments", b'{"to": "mallory"}'))), {}),
        (agent, approved, {"body": BODY.replace(b"12.50", b"12.51")}),
        (agent, approved, {"connection": "another"}),
        (agent, approved, {"owner": GRACE}),
        (replace(agent, session=replace(mine, id="s2")), approved, {}),
        (replace(agent, agent="other"), approved, {}),
    ]

    async def by_others(broker: Broker) -> None:
        for who, other, more in others:
            with pytest.raises(ApprovalRefused):
                await use_with(broker, who, other, **more)

    with_broker(here, by_others)
    assert status(here, first["approvalId"]) == "approved", "and it stays unused"

    async def at_once(broker: Broker) -> list[Any]:
        # What an SDK writes anew each time is not part of it.
        again = replace(approved, headers=(*call.headers, (b"user-agent", b"sdk/2"), (b"idempotency-key", b"k-2")))
        uses = [use_with(broker, agent, again) for _ in range(5)]
        return list(await asyncio.gather(*uses, return_exceptions=True))

    ends = with_broker(here, at_once)
    assert [one for one in ends if isinstance(one, str)] == [first["approvalId"]]
    assert status(here, first["approvalId"]) == "used"
    assert needed(here, agent, call)["approvalId"] != first["approvalId"], "a second time is another question"
    for action in ("requested", "approved", "used"):
        assert len(audited(here, f"approval.{action}", first["approvalId"])) == 1, action


def test_many_who_ask_the_same_at_once_share_one_question(here: Installation, agent: Principal) -> None:
    async def flood(broker: Broker) -> set[str]:
        found: set[str] = set()

        async def ask(call: AskedCall) -> None:
            with suppress(RateLimited):
                try:
                    await use_with(broker, agent, call, owner="flooded")
                except ApprovalNeeded as error:
                    found.add(error.details["approvalId"])

        await asyncio.gather(*(ask(asked(path="/v1/flood")) for _ in range(8)))
        assert len(found) == 1
        for number in range(MOST_PENDING + 2):
            await ask(asked(path=f"/v1/flood/{number}"))
        return found

    assert len(with_broker(here, flood)) == MOST_PENDING


@sqlite_is_enough
def test_a_no_and_the_end_of_its_time_are_final(here: Installation, agent: Principal, clock: Clock) -> None:
    call = asked(path="/v1/no")
    first = needed(here, agent, call)["approvalId"]
    assert decide(here, first, "refuse", reason="Not to Grace.").status_code == 200
    assert refused(decide(here, first), 409, "E111507")
    for again in (call, replace(call, approval_id=first)):
        with pytest.raises(ApprovalRefused, match=r"Not to Grace\."):
            use(here, agent, again)
    assert len(audited(here, "approval.refused", first)) == 1
    late = needed(here, agent, asked(path="/v1/late"))["approvalId"]
    clock.advance(601)
    assert refused(decide(here, late), 409, "E111507")
    slow = needed(here, agent, asked(path="/v1/slow"))["approvalId"]
    assert decide(here, slow).status_code == 200
    clock.advance(601)
    with pytest.raises(ApprovalRefused):
        use(here, agent, asked(path="/v1/slow", approval_id=slow))
    listed = here.backend.http.get("/v1/mgmt/outbound/approvals", params={"status": "expired", "userId": ADA}).json()
    assert {late, slow} <= {one["id"] for one in listed["approvals"]}
    clock.advance(31 * 86_400)
    assert with_broker(here, lambda broker: clear_old_approvals(broker, now=clock.now)) >= 3
    assert refused(decide(here, late), 404, "E011004")


def test_pages_follow_each_other_newest_first(here: Installation, agent: Principal) -> None:
    made = [needed(here, agent, asked(path=f"/v1/page/{i}"))["approvalId"] for i in range(3)]
    found: list[str] = []
    cursor = ""
    for _ in range(2):
        params = {"status": "pending", "userId": ADA, "cursor": cursor, "limit": "2"}
        page = here.backend.http.get("/v1/mgmt/outbound/approvals", params=params).json()
        found, cursor = found + [one["id"] for one in page["approvals"]], page["nextCursor"]
    assert found[:3] == made[::-1]
    assert refused(here.backend.http.get("/v1/mgmt/outbound/approvals", params={"cursor": "x"}), 400, "E011003")
    for one in made:
        decide(here, one, "refuse")


@sqlite_is_enough
@pytest.mark.parametrize(
    ("call", "body", "error"),
    [
        (asked(), b"a" * (MAX_BODY + 1), RequestTooLarge),
        (asked(headers=((b"Content-Encoding", b"gzip"),)), BODY, InvalidValue),
        (asked(approval_id="nothing"), BODY, ApprovalRefused),
    ],
)
def test_what_nobody_could_read_nobody_can_approve(
    here: Installation, agent: Principal, call: AskedCall, body: bytes, error: type[EvergrantError]
) -> None:
    with pytest.raises(error):
        use(here, agent, call, body=body)


@sqlite_is_enough
def test_who_may_not_does_not_decide(here: Installation, agent: Principal) -> None:
    first = needed(here, agent, asked(path="/v1/whose"))["approvalId"]
    here.backend.create_app({"id": "another", "name": "Another"})
    for limits in ({"permissions": ["calls"]}, {"permissions": ["sessions"], "appIds": ["another"]}):
        made = here.backend.http.put("/v1/mgmt/managementkey", json={"name": "limited", **limits})
        limited = Backend(here.url, here.backend.project_id, made.json()["cleartext"])
        answer = limited.post("approval/decide", {"id": first, "decision": "approve"})
        limited.http.close()
        assert refused(answer, 403, "E011006"), answer.text
    key = Principal(
        project_id=here.backend.project_id,
        key_id=here.backend.management_key.split("_")[1],
        permissions=frozenset({Permission.CALLS}),
        app_ids=frozenset(),
        networks=(),
        expires_at=None,
    )
    own = needed(here, key, asked(path="/v1/own"), owner=ADA)["approvalId"]
    assert "asked for it itself" in decide(here, own).json()["message"]
    assert decide(here, first, "perhaps").status_code == 400


@sqlite_is_enough
def test_without_a_login_only_the_application_decides_and_is_told(here: Installation, agent: Principal) -> None:
    made = here.backend.post(
        "webhook/create", {"url": "https://hooks.example.com/x", "eventTypes": ["approval.requested"]}
    )
    assert made.status_code == 200, made.text
    try:
        found = needed(here, agent, asked(path="/v1/secret-path"))
        (told,) = [
            row["payload"] for row in rows(here.settings, "webhook_deliveries") if found["approvalId"] in row["payload"]
        ]
        assert found["approvalUrl"] in told
        assert "secret-path" not in told
    finally:
        here.backend.post("webhook/delete", {"id": made.json()["webhook"]["id"]})
    browser = here.browser()
    page = browser.open(found["approvalUrl"])
    assert "can decide about it" in words_of(page)
    assert "secret-path" not in page.text
    assert browser.http.post(found["approvalUrl"], data={"decision": "approve"}).status_code == 403
    assert "This link is not valid" in words_of(browser.open(found["approvalUrl"] + "x"))
    opened = here.backend.http.get("/v1/mgmt/outbound/approval", params={"id": found["approvalId"]}).json()["approval"]
    assert (opened["path"], opened["body"], opened["status"]) == ("/v1/secret-path", BODY.decode(), "pending")
    stored = next(row for row in rows(here.settings, "approvals") if row["id"] == found["approvalId"])
    assert urlsplit(found["approvalUrl"]).path.rpartition("/")[2] not in str(stored)


@pytest.mark.usefixtures("login")
def test_only_the_owners_own_browser_sees_and_decides(here: Installation, agent: Principal) -> None:
    call = asked(path="/v1/owned")
    found = needed(here, agent, call)
    url, thief, owner = found["approvalUrl"], here.browser(), here.browser()
    first = words_of(thief.open(url))
    assert "Claude Code asks to use" in first
    assert sign_in(thief, url, GRACE).status_code == 403
    assert "/v1/owned" not in thief.open(url).text
    assert thief.http.post(url, data={"decision": "approve"}).headers["location"].startswith(here.provider.url)
    assert status(here, found["approvalId"]) == "pending", "a wrong user uses nothing up"
    wrong = [row for row in rows(here.settings, "audit_events") if row["action"] == "connect.wrong_user"]
    assert [row for row in wrong if found["approvalId"] in str(row["data"])], "rows come in no order"
    owner.open(url)
    assert sign_in(owner, url, ADA).headers["location"] == urlsplit(url).path
    page = owner.open(url)
    assert "POST /v1/owned" in words_of(page)
    assert "12.50" in page.text
    foreign = owner.http.post(url, data={"decision": "approve"}, headers={"Sec-Fetch-Site": "cross-site"})
    assert foreign.status_code == 400
    assert owner.http.post(url, data={"decision": "approve"}).status_code == 303
    assert owner.http.post(url, data={"decision": "refuse"}).status_code == 303
    assert "This request was approved" in words_of(owner.open(url))
    assert audited(here, "approval.approved", found["approvalId"])[0]["actor"] == f"user:{ADA}"
    assert use(here, agent, replace(call, approval_id=found["approvalId"])) == found["approvalId"]


@sqlite_is_enough
@pytest.mark.usefixtures("login")
def test_the_page_shows_what_is_sent_and_hides_nothing(here: Installation, agent: Principal, tmp_path: Path) -> None:
    """In a real Chromium: light and dark, at any width, by axe; what an agent has written does nothing to the page."""
    body = '<script>alert(1)</script>\u202e{"amount": "1"}'.encode() + b"\xff" + b"x" * 5000
    headers = ((b"content-type", b"application/json"), (b"x-arguments", b'{"dry": true}'))
    call = asked(path="/v1/" + "long/" * 40, query="q=<b>", headers=headers)
    found = needed(here, agent, call, body=body, connection="ada@example.com")
    url, owner = found["approvalUrl"], here.browser()
    owner.open(url)
    sign_in(owner, url, ADA)
    with chromium() as browser, Person(browser, {"reduced_motion": "reduce"}) as person:
        cookie = owner.http.cookies["evergrant-connect"]
        person.context.add_cookies([{"name": "evergrant-connect", "value": cookie, "url": here.url}])
        inspector = Inspector(person, here.url, npm_package(AXE, tmp_path) / "axe.min.js")
        assert inspector.look(url, looks=(("light", 390), ("dark", 1440))) == {}
        page = inspector.page
        shown = page.locator("pre").inner_text()
        assert shown.startswith('x-arguments: {"dry": true}\n\n<script>alert(1)</script>\\u202e{"amount": "1"}\\xff')
        expect(page.get_by_text("it has 5")).to_be_visible()
        page.get_by_label("Reason").fill("Too long")
        page.get_by_role("button", name="Refuse").click()
        expect(page.locator("h1")).to_have_text("This request was refused")
    with pytest.raises(ApprovalRefused, match="Too long"):
        use(here, agent, call, body=body, connection="ada@example.com")
