"""Connected accounts, for the people whose they are: the link, the session, what is shown and what may be done."""

import asyncio
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest

from evergrant import clock as wall_clock
from evergrant.broker.portal.sessions import clear_visits, write_visit_uses
from evergrant.broker.runtime.broker import open_broker
from tests.conftest import Clock
from tests.infra.installation import APP_ID, SCOPES, Backend, Installation
from tests.infra.issuer import Issuer
from tests.infra.people import call, kill, refused, someone, trust
from tests.infra.rows import execute, rows
from tests.infra.scripted import serving
from tests.infra.visits import RETURN, Visitor, accounts_in, said, session_url
from tests.trips.conftest import CreateApp

pytestmark = pytest.mark.parametrize("here", ["sqlite"], indirect=True)  # the attacks on it run on both

Visit = Callable[..., Visitor]
KEYS = "/v1/mgmt/managementkey"
WORDS = [
    {"value": "contacts.readonly", "description": "See your contacts"},
    {"value": "openid", "description": "Know which account this is"},
    {"value": "email", "description": ""},
]
WITH_EMAIL = [*SCOPES, "email"]


@pytest.fixture
def visit(here: Installation) -> Visit:
    """Open a user's connected accounts in a browser of its own."""

    def open_it(user: str, *, backend: Backend = here.backend, **fields: Any) -> Visitor:
        answer = backend.post("accounts/session", {"userId": user, "returnUrl": RETURN, **fields})
        visitor = Visitor(here)
        page = visitor.open(answer.json()["url"])
        assert page.status_code == 200, page.text
        return visitor

    return open_it


@pytest.fixture
def limited(here: Installation) -> Iterator[Callable[..., Backend]]:
    """Make a backend whose key has these limits."""
    made: list[Backend] = []

    def make(**limits: Any) -> Backend:
        key = here.backend.http.put(KEYS, json={"name": f"key {len(made)}", **limits}).json()
        made.append(Backend(here.url, here.backend.project_id, key["cleartext"]))
        return made[-1]

    yield make
    for one in made:
        one.http.close()


def grant_of(here: Installation, user: str, **fields: Any) -> str:
    return str(here.backend.token(user, **fields)["id"])


