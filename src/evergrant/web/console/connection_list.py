"""A list of connections as its pages show it: of all apps, of one app, of one person."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from urllib.parse import urlencode

from fastapi import Request

from evergrant.app_types import AppType
from evergrant.broker.apps.logos import list_apps_with_logos
from evergrant.broker.connections.browsing import ConnectionState, Page, Wanted, browse
from evergrant.broker.connections.metadata import GrantMetadata
from evergrant.broker.connections.summary import Summary, summarise
from evergrant.broker.runtime.list_places import Place
from evergrant.db import OutboundApp
from evergrant.web.console.app_head import AppHead
from evergrant.web.console.desk import Desk
from evergrant.web.console.kinds import KINDS, Kind, kind_of
from evergrant.web.console.states import State, state_of_connection
from evergrant.web.logos import logo_source
from evergrant.web.tiles import Tile, tile_of

PER_PAGE = 50
TABS = (
    (None, "All", ""),
    (ConnectionState.HEALTHY, "Healthy", ""),
    (ConnectionState.APP_REFUSED, "App refused", "warn"),
    (ConnectionState.RETRYING, "Retrying", ""),
    (ConnectionState.RECONNECT, "Reconnect", "bad"),
    (ConnectionState.UNCONFIRMED, "Unconfirmed", ""),
)
MOST_LETTERS = 255
_WHAT_NOW = re.compile(r" (It is tried again later|Correct the app's settings|(The user must c|C)onnect again)\.$")
"""What errors end with, and what the state beside them says already."""


@dataclass(frozen=True, slots=True)
class Line:
    """One connection in a list."""

    grant: GrantMetadata
    state: State
    tile: Tile
    app_name: str
    error: str
    kind: Kind

    @property
    def renews(self) -> str:
        """What renews its token, in a word."""
        if self.kind.is_obtained:
            return "Credentials"
        return "Yes" if self.grant.has_refresh_token else "No"

    @property
    def may_be_linked(self) -> bool:
        """Whether its person may connect it again."""
        return self.kind.is_consented

    @property
    def who(self) -> str:
        """Whose it is, in a few words."""
        return self.grant.user_id or f"Everyone in {self.grant.tenant_id}"

    @property
    def scopes(self) -> list[str]:
        """The scopes, what tells most first, and of addresses their ends."""
        return sorted((_short(scope) for scope in self.grant.scopes), key=_says_little)


@dataclass(frozen=True, slots=True)
class Tab:
    """One state, with how many are in it where that is known."""

    name: str
    address: str
    is_current: bool
    count: int | None
    kind: str


@dataclass(frozen=True, slots=True)
class ConnectionList:
    """What `console/connection_table.html` draws."""

    lines: Sequence[Line]
    tabs: Sequence[Tab]
    summary: Summary | None
    """None for one person."""
    wanted: Wanted
    newer: str
    older: str
    ends_early: bool
    """Whether more may be found by going on, although this page is not full."""
    apps: Sequence[OutboundApp]
    refused: Sequence[OutboundApp]
    """Apps that their providers refuse, of those that the list is about."""

    @property
    def is_filtered(self) -> bool:
        """Whether somebody looks for something."""
        asked = self.wanted
        return bool(asked.search or asked.tenant_id or asked.state)

    @property
    def is_first(self) -> bool:
        """Whether it begins at the beginning."""
        return not self.newer


def wanted_in(request: Request, *, app_id: str = "", user_id: str = "") -> Wanted:
    """Read from a page's address which connections are looked for. What it does not know, it leaves out."""
    asked = request.query_params
    state = asked.get("state", "")
    return Wanted(
        state=ConnectionState(state) if state in list(ConnectionState) else None,
        app_id=app_id or asked.get("app", "").strip()[:64],
        user_id=user_id,
        tenant_id=asked.get("tenant", "").strip()[:MOST_LETTERS],
        search=asked.get("q", "").strip()[:MOST_LETTERS],
        oldest_first=asked.get("order") == "oldest",
    )


