"""Access that nobody uses any more ends at the provider too, however its connection went; and no other one with it.

Whoever got somebody to consent, broke a trip off or took another's place leaves nothing open at the provider. And what
is revoked for that reason never ends a connection that still works: many providers end all that a person has granted
to a client when one token is revoked.
"""

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import httpx2
import pytest
from pydantic import SecretStr

from evergrant import clock as wall_clock
from evergrant.broker.connect import stored_consents
from evergrant.broker.connect.confirmation import clear_finished_requests
from evergrant.broker.grants.grants import load_grant, owner_of, token_slot
from evergrant.broker.refresh import until_stored
from evergrant.broker.refresh.replay import replay_journal
from evergrant.broker.revocations import deleting, replaced
from evergrant.broker.revocations.revoking import begin_revocations
from evergrant.broker.runtime.broker import open_broker
from evergrant.broker.runtime.journal import Journal
from evergrant.broker.runtime.journal_entry import Entry
from evergrant.broker.runtime.worker_pool import WorkerPool
from evergrant.crypto.kms.local import new_master_key
from tests.conftest import Clock
from tests.infra.installation import BACK, Installation, came_back
from tests.infra.issuer import Issuer
from tests.infra.rows import execute, expire, rows
from tests.infra.scripted import Request, serving
from tests.infra.waiting import PATIENCE


