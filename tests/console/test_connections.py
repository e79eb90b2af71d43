"""Token management at the console, and the calls that do the same."""

import contextlib
import csv
import io
import re
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import product
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import httpx2
import pytest
from playwright.sync_api import expect
from sqlalchemy import event

from evergrant import clock
from evergrant.broker.access.authentication import authenticate
from evergrant.broker.access.management_keys import create_key
from evergrant.broker.activity.attention import count_to_do, take_a_glance
from evergrant.broker.connections import browsing
from evergrant.broker.connections.browsing import ConnectionState, Page, Wanted, browse
from evergrant.broker.connections.listing import GrantFilter, list_grants
from evergrant.broker.connections.summary import summarise
from evergrant.broker.grants.counts import recount, unhealthy_counts, unhealthy_query
from evergrant.broker.grants.directory import enter_missing
from evergrant.broker.grants.events import clear_timelines, tidy_timelines, write_fetches
from evergrant.broker.grants.grants import ResourceOwner
from evergrant.broker.runtime.broker import Broker, open_broker
from evergrant.broker.runtime.list_places import EPOCH, Place
from evergrant.broker.tokens.fetch import FetchRequest, fetch_token
from evergrant.broker.trials.first_steps import first_steps
from evergrant.db.grant import NEEDS_ATTENTION
from evergrant.errors import ReauthorizationRequired
from evergrant.practice.faults import instead
from evergrant.web.app import create_app
from tests.infra.chromium import Person
from tests.infra.console import Operator, cookie_of, words_of
from tests.infra.installation import APP_ID, Backend, Installation
from tests.infra.people import kill, someone
from tests.infra.rows import execute, rows
from tests.infra.waiting import in_a_thread

MOST_STATEMENTS = 6
READS_ALL = r"Seq Scan on (grants|grant_directory)|SCAN (grants|grant_directory)\b|ix_grants_(owner|due)"
"""Or by an index of other purpose, from which each row would be looked at."""
ON_SQLITE = pytest.mark.parametrize("here", ["sqlite"], indirect=True)


def upload(here: Installation, user: str, **fields: Any) -> str:
    """Upload tokens and return the connection's id."""
    body = {"appId": APP_ID, "userId": user, "accessToken": "at-planted", "refreshToken": "rt-planted", **fields}
    answer = here.backend.post("app/user/oauthtoken/upload", body)
    assert answer.status_code == 200, answer.text
    return id_of(here, user)


def id_of(here: Installation, user: str) -> str:
    answer = here.backend.http.get("/v1/mgmt/outbound/tokens", params={"userId": user, "order": "newest"})
    return str(answer.json()["tokens"][0]["id"])


def connect(here: Installation, user: str) -> str:
    here.connected(user)
    return id_of(here, user)


def kinds(here: Installation, grant_id: str) -> list[str]:
    answer = here.backend.get(f"token/events?id={grant_id}")
    assert answer.status_code == 200, answer.text
    return [one["kind"] for one in answer.json()["events"]]


def with_broker(here: Installation, work: Callable[[Broker], Any]) -> Any:
    async def run() -> Any:
        async with open_broker(here.settings) as broker:
            return await work(broker)

    return in_a_thread(run())


def fetch_and_write_down(here: Installation, user: str, *, times: int = 1) -> None:
    """Fetch a token in this process, which then writes its counts down, as a server does each minute."""
    wanted = FetchRequest(app_id=APP_ID, owner=ResourceOwner(user))

    async def fetch(broker: Broker) -> None:
        credential = f"Bearer {here.backend.project_id}:{here.backend.management_key}"
        principal = await authenticate(broker, credential, client_address="127.0.0.1", now=clock.now())
        for _ in range(times):
            with contextlib.suppress(ReauthorizationRequired):
                await fetch_token(broker, principal, wanted, now=clock.now())
        await write_fetches(broker)

    with_broker(here, fetch)


@contextmanager
def key_of(here: Installation, **limits: Any) -> Iterator[Backend]:
    """A backend whose key has these limits."""

    async def create(broker: Broker) -> str:
        async with broker.database.write() as session:
            made = await create_key(session, here.backend.project_id, name="limited", now=clock.now(), **limits)
            return made.text

    backend = Backend(here.url, here.backend.project_id, with_broker(here, create))
    with backend.http:
        yield backend


