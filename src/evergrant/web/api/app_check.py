"""Checks an app: is its registration right, and does the provider's API take a connection's credential?"""

from evergrant import clock
from evergrant.broker.apps.check import check_app
from evergrant.broker.grants.grants import ResourceOwner
from evergrant.broker.trials.api import check_api
from evergrant.web.api.wire import AppId, OptionalId, WireModel, errors, example
from evergrant.web.deps import AppsReader, BrokerDep
from evergrant.web.routing import ApiRouter

router = ApiRouter(prefix="/v1/mgmt/outbound", tags=["apps"])


class CheckApp(WireModel):
    """An app to check, and with whose connection its API is asked: the newest one, where that is not said."""

    model_config = example({"id": "google-contacts", "userId": "alice"})

    id: AppId
    user_id: OptionalId = ""
    tenant_id: OptionalId = ""
    external_identifier: OptionalId = ""


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
                {"name": "api", "good": True, "text": "It answered 200 to GET /v1/people/me."},
            ]
        }
    )

    checks: list[CheckBody]


@router.post("/app/test", summary="Test an outbound app's registration", responses=errors(400, 404, 413))
async def test_app(body: CheckApp, broker: BrokerDep, principal: AppsReader) -> CheckAppAnswer:
    """Ask the provider whether it is there, publishes what is stored, accepts the client, and a connection's token.

    That last question is a call of its API that only reads, where the template names one. A token that is due is
    refreshed for it. A registration that the provider has forgotten is made again at the next connect.
    """
    principal.require_app(body.id)
    checks = await check_app(broker, principal.project_id, body.id)
    about = await check_api(
        broker,
        principal.project_id,
        body.id,
        owner=ResourceOwner(body.user_id, body.tenant_id),
        external_identifier=body.external_identifier,
        now=clock.now(),
    )
    checks += [about] if about is not None else []
    return CheckAppAnswer(checks=[CheckBody(name=c.name, good=c.good, text=c.text) for c in checks])
