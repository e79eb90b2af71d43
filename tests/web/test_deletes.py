"""Deleting connections: gone here at once, revoked at the provider, and everything about it in the audit log."""

import asyncio
import threading
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx2
import pytest
from sqlalchemy import Engine, event

from evergrant import clock as wall_clock
from evergrant.broker.access.authentication import authenticate
from evergrant.broker.connections.deletion import delete_token
from evergrant.broker.revocations.revocation import MAX_ATTEMPTS
from evergrant.broker.revocations.revoking import begin_revocations
from evergrant.broker.runtime import broker as brokers
from evergrant.broker.runtime.broker import Broker, open_broker
from evergrant.broker.runtime.principal import Permission
from evergrant.broker.runtime.worker_pool import WorkerPool
from evergrant.refresher import refresh_until
from tests.conftest import Clock
from tests.infra.installation import APP_ID, SCOPES, Installation
from tests.infra.people import someone
from tests.infra.rows import dump, execute, writers_wait
from tests.infra.scripted import ScriptedProvider, serving
from tests.infra.waiting import PATIENCE, until
from tests.web.conftest import MakeBackend


def delete(here: Installation, path: str) -> httpx2.Response:
    return here.backend.http.delete(f"/v1/mgmt/outbound/{path}")


def connected(here: Installation, user: str, **fields: Any) -> dict[str, Any]:
    here.connected(user, **fields)
    return here.backend.token(user, **fields)


def family(here: Installation, token: dict[str, Any]) -> Any:
    return here.provider.state.access_tokens[token["accessToken"]].family


def actions(here: Installation, app_or_user: str) -> list[str]:
    """What the audit log tells about an app or a user, of deleting and revoking."""
    events = [e for e in dump(here.settings)["audit_events"] if app_or_user in (e["user_id"], e["app_id"])]
    told = sorted(events, key=lambda event: event["sequence"])
    wanted = ("token.deleted", "token.revoked", "token.revocation_failed", "app.deleted")
    return [event["action"] for event in told if event["action"] in wanted]


def retry_revocations(here: Installation) -> None:
    """Do what the background refresher does, once."""

    async def run() -> None:
        async with open_broker(here.settings) as broker:
            await revoke_due(broker)

    asyncio.run(run())


async def revoke_due(broker: Broker) -> None:
    pool: WorkerPool[str] = WorkerPool(most=10, most_per_key=1)
    await begin_revocations(broker, pool, asyncio.Event(), now=wall_clock.now())
    await pool.drain()


@pytest.fixture
def scripted(here: Installation) -> Iterator[ScriptedProvider]:
    with serving(ScriptedProvider({"/revoke": {}})) as provider:
        yield provider


def revocable(here: Installation, scripted: ScriptedProvider, **fields: Any) -> str:
    """An app at the scripted provider, with a revocation endpoint."""
    fields = {"revocationUrl": f"{scripted.url}/revoke", **fields}
    return str(here.backend.create_app(scripted.registration(f"app-{uuid.uuid4().hex}", **fields))["id"])


def uploaded(here: Installation, app_id: str, user: str, **fields: Any) -> str:
    """Upload tokens, and return the connection's id."""
    body = {"appId": app_id, "userId": user, "accessToken": f"at-{user}", "refreshToken": f"rt-{user}", **fields}
    answer = here.backend.post("app/user/oauthtoken/upload", body)
    assert answer.status_code == 200, answer.text
    return str(here.backend.get(f"tokens?appId={app_id}&userId={user}").json()["tokens"][0]["id"])


def test_a_deleted_token_is_gone_here_and_revoked_at_the_provider(here: Installation) -> None:
    user = someone()
    token = connected(here, user)
    answer = delete(here, f"token?id={token['id']}")
    assert (answer.status_code, answer.json()) == (200, {})
    assert here.backend.fetch(user).status_code == 404
    assert family(here, token).revoked_because == "revoked by the client"
    assert actions(here, user) == ["token.deleted", "token.revoked"]
    assert delete(here, f"token?id={token['id']}").status_code == 404


