"""Test connections: whether an app works from the consent page to the revocation, tried with the operator's account.

First what can be told without a user, then a real trip. Its connection is nobody's: nobody can fetch it, it stands in
no list for longer than the test takes, and it ends with the test. The last test of each app is kept.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import select

from evergrant.app_types import AppType
from evergrant.broker.apps.apps import load_app
from evergrant.broker.apps.provider_client import callback_url
from evergrant.broker.apps.variables import template_of
from evergrant.broker.connect.authorization_requests import RESULT_PATH
from evergrant.broker.connect.start import TICKET_LIFETIME, TRIP_LIFETIME, ConnectRequest, begin_connect
from evergrant.broker.grants.grants import ResourceOwner
from evergrant.broker.runtime.broker import Broker
from evergrant.broker.runtime.principal import Permission, Principal
from evergrant.broker.trials.leftovers import end_connection
from evergrant.broker.trials.looks import is_in_the_way, look
from evergrant.broker.trials.remedies import Saying, sayings
from evergrant.broker.trials.steps import Step, StepName, StepState, in_order, to_json
from evergrant.crypto.opaque import new_id
from evergrant.db import AppTest, OutboundApp
from evergrant.errors import EvergrantError, InvalidValue, NotFound, RateLimited, Unavailable

TEST_USER = "evergrant-test"
"""Whose connection a test makes."""
KEPT_USER = "test-user"
"""Whose connection it makes where that stays."""
BACK_SOON = timedelta(seconds=30)
"""After so long at the provider, the operator is asked what it says."""
LANDING = timedelta(minutes=5)
"""How long a landing may take at most; after that it was interrupted."""


@dataclass(frozen=True, slots=True)
class BegunTrial:
    """A test connection that has begun."""

    trial_id: str
    url: str
    """Where the browser goes; empty where the check found what keeps a trip from ending well."""


@dataclass(frozen=True, slots=True)
class Trial:
    """How a test connection goes, or went."""

    id: str
    app: OutboundApp
    made_by: str
    started_at: datetime
    steps: tuple[Step, ...]
    is_over: bool
    is_away: bool
    """The browser left a while ago and did not come back."""
    has_left: bool
    sayings: tuple[Saying, ...]
    """What the provider's page may say to somebody who is away."""
    callback_url: str
    setup_hint: str
    documentation_url: str

    @property
    def wrong(self) -> Step | None:
        """The step that failed."""
        return next((step for step in self.steps if step.state == StepState.BAD), None)

    @property
    def is_good(self) -> bool:
        """Whether it is over and nothing failed."""
        return self.is_over and self.wrong is None


async def begin_trial(
    broker: Broker,
    principal: Principal,
    app_id: str,
    *,
    page_of: Callable[[str], str] | None = None,
    keep: bool = False,
    anyway: bool = False,
    now: datetime,
) -> BegunTrial:
    """Begin a test connection of an app: check it, and return where the browser goes.

    Args:
        broker: the runtime.
        principal: who asks.
        app_id: the app.
        page_of: the address of a test's page, by its id, where the browser ends; else it ends at our result page.
        keep: make an ordinary connection of `KEPT_USER`, which stays.
        anyway: make the trip whatever the check finds.
        now: the moment.

    Raises:
        PermissionDenied: it takes `apps:write` and `connect`, for this app.
        AppNotFound: there is no such app.
        InvalidValue: it is of a kind to which nobody consents.
    """
    principal.require_app(app_id)
    principal.require(Permission.APPS_WRITE)
    principal.require(Permission.CONNECT)
    app = await load_app(broker, principal.project_id, app_id)
    if not AppType(app.app_type).is_consented:
        raise InvalidValue.of(("appId", f"nobody consents to the app '{app.id}': there is no trip to test"))
    trial_id, url = new_id(), ""
    steps = await look(broker, app, now=now)
    if anyway or not is_in_the_way(steps):
        wanted = ConnectRequest(
            app_id=app.id,
            owner=ResourceOwner(KEPT_USER if keep else TEST_USER, app.tenant_id),
            external_identifier="" if keep else f"test-{trial_id}",
            redirect_url=page_of(trial_id) if page_of else f"{broker.settings.public_url}{RESULT_PATH}",
            trial_id=trial_id,
        )
        try:
            url = await begin_connect(broker, principal, wanted, now=now)
        except (Unavailable, RateLimited):
            raise
        except EvergrantError as error:
            steps.append(_refused(error, now=now))
    left_over = await _store(broker, app, trial_id, principal.name, steps, over=not url, now=now)
    if left_over:
        await end_connection(broker, app.project_id, left_over, now=now)
    return BegunTrial(trial_id, url)