def listed(here: Installation, user: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = here.backend.get(f"tokens?userId={user}").json()["tokens"]
    return found


# The link and the session


def test_a_link_shows_a_user_their_accounts_and_opens_once(here: Installation, user: str) -> None:
    here.connected(user)
    link, visitor, other = session_url(here, user, userLabel="Ada Lovelace"), Visitor(here), Visitor(here)
    page = visitor.open(link)
    assert (page.status_code, page.url.path) == (200, "/accounts")
    assert "Services that Shop may use for Ada Lovelace ." in said(page)
    assert "practice-ada · since" in said(page)
    assert visitor.open(link).status_code == 200  # the same browser may come again
    second = other.open(link)
    assert second.status_code == 404
    assert "Open this page again from the application." in said(second)


def test_a_link_waits_for_a_minute(here: Installation, user: str, clock: Clock) -> None:
    in_time, late = session_url(here, user), session_url(here, user)
    clock.advance(59)
    assert Visitor(here).open(in_time).status_code == 200
    clock.advance(2)
    assert Visitor(here).open(late).status_code == 404


def test_what_fetches_links_without_a_person_uses_nothing_up(here: Installation, user: str) -> None:
    link, robot = session_url(here, user), Visitor(here)
    assert robot.get(link, headers={"Sec-Purpose": "prefetch"}).status_code == 503
    again = robot.get(link)
    assert again.status_code == 303
    robot.browser.http.cookies.clear()  # it keeps none
    assert "Your browser blocks our cookie" in said(robot.get(again.headers["location"]))
    assert Visitor(here).open(link).status_code == 200


def test_a_visit_ends_after_half_an_hour_and_after_a_quarter_without_use(
    here: Installation, visit: Visit, user: str, clock: Clock
) -> None:
    used, idle = visit(user), visit(user)
    clock.advance(14 * 60)
    assert used.open().status_code == 200
    clock.advance(2 * 60)
    over = idle.open()
    assert over.status_code == 404
    assert "Open this page again from Shop ." in said(over)
    assert f'href="{RETURN}"' in over.text
    assert used.open().status_code == 200
    clock.advance(14 * 60 + 1)
    assert used.open().status_code == 404
    assert used.connect().status_code == 404


def test_a_visit_ends_with_the_key_that_asked_for_it(
    here: Installation, visit: Visit, user: str, limited: Callable[..., Backend]
) -> None:
    backend = limited(permissions=["connect"])
    visitor = visit(user, backend=backend)
    here.connected(user)
    key_id = backend.management_key.split("_")[1]
    assert accounts_in(visitor.open()) == []  # it may delete nothing
    execute(here.settings, f"UPDATE management_keys SET disabled = true WHERE id = '{key_id}'")
    assert visitor.open().status_code == 404
    assert visitor.connect().status_code == 404


def test_uses_of_visits_are_written_down_and_those_that_are_over_are_cleared(
    here: Installation, visit: Visit, user: str, clock: Clock
) -> None:
    link = session_url(here, user)
    assert link.rpartition("/")[2] not in str(rows(here.settings, "portal_sessions"))  # a digest, and no more
    visitor = visit(user)

    async def chores(later: timedelta) -> None:
        async with open_broker(here.settings) as broker:
            [mine] = [row for row in rows_of if row["user_id"] == user and row["digest"]]
            broker.uses.visits.note_latest(mine["id"], wall_clock.now() + timedelta(minutes=14))
            await write_visit_uses(broker)
            await clear_visits(broker, now=wall_clock.now() + later)

    rows_of = rows(here.settings, "portal_sessions")
    asyncio.run(chores(timedelta(hours=24)))
    clock.advance(20 * 60)  # 6 minutes after the last use
    assert visitor.open().status_code == 200
    asyncio.run(chores(timedelta(days=2)))
    assert [row for row in rows(here.settings, "portal_sessions") if row["user_id"] == user] == []


def test_making_and_opening_are_in_the_audit_log(here: Installation, visit: Visit, user: str) -> None:
    visit(user)
    events = [row for row in rows(here.settings, "audit_events") if row["user_id"] == user]
    assert {row["action"] for row in events} >= {"accounts.link_made", "accounts.opened"}


# Who may ask for one


def test_a_key_needs_the_permission_and_one_that_deletes_to_let_disconnect(
    here: Installation, limited: Callable[..., Backend], user: str
) -> None:
    body = {"userId": user}
    assert refused(limited(permissions=["apps:read"]).post("accounts/session", body), 403, "E011006")
    connects = limited(permissions=["connect"])
    assert connects.post("accounts/session", body).status_code == 200
    assert connects.post("accounts/session", {**body, "allow": ["disconnect"]}).status_code == 403
    deletes = limited(permissions=["connect", "tokens:write"])
    assert deletes.post("accounts/session", {**body, "allow": ["disconnect"]}).status_code == 200
    of_one = limited(permissions=["connect"], appIds=[APP_ID])
    assert of_one.post("accounts/session", {**body, "appIds": ["another"]}).status_code == 403


def test_a_users_own_token_is_enough_for_that_user_alone(here: Installation, user: str) -> None:
    here.connected(user)
    with serving(Issuer()) as issuer:
        trust(here.backend, issuer)
        path, token = "accounts/session", issuer.session(user)
        answer = call(here, path, token, {})
        assert answer.status_code == 200, answer.text
        visitor = Visitor(here)
        [mine] = accounts_in(visitor.open(answer.json()["url"]))
        assert visitor.disconnect(mine).status_code == 303
        assert call(here, path, token, {"userId": "bob"}).status_code == 403
        assert call(here, path, token, {"userId": user, "tenantId": "acme"}).status_code == 403
        assert call(here, path, issuer.machine("acme"), {"userId": user}).status_code == 403


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"returnUrl": "https://evil.example.com/"}, "returnUrl"),
        ({"appIds": ["nothing"]}, "appIds"),
        ({"scopes": {"nothing": ["a"]}}, "scopes"),
        ({"scopes": {APP_ID: ["a b"]}}, f"scopes.{APP_ID}"),
        ({"userLabel": "x" * 121}, "userLabel"),
        ({"allow": ["fetch"]}, "allow[0]"),
        ({"userId": ""}, "userId"),
    ],
)
def test_what_cannot_be_used_is_named(here: Installation, user: str, fields: dict[str, Any], field: str) -> None:
    answer = here.backend.post("accounts/session", {"userId": user, **fields})
    assert answer.status_code == 400
    assert [entry["field"] for entry in answer.json()["details"]["fields"]] == [field]


