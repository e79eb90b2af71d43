"""How a test connection goes on when its browser comes back: what the trip brought, one refresh, and the end."""

import asyncio
import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from sqlalchemy import Update, update

from evergrant import clock
from evergrant.broker.apps.api_call import checked_by
from evergrant.broker.apps.provider_client import callback_url
from evergrant.broker.apps.quirks import can_revoke, quirks_of, revokes_singly, scope_words
from evergrant.broker.connect.authorization_requests import RESULT_PATH, Authorization, ends_with_its_test
from evergrant.broker.grants.granted_scopes import proofs_of
from evergrant.broker.grants.grants import load_grant
from evergrant.broker.refresh.refresh import refresh_grant
from evergrant.broker.revocations.accounts import alone_on_account
from evergrant.broker.revocations.revocation import RevocationOutcome
from evergrant.broker.runtime.broker import Broker
from evergrant.broker.trials.api import ask_api
from evergrant.broker.trials.leftovers import end_connection, set_status
from evergrant.broker.trials.remedies import remedy_for
from evergrant.broker.trials.steps import Step, StepName, StepState, to_json
from evergrant.db import AppTest, AuthorizationRequest, Grant, GrantStatus, OutboundApp
from evergrant.errors import EvergrantError, UpstreamError
from evergrant.oauth2.authorization import AuthorizationResponse

log = logging.getLogger(__name__)

WAIT_SECONDS = 25.0
"""How long a browser waits for the end at most; its page shows the rest."""
GOOD, WARNING, BAD = StepState.GOOD, StepState.WARNING, StepState.BAD
WAITING, SKIPPED = StepState.WAITING, StepState.SKIPPED
OF_THE_WAY_BACK = {
    "app_changed": StepName.CAME_BACK,
    "callback_mismatch": StepName.CAME_BACK,
    "expired": StepName.CAME_BACK,
    "issuer_mismatch": StepName.STATE,
    "invalid_id_token": StepName.SUBJECT,
}
"""The steps at which a trip fails by one of our own codes; by any other, it is the exchange of the code."""


async def note_left(broker: Broker, request: AuthorizationRequest, *, now: datetime) -> None:
    """Note that a test's browser has left for the provider. What is no test is left alone."""
    if request.trial_id:
        async with broker.database.write() as session:
            await session.execute(_update(request).where(AppTest.left_at.is_(None)).values(left_at=now))


async def land_test(
    broker: Broker, authorization: Authorization, location: str, params: Mapping[str, str] | None = None
) -> str:
    """Go on with a test whose trip is over, wait a while for its end, and return where the browser goes.

    `location` is where the trip sends it, `params` what came back from the provider; None where nobody left for it.
    Trips that are no test's go where they go.
    """
    request = authorization.request
    if not request.trial_id:
        return location
    key = (request.project_id, request.id, b"test")

    async def work() -> str:
        await _Landing(broker, authorization, location, params).run()
        return ""

    await asyncio.wait({broker.trips.start(key, work)}, timeout=WAIT_SECONDS)
    is_ours = urlsplit(request.redirect_url).path == RESULT_PATH
    return location if is_ours else request.redirect_url


def _update(request: AuthorizationRequest) -> Update:
    return (
        update(AppTest)
        .where(
            AppTest.project_id == request.project_id,
            AppTest.app_id == request.app_id,
            AppTest.id == request.trial_id,
            AppTest.finished_at.is_(None),
        )
        .execution_options(synchronize_session=False)
    )


