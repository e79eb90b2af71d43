"""The part of a test connection that needs nobody: the app's own check, as steps with their times."""

import asyncio
import time
from collections.abc import Sequence
from datetime import datetime

from evergrant.broker.apps.check import checks_of
from evergrant.broker.apps.check_result import CheckResult
from evergrant.broker.runtime.broker import Broker
from evergrant.broker.trials.steps import BEFORE_THE_TRIP, Step, StepName, StepState
from evergrant.db import OutboundApp

SECONDS = 25.0
"""How long an operator waits for the check at most."""
STEP_OF = {
    "definition": StepName.DEFINITION,
    "template": StepName.DEFINITION,
    "metadata": StepName.METADATA,
    "authorization endpoint": StepName.ENDPOINTS,
    "token endpoint": StepName.ENDPOINTS,
    "registration": StepName.CLIENT,
    "client": StepName.CLIENT,
}
IN_THE_WAY = (StepName.DEFINITION, StepName.ENDPOINTS, StepName.CLIENT)
"""What keeps a trip from ending well."""


async def look(broker: Broker, app: OutboundApp, *, now: datetime) -> list[Step]:
    """Check an app, and return the steps before the trip."""
    found: list[tuple[CheckResult, int]] = []
    late = False
    try:
        async with asyncio.timeout(SECONDS):
            began = time.perf_counter()
            async for check in checks_of(broker, app):
                found.append((check, round((time.perf_counter() - began) * 1000)))
                began = time.perf_counter()
    except TimeoutError:
        late = True
    steps = [_step(app, name, _of(name, found), now) for name in BEFORE_THE_TRIP]
    if late:
        reached = next((number for number, step in enumerate(steps) if step.state == StepState.OPEN), 0)
        text = f"{app.name} did not answer within {SECONDS:.0f} seconds."
        steps[reached] = Step.of(steps[reached].name, StepState.BAD, text, at=now, remedy="Test again.")
    elif steps[0].state == StepState.GOOD and steps[1].state == StepState.OPEN:
        text = "The app has no discovery URL: there is nothing to compare."
        steps[1] = Step.of(StepName.METADATA, StepState.SKIPPED, text, at=now)
    return steps


def is_in_the_way(steps: Sequence[Step]) -> bool:
    """Tell whether what the check found keeps a trip from ending well."""
    return any(step.state == StepState.BAD and step.name in IN_THE_WAY for step in steps)


def _of(name: StepName, found: Sequence[tuple[CheckResult, int]]) -> list[tuple[CheckResult, int]]:
    return [(check, milliseconds) for check, milliseconds in found if STEP_OF.get(check.name) == name]


def _step(app: OutboundApp, name: StepName, checks: Sequence[tuple[CheckResult, int]], now: datetime) -> Step:
    if not checks:
        return Step(name, StepState.OPEN)
    bad = [check for check, _ in checks if not check.good]
    milliseconds = sum(one for _, one in checks)
    if not bad:
        text = " ".join(dict.fromkeys(check.text for check, _ in checks))
        if name == StepName.ENDPOINTS and len(checks) > 1 and text == checks[0][0].text:
            text = "Both answer."
        return Step.of(name, StepState.GOOD, text, at=now, milliseconds=milliseconds)
    # Another issuer, or a template that is gone, need not keep anybody from connecting.
    mild = name == StepName.METADATA or all(check.name == "template" for check in bad)
    return Step.of(
        name,
        StepState.WARNING if mild else StepState.BAD,
        " ".join(check.text for check in bad),
        at=now,
        milliseconds=milliseconds,
        remedy=_REMEDIES[name].format(app.name),
    )


_REMEDIES = {
    StepName.DEFINITION: "Fill it in under Settings, then test again.",
    StepName.METADATA: "If {} has moved, load its metadata again under Settings.",
    StepName.ENDPOINTS: "Compare the addresses under Settings with the documentation of {}, then test again.",
    StepName.CLIENT: "Copy the client id and the secret from {} again, both of the same client, then test again.",
}
