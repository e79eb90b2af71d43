"""Webhooks over HTTP: what is told and what is not, and who may manage them."""

import asyncio
import json
import uuid
from collections.abc import Iterator
from typing import Any, get_args

import pytest
from sqlalchemy import Engine, event

from evergrant.broker.runtime.broker import Broker, open_broker
from evergrant.broker.runtime.principal import ALL_PERMISSIONS, Permission
from evergrant.broker.webhooks.delivery import deliver_until
from evergrant.broker.webhooks.outbox import SUBSCRIBABLE
from evergrant.broker.webhooks.registry import MAX_WEBHOOKS
from evergrant.db import Webhook, WebhookDelivery
from evergrant.practice.faults import instead
from evergrant.web.api.webhooks import EventName
from tests.infra.installation import APP_ID, SCOPES, Backend, Installation, new_project
from tests.infra.people import kill, someone
from tests.infra.receiver import Receiver
from tests.infra.rows import dump, execute
from tests.infra.scripted import serving
from tests.infra.waiting import PATIENCE
from tests.web.conftest import MakeBackend

REFUSED = {"error": "invalid_client", "error_description": "unknown client"}


@pytest.fixture(scope="module")
def hooks() -> Iterator[Receiver]:
    with serving(Receiver()) as running:
        yield running


@pytest.fixture(autouse=True)
def _nothing_is_left(here: Installation, hooks: Receiver) -> Iterator[None]:
    yield
    hooks.statuses.clear()
    hooks.received.clear()
    here.provider.state.next_token_answers.clear()
    for webhook in here.backend.get("webhooks").json()["webhooks"]:
        assert here.backend.post("webhook/delete", {"id": webhook["id"]}).json() == {}


@pytest.fixture
def webhook(here: Installation, hooks: Receiver) -> str:
    """A webhook that wants everything; its id."""
    return str(made(here.backend, url=f"{hooks.url}/a")["webhook"]["id"])


def made(backend: Backend, **fields: Any) -> dict[str, Any]:
    answer = backend.post("webhook/create", fields)
    assert answer.status_code == 200, answer.text
    created: dict[str, Any] = answer.json()
    return created


def deliveries(backend: Backend, query: str = "") -> list[dict[str, Any]]:
    """The log, oldest first."""
    answer = backend.get(f"webhook/deliveries?limit=200{query}")
    assert answer.status_code == 200, answer.text
    return list(reversed(answer.json()["deliveries"]))


def events(here: Installation) -> list[tuple[str, dict[str, Any]]]:
    """What has been told so far: type and data of each event."""
    payloads = [json.loads(delivery["payload"]) for delivery in deliveries(here.backend)]
    return [(payload["type"], payload["data"]) for payload in payloads]


def types(here: Installation) -> list[str]:
    return [kind for kind, _ in events(here)]


def deliver(here: Installation) -> None:
    """Do what the background does, until nothing is due."""

    async def due(broker: Broker) -> bool:
        rows = await asyncio.to_thread(dump, here.settings)
        return any(row["status"] == "pending" and row["attempts"] == 0 for row in rows["webhook_deliveries"]) or any(
            row["lease_owner"] for row in rows["webhook_deliveries"]
        )

    async def run() -> None:
        async with open_broker(here.settings) as broker:
            stop = asyncio.Event()
            task = asyncio.create_task(deliver_until(broker, stop))
            async with asyncio.timeout(PATIENCE):
                while await due(broker):
                    await asyncio.sleep(0.05)
            stop.set()
            await task

    asyncio.run(run())


# --- what is told


def test_a_connection_is_told_once_with_ids_and_scopes(here: Installation, webhook: str) -> None:
    user = someone()
    here.connected(user, tenantId="acme")
    token = here.backend.token(user, tenantId="acme")
    assert events(here) == [
        (
            "grant.created",
            {
                "projectId": here.backend.project_id,
                "grantId": token["id"],
                "appId": APP_ID,
                "userId": user,
                "tenantId": "acme",
                "externalIdentifier": "",
                "scopes": sorted(SCOPES),
                "replacedGrantIds": [],
            },
        )
    ]
    here.backend.token(user, tenantId="acme", options={"forceRefresh": True})  # a refresh is nothing to tell
    assert types(here) == ["grant.created"]


