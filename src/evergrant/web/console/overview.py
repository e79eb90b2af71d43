"""Overview: whether everything works, and who has to do something."""

from collections.abc import Sequence
from datetime import timedelta

from fastapi import APIRouter
from fastapi.responses import Response

from evergrant import clock
from evergrant.broker.activity.attention import AppAtAGlance, take_a_glance
from evergrant.broker.activity.latest import latest_records
from evergrant.broker.activity.series import ActivityOf, read_activity
from evergrant.broker.runtime.principal import Permission
from evergrant.db import AuditEvent
from evergrant.web.charts import share_bar
from evergrant.web.console import activity_view as view
from evergrant.web.console.desk import Asked, Desk, GlancingDesk
from evergrant.web.console.route import ConsoleRoute
from evergrant.web.console.sentences import sentence_of, telling_of
from evergrant.web.console.states import RETRYING, State, state_of_app
from evergrant.web.words import grouped, span

router = APIRouter(route_class=ConsoleRoute)

MOST_CONCERNS = 5
MOST_APPS = 8
MOST_EVENTS = 6
NO_EVENTS = ("console.link_made", "console.signed_in", "console.signed_out", "connect.started")
"""What happens all the time, and says little here; the audit log has it."""
LATE = timedelta(minutes=5)
"""A connection that has been due for so long is refreshed late."""


@router.get("/console/{project}")
async def show(desk: GlancingDesk, p: Asked = "", table: Asked = "") -> Response:
    """Show the overview of a period; with `table`, its chart as a table."""
    desk.require(Permission.CONNECTIONS_READ)
    now, period = clock.now(), view.period_of(p)
    glance = await take_a_glance(desk.broker, desk.principal, now=now)
    if not glance.apps and desk.project.start_dismissed_at is None and desk.may(Permission.APPS_WRITE):
        return desk.go(desk.path("start"))
    found = await read_activity(desk.broker, desk.principal, period, now=now)
    names = {one.app.id: one.app.name for one in glance.apps}
    apps = view.by_trouble(glance.apps)
    events, keys = await _events(desk, names)
    return desk.with_to_do(glance.to_do).page(
        "overview.html",
        period=period,
        as_table=bool(table),
        concerns=glance.concerns[:MOST_CONCERNS],
        more_concerns=max(0, len(glance.concerns) - MOST_CONCERNS),
        figures=_figures(glance.apps, found),
        drawn=view.refreshes_drawn(found, desk.path(p=p, table="1"), names),
        apps=[(one, _state(one), _share(one), found.by_app.get(one.app.id)) for one in apps[:MOST_APPS]],
        app_count=len(apps),
        events=events,
        hosts=view.slowest_hosts([one.app for one in glance.apps], found.by_app),
        sentence_of=sentence_of,
        telling_of=telling_of,
        names={f"app:{app_id}": name for app_id, name in names.items()} | keys,
        tiles=view.tiles_of(glance.apps),
        view=view,
    )


async def _events(desk: Desk, names: dict[str, str]) -> tuple[list[AuditEvent], dict[str, str]]:
    if not desk.may(Permission.AUDIT) or desk.principal.app_ids or not names:  # the log tells of all apps
        return [], {}
    return await latest_records(desk.broker, desk.principal, without=NO_EVENTS, most=MOST_EVENTS)


def _state(one: AppAtAGlance) -> State:
    state = state_of_app(one.app)
    return RETRYING if state.kind == "good" and one.retrying else state


def _share(one: AppAtAGlance) -> tuple[list[object], str]:
    """Return how an app's connections are, as boxes and in words."""
    if one.connections is None:
        return [], "not counted yet"
    whole = max(one.connections, one.unhealthy)
    if not whole:
        return [], "no connections"
    if one.app.unhealthy_since is not None:
        return list(share_bar([0, whole])), "the provider refuses the app"
    healthy = whole - one.unhealthy
    said = f"{view.percent(healthy, whole)} healthy"
    for number, words in ((one.retrying, "retrying"), (one.reconnect, "to reconnect")):
        said += f", {view.percent(number, whole)} {words}" if number else ""
    return list(share_bar([healthy, one.retrying, one.reconnect])), said


def _figures(apps: Sequence[AppAtAGlance], found: ActivityOf) -> list[tuple[str, str, str, str]]:
    """Return the four figures: name, number, what is said about it, and its kind."""
    return [_connections(apps), _fetches(found), _refreshes(found), _due(apps)]


def _connections(apps: Sequence[AppAtAGlance]) -> tuple[str, str, str, str]:
    known = [one for one in apps if one.connections is not None and one.counted_at is not None]
    if not known:
        return "Connections", "\N{EN DASH}", "not counted yet", ""
    total = sum(one.connections or 0 for one in known)
    unhealthy = sum(max(one.unhealthy, (one.connections or 0) * bool(one.app.unhealthy_since)) for one in known)
    healthy = max(0, total - unhealthy)
    age = span((clock.now() - min(one.counted_at for one in known if one.counted_at)).total_seconds())
    share = f"{view.percent(healthy, total)} healthy \N{MIDDLE DOT} " if total else ""
    return "Connections", grouped(total), f"{share}counted {age} ago", ""


def _fetches(found: ActivityOf) -> tuple[str, str, str, str]:
    answered = found.total.of("fetch:answered:")
    whole = answered.n + found.total.of("fetch:refused:").n + found.total.of("fetch:failed:").n
    if not whole:
        return "Tokens fetched", "0", "none in this period", ""
    said = f"{view.percent(answered.n, whole)} answered"
    return "Tokens fetched", grouped(answered.n), f"{said} \N{MIDDLE DOT} {average(answered.average)}", ""


def average(ms: int | None) -> str:
    """Return an average in words; what is under a millisecond says so."""
    return "under 1 ms on average" if not ms else f"{view.milliseconds(ms)} on average"


def _refreshes(found: ActivityOf) -> tuple[str, str, str, str]:
    ok = found.total["refresh:ok"].n
    failed = {name: found.total[f"refresh:{name}"].n for name in view.FAILED}
    whole = ok + sum(failed.values())
    if not whole:
        return "Refreshes", "0", "none in this period", ""
    if whole == ok:
        return "Refreshes", grouped(whole), "none failed", ""
    again = ", all tried again" if failed["retried"] == whole - ok else ""
    return "Refreshes", grouped(whole), f"{view.percent(whole - ok, whole)} failed{again}", ""


def _due(apps: Sequence[AppAtAGlance]) -> tuple[str, str, str, str]:
    due = sum(one.due for one in apps)
    if not due:
        return "Due now", "0", "nothing waits to be refreshed", ""
    age = clock.now() - min(one.due_since for one in apps if one.due_since is not None)
    is_late = age > LATE
    return "Due now", grouped(due), f"the oldest for {span(age.total_seconds())}", "warn" if is_late else ""
