"""`/metrics`, for Prometheus. Ids of projects and apps are nobody else's business, so it is not open to everybody."""

from typing import Any

from fastapi import APIRouter, Request, Response
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

from evergrant.broker.operations.metrics import Exposition
from evergrant.crypto.opaque import digest, equal
from evergrant.networks import is_loopback_host
from evergrant.web.asked import address_of
from evergrant.web.deps import get_broker
from evergrant.web.routing import operation_id

router = APIRouter(tags=["health"], generate_unique_id_function=operation_id)

_OF_PROXIES = ("x-", "forwarded", "via", "cf-", "true-client-ip", "fly-", "fastly-", "cdn-loop")
"""How headers begin that proxies add. Prometheus and curl send none of them."""
_OF_PROMETHEUS = "x-prometheus-"
_NO_TOKEN = (
    "Without EVERGRANT_METRICS_TOKEN, only this machine itself may read the metrics, at 127.0.0.1 and not through a "
    "proxy. Set it where evergrant runs, and send it as 'Authorization: Bearer <token>'.\n"
)
_WRONG_TOKEN = "Send the value of EVERGRANT_METRICS_TOKEN as 'Authorization: Bearer <token>'.\n"
_EXAMPLE = 'evergrant_refreshes_total{app="google-contacts",outcome="refreshed",project="P2abc"} 1204.0\n'


def _says(what: str, example: str) -> dict[str, Any]:
    return {"description": what, "content": {"text/plain": {"schema": {"type": "string"}, "example": example}}}


@router.get(
    "/metrics",
    summary="What Prometheus reads",
    response_class=Response,
    responses={
        200: _says("Prometheus's text format.", _EXAMPLE),
        401: _says("A token is set, and the request does not carry it.", _WRONG_TOKEN),
        403: _says("No token is set, and the request does not come from this machine itself.", _NO_TOKEN),
    },
)
async def metrics(request: Request) -> Response:
    """Return this server's numbers, to who sends `EVERGRANT_METRICS_TOKEN`; without one, to loopback only."""
    token = get_broker(request).settings.metrics_token
    if token is None:
        if not _is_this_machine(request):
            return _text(403, _NO_TOKEN)
    elif not equal(digest(request.headers.get("authorization", "")), digest(f"Bearer {token.get_secret_value()}")):
        return _text(401, _WRONG_TOKEN, {"WWW-Authenticate": 'Bearer realm="evergrant metrics"'})
    exposition: Exposition = request.app.state.exposition
    return Response(await exposition.text(), media_type=CONTENT_TYPE_PLAIN_0_0_4)


def _is_this_machine(request: Request) -> bool:
    """Tell whether a process on this machine asks for itself. A proxy on it asks for anybody, and most say so."""
    if any(name.startswith(_OF_PROXIES) and not name.startswith(_OF_PROMETHEUS) for name in request.headers):
        return False
    # It also asks by the machine's own name for itself. A proxy may hand on the name by which its callers know it, and
    # a page that was opened here may have a name that leads here.
    host, _, port = request.headers.get("host", "").rpartition(":")
    if not port.isdecimal():
        host = request.headers.get("host", "")
    return is_loopback_host(address_of(request.scope)) and is_loopback_host(
        host.lower().removeprefix("[").removesuffix("]")
    )


def _text(status: int, text: str, headers: dict[str, str] | None = None) -> Response:
    return Response(text, status, headers, media_type="text/plain")