def test_connecting_again_names_the_connection_that_it_replaces(here: Installation, webhook: str) -> None:
    user = someone()
    here.connected(user)
    first = here.backend.token(user)["id"]
    here.connected(user)
    (_, _), (kind, data) = events(here)
    assert (kind, data["replacedGrantIds"]) == ("grant.created", [first])
    assert data["grantId"] == here.backend.token(user)["id"]


def test_a_consent_that_dies_is_told_once_and_so_is_its_recovery(here: Installation, webhook: str) -> None:
    user = someone()
    here.connected(user)
    dead = here.backend.token(user)["id"]
    kill(here, user)
    for _ in range(2):
        assert here.backend.fetch(user).status_code == 404
    kind, data = events(here)[-1]
    assert (kind, data["grantId"], data["userId"]) == ("grant.reauthorization_required", dead, user)
    assert "revoked by the user" in data["reason"]
    here.connected(user)
    assert types(here) == ["grant.created", "grant.reauthorization_required", "grant.recovered"]
    assert events(here)[-1][1]["replacedGrantIds"] == [dead]


def test_a_connection_to_be_confirmed_is_told_when_it_is(here: Installation, webhook: str) -> None:
    app_id = f"app-{uuid.uuid4().hex[:12]}"
    here.backend.create_app({**here.provider.registration, "id": app_id, "name": app_id, "requireConfirmation": True})
    user, browser = someone(), here.browser()
    back = browser.connect(here.backend.connect_url(user, appId=app_id))
    assert types(here) == []
    confirmed = {"confirmation": back["confirmation"], "userId": user}
    assert here.backend.post("app/connect/confirm", confirmed).status_code == 200
    assert [(kind, data["appId"]) for kind, data in events(here)] == [("grant.created", app_id)]
    # one that is never confirmed comes and goes without a word
    browser.connect(here.backend.connect_url(user, appId=app_id, tenantId="other"))
    assert here.backend.post("app/delete", {"id": app_id}).status_code == 200
    assert types(here) == ["grant.created", "grant.revoked"]


def test_uploads_are_told_each_and_a_batch_that_fails_not_at_all(here: Installation, webhook: str) -> None:
    users = [someone() for _ in range(3)]
    tokens = [{"appId": APP_ID, "userId": user, "refreshToken": "rt", "scopes": ["a"]} for user in users]
    assert here.backend.post("app/user/oauthtoken/upload", tokens[0]).status_code == 200
    assert here.backend.post("app/user/oauthtoken/batch/upload", {"tokens": tokens[1:]}).json() == {"failures": []}
    assert sorted(data["userId"] for _, data in events(here)) == sorted(users)
    bad = [{**tokens[0], "userId": someone()}, {**tokens[0], "appId": "nothing"}]
    assert here.backend.post("app/user/oauthtoken/batch/upload", {"tokens": bad}).json()["failures"]
    assert len(events(here)) == 3