def _refused(error: EvergrantError, *, now: datetime) -> Step:
    """Return the step that says why no trip could begin."""
    fields = error.details.get("fields", ()) if isinstance(error, InvalidValue) else ()
    text = "; ".join(entry["problem"] for entry in fields) or error.message
    name = StepName.DEFINITION if isinstance(error, InvalidValue) else StepName.CLIENT
    return Step.of(name, StepState.BAD, f"{text[:1].upper()}{text[1:]}", at=now)


async def _store(
    broker: Broker, app: OutboundApp, trial_id: str, made_by: str, steps: list[Step], *, over: bool, now: datetime
) -> str:
    """Keep a test as the app's last one, and return the connection that the one before may have left."""
    key = (app.project_id, app.id)
    lock = select(OutboundApp.id).where(OutboundApp.project_id == app.project_id, OutboundApp.id == app.id)
    async with broker.database.write() as session:
        await session.execute(lock.with_for_update())
        before = await session.get(AppTest, key)
        left_over = before.grant_id if before is not None else ""
        if before is not None:
            await session.delete(before)
            await session.flush()
        session.add(
            AppTest(
                project_id=app.project_id,
                app_id=app.id,
                id=trial_id,
                made_by=made_by,
                steps=to_json(steps),
                grant_id="",
                started_at=now,
                finished_at=now if over else None,
            )
        )
    return left_over


async def read_trial(
    broker: Broker, principal: Principal, app_id: str, trial_id: str = "", *, now: datetime
) -> Trial | None:
    """Return the last test connection of an app; None where there was none.

    Raises:
        PermissionDenied: the key is limited to other apps.
        AppNotFound: there is no such app.
        NotFound: `trial_id` is not its last one.
    """
    principal.require_app(app_id)
    app = await load_app(broker, principal.project_id, app_id)
    async with broker.database.read() as session:
        row = await session.get(AppTest, (app.project_id, app.id))
    if trial_id and (row is None or row.id != trial_id):
        raise NotFound("This test is not kept: only the last one of each app is.")
    return None if row is None else _trial(broker, app, row, now=now)


def _trial(broker: Broker, app: OutboundApp, row: AppTest, *, now: datetime) -> Trial:
    stored = [Step.from_json(step) for step in row.steps]
    under_way, over = _under_way(app, row, stored, now=now) if row.finished_at is None else ([], True)
    template, callback = template_of(broker, app), callback_url(broker, app)
    came_back = any(step.name == StepName.CAME_BACK for step in stored)
    away = row.left_at is not None and not came_back and row.finished_at is None and row.left_at + BACK_SOON <= now
    return Trial(
        id=row.id,
        app=app,
        made_by=row.made_by,
        started_at=row.started_at,
        steps=in_order([*stored, *under_way]),
        is_over=over,
        is_away=away,
        has_left=row.left_at is not None,
        sayings=sayings(name=app.name, callback=callback) if away else (),
        callback_url=callback,
        setup_hint=template.setup_hint if template is not None else "",
        documentation_url=template.documentation_url if template is not None else "",
    )


def _under_way(app: OutboundApp, row: AppTest, stored: list[Step], *, now: datetime) -> tuple[list[Step], bool]:
    """Return the steps of a test that has not ended here as they are at a moment, and whether it can still go on."""
    back = next((step.moment for step in stored if step.name == StepName.CAME_BACK), None)
    if back is not None:
        if back + LANDING > now:
            return [], False
        text = "evergrant was interrupted here. What the test made is deleted within the hour."
        waiting = [step for step in stored if step.state == StepState.WAITING]
        return [Step.of(step.name, StepState.BAD, text, at=now, remedy="Test again.") for step in waiting], True
    if row.left_at is None:
        if row.started_at + TICKET_LIFETIME > now:
            return [Step(StepName.LEFT, StepState.WAITING, "The consent page waits for you.")], False
        text = "Nobody went on from the consent page within 10 minutes."
        return [Step(StepName.LEFT, StepState.BAD, text, "Test again.")], True
    left = Step.of(StepName.LEFT, StepState.GOOD, "From the consent page.", at=row.left_at)
    if row.left_at + BACK_SOON > now:
        return [left, Step(StepName.CAME_BACK, StepState.WAITING, f"You are at {app.name}.")], False
    over = row.left_at + TRIP_LIFETIME <= now
    text = f"You left for {app.name} and did not come back. What did it say?"
    return [left, Step(StepName.CAME_BACK, StepState.BAD if over else StepState.WARNING, text)], over
