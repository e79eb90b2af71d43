"""Checks an app: is its registration right, as far as can be told without a user?"""

from fastapi import APIRouter

from evergrant.broker.apps.check import check_app
from evergrant.web.api.wire import AppId, WireModel, errors, example
from evergrant.web.deps import AppsReader, BrokerDep

router = APIRouter(prefix="/v1/mgmt/outbound", tags=["apps"])


class CheckApp(WireModel):
    """An app to check."""

    model_config = example({"id": "google-contacts"})

    id: AppId


class CheckBody(WireModel):
    """One thing that was looked at."""

    name: str
    good: bool
    text: str


class CheckAppAnswer(WireModel):
    """Everything that was looked at, in the order in which a trip would meet it."""

    model_config = example(
        {
            "checks": [
                {"name": "definition", "good": True, "text": "It has everything that a connect trip needs."},
                {"name": "client", "good": True, "text": "The provider accepts the client id and secret."},
            ]
        }
    )

    checks: list[CheckBody]


@router.post("/app/test", summary="Test an outbound app's registration", responses=errors(400, 404, 413))
async def test_app(body: CheckApp, broker: BrokerDep, principal: AppsReader) -> CheckAppAnswer:
    """Ask the provider whether it is there, publishes what is stored, and accepts the client.

    Changes nothing, except that a registration which the provider has forgotten is made again at the next connect.
    """
    principal.require_app(body.id)
    checks = await check_app(broker, principal.project_id, body.id)
    return CheckAppAnswer(checks=[CheckBody(name=c.name, good=c.good, text=c.text) for c in checks])
