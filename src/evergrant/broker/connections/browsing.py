"""Pages of connections by the time of their consent, for people who look for one.

No list reads all of a project's connections. A page is found in one of two ways, each bounded by an index:
- What is not healthy stands in an index of its own, which has few rows.
- All else goes by the directory: by user, tenant, subject or app, or by time alone. Where a state has no index, because
  nearly every connection is in it, so many entries are looked at, and the page says where to go on. The same holds for
  the beginning of an id where many ids have it; where few have, these are read and sorted.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, NamedTuple, TypeVar, cast

from sqlalchemy import ColumnElement, Select, Table, and_, func, or_, select, union, union_all
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.sql.base import ReadOnlyColumnCollection

from evergrant.broker.apps.apps import list_apps
from evergrant.broker.connections.metadata import SELECTED, GrantMetadata
from evergrant.broker.runtime.broker import Broker
from evergrant.broker.runtime.list_places import Place
from evergrant.broker.runtime.principal import Principal
from evergrant.db import Grant, GrantDirectory, GrantStatus, OutboundApp
from evergrant.db.grant import ATTENTION

ENTRIES = cast(Table, GrantDirectory.__table__).c
Entry = ReadOnlyColumnCollection[str, Any]
"""The columns of an entry: of the directory, or of a part of it that was picked out."""
S = TypeVar("S", bound=Select[*tuple[Any, ...]])

LOOKED_AT = 1_000
"""So many entries of the directory are looked at for one page, where what is looked for has no index."""
FEW = 5_000
"""So many that begin alike are read and sorted for one page. Where more do, so many entries are looked at for one."""
MOST_QUEUES = 20
"""Of so many apps each is looked up by itself; of more, entries are looked at until enough are found."""
LAST_CHARACTER = "\U0010ffff"
"""Stands after everything that a text with the same beginning can go on with, compared by bytes."""


class ConnectionState(StrEnum):
    """What can be looked for: a status, and for active ones whose fault it is that something does not work."""

    HEALTHY = "healthy"
    RETRYING = "retrying"
    """Its last refresh failed, and is tried again."""
    APP_REFUSED = "app_refused"
    """The provider refuses its app. The connection is innocent."""
    RECONNECT = "reconnect"
    UNCONFIRMED = "unconfirmed"


_STATUS = {
    ConnectionState.RETRYING: GrantStatus.ACTIVE,
    ConnectionState.RECONNECT: GrantStatus.REAUTHORIZATION_REQUIRED,
    ConnectionState.UNCONFIRMED: GrantStatus.PENDING,
}
"""States that the index of unhealthy connections has."""


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """Which connections; an empty field does not limit."""

    state: ConnectionState | None = None
    app_id: str = ""
    user_id: str = ""
    tenant_id: str = ""
    search: str = ""
    """The beginning of a user's or tenant's id, or a whole subject or connection's id."""
    oldest_first: bool = False


class Page(NamedTuple):
    """One page of connections."""

    grants: list[GrantMetadata]
    following: Place | None
    """Where the next page begins; None on the last."""
    ends_early: bool = False
    """Whether it is shorter than it could be, because enough was looked at."""