def test_a_change_that_is_rolled_back_is_not_told(here: Installation, webhook: str) -> None:
    deliveries: list[str] = []

    def away_at_the_last_statement(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if statement.startswith("INSERT INTO webhook_deliveries"):
            deliveries.append(statement)
        if statement.startswith("INSERT INTO audit_events"):
            raise ConnectionResetError("away")

    body = {"appId": APP_ID, "userId": someone(), "refreshToken": "rt", "scopes": ["a"]}
    event.listen(Engine, "before_cursor_execute", away_at_the_last_statement)
    try:
        assert here.backend.post("app/user/oauthtoken/upload", body).status_code == 503
    finally:
        event.remove(Engine, "before_cursor_execute", away_at_the_last_statement)
    assert deliveries, "it failed before there was anything to tell"
    assert types(here) == []
    assert here.backend.post("app/user/oauthtoken/upload", body).status_code == 200
    assert types(here) == ["grant.created"]


def test_every_way_to_end_connections_is_told(here: Installation, webhook: str) -> None:
    registration = here.provider.registration
    app_id = f"app-{uuid.uuid4().hex[:12]}"
    here.backend.create_app({**registration, "id": app_id, "name": app_id})
    users = [someone() for _ in range(4)]
    for user in users:
        upload = {"appId": app_id, "userId": user, "accessToken": "at", "scopes": ["a"]}
        assert here.backend.post("app/user/oauthtoken/upload", upload).status_code == 200
    listed = {t["userId"]: t["id"] for t in here.backend.get(f"tokens?appId={app_id}").json()["tokens"]}
    base = "/v1/mgmt/outbound"
    here.backend.http.delete(f"{base}/token?id={listed[users[0]]}").raise_for_status()
    here.backend.post("token/revoke", {"id": listed[users[1]]}).raise_for_status()
    here.backend.http.delete(f"{base}/user/tokens?userId={users[2]}").raise_for_status()
    here.backend.post("app/delete", {"id": app_id}).raise_for_status()
    told = [(data["grantId"], data["userId"]) for kind, data in events(here) if kind == "grant.revoked"]
    assert told == [(listed[user], user) for user in users]
    assert len(types(here)) == 8  # and the four that were created


def refused(here: Installation) -> list[str]:
    """Have users refused, one after the other, until it is the app that is blamed; and one more. Return them."""
    users: list[str] = []
    while here.backend.app(APP_ID)["health"]["status"] == "ok":
        users += [someone(), someone()]
        for user in users[-2:]:
            here.connected(user)
            here.provider.state.next_token_answers.append(instead(401, REFUSED))
            assert here.backend.fetch(user, options={"forceRefresh": True}).status_code == 502
    return users


def test_an_app_that_is_refused_is_told_once_and_so_is_its_recovery(here: Installation, webhook: str) -> None:
    users = refused(here)
    told = [(kind, data) for kind, data in events(here) if kind.startswith("app.")]
    assert [(kind, data["appId"]) for kind, data in told] == [("app.unhealthy", APP_ID)]
    assert "unknown client" in told[0][1]["reason"]
    execute(here.settings, "UPDATE grants SET refresh_not_before = NULL")
    here.backend.token(users[0], options={"forceRefresh": True})
    assert [data for kind, data in events(here) if kind == "app.recovered"] == [
        {"projectId": here.backend.project_id, "appId": APP_ID, "reason": "refreshed"}
    ]
    here.backend.token(users[0], options={"forceRefresh": True})
    assert types(here).count("app.recovered") == 1


def test_an_app_that_was_refused_and_is_edited_is_believed_again(here: Installation, webhook: str) -> None:
    refused(here)
    for _ in range(2):
        app = here.backend.get(f"app/{APP_ID}").json()["app"]
        assert here.backend.post("app/update", {"app": app}).status_code == 200
    assert [data["reason"] for kind, data in events(here) if kind == "app.recovered"] == ["updated"]
    assert here.backend.get(f"app/{APP_ID}").json()["app"]["health"]["status"] == "ok"


# --- webhooks themselves


def test_the_secret_is_shown_when_it_is_made_and_never_again(here: Installation, hooks: Receiver) -> None:
    created = made(here.backend, url=f"{hooks.url}/a", description="For alerts", eventTypes=["app.unhealthy"])
    assert created["secret"].startswith("whsec_")
    stored = created["webhook"]
    assert stored["eventTypes"] == ["app.unhealthy"]
    assert (stored["enabled"], stored["disabledReason"], stored["failingSince"]) == (True, "", "")
    assert here.backend.get(f"webhook/{stored['id']}").json() == {"webhook": stored}
    assert here.backend.get("webhooks").json() == {"webhooks": [stored]}
    changed = {"id": stored["id"], "url": f"{hooks.url}/b", "enabled": True}
    updated = here.backend.post("webhook/update", changed).json()["webhook"]
    assert updated == {**stored, "url": f"{hooks.url}/b", "description": "", "eventTypes": []}
    rotated = here.backend.post("webhook/rotate-secret", {"id": stored["id"], "overlapSeconds": 60}).json()
    assert rotated["secret"] != created["secret"]
    assert int(rotated["webhook"]["previousSecretUntil"]) > int(stored["createdTime"])
    for answer in (here.backend.get("webhooks"), here.backend.get(f"webhook/{stored['id']}")):
        assert "whsec_" not in answer.text


def test_a_test_says_what_came_of_it_and_verifies(here: Installation, hooks: Receiver) -> None:
    created = made(here.backend, url=f"{hooks.url}/a", eventTypes=["app.unhealthy"])
    webhook_id = created["webhook"]["id"]
    delivery = here.backend.post("webhook/test", {"id": webhook_id}).json()["delivery"]
    assert (delivery["status"], delivery["lastStatusCode"], delivery["lastError"]) == ("delivered", 204, "")
    (received,) = hooks.received
    told = received.verified_with(created["secret"])
    assert (told["type"], told["data"]["webhookId"], received.id) == ("webhook.test", webhook_id, delivery["id"])
    hooks.answer("/a", 401)
    failed = here.backend.post("webhook/test", {"id": webhook_id}).json()["delivery"]
    assert (failed["status"], failed["attempts"], failed["lastStatusCode"]) == ("pending", 1, 401)
    assert int(failed["nextAttemptTime"]) >= int(failed["lastAttemptTime"]) + 4
    assert here.backend.get(f"webhook/{webhook_id}").json()["webhook"]["failingSince"] == failed["lastAttemptTime"]


def test_while_it_is_disabled_nothing_is_written_for_it_and_it_cannot_be_used(
    here: Installation, hooks: Receiver, webhook: str
) -> None:
    user = someone()
    here.connected(user)
    off = {"id": webhook, "url": f"{hooks.url}/a", "enabled": False}
    assert here.backend.post("webhook/update", off).json()["webhook"]["enabled"] is False
    here.connected(someone())
    (delivery,) = deliveries(here.backend)
    assert (delivery["status"], delivery["lastError"]) == ("failed", "The webhook is disabled.")
    deliver(here)
    assert hooks.received == []
    for path, body in (
        ("webhook/test", {"id": webhook}),
        ("webhook/replay", {"deliveryId": delivery["id"]}),
        ("webhook/replay", {"webhookId": webhook}),
    ):
        answer = here.backend.post(path, body)
        assert (answer.status_code, answer.json()["errorCode"]) == (400, "E011003")
    assert here.backend.post("webhook/update", {**off, "enabled": True}).status_code == 200
    assert here.backend.post("webhook/replay", {"webhookId": webhook, "since": 1}).json() == {"replayed": 1}
    deliver(here)
    assert [(one.id, one.type) for one in hooks.received] == [(delivery["id"], "grant.created")]


def test_one_delivery_is_replayed_with_its_id(here: Installation, hooks: Receiver, webhook: str) -> None:
    here.connected(someone())
    deliver(here)
    (delivery,) = deliveries(here.backend)
    assert delivery["status"] == "delivered"
    assert here.backend.post("webhook/replay", {"deliveryId": delivery["id"]}).json() == {"replayed": 1}
    deliver(here)
    first, again = hooks.received
    assert (first.id, first.body) == (again.id, again.body)
    assert here.backend.post("webhook/replay", {"deliveryId": "msg_unknown"}).status_code == 404


def test_the_log_is_read_in_pages_and_by_webhook_and_state(here: Installation, hooks: Receiver, webhook: str) -> None:
    other = made(here.backend, url=f"{hooks.url}/refused")["webhook"]["id"]
    hooks.answer("/refused", 500)
    for _ in range(3):
        upload = {"appId": APP_ID, "userId": someone(), "accessToken": "at", "scopes": ["a"]}
        assert here.backend.post("app/user/oauthtoken/upload", upload).status_code == 200
    deliver(here)
    assert len(deliveries(here.backend)) == 6
    assert {one["status"] for one in deliveries(here.backend, f"&webhookId={webhook}")} == {"delivered"}
    assert {one["webhookId"] for one in deliveries(here.backend, "&status=pending")} == {other}
    seen, cursor = [], ""
    while True:
        page = here.backend.get(f"webhook/deliveries?limit=4&cursor={cursor}").json()
        seen += [one["id"] for one in page["deliveries"]]
        cursor = page["nextCursor"]
        if not cursor:
            break
    assert seen == [one["id"] for one in reversed(deliveries(here.backend))]


@pytest.mark.parametrize(
    "url",
    [
        "http://hooks.example.com/",
        "https://10.0.0.1/",
        "https://169.254.169.254/latest/meta-data",
        "https://[::1]/",
        "https://user:password@hooks.example.com/",
        "https://hooks.example.com/#fragment",
        "ftp://hooks.example.com/",
        "javascript:alert(1)",
        "",
    ],
)
def test_an_address_that_could_not_be_called_is_refused(here: Installation, url: str) -> None:
    answer = here.backend.post("webhook/create", {"url": url})
    assert answer.status_code == 400
    assert answer.json()["details"]["fields"][0]["field"] == "url"
    assert here.backend.get("webhooks").json() == {"webhooks": []}


def test_wrong_arguments_are_named_and_change_nothing(here: Installation, hooks: Receiver, webhook: str) -> None:
    good = {"url": f"{hooks.url}/a"}
    for path, body, field in (
        ("webhook/create", {**good, "eventTypes": ["grant.exploded"]}, "eventTypes[0]"),
        ("webhook/create", {**good, "eventTypes": ["webhook.test"]}, "eventTypes[0]"),
        ("webhook/create", {**good, "secret": "whsec_mine"}, "secret"),
        ("webhook/update", {**good, "id": webhook}, "enabled"),
        ("webhook/rotate-secret", {"id": webhook, "overlapSeconds": -1}, "overlapSeconds"),
        ("webhook/replay", {}, "deliveryId"),
        ("webhook/replay", {"deliveryId": "a", "webhookId": webhook}, "deliveryId"),
        ("webhook/replay", {"deliveryId": "a", "since": 5}, "since"),
    ):
        answer = here.backend.post(path, body)
        assert answer.status_code == 400, (path, body)
        assert answer.json()["details"]["fields"][0]["field"] == field
    for path in ("webhook/delete", "webhook/test", "webhook/rotate-secret"):
        assert here.backend.post(path, {"id": "unknown"}).status_code == 404
    assert here.backend.post("webhook/update", {**good, "id": "unknown", "enabled": True}).status_code == 404
    assert here.backend.get("webhook/unknown").status_code == 404
    assert [one["id"] for one in here.backend.get("webhooks").json()["webhooks"]] == [webhook]


def test_a_project_has_a_limited_number_of_webhooks(here: Installation, hooks: Receiver) -> None:
    for _ in range(MAX_WEBHOOKS):
        made(here.backend, url=f"{hooks.url}/a")
    answer = here.backend.post("webhook/create", {"url": f"{hooks.url}/a"})
    assert answer.status_code == 400
    assert "delete one first" in answer.json()["message"]


def test_webhooks_take_a_permission_of_their_own_and_every_app(
    here: Installation, hooks: Receiver, webhook: str, backend_with: MakeBackend
) -> None:
    without = backend_with(permissions=sorted(ALL_PERMISSIONS - {Permission.WEBHOOKS}))
    limited = backend_with(app_ids=[APP_ID])
    allowed = backend_with(permissions=[Permission.WEBHOOKS])
    calls: list[tuple[str, dict[str, Any] | None]] = [
        ("webhooks", None),
        (f"webhook/{webhook}", None),
        ("webhook/deliveries", None),
        ("webhook/create", {"url": f"{hooks.url}/a"}),
        ("webhook/update", {"id": webhook, "url": f"{hooks.url}/a", "enabled": True}),
        ("webhook/rotate-secret", {"id": webhook}),
        ("webhook/test", {"id": webhook}),
        ("webhook/replay", {"webhookId": webhook}),
        ("webhook/delete", {"id": webhook}),
    ]

    def statuses(backend: Backend) -> set[int]:
        return {(backend.get(path) if body is None else backend.post(path, body)).status_code for path, body in calls}

    assert statuses(without) == {403}
    assert statuses(limited) == {403}
    assert statuses(allowed) == {200}
    assert allowed.get("apps").status_code == 403


def test_one_projects_webhooks_are_nothing_to_another(
    here: Installation, hooks: Receiver, webhook: str, backend_with: MakeBackend
) -> None:
    other = backend_with(new_project(here.settings).project_id)
    theirs = made(other, url=f"{hooks.url}/theirs")["webhook"]["id"]
    here.connected(someone())
    (delivery,) = deliveries(here.backend)
    assert deliveries(other) == []
    assert [one["id"] for one in other.get("webhooks").json()["webhooks"]] == [theirs]
    before = dump(here.settings)["webhooks"]
    assert other.get(f"webhook/{webhook}").status_code == 404
    assert deliveries(other, f"&webhookId={webhook}") == []
    for path, body in (
        ("webhook/update", {"id": webhook, "url": f"{hooks.url}/x", "enabled": False}),
        ("webhook/rotate-secret", {"id": webhook}),
        ("webhook/test", {"id": webhook}),
        ("webhook/replay", {"deliveryId": delivery["id"]}),
        ("webhook/replay", {"webhookId": webhook}),
        ("webhook/delete", {"id": webhook}),
    ):
        assert other.post(path, body).status_code == 404, path
    assert dump(here.settings)["webhooks"] == before
    deliver(here)
    assert [one.path for one in hooks.received] == ["/a"]


def test_the_same_ids_in_two_projects_are_two_things(
    here: Installation, hooks: Receiver, webhook: str, backend_with: MakeBackend
) -> None:
    other = backend_with(new_project(here.settings).project_id)
    here.connected(someone())
    for table in (Webhook.__table__, WebhookDelivery.__table__):
        rest = ", ".join(column.name for column in table.columns if column.name != "project_id")
        copy = f"INSERT INTO {table} (project_id, {rest}) SELECT '{other.project_id}', {rest} FROM {table}"
        execute(here.settings, copy)
    failed = "UPDATE webhook_deliveries SET status = 'failed', next_attempt_at = NULL WHERE project_id = '{}'"
    execute(here.settings, failed.format(other.project_id))
    (delivery,) = deliveries(other)

    def ours() -> list[Any]:
        tables = dump(here.settings)
        rows = [*tables["webhooks"], *tables["webhook_deliveries"]]
        return [row for row in rows if row["project_id"] == here.backend.project_id]

    before = ours()
    for path, body in (
        ("webhook/replay", {"deliveryId": delivery["id"]}),
        ("webhook/replay", {"webhookId": webhook}),
        ("webhook/update", {"id": webhook, "url": f"{hooks.url}/x", "enabled": True}),
        ("webhook/update", {"id": webhook, "url": f"{hooks.url}/x", "enabled": False}),
        ("webhook/delete", {"id": webhook}),
    ):
        assert other.post(path, body).status_code == 200, path
    assert (deliveries(other), len(before), ours()) == ([], 2, before)


def test_the_audit_log_tells_of_every_change_by_host_alone(here: Installation, hooks: Receiver) -> None:
    webhook = made(here.backend, url=f"{hooks.url}/secret-path-7f3a")["webhook"]["id"]
    change = {"id": webhook, "url": f"{hooks.url}/secret-path-7f3a", "description": "x", "enabled": False}
    assert here.backend.post("webhook/update", change).status_code == 200
    assert here.backend.post("webhook/rotate-secret", {"id": webhook}).status_code == 200
    assert here.backend.post("webhook/delete", {"id": webhook}).json() == {}
    events = sorted(dump(here.settings)["audit_events"], key=lambda event: event["sequence"])
    told = [event for event in events if webhook in str(event["data"])]
    assert [event["action"] for event in told] == [
        "webhook.created",
        "webhook.updated",
        "webhook.secret_rotated",
        "webhook.deleted",
    ]
    assert "127.0.0.1" in str(told[0]["data"])
    assert "['description', 'enabled']" in str(told[1]["data"]).replace('"', "'")
    assert "7f3a" not in str(told)
    assert {event["actor"].partition(":")[0] for event in told} == {"key"}


def test_the_document_offers_every_type_of_event() -> None:
    assert get_args(EventName) == SUBSCRIBABLE
