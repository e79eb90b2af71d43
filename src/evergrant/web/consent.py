"""The page on which somebody decides: who gets what, for whom, and where it goes on."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from urllib.parse import urlsplit

from fastapi import Request
from fastapi.responses import Response

from evergrant.broker.connect.authorization_requests import Authorization, described_scopes
from evergrant.broker.runtime.broker import Broker
from evergrant.catalog.variable import Variable
from evergrant.db import OutboundApp
from evergrant.web.deps import get_broker
from evergrant.web.kinds import Kind, kind_of
from evergrant.web.locale import LANGUAGES
from evergrant.web.logos import logo_sources
from evergrant.web.tiles import Tile, tile_of
from evergrant.web.visitor import visitor_page


async def consent_page(
    request: Request,
    authorization: Authorization,
    asked: Mapping[str, Variable],
    answers: Mapping[str, str] | None = None,
    wrong: Mapping[str, str] | None = None,
) -> Response:
    """Show what a trip is for, and ask for what it needs. `wrong` is what is wrong with which answer."""
    trip = authorization.request
    return visitor_page(
        request,
        "consent.html",
        status=400 if wrong else 200,
        app=authorization.app,
        tile=await tile_for(get_broker(request), authorization.app),
        project=authorization.project,
        trip=trip,
        described=partial(_powers, authorization),
        host=urlsplit(trip.redirect_url).netloc,
        questions=asked,
        answers=answers or {name: trip.answers.get(name) or variable.default for name, variable in asked.items()},
        wrong=wrong or {},
        languages=LANGUAGES,
    )


@dataclass(frozen=True, slots=True)
class _Power:
    """A scope as the consent page shows it."""

    scope: str
    name: str
    """The scope without what all of a provider's begin with: `gmail.send` of `https://www.googleapis.com/auth/...`."""
    words: str
    is_translated: bool
    kind: Kind


def _powers(authorization: Authorization, language: str) -> list[_Power]:
    return [
        _Power(one.scope, _short(one.scope), one.words, one.is_translated, kind_of(one.english, one.scope))
        for one in described_scopes(authorization, language)
    ]


def _short(scope: str) -> str:
    return (scope.rpartition("/")[2] if "://" in scope else "") or scope


async def tile_for(broker: Broker, app: OutboundApp) -> Tile:
    """Return an app's tile. Logos come from here: another host would learn who connects what."""
    kept = (await logo_sources(broker, app.project_id, [app]))[app.id]
    return tile_of(app.id, app.name, kept or (app.logo if app.logo.startswith("data:") else ""))
