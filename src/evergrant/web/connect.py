"""The browser's part of the connect trip: consent page, departure, callback, result."""

import secrets
from collections.abc import Mapping, Sequence
from typing import Annotated
from urllib.parse import urlencode

from fastapi import APIRouter, Depends, Path, Query, Request
from fastapi.responses import RedirectResponse, Response

from evergrant import clock
from evergrant.broker.apps import variables
from evergrant.broker.apps.provider_client import CALLBACK_PATH, public_origin
from evergrant.broker.audit.record import Actor
from evergrant.broker.connect.authorization_requests import RESULT_PATH, Authorization, failure_location
from evergrant.broker.connect.outcomes import end_with_answer, end_with_failure, find_by_answer
from evergrant.broker.connect.results import find_result
from evergrant.broker.connect.start import cancel_connect, check_not_used, find_by_ticket, leave_for_provider
from evergrant.broker.connect.verification import ProofWanted, has_proved, proof_of_trip
from evergrant.broker.runtime.broker import Broker
from evergrant.broker.trials.landing import land_test, note_left
from evergrant.crypto.opaque import digest
from evergrant.errors import AppNotFound, ConnectFailed, MalformedRequest, UpstreamError, UpstreamUnavailable
from evergrant.networks import limited_as
from evergrant.oauth2.authorization import AuthorizationResponse
from evergrant.web.asked import address_of, note_actor
from evergrant.web.browser_cookie import browser_id, with_cookie
from evergrant.web.consent import consent_page, tile_for
from evergrant.web.deps import BrokerDep, counting_failures, get_broker, limit_trip, refuse_odd_text
from evergrant.web.failures import failed_trip
from evergrant.web.forms import Form, is_in_parts, read_form
from evergrant.web.locale import LANGUAGES
from evergrant.web.looking_ahead import not_yet, only_looks_ahead
from evergrant.web.looks import look_of
from evergrant.web.same_origin import is_from_us
from evergrant.web.sign_in_first import leave_to_sign_in, sign_in_first
from evergrant.web.templating import PAGE_HEADERS
from evergrant.web.visitor import Visit, failure_page, note_visit, visitor_page

router = APIRouter(include_in_schema=False, dependencies=[Depends(refuse_odd_text)])

Ticket = Annotated[str, Path(max_length=100, pattern=r"^[!-~]+$")]

TOOK_TOO_LONG = "The connection took too long. Start again."
NO_COOKIE = "Your browser did not send evergrant's cookie. Allow cookies and start again."
ROOM_FOR_QUERY = 6_000
"""How long a query may become by fields that evergrant may not need; many proxies take 8 KiB for all of a request's
first line."""
OWN_CALLBACK_PATH = f"{CALLBACK_PATH}/{{callback_id}}"


@router.get("/connect/{ticket}")
async def show(ticket: Ticket, request: Request, broker: BrokerDep) -> Response:
    """Show the consent page. Looking uses nothing up, so a link preview cannot spoil the link.

    The browser that agreed may come back: while its trip is under way it sees the page again, and after that it is sent
    to the application.
    """
    known = browser_id(request, broker)
    browser = known or secrets.token_urlsafe(32)
    authorization = await _find_authorization(broker, ticket, request, browser)
    if _is_over(authorization):
        if authorization.request.browser_digest is None:
            _note_way_back(request, authorization, ConnectFailed("expired", TOOK_TOO_LONG))
            raise ConnectFailed("ticket_expired", "This link has expired. Go back to the application and start again.")
        if only_looks_ahead(request):
            return not_yet(PAGE_HEADERS)
        return _redirect(await land_test(broker, authorization, await _end(broker, authorization, browser)))
    if (wanted := await _unproved(broker, authorization, browser)) is not None:
        agent = authorization.request.agent_name
        page = await sign_in_first(request, wanted, project=authorization.project, app=authorization.app, agent=agent)
        return with_cookie(page, broker, browser)
    asked = variables.questions(broker, authorization.app, authorization.request.variables)
    if _goes_on_by_itself(authorization) and not variables.wrong_answers(asked, {}):
        if only_looks_ahead(request):
            return not_yet(PAGE_HEADERS)
        if known:
            return with_cookie(await _leave(request, authorization, browser), broker, browser)
        if "again" in request.query_params:
            raise ConnectFailed("no_cookie", NO_COOKIE)
        # Robots that fetch links for a preview keep no cookies: only who brings one back uses the link up.
        return with_cookie(_redirect(f"/connect/{ticket}?again=1"), broker, browser)
    return with_cookie(await consent_page(request, authorization, asked), broker, browser)


