"""Liveness and readiness, for orchestrators and load balancers."""

from typing import Any

from fastapi import APIRouter, Response

from evergrant.errors import Unavailable
from evergrant.web.deps import BrokerDep
from evergrant.web.routing import operation_id

router = APIRouter(tags=["health"], generate_unique_id_function=operation_id)


def _says(status: str) -> dict[str, Any]:
    return {"content": {"application/json": {"example": {"status": status}}}}


@router.get("/healthz", summary="Is the process alive?", responses={200: _says("ok")})
async def healthz() -> dict[str, str]:
    """Answer without asking anybody else: a database outage is no reason to restart this process."""
    return {"status": "ok"}


@router.get("/readyz", summary="Can it serve?", responses={200: _says("ready"), 503: {"description": "Not now."}})
async def readyz(broker: BrokerDep, response: Response) -> dict[str, str]:
    """Check that the database answers. The schema was checked at the start; a newer one is a rollout under way."""
    try:
        await broker.database.ping()
    except Unavailable as error:
        response.status_code = 503
        return {"status": "not ready", "reason": error.message}
    return {"status": "ready"}