@dataclass(frozen=True)
class _Turn:
    """One question to the database."""

    wanted: Wanted
    principal: Principal
    apps: Sequence[str] | None
    """The only apps that count; None for all."""
    after: Place | None
    limit: int

    def in_order(self, query: S, at: Any, grant_id: Any) -> S:
        """Let a query go on after the place, in the list's order."""
        if self.after is not None:
            after = self.after.newer if self.wanted.oldest_first else self.after.older
            query = query.where(after(at, grant_id))
        columns = (at, grant_id)
        return query.order_by(*(columns if self.wanted.oldest_first else (column.desc() for column in columns)))

    def of_apps(self, column: Any) -> list[ColumnElement[bool]]:
        """Return the condition for the apps that count."""
        if self.apps is None:
            return []
        return [column == self.apps[0] if len(self.apps) == 1 else column.in_(self.apps)]

    def of_owners(self, entry: Entry) -> list[ColumnElement[bool]]:
        """Return the conditions for whose they are: what is asked for, and all that a user may see."""
        pairs = ((entry.user_id, self.wanted.user_id), (entry.tenant_id, self.wanted.tenant_id))
        found = [column == value for column, value in pairs if value]
        if self.principal.is_user:
            found += [entry.user_id == self.principal.user_id, entry.tenant_id.in_(self.principal.own_tenants)]
        return found

    def entries(self, *, most: int) -> Select[Any]:
        """Return the statement for the first entries, whatever is searched for: of each app where these are few."""
        parts = [self.of_apps(ENTRIES.app_id)]
        if self.apps is not None and len(self.apps) <= MOST_QUEUES:
            # Each has its place in the index. By time alone, the entries of a small one may be far between.
            parts = [[ENTRIES.app_id == app] for app in self.apps]
        base = select(*ENTRIES).where(ENTRIES.project_id == self.principal.project_id, *self.of_owners(ENTRIES))
        first, *rest = (
            self.in_order(base.where(*part), ENTRIES.consented_at, ENTRIES.grant_id).limit(most) for part in parts
        )
        if not rest:
            return first
        either = union_all(*(select(part.subquery()) for part in (first, *rest))).subquery()
        return self.in_order(select(either), either.c.consented_at, either.c.grant_id).limit(most)

    def matches(self) -> Select[Any]:
        """Return the statement for the entries that are searched for, in the list's order, where these are few."""
        found = union(*(select(part.limit(FEW).subquery()) for part in self.searched())).subquery()
        query = select(found).where(*self.of_owners(found.c), *self.of_apps(found.c.app_id))
        return self.in_order(query, found.c.consented_at, found.c.grant_id)

    def searched(self) -> list[Select[Any]]:
        """Return a statement for each thing that words can mean. All have an index, and go along it."""
        base = select(*ENTRIES).where(ENTRIES.project_id == self.principal.project_id)
        user, tenant, *whole = _meanings(self.wanted.search, ENTRIES)
        return [
            base.where(user).order_by(ENTRIES.user_id),
            base.where(tenant).order_by(ENTRIES.tenant_id),
            *(base.where(meaning) for meaning in whole),
        ]


async def browse(
    broker: Broker,
    principal: Principal,
    wanted: Wanted,
    *,
    after: Place | None,
    limit: int,
    apps: Sequence[OutboundApp] | None = None,
) -> Page:
    """Return a page of connections by the time of their consent.

    A key that is limited to some apps sees those; a user sees its own connections. `apps` are the project's, where the
    caller has read them already.

    Raises:
        PermissionDenied: the key is limited to other apps, or a user asks about others.
    """
    if wanted.app_id:
        principal.require_app(wanted.app_id)
    if principal.is_user:
        principal.require_owner(
            wanted.user_id or principal.user_id, wanted.tenant_id or min(principal.tenant_ids, default="")
        )
    allowed = [wanted.app_id] if wanted.app_id else sorted(principal.app_ids) or None
    refused: set[str] = set()
    if wanted.state in (ConnectionState.HEALTHY, ConnectionState.RETRYING, ConnectionState.APP_REFUSED):
        known = await list_apps(broker, principal.project_id) if apps is None else apps
        refused = {app.id for app in known if app.unhealthy_since is not None}
    if wanted.state is ConnectionState.APP_REFUSED:
        allowed = sorted(refused if allowed is None else refused & set(allowed))
    if allowed == []:
        return Page([], None)
    turn = _Turn(wanted, principal, allowed, after, limit)
    named = wanted.user_id or wanted.tenant_id or wanted.search or principal.is_user
    if wanted.state in _STATUS and not named:
        return await _by_attention(broker, turn, refused)
    page = await _by_directory(broker, turn, refused)
    seen = [grant for grant in page.grants if principal.sees(grant.app_id, grant.external_identifier)]
    return page._replace(grants=seen)