class Accounts(Issuer):
    """A provider at which the code says whose account it is: `ann-1` is the first consent of ann's account."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.routes |= {"/token": self.tokens, "/userinfo": self.userinfo, "/revoke": {}}

    def tokens(self, request: Request) -> Any:
        """Answer a code with tokens of its name, and a refresh token with longer ones."""
        name = request.form.get("code") or f"{request.form['refresh_token'].removeprefix('rt-')}+"
        return {"access_token": f"at-{name}", "refresh_token": f"rt-{name}", "expires_in": 3600}

    def userinfo(self, request: Request) -> Any:
        """Tell whose account a token is for."""
        return {"sub": request.headers["authorization"].split("-")[1]}

    def revoked(self, here: Installation) -> list[str]:
        """Return what was revoked here, after the background has had its turn."""
        asyncio.run(revoke_due(here))
        return [form["token"] for form in self.forms_at("/revoke")]


async def revoke_due(here: Installation) -> None:
    async with open_broker(here.settings) as broker:
        pool: WorkerPool[str] = WorkerPool(most=10, most_per_key=1)
        await begin_revocations(broker, pool, asyncio.Event(), now=wall_clock.now())
        await pool.drain()


def clear(here: Installation, clock: Clock) -> None:
    """Do what the chores do with trips that are over."""

    async def run() -> None:
        async with open_broker(here.settings) as broker:
            await clear_finished_requests(broker, now=clock.now)

    asyncio.run(run())


@pytest.fixture
def accounts() -> Iterator[Accounts]:
    with serving(Accounts()) as provider:
        yield provider


@pytest.fixture(params=["subjects are known", "subjects are unknown"])
def is_told(request: pytest.FixtureRequest) -> bool:
    """Whether the provider says whose account it is."""
    return bool(request.param == "subjects are known")


def new_app(here: Installation, accounts: Accounts, *, is_told: bool = True, **fields: Any) -> str:
    who = {"userinfoUrl": f"{accounts.url}/userinfo"} if is_told else {}
    app = accounts.registration("", revocationUrl=f"{accounts.url}/revoke", **who, **fields)
    return here.backend.new_app(app)


def trip(here: Installation, app_id: str, user: str, code: str, **fields: Any) -> dict[str, str]:
    """Go through a trip with the account that `code` says, and return what comes back to the application."""
    browser = here.browser()
    asked = httpx2.URL(browser.agree(here.backend.connect_url(user, appId=app_id, **fields))).params
    back = browser.open(str(httpx2.URL(asked["redirect_uri"], params={"state": asked["state"], "code": code})))
    assert back.status_code == 303, back.text
    return came_back(back)


def connected(here: Installation, app_id: str, user: str, code: str, **fields: Any) -> None:
    back = trip(here, app_id, user, code, **fields)
    assert back["outboundStatus"] == "connected", back


def confirm(here: Installation, back: dict[str, str], user: str) -> int:
    body = {"confirmation": back["confirmation"], "userId": user}
    return here.backend.post("app/connect/confirm", body).status_code


def works(here: Installation, app_id: str, user: str, **fields: Any) -> str:
    return str(here.backend.token(user, appId=app_id, scopes=["files"], **fields)["accessToken"])


def reasons(here: Installation, app_id: str) -> list[str]:
    """Why the audit log says that something of an app was revoked."""
    found = here.backend.http.post("/v1/mgmt/audit/search", json={"actions": ["token.revoked"], "text": app_id})
    return [record["data"]["reason"] for record in reversed(found.json()["audits"])]


# refused and never confirmed


def test_an_attacker_whose_victim_connects_in_her_name_leaves_nothing_open_at_the_provider(
    here: Installation, accounts: Accounts, user: str, is_told: bool
) -> None:
    app_id = new_app(here, accounts, is_told=is_told, requireConfirmation=True)
    assert confirm(here, trip(here, app_id, user, "own-1"), user) == 200
    back = trip(here, app_id, user, "victim-1")
    assert confirm(here, back, f"victim-of-{user}") == 404
    assert accounts.revoked(here) == ["rt-victim-1"]
    assert reasons(here, app_id) == ["refused"]
    assert works(here, app_id, user) == "at-own-1", "what was confirmed is left alone"


def test_an_attacker_cannot_end_a_victims_own_connection_by_a_trip_that_is_refused(
    here: Installation, accounts: Accounts, user: str, is_told: bool
) -> None:
    app_id, victim = new_app(here, accounts, is_told=is_told, requireConfirmation=True), f"victim-of-{user}"
    assert confirm(here, trip(here, app_id, victim, "victim-1"), victim) == 200
    assert confirm(here, trip(here, app_id, user, "victim-2"), victim) == 404
    assert accounts.revoked(here) == []
    assert works(here, app_id, victim) == "at-victim-1"


def test_a_consent_that_nobody_confirms_does_not_stay_open_at_the_provider(
    here: Installation, accounts: Accounts, user: str, clock: Clock, is_told: bool
) -> None:
    app_id = new_app(here, accounts, is_told=is_told, requireConfirmation=True)
    trip(here, app_id, user, "ann-1")
    assert confirm(here, trip(here, app_id, f"other-{user}", "bob-1"), f"other-{user}") == 200
    clock.advance(15 * 60 + 3600 - 1)
    clear(here, clock)
    assert accounts.revoked(here) == []
    clock.advance(1)
    clear(here, clock)
    assert accounts.revoked(here) == ["rt-ann-1"]
    assert reasons(here, app_id) == ["unconfirmed"]
    assert not [row for row in rows(here.settings, "grants") if row["user_id"] == user]
    expire(here.settings, f"other-{user}")
    assert works(here, app_id, f"other-{user}") == "at-bob-1+"


def test_a_second_consent_that_nobody_confirms_does_not_end_the_first(
    here: Installation, accounts: Accounts, user: str, clock: Clock, is_told: bool
) -> None:
    app_id = new_app(here, accounts, is_told=is_told, requireConfirmation=True)
    assert confirm(here, trip(here, app_id, user, "ann-1"), user) == 200
    trip(here, app_id, user, "ann-2")
    clock.advance(15 * 60 + 3600)
    clear(here, clock)
    assert accounts.revoked(here) == []
    assert [row["status"] for row in rows(here.settings, "grants") if row["user_id"] == user] == ["active"]


def test_a_confirmation_that_comes_too_late_ends_the_consent_at_the_provider(
    here: Installation, accounts: Accounts, user: str, clock: Clock
) -> None:
    app_id = new_app(here, accounts, requireConfirmation=True)
    back = trip(here, app_id, user, "ann-1")
    clock.advance(15 * 60)
    assert confirm(here, back, user) == 404
    assert (accounts.revoked(here), reasons(here, app_id)) == (["rt-ann-1"], ["unconfirmed"])


def test_a_revocation_that_is_tried_again_does_not_end_what_was_connected_meanwhile(
    here: Installation, accounts: Accounts, user: str, clock: Clock, is_told: bool
) -> None:
    """The provider was away when the attacker's trip was refused; until it is back, the victim connects by himself."""
    app_id, victim = new_app(here, accounts, is_told=is_told, requireConfirmation=True), f"victim-of-{user}"
    accounts.routes["/revoke"] = (503, {})
    assert confirm(here, trip(here, app_id, user, "victim-1"), victim) == 404
    assert confirm(here, trip(here, app_id, user, "other-1"), f"other-victim-of-{user}") == 404
    assert confirm(here, trip(here, app_id, victim, "victim-2"), victim) == 200
    accounts.routes["/revoke"] = {}
    tried = len(accounts.forms_at("/revoke"))
    clock.advance(120)
    assert accounts.revoked(here)[tried:] == ["rt-other-1"], "and nothing of the victim's"
    assert works(here, app_id, victim) == "at-victim-2"
    of_app = [row for row in rows(here.settings, "audit_events") if row["app_id"] == app_id]
    assert [row["action"] for row in of_app if "made meanwhile" in str(row["data"])] == ["token.revocation_failed"]
    assert not [row for row in rows(here.settings, "revocations") if row["app_id"] == app_id]


