"""Outbound apps: create, update, delete, load."""

from typing import Annotated

from fastapi import Path
from pydantic import Field

from evergrant import clock
from evergrant.broker.apps import apps
from evergrant.broker.connections.deletion import count_connections
from evergrant.broker.connections.deletion import delete_app as delete_app_with_connections
from evergrant.errors import InvalidRequest
from evergrant.web.api.app_answer_wire import AppAnswer, AppsAnswer, app_body
from evergrant.web.api.app_wire import CreateApp, DeleteApp, UpdateApp, definition
from evergrant.web.api.wire import Nothing, PastedText, WireModel, errors, example
from evergrant.web.deps import AppsReader, AppsWriter, BrokerDep
from evergrant.web.routing import ApiRouter

router = ApiRouter(prefix="/v1/mgmt/outbound", tags=["apps"])

AppIdPath = Annotated[PastedText, Path(alias="id", max_length=64, examples=["google-contacts"])]


class DeletionAnswer(WireModel):
    """What goes with an app."""

    model_config = example({"connections": 12840, "isAll": True})

    connections: int = Field(description="They are counted to 100,000.")
    is_all: bool = Field(description="Whether there are no more.")


@router.post("/app/create", summary="Create an outbound app", responses=errors(400, 409, 413))
async def create_app(body: CreateApp, broker: BrokerDep, principal: AppsWriter) -> AppAnswer:
    """Configure a provider. `discoveryUrl` fills the endpoints that are left out."""
    principal.require_every_app()
    app = await apps.create_app(broker, principal.project_id, definition(body, body.id), now=clock.now())
    return AppAnswer(app=app_body(broker, app))


@router.post("/app/update", summary="Replace an outbound app's definition", responses=errors(400, 404, 409, 413))
async def update_app(body: UpdateApp, broker: BrokerDep, principal: AppsWriter) -> AppAnswer:
    """Replace everything of an app but the client secret and fields of ours that are left out.

    Where credentials will go to another place, send the client secret too.
    """
    principal.require_app(body.app.id)
    new = definition(body.app, body.app.id)
    try:
        app = await apps.update_app(broker, principal.project_id, new, by=principal, now=clock.now())
    except InvalidRequest as error:
        raise error.under("app") from None
    return AppAnswer(app=app_body(broker, app))


@router.post("/app/delete", summary="Delete an outbound app", responses=errors(400, 404, 413))
async def delete_app(body: DeleteApp, broker: BrokerDep, principal: AppsWriter) -> Nothing:
    """Delete an app and everything that was connected through it, which is revoked at the provider.

    Its access policies go too. Where it has some, the key needs `policies`.
    """
    principal.require_app(body.id)
    await delete_app_with_connections(broker, principal.project_id, body.id, by=principal, now=clock.now())
    return Nothing()


@router.get("/app/{id}/deletion", summary="See what deleting an app ends", responses=errors(400, 404))
async def see_deletion(app_id: AppIdPath, broker: BrokerDep, principal: AppsWriter) -> DeletionAnswer:
    """Count the connections that would be deleted, and revoked at the provider. Nothing is deleted."""
    principal.require_app(app_id)
    await apps.load_app(broker, principal.project_id, app_id)
    connections, is_all = await count_connections(broker, principal.project_id, app_id)
    return DeletionAnswer(connections=connections, is_all=is_all)


@router.get("/app/{id}", summary="Load an outbound app", responses=errors(400, 404))
async def load_app(app_id: AppIdPath, broker: BrokerDep, principal: AppsReader) -> AppAnswer:
    """Return one app."""
    principal.require_app(app_id)
    return AppAnswer(app=app_body(broker, await apps.load_app(broker, principal.project_id, app_id)))


@router.get("/apps", summary="Load all outbound apps", responses=errors())
async def load_all_apps(broker: BrokerDep, principal: AppsReader) -> AppsAnswer:
    """Return the project's apps by name; with a key that is limited to some apps, those."""
    found = await apps.list_apps(broker, principal.project_id, only=sorted(principal.app_ids))
    return AppsAnswer(apps=[app_body(broker, app) for app in found])
