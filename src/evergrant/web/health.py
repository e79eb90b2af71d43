"""Liveness and readiness, for orchestrators and load balancers."""

from fastapi import APIRouter, Response

from evergrant.errors import MigrationsPending, Unavailable
from evergrant.web.deps import BrokerDep

router = APIRouter(tags=["health"])


@router.get("/healthz", summary="Is the process alive?")
async def healthz() -> dict[str, str]:
    """Answer without asking anybody else: a database outage is no reason to restart this process."""
    return {"status": "ok"}


@router.get("/readyz", summary="Can it serve?", responses={503: {"description": "Not now."}})
async def readyz(broker: BrokerDep, response: Response) -> dict[str, str]:
    """Check that the database answers and has this version's schema."""
    try:
        await broker.database.require_current_schema()
    except (MigrationsPending, Unavailable) as error:
        response.status_code = 503
        return {"status": "not ready", "reason": error.message}
    return {"status": "ready"}
