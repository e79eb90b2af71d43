"""Who we are, for authorization servers: at some, a client's id is the URL of its own metadata."""

from typing import Annotated

from fastapi import APIRouter, Depends, Path, Request
from fastapi.responses import JSONResponse, Response

from evergrant.broker.apps.dynamic_registration import client_metadata
from evergrant.web.deps import BrokerDep, counting_failures, refuse_odd_text

router = APIRouter(include_in_schema=False, dependencies=[Depends(refuse_odd_text)])

CACHE_SECONDS = 300
"""How long a server may go without noticing that an app's name or callback has changed."""


Id = Annotated[str, Path(max_length=64, pattern=r"^[!-~]+$")]


@router.get("/oauth-client/{project_id}/{app_id}.json")
async def show(project_id: Id, app_id: Id, broker: BrokerDep, request: Request) -> Response:
    """Return an app's client metadata; anybody may read it, and there is nothing for apps that do not use it."""
    async with counting_failures(request):
        document = await client_metadata(broker, project_id, app_id)
    return JSONResponse(document, headers={"Cache-Control": f"public, max-age={CACHE_SECONDS}"})