# What is shown


def test_nobody_elses_accounts_are_shown_or_ended(here: Installation, visit: Visit, user: str) -> None:
    bob = someone()
    here.connected(user)
    here.connected(bob)
    here.connected(user, tenantId="acme")
    visitor = visit(user)
    assert accounts_in(visitor.open()) == [grant_of(here, user)]
    for foreign in (grant_of(here, bob), grant_of(here, user, tenantId="acme"), "0" * 32):
        assert visitor.disconnect(foreign).status_code == 404
        assert visitor.connect(again=foreign).status_code == 404
    assert len(listed(here, bob)) == 1
    assert accounts_in(visit(user, tenantId="acme").open()) == [grant_of(here, user, tenantId="acme")]


def test_what_a_tenant_shares_is_shown_and_cannot_be_ended(here: Installation, visit: Visit, user: str) -> None:
    tenant = someone()
    here.connected("charles", tenantId=tenant, tenantLevel=True)
    shared = here.backend.post("app/tenant/token", {"appId": APP_ID, "tenantId": tenant, "scopes": SCOPES}).json()
    visitor = visit(user, tenantId=tenant, tenantLabel="Lovelace & Co")
    page = visitor.open()
    assert "For everyone at Lovelace & Co · connected by charles" in said(page)
    assert accounts_in(page) == []
    assert visitor.disconnect(shared["token"]["id"]).status_code == 404
    assert "Nothing is connected yet." in said(visit(user).open())


def test_an_account_says_who_it_is_since_when_and_what_may_be_done(
    here: Installation, visit: Visit, user: str, create_app: CreateApp
) -> None:
    app_id = create_app(scopes=WORDS, defaultScopes=WITH_EMAIL, name=f"Contacts {user}")
    here.connected(user, appId=app_id)
    page = said(visit(user).open())
    now = wall_clock.now()
    assert f"Contacts {user} ada@example.com · since {now.day} {now:%B} {now.year} · not used yet" in page
    assert "What Shop may do See your contacts Know which account this is" in page
    assert f"A permission that Contacts {user} calls email" in page
    assert listed(here, user)[0]["details"] == {"email": "ada@example.com"}
    # What a fetch answers can be uploaded again, with that.
    fetched = here.backend.token(user, appId=app_id, scopes=WITH_EMAIL, options={"withRefreshToken": True})
    assert here.backend.post("app/user/oauthtoken/upload", fetched).status_code == 200


def test_only_the_apps_of_the_visit_are_there(
    here: Installation, visit: Visit, user: str, create_app: CreateApp
) -> None:
    mine, other = create_app(), create_app()
    here.connected(user)
    page = visit(user, appIds=[mine]).open()
    assert mine in page.text
    assert other not in page.text
    assert accounts_in(page) == []
    visitor = visit(user, appIds=[mine])
    assert visitor.connect(other).status_code == 403
    assert visitor.disconnect(grant_of(here, user)).status_code == 403


def test_the_page_lets_do_what_it_was_opened_for_and_no_more(here: Installation, visit: Visit, user: str) -> None:
    here.connected(user)
    looks, ends = visit(user, allow=["connect"]), visit(user, allow=["disconnect"])
    assert accounts_in(looks.open()) == []
    assert looks.disconnect(grant_of(here, user)).status_code == 403
    assert "/accounts/connect" not in ends.open().text
    assert ends.connect().status_code == 403
    assert len(listed(here, user)) == 1


# What is done


def test_connecting_comes_back_to_the_page(here: Installation, visit: Visit, user: str) -> None:
    visitor = visit(user)
    answer = visitor.connect()
    assert answer.status_code == 303
    page = visitor.go_through(answer.headers["location"])
    assert page.url.path == "/accounts"
    assert "Practice contacts is connected." in said(page)
    assert accounts_in(page) == [grant_of(here, user)]


def test_saying_no_is_told_apart(here: Installation, visit: Visit, user: str) -> None:
    visitor = visit(user)
    page = visitor.go_through(visitor.connect().headers["location"], action="deny")
    assert "Nothing was connected. You said no, or Practice contacts did." in said(page)


