"""What the page of connected accounts says: its words, and what stands where."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from fastapi.responses import Response

from evergrant import clock
from evergrant.broker.portal.accounts import Account, accounts_of
from evergrant.broker.portal.acts import trip_from
from evergrant.broker.portal.visits import CONNECT, DISCONNECT, Visit
from evergrant.broker.runtime.broker import Broker
from evergrant.db import OutboundApp
from evergrant.errors import NotFound
from evergrant.oauth2.scopes import words_for
from evergrant.web import locale
from evergrant.web.locale import gettext, noted
from evergrant.web.logos import logo_sources
from evergrant.web.looks import look_of
from evergrant.web.tiles import Tile, tile_of
from evergrant.web.visiting import Place

MONTHS = (
    noted("January"),
    noted("February"),
    noted("March"),
    noted("April"),
    noted("May"),
    noted("June"),
    noted("July"),
    noted("August"),
    noted("September"),
    noted("October"),
    noted("November"),
    noted("December"),
)
TOLD = ("revoked", "pending", "unsupported")


@dataclass(frozen=True, slots=True)
class Line:
    """One account, as the page shows it."""

    account: Account
    tile: Tile
    used: str
    permissions: Sequence[tuple[str, str]]
    """Each scope with its words, empty where nobody has said."""
    may_connect: bool
    may_disconnect: bool
    may_add: bool
    """Whether the page offers another account of this app here: once for each app."""


async def show_accounts(
    broker: Broker, visit: Visit, place: Place, *, trip: str = "", ended: str = "", of: str = "", told: str = ""
) -> Response:
    """Answer with the page. `trip` is one that has come back; `ended` a connection that was ended, `of` this app."""
    seen = await accounts_of(broker, visit)
    app_id, outcome = await _outcome(broker, visit, trip)
    apps = {app.id: app for app in (*seen.connectable, *(one.app for one in seen.connected))}
    logos = await logo_sources(broker, visit.project.id, list(apps.values()))
    names = {app.id: app.name for app in apps.values()}
    is_gone = bool(ended) and all(one.id != ended for one in seen.connected)
    return place.page(
        "accounts.html",
        look=await look_of(broker, visit.project.id),
        visit=visit,
        lines=_lines(visit, seen.connected, seen.can_connect, logos),
        connectable=[(app, tile_of(app.id, app.name, logos[app.id])) for app in seen.connectable]
        if visit.may(CONNECT)
        else [],
        day=day_words,
        came_back=(names.get(app_id, ""), outcome) if outcome else None,
        ended=(names.get(of, ""), told if told in TOLD else "") if is_gone and of in names else None,
        event=("disconnected", of) if is_gone and of in names else ("", ""),
    )


async def _outcome(broker: Broker, visit: Visit, trip: str) -> tuple[str, str]:
    """Return the app of a trip that has come back, and how it ended; nothing where it is nobody's here."""
    try:
        return await trip_from(broker, visit, trip, now=clock.now()) if trip else ("", "")
    except NotFound:
        return "", ""


def _lines(
    visit: Visit, accounts: Sequence[Account], can_connect: frozenset[str], logos: Mapping[str, str]
) -> list[Line]:
    offered: set[str] = set()
    lines = []
    for account in accounts:
        app, own = account.app, not account.is_shared
        may_connect = own and visit.may(CONNECT) and app.id in can_connect
        adds = may_connect and not account.is_broken and app.id not in offered
        if adds:
            offered.add(app.id)
        lines.append(
            Line(
                account=account,
                tile=tile_of(app.id, app.name, logos[app.id]),
                used=used_words(account.used_at),
                permissions=permissions_of(app, account.scopes),
                may_connect=may_connect,
                may_disconnect=own and visit.may(DISCONNECT),
                may_add=adds,
            )
        )
    return lines


def permissions_of(app: OutboundApp, scopes: Sequence[str]) -> list[tuple[str, str]]:
    """Return scopes with their words in the language of the page."""
    own = app.scope_translations.get(locale.language.get(), {})
    return [(scope, words_for(scope, own) or words_for(scope, app.scope_descriptions)) for scope in scopes]


def used_words(at: datetime | None) -> str:
    """Return when an account was last used, to about a day, as its user wants to know it."""
    if at is None:
        return gettext("not used yet")
    age = clock.now() - at
    if age < timedelta(days=1):
        return gettext("used today")
    if age < timedelta(days=7):
        return gettext("used this week")
    return gettext("used this month") if age < timedelta(days=30) else gettext("not used for long")


def day_words(at: datetime) -> str:
    """Return a date in the language of the page: `3 March 2026`."""
    said = gettext("%(day)s %(month)s %(year)s")
    return said % {"day": at.day, "month": gettext(MONTHS[at.month - 1]), "year": at.year}
