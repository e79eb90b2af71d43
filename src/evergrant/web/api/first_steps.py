"""A project's first steps: what is done, and putting the list away."""

from pydantic import Field

from evergrant import clock
from evergrant.broker.trials import first_steps
from evergrant.broker.trials.first_steps import FirstStep
from evergrant.web.api.wire import Nothing, WireModel, errors, example
from evergrant.web.deps import AppsWriter, BrokerDep
from evergrant.web.routing import ApiRouter

router = ApiRouter(prefix="/v1/mgmt/project/first-steps", tags=["projects"])


class FirstStepsAnswer(WireModel):
    """How far the project is."""

    model_config = example({"done": ["app", "callback"], "dismissed": False})

    done: list[FirstStep] = Field(
        description="app, callback (a trip came back), connected, key, fetched, webhook, secondOperator"
    )
    dismissed: bool = Field(description="Whether somebody put the list away.")


@router.get("", summary="Load the first steps", responses=errors(400))
async def load_first_steps(broker: BrokerDep, principal: AppsWriter) -> FirstStepsAnswer:
    """Return which first steps are done, by what there is in the project."""
    found = await first_steps.first_steps(broker, principal)
    return FirstStepsAnswer(done=[step for step in FirstStep if step in found.done], dismissed=found.is_dismissed)


@router.post("/dismiss", summary="Put the first steps away", responses=errors(400))
async def put_first_steps_away(broker: BrokerDep, principal: AppsWriter) -> Nothing:
    """Take the list of first steps off the console, for everybody in the project."""
    await first_steps.dismiss_first_steps(broker, principal, now=clock.now())
    return Nothing()