# trips that fail after the provider has given tokens


def fails(here: Installation, app_id: str, user: str, code: str) -> str:
    back = trip(here, app_id, user, code)
    assert back["outboundStatus"] == "failed", back
    return back["err"]


def test_a_trip_whose_id_token_is_another_trips_leaves_nothing_open(
    here: Installation, accounts: Accounts, user: str
) -> None:
    signed = {"issuer": accounts.url, "jwksUrl": f"{accounts.url}/jwks"}
    app_id = new_app(here, accounts, is_told=False, defaultScopes=["files", "openid"], **signed)

    def contradicting(request: Request) -> Any:
        claims = {"aud": "evergrant", "nonce": "of another trip"}
        return {**accounts.tokens(request), "id_token": accounts.session("ann", **claims)}

    accounts.routes["/token"] = contradicting
    assert fails(here, app_id, user, "ann-1") == "invalid_id_token"
    assert (accounts.revoked(here), reasons(here, app_id)) == (["rt-ann-1"], ["failed"])


@pytest.mark.parametrize("change", ["the app is another tenant's", "the app is gone"])
def test_a_trip_whose_app_changes_under_it_leaves_nothing_open(
    here: Installation, accounts: Accounts, user: str, change: str
) -> None:
    app_id = new_app(here, accounts)

    async def while_it_changes(request: Request) -> Any:
        if change == "the app is gone":
            await asyncio.to_thread(here.backend.post, "app/delete", {"id": app_id})
        else:
            change_it = f"UPDATE outbound_apps SET tenant_id = 'acme' WHERE id = '{app_id}'"
            await asyncio.to_thread(execute, here.settings, change_it)
        return accounts.tokens(request)

    accounts.routes["/token"] = while_it_changes
    fails(here, app_id, user, "ann-1")
    assert (accounts.revoked(here), reasons(here, app_id)) == (["rt-ann-1"], ["failed"])


REFUSE = {
    "sqlite": ["CREATE TRIGGER no_{0} BEFORE INSERT ON {0} BEGIN SELECT RAISE(ABORT, 'no'); END"],
    "postgresql": [
        "CREATE FUNCTION no_{0}() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'no'; END $$",
        "CREATE TRIGGER no_{0} BEFORE INSERT ON {0} FOR EACH ROW EXECUTE FUNCTION no_{0}()",
    ],
}
TAKE = {"sqlite": ["DROP TRIGGER no_{0}"], "postgresql": ["DROP FUNCTION no_{0} CASCADE"]}