@pytest.mark.parametrize("path", ["token", "token?id="])
def test_deleting_one_token_needs_its_id(here: Installation, path: str) -> None:
    answer = delete(here, path)
    assert (answer.status_code, answer.json()["errorCode"]) == (400, "E011002")


def test_the_refresh_token_is_what_is_revoked_else_the_access_token(
    here: Installation, scripted: ScriptedProvider
) -> None:
    app, user, other = revocable(here, scripted), someone(), someone()
    delete(here, f"token?id={uploaded(here, app, user)}")
    delete(here, f"token?id={uploaded(here, app, other, refreshToken=None)}")
    client = {"client_id": "evergrant", "client_secret": "secret"}
    assert scripted.forms_at("/revoke") == [
        {"token": f"rt-{user}", "token_type_hint": "refresh_token", **client},
        {"token": f"at-{other}", "token_type_hint": "access_token", **client},
    ]


def test_a_users_tokens_are_deleted_for_one_app_or_for_all(here: Installation, scripted: ScriptedProvider) -> None:
    app, user, bystander = revocable(here, scripted), someone(), someone()
    for owner in (user, bystander):
        connected(here, owner)
        uploaded(here, app, owner)
    assert delete(here, f"user/tokens?appId={app}&userId={user}").json() == {}
    assert here.backend.fetch(user).status_code == 200
    uploaded(here, app, user)
    uploaded(here, app, user, tenantId="acme")
    assert delete(here, f"user/tokens?userId={user}").json() == {}
    assert here.backend.get(f"tokens?userId={user}").json()["tokens"] == []
    assert len(here.backend.get(f"tokens?userId={bystander}").json()["tokens"]) == 2
    assert actions(here, user).count("token.revoked") == 4


def test_an_apps_user_tokens_are_deleted_and_the_tenants_own_stay(
    here: Installation, scripted: ScriptedProvider
) -> None:
    app = revocable(here, scripted)
    for user in (someone(), someone()):
        uploaded(here, app, user)
    here.backend.post("app/tenant/oauthtoken/upload", {"appId": app, "tenantId": "acme", "accessToken": "at"})
    assert delete(here, f"user/tokens?appId={app}").json() == {}
    left = here.backend.get(f"tokens?appId={app}").json()["tokens"]
    assert [(token["userId"], token["tenantId"]) for token in left] == [("", "acme")]


def test_deleting_users_tokens_needs_an_app_or_a_user(here: Installation) -> None:
    before = dump(here.settings)
    answer = delete(here, "user/tokens")
    assert (answer.status_code, answer.json()["errorCode"]) == (400, "E011002")
    assert delete(here, "user/tokens?appId=nowhere").json()["errorCode"] == "E111503"
    assert dump(here.settings) == before


def test_deleting_an_app_revokes_everything_that_was_connected_through_it(
    here: Installation, scripted: ScriptedProvider
) -> None:
    app, users = revocable(here, scripted), [someone() for _ in range(3)]
    for user in users:
        uploaded(here, app, user)
    assert here.backend.post("app/delete", {"id": app}).json() == {}
    assert here.backend.get(f"app/{app}").status_code == 404
    assert sorted(form["token"] for form in scripted.forms_at("/revoke")) == sorted(f"rt-{user}" for user in users)
    assert sorted(actions(here, app)) == ["app.deleted", *["token.deleted"] * 3, *["token.revoked"] * 3]
    assert here.backend.post("app/delete", {"id": app}).json()["errorCode"] == "E111503"


def test_revoking_says_what_came_of_it(here: Installation, scripted: ScriptedProvider) -> None:
    def revoke(app: str) -> str:
        answer = here.backend.post("token/revoke", {"id": uploaded(here, app, someone())})
        assert answer.status_code == 200, answer.text
        return str(answer.json()["outcome"])

    app = revocable(here, scripted)
    assert revoke(app) == "revoked"
    scripted.routes["/revoke"] = (503, {})
    assert revoke(app) == "pending"
    scripted.routes["/revoke"] = (400, {"error": "unsupported_token_type"})
    assert revoke(app) == "unsupported"
    assert revoke(revocable(here, scripted, revocationUrl="")) == "unsupported"
    assert here.backend.get(f"tokens?appId={app}").json()["tokens"] == []


