"""Who we are, for authorization servers: at some, a client's id is the URL of its own metadata."""

from fastapi import APIRouter
from fastapi.responses import JSONResponse, Response

from evergrant.broker.apps.dynamic_registration import client_metadata
from evergrant.web.deps import BrokerDep

router = APIRouter(include_in_schema=False)

CACHE_SECONDS = 300
"""How long a server may go without noticing that an app's name or callback has changed."""


@router.get("/oauth-client/{project_id}/{app_id}.json")
async def show(project_id: str, app_id: str, broker: BrokerDep) -> Response:
    """Return an app's client metadata; anybody may read it, and there is nothing for apps that do not use it."""
    document = await client_metadata(broker, project_id, app_id)
    return JSONResponse(document, headers={"Cache-Control": f"public, max-age={CACHE_SECONDS}"})