@router.post("/connect/{ticket}")
async def decide(ticket: Ticket, request: Request, broker: BrokerDep) -> Response:
    """Go on to the provider, or cancel. From then on the link is this browser's."""
    browser = browser_id(request, broker)
    authorization = await _find_authorization(broker, ticket, request, browser)
    if not is_from_us(request, broker, at=public_origin(broker.settings.public_url, authorization.app)):
        raise ConnectFailed("cross_site", "This form can only be sent from evergrant's own page.")
    if not browser:
        raise ConnectFailed("no_cookie", NO_COOKIE)
    if _is_over(authorization):
        return _redirect(await land_test(broker, authorization, await _end(broker, authorization, browser)))
    if (wanted := await _unproved(broker, authorization, browser)) is not None:
        return await leave_to_sign_in(request, wanted, browser=browser)
    form = await _form(request)
    if form.text("decision") == "login":  # it has signed in meanwhile, in another tab
        return _redirect(f"/connect/{ticket}")
    if form.text("decision") == "connect":
        asked = variables.questions(broker, authorization.app, authorization.request.variables)
        entered = {name: form.text(f"variables.{name}") for name in asked}
        answers = variables.tidied(variables.template_of(broker, authorization.app), entered)
        if wrong := variables.wrong_answers(asked, answers):
            return await consent_page(request, authorization, asked, answers, wrong)
        return await _leave(request, authorization, browser, answers)
    location = await cancel_connect(broker, authorization, browser=browser)
    return _redirect(await land_test(broker, authorization, location))


@router.get(CALLBACK_PATH)
@router.get(OWN_CALLBACK_PATH)
async def callback(request: Request, broker: BrokerDep) -> Response:
    """End the connect trip with the provider's answer, and send the browser on; again, if it comes again."""
    if only_looks_ahead(request):
        return not_yet(PAGE_HEADERS)
    params, path, browser = dict(request.query_params), request.scope["path"], browser_id(request, broker)
    async with counting_failures(request):
        authorization = await find_by_answer(broker, params, browser=browser, path=path, now=clock.now())
    _note_trip(authorization, request)
    location = await end_with_answer(broker, authorization, params, browser=browser, path=path)
    return _redirect(await land_test(broker, authorization, location, params))


@router.post(CALLBACK_PATH)
@router.post(OWN_CALLBACK_PATH)
async def form_post_callback(request: Request) -> Response:
    """Turn a form_post answer into the ordinary one: browsers send our cookie on that GET, not on a foreign POST."""
    # Not to `request.url`, which is made of the Host header.
    return _redirect(f"{request.scope['path']}?{_query_of((await _form(request)).pairs)}")


async def _form(request: Request) -> Form:
    """Read a form. One in parts costs most, and counts."""
    if is_in_parts(request):
        get_broker(request).limits.pages.take(limited_as(address_of(request.scope)))
    try:
        return await read_form(request)
    except MalformedRequest:
        raise ConnectFailed("invalid_response", "What was sent cannot be read. Start again.") from None


def _query_of(answer: Sequence[tuple[str, str]]) -> str:
    """Write what a form said as a query: all that evergrant reads, and of the rest what an address has room for."""
    read = [pair for pair in answer if pair[0] in AuthorizationResponse.NAMES]
    query = urlencode(read)
    for pair in answer:
        if (
            pair[0] not in AuthorizationResponse.NAMES
            and len(longer := f"{query}&{urlencode([pair])}") <= ROOM_FOR_QUERY
        ):
            query = longer
    return query.removeprefix("&")