def test_nobody_makes_the_page_say_what_did_not_happen(here: Installation, visit: Visit, user: str) -> None:
    other = visit(someone())
    other.go_through(other.connect().headers["location"])
    trips = [row["id"] for row in rows(here.settings, "authorization_requests") if row["portal_id"]]
    assert trips
    visitor = visit(user)
    here.connected(user)
    for one in trips:
        assert "is connected." not in said(visitor.open(f"/accounts?trip={one}"))
    kept = grant_of(here, user)
    assert "is disconnected" not in said(visitor.open(f"/accounts?ended={kept}&of={APP_ID}&told=revoked"))


def test_a_broken_account_comes_first_and_is_mended_in_place(
    here: Installation, visit: Visit, user: str, create_app: CreateApp
) -> None:
    app_id = create_app(name=f"Aardvark {user}")
    here.connected(user, appId=app_id)
    here.connected(user)
    kill(here, user)
    visitor = visit(user)
    page = visitor.open()
    text = said(page)
    assert text.index("Practice contacts Access ended") < text.index(f"Aardvark {user}")
    assert "Until it is connected again, Shop cannot use it." in text
    [broken] = [one["id"] for one in listed(here, user) if one["status"] != "active"]
    mended = visitor.go_through(visitor.connect(again=broken).headers["location"])
    assert "Access ended" not in said(mended)
    assert here.backend.fetch(user).status_code == 200


def test_another_account_of_an_app_stands_beside_the_first(here: Installation, visit: Visit, user: str) -> None:
    visitor = visit(user)
    visitor.go_through(visitor.connect().headers["location"])
    page = visitor.go_through(visitor.connect(another="1").headers["location"], person="practice-grace")
    assert len(accounts_in(page)) == 2
    assert sorted(one["tokenSub"] for one in listed(here, user)) == ["practice-ada", "practice-grace"]
    assert sorted(bool(one["externalIdentifier"]) for one in listed(here, user)) == [False, True]


def test_disconnecting_ends_it_here_and_at_the_provider_and_is_the_users_deed(
    here: Installation, visit: Visit, user: str
) -> None:
    here.connected(user)
    token = here.backend.token(user)
    visitor = visit(user)
    page = visitor.open()
    assert "Shop loses access to practice-ada at once, and Practice contacts is told to end it." in said(page)
    answer = visitor.disconnect(token["id"])
    done = visitor.open(answer.headers["location"])
    assert "Practice contacts is disconnected. Practice contacts has ended it too." in said(done)
    assert "Nothing is connected yet." in said(done)
    assert not here.provider.lets_in(token)
    [event] = [
        row
        for row in rows(here.settings, "audit_events")
        if row["user_id"] == user and row["action"] == "token.deleted"
    ]
    assert event["actor"] == f"user:{user}"


def test_a_form_of_another_site_does_nothing(here: Installation, visit: Visit, user: str) -> None:
    here.connected(user)
    visitor, grant = visit(user), grant_of(here, user)
    for site in ("cross-site", "same-site", "none"):
        for act in ("connect", "disconnect"):
            data = {"app": APP_ID, "account": grant}
            assert visitor.post(act, data=data, headers={"Sec-Fetch-Site": site}).status_code == 403
    assert len(listed(here, user)) == 1


def test_an_app_that_wants_a_confirmation_ends_at_the_application(
    here: Installation, visit: Visit, user: str, create_app: CreateApp
) -> None:
    app_id = create_app(requireConfirmation=True)
    visitor = visit(user)
    browser = here.browser()
    link = visitor.connect(app_id).headers["location"]
    back = browser.connect(link)
    assert back["outboundStatus"] == "connected"
    assert back["confirmation"]
    assert accounts_in(visitor.open()) == []  # it is nobody's yet
    without = visit(user, returnUrl="")
    assert app_id not in without.open().text  # nobody would confirm it


def test_policies_hold_for_a_visit_as_for_whoever_asked_for_it(
    here: Installation, visit: Visit, user: str, create_app: CreateApp, limited: Callable[..., Backend]
) -> None:
    app_id = create_app()
    admitted, other = limited(permissions=["connect"]), limited(permissions=["connect"])
    key_id = admitted.management_key.split("_")[1]
    made = here.backend.post("policies", {"appId": app_id, "action": "connect", "keyIds": [key_id]})
    assert made.status_code == 200, made.text
    assert visit(user, backend=admitted).connect(app_id).status_code == 303
    denied = visit(user, backend=other).connect(app_id)
    assert denied.status_code == 403
    assert "Shop does not let you do this." in said(denied)