def test_a_list_shows_each_connection_with_its_state_and_no_secret(here: Installation, operator: Operator) -> None:
    healthy, dead, unrefreshed = someone(), someone(), someone()
    upload(here, healthy)
    execute(
        here.settings,
        f"UPDATE grants SET status = 'reauthorization_required', "
        f"last_refresh_error = 'Practice contacts: invalid_grant: gone.' WHERE id = '{upload(here, dead)}'",
    )
    execute(
        here.settings,
        f"UPDATE grants SET last_refresh_error = 'Practice contacts answered 503. It is tried "
        f"again later.' WHERE id = '{upload(here, unrefreshed)}'",
    )
    page = operator.get("connections")
    said = words_of(page)
    assert page.status_code == 200
    assert f"Healthy {healthy}" in said
    assert re.search(f"Reconnect {dead}.*?invalid_grant: gone", said)
    assert re.search(f"Retrying {unrefreshed}.*?503", said)
    assert "planted" not in page.text
    only = words_of(operator.get("connections?state=reconnect"))
    assert dead in only
    assert not {healthy, unrefreshed} & set(only.split())


def test_a_search_is_by_beginning_and_says_when_nothing_begins_so(here: Installation, operator: Operator) -> None:
    name = uuid.uuid4().hex
    upload(here, f"{name}-ada", tenantId=f"t{name}")
    for words in (name, f"t{name}"[:20], id_of(here, f"{name}-ada")):
        assert f"{name}-ada" in words_of(operator.get(f"connections?q={words}")), words
    for words in (name[1:], f"{name}%", id_of(here, f"{name}-ada")[:-1], "_"):
        address = f"/console/{operator.project_id}/connections"
        assert f"No connection begins with '{words}'" in words_of(operator.http.get(address, params={"q": words}))


