"""What was done with one app: connects, refreshes, and fetches by key."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fastapi import APIRouter
from fastapi.responses import Response

from evergrant import clock
from evergrant.broker.access.management_keys import list_keys
from evergrant.broker.activity.series import ActivityOf, Sums, read_activity
from evergrant.broker.calls.call_list import CallFilter
from evergrant.broker.runtime.principal import Permission
from evergrant.web.charts import spark_line
from evergrant.web.console import activity_view as view
from evergrant.web.console.app_head import app_head
from evergrant.web.console.call_rows import read_calls
from evergrant.web.console.desk import AppIdInPath, Asked, Desk, DeskDep
from evergrant.web.console.route import ConsoleRoute

router = APIRouter(route_class=ConsoleRoute)

USERS = "user"


@dataclass(frozen=True, slots=True)
class FetchesOf:
    """One key's fetches."""

    key_id: str
    """Empty for users, who come with tokens of their own."""
    name: str
    answered: int
    failed: int
    refused: int
    spark: str


@router.get("/console/{project}/apps/{app_id}/activity")
async def show(desk: DeskDep, app_id: AppIdInPath, p: Asked = "", table: Asked = "") -> Response:
    """Show what was done with an app within a period; with `table`, its charts as tables."""
    desk.require(Permission.CONNECTIONS_READ)
    period = view.period_of(p)
    head = await app_head(desk, app_id)
    found = await read_activity(desk.broker, desk.principal, period, app_id=app_id, now=clock.now())
    sums = found.by_app.get(app_id, Sums())
    here = desk.path("apps", app_id, "activity", p=p, table="1")
    return desk.page(
        "app_activity.html",
        head=head,
        period=period,
        as_table=bool(table),
        is_empty=not any(one.n for one in sums.values()),
        sums=sums,
        connects=sums.parts("connect:"),
        failures=sums.parts("connect:failed:"),
        refreshes=view.refreshes_drawn(found, here, {}),
        fetches=view.fetches_drawn(found, here),
        calls=await read_calls(desk, CallFilter(app_id=app_id)),
        keys=_by_key(found, sums, await _key_names(desk)),
        view=view,
    )


async def _key_names(desk: Desk) -> Mapping[str, str]:
    if not desk.may(Permission.KEYS):
        return {}
    return {key.id: key.name for key in await list_keys(desk.broker, desk.project.id, reader=desk.principal)}


def _by_key(found: ActivityOf, sums: Sums, names: Mapping[str, str]) -> Sequence[FetchesOf]:
    """Return fetches by key, the busiest first."""
    answered, failed, refused = (sums.parts(f"fetch:{what}:") for what in ("answered", "failed", "refused"))
    rows = [
        FetchesOf(
            "" if key == USERS else key,
            "Users with their own tokens" if key == USERS else names.get(key, key),
            answered.get(key, 0),
            failed.get(key, 0),
            refused.get(key, 0),
            spark_line([step.sums[f"fetch:answered:{key}"].n for step in found.steps]),
        )
        for key in answered.keys() | failed.keys() | refused.keys()
    ]
    return sorted(rows, key=lambda row: (-(row.answered + row.failed + row.refused), row.name))