def test_a_provider_that_is_away_is_asked_again_until_it_answers(
    here: Installation, scripted: ScriptedProvider, clock: Clock
) -> None:
    app, user = revocable(here, scripted), someone()
    scripted.routes["/revoke"] = (503, {})
    here.backend.post("token/revoke", {"id": uploaded(here, app, user)})
    assert len(scripted.forms_at("/revoke")) == 1
    retry_revocations(here)  # nothing is due yet
    assert len(scripted.forms_at("/revoke")) == 1
    clock.advance(61)
    retry_revocations(here)
    assert len(scripted.forms_at("/revoke")) == 2
    assert actions(here, user) == ["token.deleted"]
    scripted.routes["/revoke"] = {}
    clock.advance(61)  # the second pause is longer
    retry_revocations(here)
    assert len(scripted.forms_at("/revoke")) == 2
    clock.advance(100)
    retry_revocations(here)
    assert [form["token"] for form in scripted.forms_at("/revoke")] == [f"rt-{user}"] * 3
    assert actions(here, user) == ["token.deleted", "token.revoked"]
    assert not [row for row in dump(here.settings)["revocations"] if row["user_id"] == user]


def test_the_background_refresher_is_who_asks_again(
    here: Installation, scripted: ScriptedProvider, clock: Clock
) -> None:
    app, user = revocable(here, scripted), someone()
    scripted.routes["/revoke"] = (503, {})
    here.backend.post("token/revoke", {"id": uploaded(here, app, user)})
    scripted.routes["/revoke"] = {}
    clock.advance(61)

    async def run() -> None:
        stop = asyncio.Event()
        async with open_broker(here.settings) as broker:
            refresher = asyncio.create_task(refresh_until(broker, stop))
            await until(lambda: len(scripted.forms_at("/revoke")) == 2, "the provider is asked again")
            async with asyncio.timeout(PATIENCE):
                while len(await asyncio.to_thread(actions, here, user)) < 2:
                    await asyncio.sleep(0.05)
            stop.set()
            await refresher

    asyncio.run(run())
    assert actions(here, user) == ["token.deleted", "token.revoked"]


def test_of_two_replicas_that_find_a_revocation_due_one_makes_it(
    here: Installation, scripted: ScriptedProvider, clock: Clock
) -> None:
    scripted.routes["/revoke"] = (503, {})
    here.backend.post("token/revoke", {"id": uploaded(here, revocable(here, scripted), someone())})
    clock.advance(61)

    async def both() -> None:
        async with open_broker(here.settings) as one, open_broker(here.settings) as other:
            await asyncio.gather(*(revoke_due(broker) for broker in (one, other)))

    with ThreadPoolExecutor(1) as pool:
        with writers_wait(here.settings, "revocations"):
            done = pool.submit(asyncio.run, both())
            time.sleep(1.0)  # in which both of them find it
        done.result()
    assert len(scripted.forms_at("/revoke")) == 2