@router.get(RESULT_PATH)
async def result(
    request: Request,
    broker: BrokerDep,
    err: Annotated[str, Query(max_length=1000, pattern=r"^[^\x00]*$")] = "",
    trip: Annotated[str, Query(max_length=64, pattern=r"^[^\x00]*$")] = "",
) -> Response:
    """Show how connecting ended, where the application gave no address to return to.

    Names are shown to the browser that made the trip, and then the trip says how it ended, not the link. To any other,
    a link says no more than one of our own sentences.
    """
    found = await find_result(broker, trip, browser=browser_id(request, broker))
    if found is not None:
        note_visit(request, found.project, await look_of(broker, found.project.id), locale=found.locale)
        err = found.err
    if err:
        return failure_page(request, failed_trip(err))
    return visitor_page(
        request, "connected.html", result=found, tile=await tile_for(broker, found.app) if found else None
    )


def _note_way_back(request: Request, authorization: Authorization, error: ConnectFailed) -> None:
    """Let the page about an error have a link back to the application, which tells it of the error."""
    if authorization.request.redirect_url:
        visit: Visit = request.state.visit
        visit.back = failure_location(authorization, error)


async def _unproved(broker: Broker, authorization: Authorization, browser: str) -> ProofWanted | None:
    """Return what a browser has to prove before it may see and do more; None where nothing is left to prove."""
    wanted = proof_of_trip(broker, authorization)
    if wanted is None or await has_proved(broker, wanted, browser=digest(browser)):
        return None
    return wanted


def _is_over(authorization: Authorization) -> bool:
    return authorization.request.finished_at is not None or authorization.request.expires_at <= clock.now()


async def _end(broker: Broker, authorization: Authorization, browser: str) -> str:
    """Return where the browser goes by a trip that is over, or whose time is."""
    return await end_with_failure(broker, authorization, ConnectFailed("expired", TOOK_TOO_LONG), browser=browser)


async def _find_authorization(broker: Broker, ticket: str, request: Request, browser: str) -> Authorization:
    async with counting_failures(request):
        try:
            authorization = await find_by_ticket(broker, ticket)
        except AppNotFound:
            raise ConnectFailed("invalid_ticket", "The application no longer offers this connection.") from None
        trip = authorization.request
        asked = request.query_params.get("lang", "")
        if asked in LANGUAGES:
            trip.locale = asked  # kept with the trip when it leaves, so that it ends in this language too
        look = await look_of(broker, trip.project_id)
        note_visit(request, authorization.project, look, locale=trip.locale)
        check_not_used(trip, browser=browser)
    _note_trip(authorization, request)
    return authorization


def _note_trip(authorization: Authorization, request: Request) -> None:
    """Count a page of the trip, and tell the logs who connects: the user it was started for, as far as anybody knows.

    Raises:
        RateLimited: this trip's pages were asked for too often.
    """
    user_id = authorization.request.user_id or authorization.request.granted_by
    who = Actor(f"user:{user_id}" if user_id else "user", address_of(request.scope))
    note_actor(request.scope, who, authorization.request.project_id)
    limit_trip(request, authorization)


def _goes_on_by_itself(authorization: Authorization) -> bool:
    """Tell whether the browser goes straight to the provider.

    Whoever has a link could then send other people's browsers there, and get their accounts where the provider does not
    ask either. So the application must say afterwards who came back. What an agent has begun is always asked.
    """
    app, trip = authorization.app, authorization.request
    return app.skip_consent_page and app.require_confirmation and not trip.trial_id and not trip.verify


async def _leave(
    request: Request, authorization: Authorization, browser: str, answers: Mapping[str, str] | None = None
) -> Response:
    broker, now = get_broker(request), clock.now()
    try:
        location = await leave_for_provider(broker, authorization, browser=browser, answers=answers, now=now)
    except UpstreamError as error:
        code = "temporarily_unavailable" if isinstance(error, UpstreamUnavailable) else "server_error"
        _note_way_back(request, authorization, ConnectFailed(code, error.message))
        raise
    await note_left(broker, authorization.request, now=now)
    return _redirect(location)


def _redirect(location: str) -> Response:
    return RedirectResponse(location, 303, PAGE_HEADERS)