async def read_list(desk: Desk, request: Request, wanted: Wanted, *, head: AppHead | None = None) -> ConnectionList:
    """Read one page of a list, and what stands around it. `head` is of the one app that it is about, where it is.

    Raises:
        PermissionDenied: the session is limited to other apps.
        InvalidValue: the address names a place that is none.
    """
    if head is not None:
        apps, logos = [head.app], {head.app.id: head.tile.src}
    else:
        only = sorted(desk.principal.app_ids)
        apps, versions = await list_apps_with_logos(desk.broker, desk.project.id, only=only)
        logos = {app.id: logo_source(app, versions.get(app.id, "")) for app in apps}
    summary = None
    if not wanted.user_id:
        summary = await summarise(desk.broker, desk.principal, app_id=wanted.app_id, apps=apps)
    after = Place.parse(request.query_params.get("at", ""), field="at")
    before = Place.parse(request.query_params.get("before", ""), field="before")
    page, newer, older = await _read_page(desk, wanted, apps, after=after, before=before)
    by_id = {app.id: app for app in apps}
    address = request.url.path
    return ConnectionList(
        lines=[line_of(grant, by_id, logos) for grant in page.grants],
        tabs=[_tab(*tab, wanted=wanted, summary=summary, address=address) for tab in TABS] if summary else [],
        summary=summary,
        wanted=wanted,
        newer=_address(address, wanted, before=newer) if newer else "",
        older=_address(address, wanted, at=older) if older else "",
        ends_early=page.ends_early,
        apps=apps,
        refused=[app for app in apps if app.unhealthy_since is not None and wanted.app_id in ("", app.id)],
    )


async def _read_page(
    desk: Desk, wanted: Wanted, apps: Sequence[OutboundApp], *, after: Place | None, before: Place | None
) -> tuple[Page, str, str]:
    """Return a page, and where the ones beside it begin; the other way round where somebody goes back."""

    async def read(which: Wanted, place: Place | None) -> Page:
        return await browse(desk.broker, desk.principal, which, after=place, limit=PER_PAGE, apps=apps)

    if before is not None:
        back = await read(replace(wanted, oldest_first=not wanted.oldest_first), before)
        if len(back.grants) == PER_PAGE and back.following is not None:
            grants = back.grants[::-1]
            return Page(grants, None), str(_place(grants[0])), str(_place(grants[-1]))
        after = None  # that is the first page, or less than it
    page = await read(wanted, after)
    newer = str(_place(page.grants[0])) if after is not None and page.grants else str(after) if after else ""
    return page, newer, str(page.following or "")


def _place(grant: GrantMetadata) -> Place:
    return Place(grant.consented_at, grant.id)


def line_of(grant: GrantMetadata, apps: Mapping[str, OutboundApp], logos: Mapping[str, str]) -> Line:
    """Return a connection as lists show it; `logos` are their addresses by app."""
    app = apps.get(grant.app_id)  # it may have been deleted a moment ago
    name = app.name if app is not None else grant.app_id
    kind = kind_of(app) if app is not None else KINDS[AppType.OAUTH]
    state = state_of_connection(
        grant.status,
        grant.last_refresh_error,
        app_type=kind.type,
        app_is_refused=app is not None and app.unhealthy_since is not None,
    )
    tile = tile_of(grant.app_id, name, logos.get(grant.app_id, ""))
    return Line(grant, state, tile, name, short_error(grant.last_refresh_error, name), kind)


def short_error(error: str, app_name: str) -> str:
    """Return an error with what tells most first: the provider's code, without the app's name."""
    rest = re.sub(rf"^{re.escape(app_name)}(?::| answered| refuses this app:| refuses what was asked:)? ", "", error)
    return _WHAT_NOW.sub("", rest)


def _short(scope: str) -> str:
    return scope.rstrip("/").rpartition("/")[2] if "://" in scope else scope


def _says_little(scope: str) -> bool:
    return scope in ("openid", "email", "profile", "offline_access")


def _tab(state: ConnectionState | None, name: str, kind: str, *, wanted: Wanted, summary: Summary, address: str) -> Tab:
    count = summary.total.n if state is None else summary.states.get(state)
    there = _address(address, replace(wanted, state=state))
    return Tab(name, there, wanted.state is state, count, kind if count else "")


def _address(path: str, wanted: Wanted, **place: str) -> str:
    in_path = "/apps/" in path  # there the address names the app already
    query = {
        "state": str(wanted.state or ""),
        "app": "" if in_path else wanted.app_id,
        "tenant": wanted.tenant_id,
        "q": wanted.search,
        "order": "oldest" if wanted.oldest_first else "",
        **place,
    }
    kept = {name: value for name, value in query.items() if value}
    return f"{path}?{urlencode(kept)}" if kept else path