def test_revocations_that_hang_take_no_connection_from_refreshes(
    here: Installation, scripted: ScriptedProvider, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(brokers, "connections_at_once", lambda: 1)
    scripted.routes["/revoke"] = (503, {})
    here.backend.post("token/revoke", {"id": uploaded(here, revocable(here, scripted), someone())})
    clock.advance(61)
    released = threading.Event()
    scripted.routes["/revoke"] = lambda _request: asyncio.to_thread(released.wait, PATIENCE)

    async def refresh_beside_it() -> int:
        async with open_broker(here.settings) as broker:
            revoking = asyncio.create_task(revoke_due(broker))
            try:
                await until(lambda: len(scripted.forms_at("/revoke")) == 2, "the provider has the revocation")
                return (await broker.http.get_json(f"{scripted.url}/elsewhere")).status
            finally:
                released.set()
                await revoking

    assert asyncio.run(refresh_beside_it()) == 404


def test_what_a_refresh_brings_between_reading_and_deleting_is_what_is_revoked(
    here: Installation, scripted: ScriptedProvider
) -> None:
    backend, user = here.backend, someone()
    scripted.routes["/token"] = {"access_token": "at-1", "token_type": "Bearer", "refresh_token": "rt-1"}
    token_id = uploaded(here, revocable(here, scripted), user)
    refreshed: list[int] = []

    def refresh_when_it_has_been_read(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if not refreshed and statement.startswith("SELECT") and "grants.refresh_token" in statement:
            refreshed.append(backend.post("token/refresh", {"id": token_id}).status_code)

    async def run() -> None:
        async with open_broker(here.settings) as broker:
            credential, now = f"Bearer {backend.project_id}:{backend.management_key}", wall_clock.now()
            principal = await authenticate(broker, credential, client_address="127.0.0.1", now=now)
            engine = broker.database.engine.sync_engine
            event.listen(engine, "after_cursor_execute", refresh_when_it_has_been_read)
            await delete_token(broker, principal, token_id, now=now)

    asyncio.run(run())
    assert refreshed == [200]
    assert [form["token"] for form in scripted.forms_at("/revoke")] == ["rt-1"]


def test_a_deletion_whose_revocation_cannot_be_written_down_is_none(
    here: Installation, scripted: ScriptedProvider
) -> None:
    app, user = revocable(here, scripted), someone()
    token_id = uploaded(here, app, user)

    def away(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if statement.startswith("INSERT INTO revocations"):
            raise ConnectionResetError("away")

    event.listen(Engine, "before_cursor_execute", away)
    try:
        assert here.backend.post("token/revoke", {"id": token_id}).status_code == 503
    finally:
        event.remove(Engine, "before_cursor_execute", away)
    assert (scripted.forms_at("/revoke"), actions(here, user)) == ([], [])
    assert here.backend.post("token/revoke", {"id": token_id}).json()["outcome"] == "revoked"


def test_a_provider_that_stays_away_is_given_up_and_that_is_recorded(
    here: Installation, scripted: ScriptedProvider, clock: Clock
) -> None:
    app, user = revocable(here, scripted), someone()
    scripted.routes["/revoke"] = (503, {})
    here.backend.post("token/revoke", {"id": uploaded(here, app, user)})
    for _ in range(MAX_ATTEMPTS + 3):
        clock.advance(16 * 3600)
        retry_revocations(here)
    assert len(scripted.forms_at("/revoke")) == MAX_ATTEMPTS
    assert actions(here, user) == ["token.deleted", "token.revocation_failed"]
    assert not [row for row in dump(here.settings)["revocations"] if row["user_id"] == user]


def test_what_waits_to_be_revoked_survives_the_app_and_is_sealed(
    here: Installation, scripted: ScriptedProvider, clock: Clock
) -> None:
    app, user = revocable(here, scripted), someone()
    uploaded(here, app, user)
    scripted.routes["/revoke"] = (503, {})
    here.backend.post("app/delete", {"id": app})
    assert f"rt-{user}" not in str(dump(here.settings)["revocations"])
    scripted.routes["/revoke"] = {}
    clock.advance(120)
    retry_revocations(here)
    assert scripted.forms_at("/revoke")[-1]["token"] == f"rt-{user}"
    assert scripted.forms_at("/revoke")[-1]["client_secret"] == "secret"


def test_more_than_are_tried_at_once_are_left_to_the_background(
    here: Installation, scripted: ScriptedProvider, clock: Clock
) -> None:
    app = revocable(here, scripted)
    items = [{"appId": app, "userId": f"u{n}", "accessToken": f"at-{n}"} for n in range(230)]
    assert here.backend.post("app/user/oauthtoken/batch/upload", {"tokens": items}).json() == {"failures": []}
    assert delete(here, f"user/tokens?appId={app}").json() == {}
    tried = len(scripted.forms_at("/revoke"))
    assert 0 < tried < 230
    for _ in range(3):
        clock.advance(100)
        retry_revocations(here)
    assert {form["token"] for form in scripted.forms_at("/revoke")} == {f"at-{n}" for n in range(230)}


def test_a_refresh_under_way_is_waited_for_and_what_it_brings_is_revoked(here: Installation) -> None:
    user = someone()
    token = connected(here, user)
    consent = family(here, token)
    here.provider.state.held = True

    async def both() -> tuple[httpx2.Response, httpx2.Response]:
        headers = dict(here.backend.http.headers)
        async with httpx2.AsyncClient(base_url=here.url, headers=headers, timeout=PATIENCE, trust_env=False) as http:
            body = {"appId": APP_ID, "userId": user, "scopes": SCOPES, "options": {"forceRefresh": True}}
            fetching = asyncio.create_task(http.post("/v1/mgmt/outbound/app/user/token", json=body))
            await until(lambda: here.provider.state.on_the_wire.total() > 0, "the refresh is on the wire")
            deleting = asyncio.create_task(http.delete(f"/v1/mgmt/outbound/token?id={token['id']}"))
            await asyncio.sleep(0.5)
            assert not deleting.done()
            here.provider.state.held = False
            return await fetching, await deleting

    fetched, deleted = asyncio.run(both())
    assert (fetched.status_code, deleted.status_code) == (200, 200)
    assert consent.revoked_because == "revoked by the client"


def test_a_token_whose_key_is_gone_can_still_be_deleted(here: Installation, scripted: ScriptedProvider) -> None:
    app, user = revocable(here, scripted), someone()
    grant = uploaded(here, app, user)
    broken = "x'00'" if here.settings.uses_sqlite else "'\\x00'::bytea"
    execute(here.settings, f"UPDATE grants SET refresh_token = {broken} WHERE id = '{grant}'")
    assert delete(here, f"token?id={grant}").status_code == 200
    assert here.backend.get(f"tokens?userId={user}").json()["tokens"] == []


CHANGES: dict[str, tuple[str, str, dict[str, Any] | None]] = {
    "delete one": ("DELETE", "token?id={id}", None),
    "delete a user's": ("DELETE", "user/tokens?appId={app}", None),
    "revoke": ("POST", "token/revoke", {"id": "{id}"}),
    "refresh": ("POST", "token/refresh", {"id": "{id}"}),
}


@pytest.mark.parametrize("name", CHANGES)
@pytest.mark.parametrize(
    "limits",
    [{"permissions": [Permission.TOKENS_FETCH, Permission.APPS_WRITE]}, {"app_ids": ["another"]}],
    ids=["without the permission", "limited to other apps"],
)
def test_changing_needs_the_permission_and_the_app(
    here: Installation, scripted: ScriptedProvider, backend_with: MakeBackend, name: str, limits: dict[str, Any]
) -> None:
    app = revocable(here, scripted)
    grant = uploaded(here, app, someone())
    method, path, body = CHANGES[name]
    path = path.format(id=grant, app=app)
    answer = backend_with(**limits).http.request(
        method, f"/v1/mgmt/outbound/{path}", json=None if body is None else {"id": grant}
    )
    assert (answer.status_code, answer.json()["errorCode"]) == (403, "E011006")
    assert len(here.backend.get(f"tokens?appId={app}").json()["tokens"]) == 1


def test_a_limited_key_deletes_a_users_tokens_of_its_own_apps_alone(
    here: Installation, scripted: ScriptedProvider, backend_with: MakeBackend
) -> None:
    mine, other, user = revocable(here, scripted), revocable(here, scripted), someone()
    for app in (mine, other):
        uploaded(here, app, user)
    answer = backend_with(app_ids=[mine]).http.delete(f"/v1/mgmt/outbound/user/tokens?userId={user}")
    assert answer.status_code == 200
    assert [t["appId"] for t in here.backend.get(f"tokens?userId={user}").json()["tokens"]] == [other]