@pytest.fixture
def refusing(here: Installation, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Let the database take no new rows of a table, until the test ends."""
    monkeypatch.setattr(until_stored, "PAUSE", (0.0, 0.0))
    kind, refused = "sqlite" if here.settings.uses_sqlite else "postgresql", list[str]()

    def refuse(table: str) -> None:
        for statement in REFUSE[kind]:
            execute(here.settings, statement.format(table))
        refused.append(table)

    yield refuse
    for table in refused:
        for statement in TAKE[kind]:
            execute(here.settings, statement.format(table))


@pytest.mark.parametrize("tables", [["grants"], ["grants", "revocations"]])
def test_a_trip_that_the_database_does_not_take_leaves_nothing_open(
    here: Installation, accounts: Accounts, user: str, refusing: Any, tables: list[str]
) -> None:
    app_id = new_app(here, accounts)
    for table in tables:
        refusing(table)
    assert fails(here, app_id, user, "ann-1") == "server_error"
    assert accounts.revoked(here) == ["rt-ann-1"]


def test_a_second_consent_that_fails_does_not_end_the_first(
    here: Installation, accounts: Accounts, user: str, refusing: Any, is_told: bool
) -> None:
    app_id = new_app(here, accounts, is_told=is_told)
    connected(here, app_id, user, "ann-1")
    refusing("grants")
    fails(here, app_id, user, "ann-2")
    assert accounts.revoked(here) == []
    assert works(here, app_id, user) == "at-ann-1"


def test_a_second_consent_with_another_account_that_fails_ends_alone(
    here: Installation, accounts: Accounts, user: str, refusing: Any
) -> None:
    app_id = new_app(here, accounts)
    connected(here, app_id, user, "ann-1")
    refusing("grants")
    fails(here, app_id, user, "bob-1")
    assert accounts.revoked(here) == ["rt-bob-1"]
    assert works(here, app_id, user) == "at-ann-1"


# replaced


def test_a_member_who_takes_the_companys_place_does_not_leave_its_account_open(
    here: Installation, accounts: Accounts, user: str
) -> None:
    app_id, tenant = new_app(here, accounts), {"tenantId": f"tenant-of-{user}", "tenantLevel": True}
    connected(here, app_id, user, "company-1", **tenant)
    connected(here, app_id, user, "mallory-1", **tenant)
    assert (accounts.revoked(here), reasons(here, app_id)) == (["rt-company-1"], ["replaced"])
    answer = here.backend.post("app/tenant/token/latest", {"appId": app_id, "tenantId": tenant["tenantId"]})
    assert answer.json()["token"]["accessToken"] == "at-mallory-1"


def test_a_person_who_connects_again_loses_nothing(
    here: Installation, accounts: Accounts, user: str, is_told: bool
) -> None:
    app_id = new_app(here, accounts, is_told=is_told)
    connected(here, app_id, user, "ann-1")
    connected(here, app_id, user, "ann-2")
    assert accounts.revoked(here) == []
    assert works(here, app_id, user) == "at-ann-2"


def test_an_account_that_another_connection_stands_on_stays_when_one_of_them_is_replaced(
    here: Installation, accounts: Accounts, user: str
) -> None:
    app_id = new_app(here, accounts)
    connected(here, app_id, user, "ann-1")
    connected(here, app_id, f"other-{user}", "ann-2")
    connected(here, app_id, user, "bob-1")
    assert accounts.revoked(here) == []
    connected(here, app_id, f"other-{user}", "bob-2")
    assert accounts.revoked(here) == ["rt-ann-2"]


@pytest.mark.parametrize("tokens", ["are new", "are the same again"])
def test_where_tokens_are_revoked_singly_what_is_replaced_does_not_stay_open(
    here: Installation, accounts: Accounts, user: str, is_told: bool, tokens: str
) -> None:
    app_id = new_app(here, accounts, is_told=is_told, revokeReplaced=True)
    connected(here, app_id, user, "ann-1")
    connected(here, app_id, user, "ann-2" if tokens == "are new" else "ann-1")
    assert accounts.revoked(here) == (["rt-ann-1"] if tokens == "are new" else [])


def test_a_confirmed_consent_with_another_account_ends_the_one_that_it_replaces(
    here: Installation, accounts: Accounts, user: str
) -> None:
    app_id = new_app(here, accounts, requireConfirmation=True)
    assert confirm(here, trip(here, app_id, user, "ann-1"), user) == 200
    back = trip(here, app_id, user, "bob-1")
    assert accounts.revoked(here) == []
    assert confirm(here, back, user) == 200
    assert accounts.revoked(here) == ["rt-ann-1"]
    assert works(here, app_id, user) == "at-bob-1"


@pytest.mark.parametrize("path", ["app/user/oauthtoken/upload", "app/user/oauthtoken/batch/upload"])
@pytest.mark.parametrize("verified", [False, True])
@pytest.mark.parametrize("person", ["ann", "bob"])
def test_an_upload_ends_what_it_replaces_only_where_that_is_another_account(
    here: Installation, accounts: Accounts, user: str, path: str, verified: bool, person: str
) -> None:
    if verified and "batch" in path:
        return  # nobody verifies in a batch
    signed: dict[str, Any] = {"issuer": accounts.url, "jwksUrl": f"{accounts.url}/jwks"}
    app_id = new_app(here, accounts, revokeReplaced=True, **signed)
    connected(here, app_id, user, "ann-1")
    id_token = accounts.session(person, aud="evergrant")
    item = {"appId": app_id, "userId": user, "refreshToken": f"rt-{person}-2", "idToken": id_token}
    if "batch" in path:
        answer = here.backend.post(path, {"tokens": [item]})
    else:
        answer = here.backend.post(path, {**item, "verifyRefresh": verified})
    assert answer.status_code == 200, answer.text
    assert accounts.revoked(here) == (["rt-ann-1"] if person == "bob" else [])


def test_what_changes_while_it_is_replaced_is_revoked_as_it_is_then(
    here: Installation, accounts: Accounts, user: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    app_id = new_app(here, accounts)
    connected(here, app_id, user, "ann-1")
    [token] = here.backend.get(f"tokens?appId={app_id}").json()["tokens"]
    prepare, looks = replaced.prepare_replacement, list[int]()

    async def refreshed_in_between(*args: Any, **kwargs: Any) -> Any:
        prepared = await prepare(*args, **kwargs)
        if not looks:
            await asyncio.to_thread(here.backend.post, "token/refresh", {"id": token["id"]})
        looks.append(1)
        return prepared

    monkeypatch.setattr(stored_consents, "prepare_replacement", refreshed_in_between)
    connected(here, app_id, user, "bob-1")
    assert accounts.revoked(here) == ["rt-ann-1+"]
    assert works(here, app_id, user) == "at-bob-1"


# answers that come when their grant is gone


@pytest.mark.parametrize("goes", ["deleted", "replaced by another account", "replaced by the same account"])
def test_an_answer_that_comes_after_its_connection_went_does_not_stay_open(
    here: Installation, accounts: Accounts, user: str, goes: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deleting, "IN_FLIGHT_SECONDS", 0.0)
    app_id = new_app(here, accounts)
    connected(here, app_id, user, "ann-1")
    [token] = here.backend.get(f"tokens?appId={app_id}").json()["tokens"]
    asked, go_on = threading.Event(), threading.Event()

    async def held_back(request: Request) -> Any:
        if "refresh_token" in request.form:
            asked.set()
            await asyncio.to_thread(go_on.wait, PATIENCE)
        return accounts.tokens(request)

    accounts.routes["/token"] = held_back
    with ThreadPoolExecutor(1) as pool:
        refreshed = pool.submit(here.backend.post, "token/refresh", {"id": token["id"]})
        assert asked.wait(PATIENCE)
        if goes == "deleted":
            here.backend.post("token/revoke", {"id": token["id"]})
        else:
            connected(here, app_id, user, "bob-1" if "another" in goes else "ann-2")
        before = accounts.revoked(here)
        go_on.set()
        assert refreshed.result().status_code == 404
    same = "the same" in goes
    assert before == ([] if same else ["rt-ann-1"])
    assert accounts.revoked(here) == ([] if same else ["rt-ann-1", "rt-ann-1+"])


def test_an_answer_that_a_dead_process_left_for_a_connection_that_went_does_not_stay_open(
    here: Installation, accounts: Accounts, user: str
) -> None:
    app_id = new_app(here, accounts)
    connected(here, app_id, user, "ann-1", options={"redirectUrl": BACK, "externalIdentifier": "first"})
    [token] = here.backend.get(f"tokens?appId={app_id}").json()["tokens"]

    async def leave_an_answer() -> None:
        async with open_broker(here.settings) as broker:
            grant = await load_grant(broker, here.backend.project_id, token["id"])
            assert grant is not None
            values: dict[str, object] = {"token_version": 2, "last_refresh_time": wall_clock.now()}
            for column in ("access_token", "refresh_token"):
                slot = token_slot(owner_of(grant), grant.id, column)
                values[column] = await broker.vault.seal(slot, SecretStr(f"late {column}"))
            entry = Entry(grant.project_id, grant.id, "", grant.token_version, values)
            assert Journal(here.settings.data_dir / "journal").write(entry)

    async def come_back() -> None:
        async with open_broker(here.settings) as broker:
            assert await replay_journal(broker) == 0

    asyncio.run(leave_an_answer())
    here.backend.post("token/revoke", {"id": token["id"]})
    asyncio.run(come_back())
    assert accounts.revoked(here) == ["rt-ann-1", "late refresh_token"]


def test_tokens_that_a_verification_got_for_an_app_that_is_gone_do_not_stay_open(
    here: Installation, accounts: Accounts, user: str
) -> None:
    app_id = new_app(here, accounts)

    async def while_it_goes(request: Request) -> Any:
        await asyncio.to_thread(here.backend.post, "app/delete", {"id": app_id})
        return accounts.tokens(request)

    accounts.routes["/token"] = while_it_goes
    body = {"appId": app_id, "userId": user, "refreshToken": "rt-ann-1", "verifyRefresh": True}
    assert here.backend.post("app/user/oauthtoken/upload", body).status_code == 404
    assert accounts.revoked(here) == ["rt-ann-1+"]


# deleted on purpose


@pytest.mark.parametrize("call", ["one connection", "a user", "the app"])
def test_what_is_deleted_ends_at_the_provider_even_where_it_waits_for_its_confirmation(
    here: Installation, accounts: Accounts, user: str, call: str
) -> None:
    app_id = new_app(here, accounts, requireConfirmation=True)
    assert confirm(here, trip(here, app_id, user, "ann-1"), user) == 200
    trip(here, app_id, user, "ann-2")
    if call == "one connection":
        token_id = here.backend.token(user, appId=app_id, scopes=["files"])["id"]
        here.backend.post("token/revoke", {"id": token_id})
    elif call == "a user":
        here.backend.http.delete(f"/v1/mgmt/outbound/user/tokens?userId={user}&appId={app_id}")
    else:
        here.backend.post("app/delete", {"id": app_id})
    wanted = ["rt-ann-1"] if call == "one connection" else ["rt-ann-1", "rt-ann-2"]
    assert sorted(accounts.revoked(here)) == wanted
    assert set(reasons(here, app_id)) == {"deleted"}


def test_a_start_with_the_wrong_master_key_forgets_nothing_that_is_to_be_revoked(
    here: Installation, accounts: Accounts, clock: Clock
) -> None:
    app = new_app(here, accounts)
    accounts.routes["/revoke"] = (503, {})
    connected(here, app, "ann", "ann-1")
    here.backend.http.delete(f"/v1/mgmt/outbound/user/tokens?appId={app}&userId=ann")
    accounts.routes["/revoke"] = {}
    before = len(accounts.forms_at("/revoke"))
    clock.advance(24 * 3600)
    wrong = here.settings.model_copy(update={"master_keys": SecretStr(new_master_key())})
    asyncio.run(revoke_due(replace(here, settings=wrong)))
    assert len(accounts.forms_at("/revoke")) == before
    clock.advance(24 * 3600)
    assert accounts.revoked(here)[before:] == ["rt-ann-1"]
