"""Signing in with the operators' own identity provider (OpenID Connect)."""

from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response

from evergrant import clock
from evergrant.broker.audit.record import Actor
from evergrant.broker.operators.oidc import CALLBACK_PATH, TRIP, arrive, depart
from evergrant.broker.runtime.broker import Broker
from evergrant.errors import ConnectFailed, PermissionDenied
from evergrant.networks import limited_as
from evergrant.web.asked import address_of, note_actor
from evergrant.web.console.desk import cookie_name
from evergrant.web.console.route import ConsoleRoute
from evergrant.web.console.ways_in import go_to, inside, keep, sign_in_page, with_session
from evergrant.web.deps import BrokerDep

router = APIRouter(route_class=ConsoleRoute, include_in_schema=False)


@router.get("/console/oidc/start")
async def start(request: Request, broker: BrokerDep, then: Annotated[str, Query(max_length=2048)] = "") -> Response:
    """Send the browser to the provider. It is a link: browsers follow no redirect to elsewhere after a form."""
    broker.limits.pages.take(limited_as(address_of(request.scope)))  # each costs a row
    departure = await depart(broker, then=inside(then), now=clock.now())
    response = go_to(departure.url)
    keep(response, broker, _cookie_name(broker), departure.cookie, seconds=int(TRIP.total_seconds()))
    return response


@router.get(CALLBACK_PATH)
async def callback(request: Request, broker: BrokerDep) -> Response:
    """Take the provider's answer."""
    note_actor(request.scope, Actor("operator", address_of(request.scope)), "")
    cookie = request.cookies.get(_cookie_name(broker), "")
    try:
        arrival = await arrive(broker, request.query_params, cookie=cookie, now=clock.now())
    except (ConnectFailed, PermissionDenied) as error:
        response: Response = sign_in_page(broker, "", status=error.status, refused=error.message)
    else:
        response = with_session(go_to(arrival.then or "/console"), broker, arrival.cookie)
    keep(response, broker, _cookie_name(broker), "", seconds=0)
    return response


def _cookie_name(broker: Broker) -> str:
    return f"{cookie_name(broker)}-away"
