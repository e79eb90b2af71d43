"""Delivering: when, how often, to whom at once, and what a receiver's answers do."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import delete, event, select, update
from standardwebhooks import WebhookVerificationError

from evergrant import clock as wall_clock
from evergrant.broker.audit.log import AuditQuery, search_records
from evergrant.broker.runtime import broker as brokers
from evergrant.broker.runtime.broker import Broker, open_broker
from evergrant.broker.webhooks import delivery as deliveries
from evergrant.broker.webhooks.delivery import MAX_ATTEMPTS, PAUSES, claim_due_deliveries, deliver_until
from evergrant.broker.webhooks.log import DeliveryFilter, clear_old_deliveries, list_deliveries, replay_failed
from evergrant.broker.webhooks.outbox import EventType, emit
from evergrant.broker.webhooks.registry import (
    WebhookDefinition,
    WebhookWithSecret,
    create_webhook,
    delete_webhook,
    load_webhook,
    rotate_secret,
)
from evergrant.db import Webhook, WebhookDelivery
from evergrant.db.types import database_now
from evergrant.errors import NotFound
from evergrant.refresher import refresh_until
from evergrant.settings import Settings
from tests.conftest import Clock
from tests.infra.installation import new_project
from tests.infra.receiver import Receiver
from tests.infra.rows import dump
from tests.infra.scripted import serving
from tests.infra.waiting import PATIENCE, until

DAY = 86_400


@pytest.fixture(scope="module")
def shared_receiver() -> Iterator[Receiver]:
    with serving(Receiver()) as running:
        yield running


@pytest.fixture
def hooks(shared_receiver: Receiver) -> Iterator[Receiver]:
    """A receiver that has received nothing yet."""
    shared_receiver.received.clear()
    shared_receiver.statuses.clear()
    yield shared_receiver
    shared_receiver.held.clear()


@dataclass
class Project:
    broker: Broker
    id: str
    settings: Settings

    async def webhook(self, url: str, *event_types: str) -> WebhookWithSecret:
        definition = WebhookDefinition(url=url, event_types=event_types)
        return await create_webhook(self.broker, self.id, definition, now=wall_clock.now())

    async def happens(self, kind: EventType = EventType.APP_RECOVERED, *data: dict[str, Any]) -> None:
        async with self.broker.database.write() as session:
            await emit(session, self.id, kind, *(data or ({"appId": "contacts"},)))

    async def deliveries(self, **which: str) -> list[WebhookDelivery]:
        return (await list_deliveries(self.broker, self.id, DeliveryFilter(**which), before="", limit=200))[0]

    async def delivery(self) -> WebhookDelivery:
        (one,) = await self.deliveries()
        return one

    async def actions(self) -> list[dict[str, Any]]:
        found = await search_records(self.broker, self.id, AuditQuery(actions=["webhook.disabled"]))
        return [record.data for record in found]


@pytest.fixture
async def project(settings: Settings, hooks: Receiver) -> AsyncIterator[Project]:
    made = await asyncio.to_thread(new_project, settings)
    async with open_broker(settings) as broker:
        yield Project(broker, made.project_id, settings)


@contextlib.asynccontextmanager
async def delivering(*brokers: Broker) -> AsyncIterator[None]:
    stop = asyncio.Event()
    tasks = [asyncio.create_task(deliver_until(broker, stop)) for broker in brokers]
    try:
        yield
    finally:
        stop.set()
        await asyncio.gather(*tasks)


async def deliver_due(project: Project) -> None:
    """Let everything that is due now be delivered, and what it leads to be written down."""
    async with delivering(project.broker):
        async with asyncio.timeout(PATIENCE):
            while (await claimable(project)) > 0:
                await asyncio.sleep(0.02)


async def claimable(project: Project) -> int:
    """Count what is due or under way."""
    now = wall_clock.now()
    query = select(WebhookDelivery.id).where(WebhookDelivery.next_attempt_at <= now)
    async with project.broker.database.read() as session:
        return len((await session.scalars(query)).all())


async def test_an_event_is_delivered_soon_with_a_signature_that_the_published_verifier_accepts(
    project: Project, hooks: Receiver
) -> None:
    assert deliveries.POLL_SECONDS <= 1
    made = await project.webhook(f"{hooks.url}/a")
    async with delivering(project.broker):
        await asyncio.sleep(0.1)
        await project.happens(EventType.APP_UNHEALTHY, {"appId": "contacts", "reason": "invalid_client"})
        async with asyncio.timeout(PATIENCE):
            while not hooks.received:
                await asyncio.sleep(0.02)
    (received,) = hooks.received
    told = received.verified_with(made.secret.get_secret_value())
    assert told["type"] == "app.unhealthy"
    assert told["data"] == {"projectId": project.id, "appId": "contacts", "reason": "invalid_client"}
    assert received.headers["content-type"] == "application/json"
    delivery = await project.delivery()
    assert (delivery.id, delivery.status, delivery.attempts) == (received.id, "delivered", 1)
    assert (delivery.last_status_code, delivery.last_error, delivery.next_attempt_at) == (204, "", None)


async def test_a_replaced_secret_signs_beside_the_new_one_for_the_overlap_and_then_no_more(
    project: Project, hooks: Receiver, clock: Clock
) -> None:
    first = await project.webhook(f"{hooks.url}/a")
    second = await rotate_secret(project.broker, project.id, first.webhook.id, overlap_seconds=200, now=clock.now)
    await project.happens()
    await deliver_due(project)
    for made in (first, second):
        assert hooks.received[0].verified_with(made.secret.get_secret_value())
    clock.advance(201)
    await project.happens()
    await deliver_due(project)
    assert hooks.received[1].verified_with(second.secret.get_secret_value())
    with pytest.raises(WebhookVerificationError):
        hooks.received[1].verified_with(first.secret.get_secret_value())
    await clear_old_deliveries(project.broker, now=clock.now)
    webhook = await load_webhook(project.broker, project.id, first.webhook.id)
    assert (webhook.previous_secret, webhook.previous_secret_until) == (None, None)


async def test_without_an_overlap_the_old_secret_ends_at_once(project: Project, hooks: Receiver, clock: Clock) -> None:
    first = await project.webhook(f"{hooks.url}/a")
    second = await rotate_secret(project.broker, project.id, first.webhook.id, overlap_seconds=0, now=clock.now)
    await project.happens()
    await deliver_due(project)
    assert hooks.received[0].verified_with(second.secret.get_secret_value())
    with pytest.raises(WebhookVerificationError):
        hooks.received[0].verified_with(first.secret.get_secret_value())


async def test_rotations_at_the_same_moment_hand_out_no_secret_that_never_signs(
    project: Project, hooks: Receiver, clock: Clock
) -> None:
    made = await project.webhook(f"{hooks.url}/a")
    both = await asyncio.gather(
        *(rotate_secret(project.broker, project.id, made.webhook.id, now=clock.now) for _ in range(2))
    )
    await project.happens()
    await deliver_due(project)
    for one in both:
        assert hooks.received[0].verified_with(one.secret.get_secret_value())


async def test_what_is_not_accepted_is_tried_again_for_days_with_the_same_id_and_body(
    project: Project, hooks: Receiver, clock: Clock
) -> None:
    await project.webhook(f"{hooks.url}/a")
    hooks.answer("/a", 500)
    await project.happens()
    begun = clock.now
    for attempt, pause in enumerate(PAUSES, start=1):
        await deliver_due(project)
        delivery = await project.delivery()
        assert (delivery.status, delivery.attempts, delivery.last_status_code) == ("pending", attempt, 500)
        assert "500" in delivery.last_error
        assert delivery.next_attempt_at is not None
        planned = delivery.next_attempt_at - clock.now
        assert pause * 0.9 <= planned <= pause * 1.2
        clock.now = delivery.next_attempt_at - timedelta(seconds=1)
        assert await claim_due_deliveries(project.broker, busy={}, now=clock.now) == ([], False)
        clock.advance(1)
    await deliver_due(project)
    delivery = await project.delivery()
    assert (delivery.status, delivery.attempts, delivery.next_attempt_at) == ("failed", MAX_ATTEMPTS, None)
    assert timedelta(days=2.5) < clock.now - begun < timedelta(days=4)
    assert len(hooks.received) == MAX_ATTEMPTS
    assert len({(one.id, one.body) for one in hooks.received}) == 1
    assert len({one.headers["webhook-timestamp"] for one in hooks.received}) == MAX_ATTEMPTS  # each signed anew
    assert await project.actions() == []  # three days are not five


async def test_after_failures_an_attempt_that_is_accepted_ends_it(
    project: Project, hooks: Receiver, clock: Clock
) -> None:
    made = await project.webhook(f"{hooks.url}/a")
    hooks.answer("/a", 503, 204)
    await project.happens()
    await deliver_due(project)
    failing = await load_webhook(project.broker, project.id, made.webhook.id)
    assert failing.failing_since == clock.now
    clock.advance(7)
    await deliver_due(project)
    delivery = await project.delivery()
    assert (delivery.status, delivery.attempts, delivery.last_error) == ("delivered", 2, "")
    webhook = await load_webhook(project.broker, project.id, made.webhook.id)
    assert webhook.failing_since is None
    clock.advance(30 * DAY)
    await deliver_due(project)
    assert len(hooks.received) == 2


@pytest.mark.parametrize(
    ("status", "retry_after", "seconds"), [(429, "7200", 7_200), (503, "3", 5), (500, "9999999", DAY), (503, "x", 5)]
)
async def test_a_receiver_can_ask_for_a_longer_pause_up_to_a_day(
    project: Project, hooks: Receiver, clock: Clock, status: int, retry_after: str, seconds: int
) -> None:
    await project.webhook(f"{hooks.url}/a")
    hooks.answer("/a", status, retry_after=retry_after)
    await project.happens()
    await deliver_due(project)
    due = (await project.delivery()).next_attempt_at
    assert due is not None
    assert seconds * 0.9 <= (due - clock.now).total_seconds() <= seconds * 1.2


async def test_a_redirect_is_not_followed(project: Project, hooks: Receiver, clock: Clock) -> None:
    await project.webhook(f"{hooks.url}/a")
    hooks.answer("/a", 307, location=f"{hooks.url}/elsewhere")
    await project.happens()
    await deliver_due(project)
    assert [one.path for one in hooks.received] == ["/a"]
    assert (await project.delivery()).last_error == "The receiver answered a redirect, which is not followed."


async def test_410_disables_the_webhook_and_lets_what_was_waiting_fail(
    project: Project, hooks: Receiver, clock: Clock
) -> None:
    gone = await project.webhook(f"{hooks.url}/gone")
    await project.webhook(f"{hooks.url}/other")
    hooks.answer("/gone", 500, 410)
    await project.happens()
    await deliver_due(project)
    await project.happens(EventType.APP_UNHEALTHY)
    clock.advance(1)
    await deliver_due(project)
    webhook = await load_webhook(project.broker, project.id, gone.webhook.id)
    assert (webhook.enabled, webhook.disabled_reason) == (False, "gone")
    reason = {"webhookId": gone.webhook.id, "reason": "gone", "error": "The receiver answered 410."}
    assert await project.actions() == [reason]
    log = await project.deliveries(webhook_id=gone.webhook.id)
    assert {one.event_type: (one.status, one.last_error) for one in log} == {
        "app.unhealthy": ("failed", "The receiver answered 410."),
        "app.recovered": ("failed", "The webhook is disabled."),
    }
    await project.happens()
    assert len(await project.deliveries(webhook_id=gone.webhook.id)) == 2
    assert len(hooks.at("/other")) == 2


async def test_a_webhook_is_disabled_when_a_delivery_is_given_up_and_none_was_accepted_for_five_days(
    project: Project, hooks: Receiver, clock: Clock
) -> None:
    made = await project.webhook(f"{hooks.url}/a")
    hooks.answer("/a", 500)
    await project.happens()
    await deliver_due(project)
    clock.advance(6 * DAY)
    await project.happens(EventType.APP_UNHEALTHY)
    await deliver_due(project)
    # two events have failed for the moment, and neither was given up
    assert (await load_webhook(project.broker, project.id, made.webhook.id)).enabled
    assert await project.actions() == []
    async with project.broker.database.write() as session:
        await session.execute(update(WebhookDelivery).values(attempts=MAX_ATTEMPTS - 1, next_attempt_at=clock.now))
    await deliver_due(project)
    webhook = await load_webhook(project.broker, project.id, made.webhook.id)
    assert (webhook.enabled, webhook.disabled_reason) == (False, "failing")
    assert len(await project.actions()) == 1
    assert {one.status for one in await project.deliveries()} == {"failed"}


async def test_a_receiver_that_hangs_holds_up_itself_alone(project: Project, hooks: Receiver) -> None:
    hooks.held.set()
    await project.webhook(f"{hooks.url}/held")
    await project.webhook(f"{hooks.url}/a")
    async with delivering(project.broker):
        for _ in range(5):
            await project.happens(EventType.APP_RECOVERED, *({"appId": f"app-{n}"} for n in range(20)))
        async with asyncio.timeout(PATIENCE):
            while len(hooks.at("/a")) < 100:
                await asyncio.sleep(0.05)
        assert len(hooks.underway) == deliveries.PER_WEBHOOK
        assert len(hooks.at("/held")) == deliveries.PER_WEBHOOK
        hooks.held.clear()
        async with asyncio.timeout(PATIENCE):
            while len(hooks.at("/held")) < 100:
                await asyncio.sleep(0.05)


async def test_a_failing_receiver_gets_one_delivery_at_a_time(project: Project, hooks: Receiver) -> None:
    hooks.held.set()
    await project.webhook(f"{hooks.url}/held")
    async with project.broker.database.write() as session:
        await session.execute(update(Webhook).values(failing_since=wall_clock.now()))
    await project.happens(EventType.APP_RECOVERED, *({"appId": f"app-{n}"} for n in range(5)))
    async with delivering(project.broker):
        async with asyncio.timeout(PATIENCE):
            while not hooks.underway:
                await asyncio.sleep(0.05)
        await asyncio.sleep(1)
        assert len(hooks.at("/held")) == 1
        hooks.held.clear()


async def test_receivers_that_hang_take_no_connection_from_providers(
    settings: Settings, hooks: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(brokers, "connections_at_once", lambda: 1)
    made = await asyncio.to_thread(new_project, settings)
    async with open_broker(settings) as broker:
        project = Project(broker, made.project_id, settings)
        hooks.held.set()
        await project.webhook(f"{hooks.url}/held")
        await project.happens()
        async with delivering(broker):
            await until(lambda: bool(hooks.underway), "the receiver hangs")
            assert (await broker.http.get_json(f"{hooks.url}/anything")).status == 204
            hooks.held.clear()


async def test_a_receiver_that_takes_too_long_has_failed(
    project: Project, hooks: Receiver, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deliveries, "CALL_SECONDS", 0.3)
    hooks.held.set()
    await project.webhook(f"{hooks.url}/held")
    await project.happens()
    await deliver_due(project)
    delivery = await project.delivery()
    assert (delivery.status, delivery.last_status_code) == ("pending", None)
    assert delivery.last_error.startswith("The receiver did not answer within")


async def test_replicas_share_the_work_and_none_repeats_anothers(project: Project, hooks: Receiver) -> None:
    await project.webhook(f"{hooks.url}/a")
    await project.webhook(f"{hooks.url}/b")
    async with (
        open_broker(project.settings) as other,
        open_broker(project.settings) as third,
        delivering(project.broker, other, third),
    ):
        for _ in range(10):
            await project.happens(EventType.APP_RECOVERED, *({"appId": f"app-{n}"} for n in range(6)))
        async with asyncio.timeout(PATIENCE):
            while await claimable(project):
                await asyncio.sleep(0.05)
    assert len(hooks.received) == 120
    assert len({one.id for one in hooks.received}) == 120
    assert {one.attempts for one in await project.deliveries()} == {1}


async def test_two_who_claim_at_once_never_get_the_same_delivery(
    project: Project, hooks: Receiver, clock: Clock
) -> None:
    await project.webhook(f"{hooks.url}/a")
    await project.happens(EventType.APP_RECOVERED, *({"appId": f"app-{n}"} for n in range(12)))
    async with open_broker(project.settings) as other:
        taken = await asyncio.gather(
            *(claim_due_deliveries(broker, busy={}, now=clock.now) for broker in (project.broker, other) * 2)
        )
    ids = [claim.delivery.id for claims, _ in taken for claim in claims]
    assert len(ids) == len(set(ids)) == 12


async def test_a_delivery_whose_process_died_is_made_again_when_the_lease_has_run_out(
    project: Project, hooks: Receiver, clock: Clock
) -> None:
    await project.webhook(f"{hooks.url}/a")
    await project.happens()
    (claim,), _ = await claim_due_deliveries(project.broker, busy={}, now=clock.now)
    clock.advance(DAY)
    assert await claim_due_deliveries(project.broker, busy={}, now=clock.now) == ([], False)
    async with project.broker.database.write() as session:
        await session.execute(update(WebhookDelivery).values(lease_until=database_now(-1)))
    await deliver_due(project)
    assert [one.id for one in hooks.received] == [claim.delivery.id]
    # and the one that was given up for dead changes nothing any more
    hooks.answer("/a", 500)
    await deliveries.attempt_delivery(project.broker, claim, now=clock.now)
    assert (await project.delivery()).status == "delivered"


async def test_a_stop_does_not_wait_for_long_and_leaves_what_is_cut_off_to_be_repeated(
    project: Project, hooks: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deliveries, "STOP_SECONDS", 0.2)
    hooks.held.set()
    await project.webhook(f"{hooks.url}/held")
    await project.happens()
    async with delivering(project.broker):
        async with asyncio.timeout(PATIENCE):
            while not hooks.underway:
                await asyncio.sleep(0.02)
    delivery = await project.delivery()
    assert (delivery.status, delivery.attempts) == ("pending", 1)
    assert delivery.last_attempt_at is None, "its end was waited for"
    assert delivery.next_attempt_at is not None


async def test_a_delivery_that_ends_while_a_stop_waits_is_written_down(project: Project, hooks: Receiver) -> None:
    hooks.held.set()
    await project.webhook(f"{hooks.url}/held")
    await project.happens()
    async with delivering(project.broker):
        async with asyncio.timeout(PATIENCE):
            while not hooks.underway:
                await asyncio.sleep(0.02)
        asyncio.get_running_loop().call_later(0.3, hooks.held.clear)
    assert (await project.delivery()).status == "delivered"


async def test_an_address_that_may_not_be_called_is_not_called(project: Project, hooks: Receiver, clock: Clock) -> None:
    """A name can turn to an address within, after the URL was checked."""
    await project.webhook(f"{hooks.url}/a")
    await project.happens()
    async with open_broker(project.settings.model_copy(update={"egress_allow": ()})) as closed:
        await deliver_due(Project(closed, project.id, project.settings))
    assert hooks.received == []
    delivery = await project.delivery()
    assert (delivery.status, delivery.last_status_code) == ("pending", None)
    assert "may not be called" in delivery.last_error


async def test_what_a_receiver_says_is_kept_nowhere(project: Project, hooks: Receiver, clock: Clock) -> None:
    await project.webhook(f"{hooks.url}/a?token=in-the-url-7f3a")
    hooks.answer("/a", 500, x_secret="in-a-header-7f3a")
    await project.happens()
    await deliver_due(project)
    tables = await asyncio.to_thread(dump, project.settings)
    assert "in-the-url-7f3a" in repr(tables.pop("webhooks"))
    assert "7f3a" not in repr(tables)


async def test_secrets_are_sealed_and_payloads_hold_none(project: Project, hooks: Receiver, clock: Clock) -> None:
    first = await project.webhook(f"{hooks.url}/a")
    second = await rotate_secret(project.broker, project.id, first.webhook.id, now=clock.now)
    await project.happens()
    tables = repr(await asyncio.to_thread(dump, project.settings))
    for made in (first, second):
        assert made.secret.get_secret_value().removeprefix("whsec_") not in tables


async def test_what_is_told_never_fails_because_a_webhook_is_deleted_at_that_moment(
    project: Project, hooks: Receiver
) -> None:
    await project.webhook(f"{hooks.url}/a")
    kept = await project.webhook(f"{hooks.url}/b")
    async with project.broker.database.write() as session:
        await session.execute(delete(Webhook).where(Webhook.id != kept.webhook.id))
        telling = asyncio.create_task(project.happens())
        await asyncio.sleep(0.2)
        assert not telling.done()
    await telling
    assert (await project.delivery()).webhook_id == kept.webhook.id
    # and the other way round: the deletion waits for what is being written
    async with project.broker.database.write() as session:
        await emit(session, project.id, EventType.APP_RECOVERED, {"appId": "contacts"})
        deleting = asyncio.create_task(delete_webhook(project.broker, project.id, kept.webhook.id))
        await asyncio.sleep(0.2)
        assert not deleting.done()
    await deleting
    assert await project.deliveries() == []
    with pytest.raises(NotFound):
        await load_webhook(project.broker, project.id, kept.webhook.id)


async def test_without_a_webhook_an_event_costs_one_lookup(project: Project) -> None:
    statements: list[str] = []

    def note(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        statements.append(statement)

    async with project.broker.database.write() as session:
        assert (await session.connection()) is not None
        event.listen(project.broker.database.engine.sync_engine, "before_cursor_execute", note)
        await emit(session, project.id, EventType.GRANT_REVOKED, *({"grantId": str(n)} for n in range(200)))
        event.remove(project.broker.database.engine.sync_engine, "before_cursor_execute", note)
    (statement,) = statements
    assert statement.startswith("SELECT")


async def test_what_is_due_and_the_log_are_found_by_an_index(project: Project, hooks: Receiver, clock: Clock) -> None:
    made = await project.webhook(f"{hooks.url}/a")
    await project.happens(EventType.APP_RECOVERED, *({"appId": f"app-{n}"} for n in range(2000)))
    async with project.broker.database.write() as session:
        await session.execute(update(WebhookDelivery).values(status="delivered", next_attempt_at=None))
    explain = "EXPLAIN QUERY PLAN " if project.broker.database.is_sqlite else "EXPLAIN "
    of_one = f"SELECT id FROM webhook_deliveries WHERE project_id = '{project.id}' AND webhook_id = '{made.webhook.id}'"
    due, log = "AND next_attempt_at <= '2126-01-31'", "ORDER BY id DESC LIMIT 50"
    async with project.broker.database.engine.connect() as connection:
        await connection.exec_driver_sql("ANALYZE")
        plans = [str((await connection.exec_driver_sql(f"{explain} {of_one} {rest}")).all()) for rest in (due, log)]
    assert "ix_webhook_deliveries_due" in plans[0]
    for plan in plans:  # neither reads everything, nor sorts
        assert "index" in plan.lower()
        assert [word for word in ("Seq Scan", "Sort", "SCAN", "TEMP B-TREE") if word in plan] == []


async def test_a_change_that_is_taken_back_is_not_told(project: Project, hooks: Receiver) -> None:
    await project.webhook(f"{hooks.url}/a")
    with contextlib.suppress(ZeroDivisionError):
        async with project.broker.database.write() as session:
            await emit(session, project.id, EventType.APP_RECOVERED, {"appId": "contacts"})
            raise ZeroDivisionError
    assert await project.deliveries() == []


async def test_only_what_a_webhook_wants_is_written_for_it(project: Project, hooks: Receiver) -> None:
    wanting = await project.webhook(f"{hooks.url}/a", "app.unhealthy")
    await project.webhook(f"{hooks.url}/b", "grant.created", "grant.revoked")
    for kind in (EventType.APP_UNHEALTHY, EventType.APP_RECOVERED):
        await project.happens(kind)
    (told,) = await project.deliveries()
    assert (told.webhook_id, told.event_type) == (wanting.webhook.id, "app.unhealthy")


async def test_the_log_is_kept_for_thirty_days_and_what_is_waiting_for_longer(
    project: Project, hooks: Receiver, clock: Clock
) -> None:
    await project.webhook(f"{hooks.url}/a")
    await project.happens(EventType.APP_UNHEALTHY)
    await deliver_due(project)
    await project.happens(EventType.APP_RECOVERED)
    clock.advance(29 * DAY)
    assert await clear_old_deliveries(project.broker, now=clock.now) == 0
    clock.advance(2 * DAY)
    assert await clear_old_deliveries(project.broker, now=clock.now) == 1
    assert (await project.delivery()).event_type == "app.recovered"


async def test_the_refreshers_chores_forget_what_is_old(project: Project, hooks: Receiver, clock: Clock) -> None:
    await project.webhook(f"{hooks.url}/a")
    await project.happens()
    await deliver_due(project)
    clock.advance(31 * DAY)
    stop = asyncio.Event()
    refreshing = asyncio.create_task(refresh_until(project.broker, stop))
    async with asyncio.timeout(PATIENCE):
        while await project.deliveries():
            await asyncio.sleep(0.05)
    stop.set()
    await refreshing


async def test_everything_that_failed_since_a_time_is_delivered_again_from_the_first_attempt_on(
    project: Project, hooks: Receiver, clock: Clock
) -> None:
    made = await project.webhook(f"{hooks.url}/a")
    start = clock.now
    for _ in range(3):
        await project.happens()
        clock.advance(60)
    async with project.broker.database.write() as session:
        await session.execute(update(WebhookDelivery).values(status="failed", attempts=10, next_attempt_at=None))
    await deliver_due(project)
    assert hooks.received == []
    since = start + timedelta(seconds=60)
    assert await replay_failed(project.broker, project.id, made.webhook.id, since=since, now=clock.now) == 2
    await deliver_due(project)
    assert len(hooks.received) == 2
    assert sorted(one.status for one in await project.deliveries()) == ["delivered", "delivered", "failed"]
    assert sorted(one.attempts for one in await project.deliveries()) == [1, 1, 10]
    assert await replay_failed(project.broker, project.id, made.webhook.id, since=since, now=clock.now) == 0