@dataclass
class _Landing:
    """One trip's way through the last steps."""

    broker: Broker
    authorization: Authorization
    location: str
    params: Mapping[str, str] | None
    steps: dict[StepName, Step] = field(default_factory=dict)

    @property
    def app(self) -> OutboundApp:
        return self.authorization.app

    async def run(self) -> None:
        broker, request = self.broker, self.authorization.request
        key = (request.project_id, request.id)
        async with broker.database.read() as session:
            current = await session.get(AuthorizationRequest, key)
            test = await session.get(AppTest, (request.project_id, request.app_id))
        grant_id = current.grant_id if current is not None else ""
        if test is None or test.id != request.trial_id:  # a newer test has taken its place
            if grant_id and ends_with_its_test(request):
                await end_connection(broker, request.project_id, grant_id, now=clock.now())
            return
        self.steps = {step.name: step for step in map(Step.from_json, test.steps)}
        if test.left_at is not None:
            self._note(StepName.LEFT, GOOD, "From the consent page.", at=test.left_at)
        if not grant_id:
            self._fail()
            await self._write(finished_at=clock.now())
        elif await self._claim(grant_id):
            try:
                await self._go_through(grant_id)
            except Exception as error:  # ours to mend; the operator still sees how far it came
                log.exception("a test connection could not be ended", extra={"app": self.app.id})
                text = error.message if isinstance(error, EvergrantError) else "evergrant could not go on here."
                self._give_up(text)
                await self._write(finished_at=clock.now())

    async def _claim(self, grant_id: str) -> bool:
        """Tell whether it is ours to go on: a browser may come back twice, and the provider is called once."""
        request = self.authorization.request
        taken = _update(request).where(AppTest.grant_id == "").values(grant_id=grant_id).returning(AppTest.id)
        async with self.broker.database.write() as session:
            return (await session.execute(taken)).scalar_one_or_none() is not None

    async def _write(self, **values: object) -> None:
        async with self.broker.database.write() as session:
            steps = to_json(list(self.steps.values()))
            await session.execute(_update(self.authorization.request).values(steps=steps, **values))

    def _note(self, name: StepName, state: StepState, text: str, *, at: datetime | None = None, **rest: Any) -> None:
        self.steps[name] = Step.of(name, state, text, at=at or clock.now(), **rest)

    def _remedy(self, code: str) -> str:
        return remedy_for(code, name=self.app.name, callback=callback_url(self.broker, self.app))

    def _fail(self) -> None:
        """Say at which step the trip failed, with the provider's words."""
        said = dict(parse_qsl(urlsplit(self.location).query))
        code = said.get("err") or "server_error"
        text = said.get("errDescription", "")
        if self.params is None:  # the browser never left, or stayed away until the time was over
            name = StepName.CAME_BACK if StepName.LEFT in self.steps else StepName.LEFT
            if code == "access_denied":
                text = "You cancelled on the consent page."
            self._note(name, BAD, text, error=code, remedy=self._remedy(code))
            return
        answer = AuthorizationResponse.parse(self.params, quirks_of(self.broker, self.app))
        name = OF_THE_WAY_BACK.get(code, StepName.CAME_BACK if answer.error else StepName.CODE)
        if name != StepName.CAME_BACK:
            self._came_back()
        if name in (StepName.CODE, StepName.SUBJECT):
            self._note(StepName.STATE, GOOD, "The answer is to this question, from the provider that was asked.")
        if name == StepName.SUBJECT:
            self._note(StepName.CODE, GOOD, f"{self.app.name} gave tokens for it.")
        self._note(name, BAD, text, error=code, remedy=self._remedy(code))

    def _came_back(self) -> None:
        self._note(StepName.CAME_BACK, GOOD, "To the callback URL of this app.")

    def _give_up(self, text: str) -> None:
        for step in list(self.steps.values()):
            if step.state == WAITING:
                self._note(step.name, BAD, text, remedy="Test again.")

    async def _go_through(self, grant_id: str) -> None:
        broker, request, app = self.broker, self.authorization.request, self.app
        grant = await load_grant(broker, request.project_id, grant_id)
        self._came_back()
        self._note(StepName.STATE, GOOD, "The answer is to this question, from the provider that was asked.")
        self._note(StepName.CODE, GOOD, f"{app.name} gave tokens for it.")
        if grant is None:
            self._note(StepName.REFRESH_TOKEN, BAD, "The connection was deleted meanwhile.", remedy="Test again.")
            await self._write(finished_at=clock.now(), grant_id="")
            return
        self._look_at(grant)
        own = ends_with_its_test(request)
        is_refreshed = grant.refresh_token is not None and (own or grant.status == GrantStatus.ACTIVE)
        if is_refreshed:
            self._note(StepName.REFRESHED, WAITING, "Under way.")
        elif grant.refresh_token is not None:
            self._note(StepName.REFRESHED, SKIPPED, "The connection waits for your application to confirm it.")
        asks_api = self._asks_api(grant, own=own)
        self._note(StepName.ENDED, WAITING, "Under way.")
        await self._write()
        if is_refreshed:
            await self._refresh(grant, own=own)
            await self._write()
        if asks_api:
            await self._ask_api(grant.id)
            await self._write()
        if own:
            await self._end(grant)
        else:
            text = f"{grant.user_id} stays connected. Delete the connection when you need it no more."
            self._note(StepName.ENDED, SKIPPED, text)
        await self._write(finished_at=clock.now(), grant_id="")

    def _look_at(self, grant: Grant) -> None:
        app, request = self.app, self.authorization.request
        if grant.refresh_token is not None:
            self._note(StepName.REFRESH_TOKEN, GOOD, "The connection can be renewed without the user.")
        elif quirks_of(self.broker, app).exchanges("refresh") or grant.expires_at is None:
            self._note(StepName.REFRESH_TOKEN, SKIPPED, f"{app.name} has none: its access tokens last.")
        else:
            remedy = (
                f"Ask for it as {app.name} wants it: by a scope like offline_access, the access type offline, or "
                "prompt consent. Without it users must connect again and again."
            )
            self._note(StepName.REFRESH_TOKEN, WARNING, f"{app.name} gave none.", remedy=remedy)
        if grant.refresh_token is None:
            self._note(StepName.REFRESHED, SKIPPED, "There is no refresh token.")
        missing = scope_words(self.broker, app, grant.details).missing(request.scopes, grant.scopes, proofs_of(grant))
        if missing:
            remedy = "Tick all of them at the provider, or take them off the app if it does not need them."
            self._note(StepName.SCOPES, WARNING, f"Not granted: {', '.join(missing)}.", remedy=remedy)
        elif request.scopes:
            self._note(StepName.SCOPES, GOOD, f"{', '.join(request.scopes)}.")
        else:
            self._note(StepName.SCOPES, SKIPPED, "The app asks for none.")
        if grant.token_sub:
            self._note(StepName.SUBJECT, GOOD, f"{app.name} calls it {grant.token_sub}.")
        elif grant.token_sub_problem:
            self._note(StepName.SUBJECT, WARNING, grant.token_sub_problem, remedy=self._remedy("invalid_id_token"))
        else:
            text = "The app asks neither for openid nor has a userinfo endpoint: it is not known whose account it is."
            self._note(StepName.SUBJECT, SKIPPED, text)

    async def _refresh(self, grant: Grant, *, own: bool) -> None:
        """Refresh once. The test's own connection is active only meanwhile, so that nobody gets to see it."""
        began = time.perf_counter()
        if own:
            await set_status(self.broker, grant.project_id, grant.id, GrantStatus.ACTIVE)
        try:
            await refresh_grant(self.broker, grant.project_id, grant.id, seen_version=grant.token_version)
        except EvergrantError as error:
            code = error.provider_error if isinstance(error, UpstreamError) else ""
            remedy = self._remedy(code or "server_error")
            self._note(StepName.REFRESHED, BAD, error.message, error=code, remedy=remedy)
        else:
            self._note(StepName.REFRESHED, GOOD, f"{self.app.name} gave a new access token.")
        took = round((time.perf_counter() - began) * 1000)
        self.steps[StepName.REFRESHED] = replace(self.steps[StepName.REFRESHED], milliseconds=took)

    def _asks_api(self, grant: Grant, *, own: bool) -> bool:
        """Tell whether the API is asked, and note why not, or that it is under way."""
        if checked_by(self.broker, self.app) is None:
            self._note(StepName.API, SKIPPED, "It is not known which call of its API tells whether a token works.")
        elif not own and grant.status != GrantStatus.ACTIVE:
            self._note(StepName.API, SKIPPED, "The connection waits for your application to confirm it.")
        else:
            self._note(StepName.API, WAITING, "Under way.")
            return True
        return False

    async def _ask_api(self, grant_id: str) -> None:
        """Ask the API with what the connection has now, be it from the refresh or from the code."""
        began = time.perf_counter()
        grant = await load_grant(self.broker, self.app.project_id, grant_id)
        if grant is None or grant.status == GrantStatus.REAUTHORIZATION_REQUIRED:
            self._note(StepName.API, SKIPPED, "There is no token that works.")
            return
        answer = await ask_api(self.broker, self.app, grant)
        rest: dict[str, Any] = {"remedy": answer.remedy, "error": answer.error}
        rest["milliseconds"] = round((time.perf_counter() - began) * 1000)
        self._note(StepName.API, GOOD if answer.good else BAD, answer.text, **rest)

    async def _end(self, grant: Grant) -> None:
        broker, app, began = self.broker, self.app, time.perf_counter()
        shared = not revokes_singly(broker, app) and not await alone_on_account(broker, app, [grant])
        outcome = await end_connection(broker, grant.project_id, grant.id, now=clock.now())
        rest: dict[str, Any] = {"milliseconds": round((time.perf_counter() - began) * 1000)}
        if outcome == RevocationOutcome.REVOKED:
            state, text = GOOD, f"{app.name} has revoked it, and nothing of it is left here."
        elif outcome == RevocationOutcome.PENDING:
            state, text = WARNING, f"Deleted here. {app.name} has not taken the revocation yet; it is tried for days."
        elif not can_revoke(broker, app):
            state, text = SKIPPED, f"Deleted here. {app.name} has no way to revoke: end it there, in your account."
        elif shared:
            state = SKIPPED
            text = "Deleted here, and not revoked: another connection stands on the same account and would end with it."
        else:
            state, text = WARNING, f"Deleted here. {app.name} refused to revoke it: end it there, in your account."
            rest["remedy"] = "Compare the revocation endpoint with the provider's documentation."
        self._note(StepName.ENDED, state, text, **rest)
