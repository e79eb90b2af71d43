"""Test connections: an app tried from the consent page to the revocation."""

from typing import Annotated

from fastapi import Query
from pydantic import Field

from evergrant import clock
from evergrant.broker.trials.steps import StepName, StepState
from evergrant.broker.trials.trial import begin_trial, read_trial
from evergrant.errors import NotFound
from evergrant.web.api.wire import AppId, Flag, WireModel, epoch, errors, example
from evergrant.web.deps import AppsReader, AppsWriter, BrokerDep
from evergrant.web.routing import ApiRouter

router = ApiRouter(prefix="/v1/mgmt/outbound", tags=["apps"])


class BeginTrial(WireModel):
    """Which app to try."""

    model_config = example({"appId": "google-contacts"})

    app_id: AppId
    anyway: Flag = Field(default=False, description="Make the trip, whatever the check before it finds.")


class TrialBegun(WireModel):
    """Where to go on in a browser."""

    model_config = example(
        {
            "trialId": "5aXbYcZdAeBfCgDhEiFjGk",
            "url": "https://evergrant.example.com/connect/3q2-7wQx0Ck5nXy1mB8fLr6hJt4vZsPdEaUiOg9KcNM",
        }
    )

    trial_id: str
    url: str = Field(
        description="Open it in a browser, and connect with an account of your own; it works once, for 10 minutes. "
        "Empty where the check found what keeps the trip from ending well: the steps say what."
    )


class StepBody(WireModel):
    """One step of the test, and what to do about it."""

    name: StepName
    state: StepState = Field(description="`open`: the test did not get there, or not yet.")
    text: str
    remedy: str = Field(description="What to do; empty where there is nothing to do.")
    error: str = Field(description="The provider's error code, or ours; empty for none.")
    time: str = Field(description="When it was, in epoch seconds; empty where it has not been.")
    milliseconds: int = Field(description="How long it took; 0 where that was not measured.")


class TrialBody(WireModel):
    """The last test connection of an app."""

    model_config = example(
        {
            "trialId": "5aXbYcZdAeBfCgDhEiFjGk",
            "startedTime": "1741103514",
            "over": True,
            "good": False,
            "steps": [
                {
                    "name": "cameBack",
                    "state": "bad",
                    "text": "The request asks for a scope that does not exist.",
                    "remedy": "Google Contacts does not know one of the scopes, or has not given it to this client.",
                    "error": "invalid_scope",
                    "time": "1741103541",
                    "milliseconds": 0,
                }
            ],
        }
    )

    trial_id: str
    started_time: str = Field(description="In epoch seconds.")
    over: bool
    good: bool = Field(description="Whether it is over and nothing failed.")
    steps: list[StepBody]


@router.post("/app/trial", summary="Begin a test connection", responses=errors(400, 404, 413))
async def begin_test_connection(body: BeginTrial, broker: BrokerDep, principal: AppsWriter) -> TrialBegun:
    """Check an app, then return a link for a real trip with an account of your own; the key also needs `connect`.

    The connection that it makes is refreshed once, revoked and deleted. Nobody can fetch it. The last test of each app
    is kept.
    """
    begun = await begin_trial(broker, principal, body.app_id, anyway=body.anyway, now=clock.now())
    return TrialBegun(trial_id=begun.trial_id, url=begun.url)


@router.get("/app/trial/steps", summary="Load an app's last test connection", responses=errors(400, 404))
async def load_test_connection(
    broker: BrokerDep,
    principal: AppsReader,
    app_id: Annotated[AppId, Query(alias="appId", examples=["google-contacts"])],
) -> TrialBody:
    """Return the steps of an app's last test connection, with what came of each and what to do."""
    trial = await read_trial(broker, principal, app_id, now=clock.now())
    if trial is None:
        raise NotFound("This app was not tested yet.")
    return TrialBody(
        trial_id=trial.id,
        started_time=epoch(trial.started_at),
        over=trial.is_over,
        good=trial.is_good,
        steps=[
            StepBody(
                name=step.name,
                state=step.state,
                text=step.text,
                remedy=step.remedy,
                error=step.error,
                time=epoch(step.moment),
                milliseconds=step.milliseconds or 0,
            )
            for step in trial.steps
        ],
    )