def _in_state(state: ConnectionState | None, refused: set[str]) -> list[ColumnElement[bool]]:
    """Return the conditions for a state, about a grant's row."""
    if state is None:
        return []
    not_refused = [Grant.app_id.not_in(sorted(refused))] if refused else []
    match state:
        case ConnectionState.HEALTHY:
            return [Grant.status == GrantStatus.ACTIVE, Grant.last_refresh_error == "", *not_refused]
        case ConnectionState.RETRYING:
            return [Grant.status == GrantStatus.ACTIVE, Grant.last_refresh_error != "", *not_refused]
        case ConnectionState.APP_REFUSED:
            return [Grant.status == GrantStatus.ACTIVE]
    return [Grant.status == _STATUS[state]]


async def _by_attention(broker: Broker, turn: _Turn, refused: set[str]) -> Page:
    """Read a page from the index of what is not healthy."""
    query = select(*SELECTED).where(
        Grant.project_id == turn.principal.project_id,
        ATTENTION,
        *_in_state(turn.wanted.state, refused),
        *turn.of_apps(Grant.app_id),
    )
    query = turn.in_order(query, Grant.consented_at, Grant.id).limit(turn.limit + 1)
    async with broker.database.browse() as session:
        return _page([GrantMetadata.read(row) for row in await session.execute(query)], turn.limit)


async def _by_directory(broker: Broker, turn: _Turn, refused: set[str]) -> Page:
    """Read a page by the directory."""
    state, words = _in_state(turn.wanted.state, refused), turn.wanted.search
    async with broker.database.browse() as session:
        are_few = words and await _are_few(session, turn)
        # Where entries are left out afterwards, so many are looked at.
        looked_at = 0 if are_few else LOOKED_AT if state else FEW if words else 0
        entries = turn.matches() if are_few else turn.entries(most=looked_at or turn.limit + 1)
        found = entries.subquery()
        query = (
            select(*SELECTED)
            .join(found, and_(Grant.project_id == turn.principal.project_id, Grant.id == found.c.grant_id))
            .where(*state)
        )
        if words and not are_few:
            query = query.where(or_(*_meanings(words, found.c)))
        at, grant_id = found.c.consented_at, found.c.grant_id
        order = (at, grant_id) if turn.wanted.oldest_first else (at.desc(), grant_id.desc())
        rows = [GrantMetadata.read(row) for row in await session.execute(query.order_by(*order).limit(turn.limit + 1))]
        if not looked_at or len(rows) > turn.limit:
            return _page(rows, turn.limit)
        last = (await session.execute(entries.offset(looked_at - 1).limit(1))).first()
    return Page(rows, Place(last.consented_at, last.grant_id) if last else None, ends_early=last is not None)


async def _are_few(session: AsyncSession, turn: _Turn) -> bool:
    """Tell whether so few entries are searched for that all can be read: the index says so, and knows no more."""
    parts = [part.with_only_columns(ENTRIES.project_id).limit(FEW + 1).subquery() for part in turn.searched()]
    counts = (select(func.count()).select_from(part).scalar_subquery() for part in parts)
    return all(n <= FEW for n in (await session.execute(select(*counts))).one())


def _page(rows: list[GrantMetadata], limit: int) -> Page:
    if len(rows) <= limit:
        return Page(rows, None)
    return Page(rows[:limit], Place(rows[limit - 1].consented_at, rows[limit - 1].id))


def _meanings(words: str, entry: Entry) -> list[ColumnElement[bool]]:
    """Return the conditions for what somebody types who looks for a connection; any may hold."""

    def begins(column: ColumnElement[str]) -> ColumnElement[bool]:
        return and_(column >= words, column < words + LAST_CHARACTER)

    return [begins(entry.user_id), begins(entry.tenant_id), entry.token_sub == words, entry.grant_id == words]