@ON_SQLITE
@pytest.mark.parametrize("few", [4, browsing.FEW], ids=["many begin so", "few do"])
def test_a_search_finds_the_same_however_many_begin_so(
    here: Installation, few: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = someone()
    for number in range(5):
        upload(here, f"{name}-{number}")
        upload(here, someone())
    kill(here, f"{name}-1")
    monkeypatch.setattr(browsing, "FEW", few)
    monkeypatch.setattr(browsing, "LOOKED_AT", 3)

    async def leaf(broker: Broker) -> None:
        key = f"Bearer {here.backend.project_id}:{here.backend.management_key}"
        who = await authenticate(broker, key, client_address="127.0.0.1", now=clock.now())
        some = replace(who, app_ids=frozenset({APP_ID, "another"}))
        for principal, oldest, state in product((who, some), (True, False), (None, ConnectionState.HEALTHY)):
            wanted, found = Wanted(search=name, oldest_first=oldest, state=state), []
            page = Page([], Place(EPOCH if oldest else clock.now() + timedelta(days=1), ""))
            while page.following is not None:
                page = await browse(broker, principal, wanted, after=page.following, limit=2)
                found += [one.user_id for one in page.grants]
            there = [f"{name}-{number}" for number in range(5) if state is None or number != 1]
            assert found == (there if oldest else there[::-1])

    with_broker(here, leaf)


def test_a_key_for_some_apps_lists_theirs_by_id(here: Installation) -> None:
    mine = {upload(here, someone()) for _ in range(3)}

    async def leaf(broker: Broker) -> None:
        key = f"Bearer {here.backend.project_id}:{here.backend.management_key}"
        who = await authenticate(broker, key, client_address="127.0.0.1", now=clock.now())
        everything = await list_grants(broker, who, GrantFilter(), after="", limit=1000)
        some = replace(who, app_ids=frozenset({APP_ID, "another"}))
        for which in (GrantFilter(), GrantFilter(status="active"), GrantFilter(app_id=APP_ID)):
            found, after = [], ""
            while True:
                page, after = await list_grants(broker, some, which, after=after, limit=2)
                found += [one.id for one in page]
                if not after:
                    break
            of_app = [one for one in everything[0] if one.app_id == APP_ID]
            assert found == [one.id for one in of_app if which.status in ("", one.status)]
            assert mine <= {*found}

    with_broker(here, leaf)


def test_pages_follow_each_other_both_ways_and_miss_nobody(here: Installation, operator: Operator) -> None:
    tenant = someone()
    users = [f"{tenant}-{number:03}" for number in range(120)]
    at = int(datetime.now(UTC).timestamp())
    items = [
        {"appId": APP_ID, "userId": user, "tenantId": tenant, "refreshToken": "rt", "accessTokenExpiry": at + 3600}
        for user in users
    ]
    answer = here.backend.post("app/user/oauthtoken/batch/upload", {"tokens": items})
    assert answer.status_code == 200, answer.text
    for order in ("", "&order=oldest"):
        seen, pages = [], []
        there = f"/console/{operator.project_id}/connections?tenant={tenant}{order}"
        while there:
            page = operator.get(there)
            pages.append(re.findall(rf">({tenant}-\d+)</bdi></a>", page.text))
            seen += pages[-1]
            older = re.search(r'href="([^"]+)">Older', page.text)
            there = older[1].replace("&amp;", "&") if older else ""
        assert [len(page) for page in pages] == [50, 50, 20]
        assert sorted(seen) == users
        newer = re.search(r'href="([^"]+)"><svg[^>]*>.{0,60}</svg>Newer', page.text)
        assert newer is not None
        back = operator.get(newer[1].replace("&amp;", "&"))
        assert re.findall(rf">({tenant}-\d+)</bdi></a>", back.text) == pages[1]


def test_a_connection_tells_what_happened_to_it(here: Installation, operator: Operator) -> None:
    user = someone()
    grant_id = connect(here, user)
    fetch_and_write_down(here, user, times=3)
    assert here.backend.post("token/refresh", {"id": grant_id}).status_code == 200
    here.provider.state.next_token_answers.append(instead(503))
    assert here.backend.post("token/refresh", {"id": grant_id}).status_code == 503
    assert kinds(here, grant_id).count("refreshed") == 1
    assert set(kinds(here, grant_id)) == {"connected", "refreshed", "fetched", "failed"}
    page = operator.get(f"connections/{grant_id}")
    said = words_of(page)
    assert f"{user} at Practice contacts" in said
    assert "Nothing to do yet. The last refresh failed" in said
    assert "Fetched 3 times" in said
    assert "Because somebody asked for it" in said
    assert "Refresh token rotated" in said
    assert re.search(r"Link made by key \w+", said)
    assert not re.search(r"\b(at|rt)-[A-Za-z0-9]{8}", page.text)
    without = words_of(operator.get(f"connections/{grant_id}?fetches=no"))
    assert "Fetched 3 times" not in without


def test_a_dead_consent_says_who_can_mend_it_and_makes_a_link_once(here: Installation, operator: Operator) -> None:
    user = someone()
    grant_id = connect(here, user)
    kill(here, user)
    fetch_and_write_down(here, user)
    said = words_of(operator.get(f"connections/{grant_id}"))
    assert f"Only {user} can mend this." in said
    assert "Fetch refused" in said
    answer = operator.post(f"connections/{grant_id}/link")
    link = re.search(r'value="(http[^"]+/connect/[^"]+)"', answer.text)
    assert link is not None
    assert answer.headers["cache-control"] == "no-store"
    here.browser().connect(link[1])
    assert here.backend.fetch(user).status_code == 200
    assert "replaced" in kinds(here, grant_id)
    gone = words_of(operator.get(f"connections/{grant_id}"))
    assert "A newer connection took its place." in gone
    assert "Replaced by a newer connection" in gone


def test_revoking_asks_first_and_tells_what_came_of_it(here: Installation, operator: Operator) -> None:
    one, two = connect(here, someone()), connect(here, someone())
    asked = operator.post("connections/selected", {"do": "revoke", "id": [one, two]})
    assert "Revoke and delete 2 connections?" in words_of(asked)
    assert kinds(here, one) == ["connected"]
    done = operator.post("connections/revoke", {"id": [one, two]})
    assert dict(parse_qsl(urlsplit(done.headers["location"]).query)) == {"done": "revoked-some", "revoked": "2"}
    assert "2 connections deleted" in words_of(operator.get(done.headers["location"]))
    assert set(kinds(here, one)) == {"connected", "deleted", "revoked"}
    too_many = operator.post("connections/selected", {"do": "refresh", "id": [f"{n:032x}" for n in range(51)]})
    assert too_many.status_code == 400


def test_ticked_ones_are_refreshed_and_the_failed_are_counted(here: Installation, operator: Operator) -> None:
    one, nothing = connect(here, someone()), "0" * 32
    done = operator.post(
        "connections/selected", {"do": "refresh", "id": [one, nothing], "back": "https://evil.example"}
    )
    assert done.headers["location"].startswith(f"/console/{operator.project_id}/connections?")
    assert "1 connection refreshed." in words_of(operator.get(done.headers["location"]))
    assert kinds(here, one) == ["refreshed", "connected"]


def test_a_person_has_one_page_and_one_end(here: Installation, operator: Operator) -> None:
    user = f"acme/{someone()} ü"
    upload(here, user)
    there = f"people/{user.replace('/', '%2F').replace(' ', '%20')}"
    assert user in words_of(operator.get(there))
    assert f"End all connections of {user}?" in words_of(operator.get(f"{there}?ask=end"))
    assert operator.post(there, {"do": "end"}).status_code == 303
    assert "This person has no connection" in words_of(operator.get(there))


def test_a_persons_page_makes_a_link_to_their_connected_accounts(
    here: Installation, operator: Operator, operator_as: Callable[[str], Operator]
) -> None:
    user = someone()
    upload(here, user)
    made = operator.post(f"people/{user}", {"do": "accounts"})
    link = re.search(r'value="(http[^"]+/accounts/[^"]+)"', made.text)
    assert link is not None
    assert made.headers["cache-control"] == "no-store"
    assert here.backend.http.get(link[1]).status_code == 303
    viewer = operator_as("viewer")
    assert "connected accounts" not in words_of(viewer.get(f"people/{user}"))
    assert viewer.post(f"people/{user}", {"do": "accounts"}).status_code == 403


def test_a_link_says_what_its_maker_typed_to_the_person(here: Installation, operator: Operator) -> None:
    fields = {"app": APP_ID, "user": someone(), "tenant": "t-1", "whole": "on", "tenantLabel": "Lovelace GmbH"}
    wrong = operator.post("connections/new", {**fields, "locale": "xx", "label": "l" * 121})
    assert wrong.status_code == 400
    assert "Use at most 120 characters" in words_of(wrong)
    made = operator.post("connections/new", {**fields, "label": "Ada Lovelace", "locale": "de"})
    link = re.search(r'value="(http[^"]+/connect/[^"]+)"', made.text)
    assert link is not None
    page = here.backend.http.get(link[1])
    assert 'lang="de"' in page.text
    assert "Lovelace GmbH" in page.text


def test_a_link_for_somebody_new_is_made_from_a_form_that_keeps_what_was_typed(
    here: Installation, operator: Operator
) -> None:
    wrong = operator.post("connections/new", {"app": APP_ID, "user": "", "tenant": "kept-here"})
    assert wrong.status_code == 400
    assert 'value="kept-here"' in wrong.text
    assert "Say who will connect" in words_of(wrong)
    user = someone()
    made = operator.post("connections/new", {"app": APP_ID, "user": user})
    link = re.search(r'value="(http[^"]+/connect/[^"]+)"', made.text)
    assert link is not None
    here.browser().connect(link[1])
    assert "Link made by the admin" in words_of(operator.get(f"connections/{id_of(here, user)}"))


def test_a_viewer_sees_no_button_and_may_press_none(here: Installation, operator_as: Callable[[str], Operator]) -> None:
    grant_id, viewer = upload(here, someone()), operator_as("viewer")
    for path in ("connections", f"connections/{grant_id}", f"apps/{APP_ID}/connections"):
        page = viewer.get(path)
        assert page.status_code == 200
        assert not re.search(r"Refresh now|Revoke|connect link|Connect a user", page.text), path
    for path, permission in (
        ("connections/selected", "tokens:write"),
        ("connections/revoke", "tokens:write"),
        (f"connections/{grant_id}/refresh", "tokens:write"),
        (f"connections/{grant_id}/revoke", "tokens:write"),
        (f"connections/{grant_id}/link", "connect"),
        ("connections/new", "connect"),
        ("people/ada", "tokens:write"),
    ):
        refused = viewer.post(path, {"id": grant_id, "do": "end"})
        assert (refused.status_code, f"'{permission}'" in words_of(refused)) == (403, True), path
    assert kinds(here, grant_id) == ["uploaded"]


def test_a_key_of_some_apps_sees_their_connections_only(here: Installation) -> None:
    """Also where it may only read."""
    other = here.backend.new_app(here.provider.registration)
    hidden, shown = someone(), someone()
    upload(here, hidden)
    grant_id = id_of(here, hidden)
    here.backend.post("app/user/oauthtoken/upload", {"appId": other, "userId": shown, "refreshToken": "rt"})
    with key_of(here, permissions=["connections:read"], app_ids=[other]) as backend:
        for query in ("order=newest", "order=newest&state=healthy", f"order=newest&search={hidden}", ""):
            listed = backend.get(f"tokens?{query}").json()["tokens"]
            assert hidden not in {token["userId"] for token in listed}, query
        assert [token["userId"] for token in backend.get("tokens?order=newest").json()["tokens"]] == [shown]
        for path in (f"token?id={grant_id}", f"token/events?id={grant_id}", f"counts?appId={APP_ID}"):
            assert backend.get(path).status_code == 403, path
        assert backend.get("counts").json()["total"] == 1
        exported = backend.post("tokens/export", {}).text
        assert (shown in exported, hidden in exported) == (True, False)
        assert backend.post("tokens/export", {"appId": APP_ID}).status_code == 403
        assert backend.post("token/refresh", {"id": grant_id}).status_code == 403


def test_an_export_is_harmless_and_leaves_one_record(here: Installation, operator: Operator) -> None:
    tenant = someone()
    odd = ["=cmd|' /C calc'!A0", "+1", "-1", "@x", "plain, with a comma"]
    for user in odd:
        upload(here, user, tenantId=tenant)
    answer = operator.post("connections/export", {"tenant": tenant, "order": "oldest"})
    assert answer.headers["content-type"].startswith("text/csv")
    assert "planted" not in answer.text
    lines = list(csv.DictReader(io.StringIO(answer.text)))
    assert [line["userId"] for line in lines] == [f"'{user}" if user[0] in "=+-@" else user for user in odd]
    records = [row for row in rows(here.settings, "audit_events") if row["action"] == "connections.exported"]
    assert re.search("[\"']count[\"']: 5", str(records[-1]["data"]))
    assert records[-1]["tenant_id"] == tenant
    assert records[-1]["actor"] == "operator:the admin"


def test_timelines_are_kept_short_and_go_a_month_after_their_connection(here: Installation) -> None:
    grant_id = upload(here, someone())
    project = here.backend.project_id
    for number in range(70):
        execute(
            here.settings,
            "INSERT INTO grant_events (project_id, grant_id, id, at, n, kind, actor, data) VALUES "
            f"('{project}', '{grant_id}', '{number:012x}', '2026-01-01 00:00:00+00:00', 1, 'refreshed', '', '{{}}')",
        )

    async def tidy(broker: Broker) -> None:
        broker.timelines.note_long([(project, grant_id)])
        await tidy_timelines(broker)

    def kept() -> int:
        return sum(row["grant_id"] == grant_id for row in rows(here.settings, "grant_events"))

    with_broker(here, tidy)
    assert kept() == 50
    assert here.backend.post("token/revoke", {"id": grant_id}).status_code == 200
    now = clock.now()
    with_broker(here, lambda broker: clear_timelines(broker, now=now + timedelta(days=29)))
    assert kept() >= 50
    with_broker(here, lambda broker: clear_timelines(broker, now=now + timedelta(days=31)))
    assert kept() == 0


def test_what_an_older_version_wrote_is_listed_too(here: Installation) -> None:
    user = someone()
    grant_id = upload(here, user)
    execute(here.settings, f"DELETE FROM grant_directory WHERE grant_id = '{grant_id}'")
    assert here.backend.get(f"tokens?userId={user}").json()["tokens"] == []
    with_broker(here, enter_missing)
    assert id_of(here, user) == grant_id


def test_counts_are_exact_while_few_and_counted_for_each_app(here: Installation) -> None:
    app_id = here.backend.new_app(here.provider.registration)
    for _ in range(3):
        body = {"appId": app_id, "userId": someone(), "refreshToken": "rt"}
        assert here.backend.post("app/user/oauthtoken/upload", body).status_code == 200
    execute(
        here.settings,
        f"UPDATE grants SET status = 'reauthorization_required' WHERE app_id = '{app_id}' AND id = "
        f"(SELECT min(id) FROM grants WHERE app_id = '{app_id}')",
    )
    with_broker(here, lambda broker: recount(broker, now=clock.now() + timedelta(minutes=3)))
    counts = here.backend.get(f"counts?appId={app_id}").json()
    assert (counts["total"], counts["exact"], counts["states"]["reconnect"]) == (3, True, 1)
    assert [(one["appId"], one["total"]) for one in counts["apps"]] == [(app_id, 3)]


LISTS: tuple[dict[str, Any], ...] = (
    {},
    {"oldest_first": True},
    *({"state": state} for state in ConnectionState),
    *({"state": state, "app_id": APP_ID} for state in ConnectionState),
    {"app_id": APP_ID},
    {"user_id": "a"},
    {"tenant_id": "a"},
    {"tenant_id": "a", "app_id": APP_ID},
    {"search": "a"},
    {"search": "a", "state": ConnectionState.RECONNECT},
    {"search": "a", "app_id": APP_ID, "oldest_first": True},
)


def test_no_list_and_no_count_reads_all_connections(here: Installation) -> None:
    plans: dict[str, list[str]] = {}

    async def explain(broker: Broker) -> None:
        credential = f"Bearer {here.backend.project_id}:{here.backend.management_key}"
        principal = await authenticate(broker, credential, client_address="127.0.0.1", now=clock.now())
        for first in (None, Place(clock.now(), "a" * 32)):
            for wanted in LISTS:
                with explained(broker, plans, str(wanted)):
                    await browse(broker, principal, Wanted(**wanted), after=first, limit=50)
        with explained(broker, plans, "dead ones by id"):
            dead = GrantFilter(status="reauthorization_required")
            await list_grants(broker, principal, dead, after="", limit=50)
        with explained(broker, plans, "a summary"):
            await summarise(broker, principal)
        for name, statements in plans.items():
            for plan in statements:
                assert not re.search(r"Seq Scan on grants|Seq Scan on grant_directory|SCAN grants(?! USING)", plan), (
                    name
                )

    with_broker(here, explain)
    not_asked = 2  # no app is refused here
    assert len(plans) == len(LISTS) + 2 - not_asked


@ON_SQLITE
def test_each_question_is_answered_by_its_index(here: Installation) -> None:
    """Written for SQLite, which knows no numbers and takes what the words of a statement lead it to."""
    plans: dict[str, list[str]] = {}

    async def ask(broker: Broker) -> None:
        credential = f"Bearer {here.backend.project_id}:{here.backend.management_key}"
        who = await authenticate(broker, credential, client_address="127.0.0.1", now=clock.now())
        for index, which in (
            ("ix_grants_attention_id", GrantFilter(status="reauthorization_required")),
            ("ix_grant_directory_user", GrantFilter(user_id="a")),
            ("ix_grant_directory_tenant", GrantFilter(tenant_id="a")),
            ("ix_grant_directory_app_id", GrantFilter(app_id=APP_ID)),
        ):
            with explained(broker, plans, index):
                await list_grants(broker, who, which, after="a", limit=50)
        with explained(broker, plans, "ix_grants_attention_app"):
            retrying = Wanted(state=ConnectionState.RETRYING, app_id=APP_ID)
            await browse(broker, who, retrying, after=None, limit=50)
            await unhealthy_counts(broker, who.project_id)
        broker.to_do.clear()
        with explained(broker, plans, "ix_grants_attention (project_id=? AND status=?)"):
            await browse(broker, who, Wanted(state=ConnectionState.RECONNECT), after=None, limit=50)
        with explained(broker, plans, "ix_grants_attention_id"):
            await count_to_do(broker, who)
        with explained(broker, plans, "all"):
            await take_a_glance(broker, who, now=clock.now())
            await first_steps(broker, who)

    with_broker(here, ask)
    of_all = "\n".join(plans.pop("all"))
    assert "ix_grants_attention_app" in of_all  # the glance
    assert "ix_grant_directory_user" in of_all  # the first steps
    for index, found in plans.items():
        for plan in found:
            assert index in plan
            assert "TEMP B-TREE FOR GROUP BY" not in plan
    # With parameters in it, the index would still be found, but each row be looked at.
    assert NEEDS_ATTENTION in str(unhealthy_query("P"))
    assert "TEMP B-TREE" not in plans["ix_grants_attention (project_id=? AND status=?)"][0]


@contextmanager
def explained(broker: Broker, plans: dict[str, list[str]], name: str) -> Iterator[None]:
    """Note how the database would run what this block asks, if its tables were too large to be read whole."""

    def look(connection: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        if "grant" not in statement or statement.startswith("EXPLAIN"):
            return
        if broker.database.is_sqlite:
            found = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters).all()
        else:
            connection.exec_driver_sql("SET LOCAL enable_seqscan = off")
            found = connection.exec_driver_sql(f"EXPLAIN {statement}", parameters).all()
        plans.setdefault(name, []).append("\n".join(str(row[-1]) for row in found))

    engine = broker.database.engine.sync_engine
    event.listen(engine, "before_cursor_execute", look)
    try:
        yield
    finally:
        event.remove(engine, "before_cursor_execute", look)


@ON_SQLITE
def test_a_page_asks_the_database_at_most_six_times(here: Installation) -> None:
    grant_id, project = connect(here, someone()), here.backend.project_id
    name, value = cookie_of(here.settings)
    asked: list[str] = []

    async def count() -> dict[str, int]:
        found = {}
        app = create_app(here.settings)
        async with app.router.lifespan_context(app):
            engine = app.state.broker.database.engine.sync_engine
            event.listen(engine, "before_cursor_execute", lambda *args: asked.append(args[2]))
            transport = httpx2.ASGITransport(app=app)
            async with httpx2.AsyncClient(transport=transport, base_url=here.url, cookies={name: value}) as http:
                await http.get(f"/console/{project}")
                for path in (
                    "connections",
                    "connections?state=app_refused",
                    "connections?q=a",
                    f"apps/{APP_ID}/connections",
                    f"connections/{grant_id}",
                    "people/ada",
                ):
                    counts = []
                    for _ in range(3):  # what a chore asks meanwhile, or a memory that ran out, is not there each time
                        asked.clear()
                        answer = await http.get(f"/console/{project}/{path}")
                        assert answer.status_code == 200, path
                        counts.append(len([one for one in asked if one.startswith(("SELECT", "WITH"))]))
                    found[path] = min(counts)
        return found

    assert {path: n for path, n in in_a_thread(count()).items() if n > MOST_STATEMENTS} == {}


@ON_SQLITE
def test_a_rows_menu_works_in_a_browser_and_copies_the_whole_id(here: Installation, admin_person: Person) -> None:
    user = someone()
    grant_id = connect(here, user)
    admin_person.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page = admin_person.tab()
    page.goto(f"{here.url}/console/{here.backend.project_id}/connections?q={user}")
    page.get_by_role("link", name=f"Actions for {user}").click()
    page.get_by_role("button", name="Copy ID").click()
    expect(page.get_by_role("button", name="Copied")).to_be_visible()
    assert page.evaluate("navigator.clipboard.readText()") == grant_id
    page.get_by_role("button", name="Refresh now").click()
    expect(page.get_by_role("heading", name=f"{user} at Practice contacts")).to_be_visible()
    expect(page.get_by_text("gave a new token")).to_be_visible()
