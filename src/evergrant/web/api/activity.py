"""What was done, and what needs somebody: the numbers behind the console's overview."""

from typing import Annotated, Literal

from fastapi import Depends, Query
from pydantic import Field

from evergrant import clock
from evergrant.broker.activity.attention import AppAtAGlance, Concern, take_a_glance
from evergrant.broker.activity.series import ActivityOf, Sums, read_activity
from evergrant.broker.runtime.principal import Permission, Principal
from evergrant.web.api.wire import PastedText, WireModel, epoch, errors, example
from evergrant.web.deps import BrokerDep, require
from evergrant.web.routing import ApiRouter

router = ApiRouter(prefix="/v1/mgmt/outbound", tags=["activity"])

ConnectionsReader = Annotated[Principal, Depends(require(Permission.CONNECTIONS_READ))]


class CallsBody(WireModel):
    """How long calls to token endpoints took, to refresh."""

    count: int
    average_milliseconds: int | None = Field(default=None, description="Left out where there were none.")
    longest_milliseconds: int | None = Field(default=None, description="Left out where there were none.")
    within_milliseconds: int | None = Field(
        default=None,
        description="95 of 100 calls ended within this: 100, 250, 500, 1000, 2500, 5000 or 10000. Left out beyond.",
    )


class ActivityStep(WireModel):
    """One hour or day."""

    time: str = Field(description="Epoch seconds as text: its beginning, in UTC.")
    without_refresher: bool = Field(description="Whether no refresher ran, so that 0 refreshes mean something else.")
    counters: dict[str, int] = Field(description="How often, by counter; what is 0 is left out.")


class ActivityOfApp(WireModel):
    """What was done with one app over the whole period."""

    app_id: str = Field(description="Empty for what belongs to no app, webhooks for example.")
    counters: dict[str, int]
    calls: CallsBody


class ActivityAnswer(WireModel):
    """What was done within a period."""

    model_config = example(
        {
            "period": "24h",
            "steps": [
                {
                    "time": "1741100400",
                    "withoutRefresher": False,
                    "counters": {
                        "refresh:ok": 812,
                        "refresh:retried": 3,
                        "fetch:answered:2vJ8nq": 5021,
                        "refresher": 60,
                    },
                }
            ],
            "apps": [
                {
                    "appId": "google-contacts",
                    "counters": {"connect:started": 12, "connect:finished": 11, "refresh:ok": 812},
                    "calls": {
                        "count": 815,
                        "averageMilliseconds": 148,
                        "longestMilliseconds": 912,
                        "withinMilliseconds": 250,
                    },
                }
            ],
        }
    )

    period: Literal["24h", "7d", "30d"]
    steps: list[ActivityStep] = Field(description="Oldest first, the present one last.")
    apps: list[ActivityOfApp]


class ConcernBody(WireModel):
    """One thing that somebody has to do something about."""

    what: str = Field(description="`no_refresher`, `app_refused`, `reconnect`, `webhook`, `restored` or `key_expires`.")
    app_id: str = Field(description="The app that it is about; with `reconnect`, the one with the most.")
    about: str = Field(description="The id of the webhook or key.")
    name: str = Field(description="The webhook's host or the key's name.")
    since: str = Field(description="Epoch seconds as text: since when; with `key_expires`, when.")
    count: int = Field(description="Connections, or deliveries that wait.")
    reason: str = Field(description="What the provider said; or why evergrant disabled the webhook.")


class AppGlance(WireModel):
    """How one app is."""

    app_id: str
    connections: int | None = Field(default=None, description="About how many; left out before they were counted.")
    counted_time: str = Field(description="Epoch seconds as text: when they were.")
    reconnect: int = Field(description="Connections that can only be made again. Exact, like the next two.")
    retrying: int = Field(description="Connections whose last refresh failed, and is tried again.")
    pending: int = Field(description="Connections that wait for their confirmation.")
    due: int = Field(description="Connections whose background refresh is due; 100001 means more than 100000.")
    due_since: str = Field(description="Epoch seconds as text: when the first of them fell due.")


class AttentionAnswer(WireModel):
    """What needs somebody, and how each app is."""

    model_config = example(
        {
            "concerns": [
                {
                    "what": "app_refused",
                    "appId": "google-contacts",
                    "about": "",
                    "name": "",
                    "since": "1741103514",
                    "count": 1204,
                    "reason": "Google Contacts refuses the app: invalid_client.",
                }
            ],
            "apps": [
                {
                    "appId": "google-contacts",
                    "connections": 1204,
                    "countedTime": "1741106000",
                    "reconnect": 0,
                    "retrying": 1204,
                    "pending": 0,
                    "due": 0,
                    "dueSince": "",
                }
            ],
        }
    )

    concerns: list[ConcernBody]
    apps: list[AppGlance]


@router.get("/activity", summary="Count what was done", responses=errors(400))
async def load_activity(
    broker: BrokerDep,
    principal: ConnectionsReader,
    period: Annotated[
        Literal["24h", "7d", "30d"], Query(description="`24h` by the hour, the others by the day.", examples=["24h"])
    ] = "24h",
    app_id: Annotated[
        PastedText, Query(alias="appId", max_length=64, description="Of this app.", examples=["google-contacts"])
    ] = "",
) -> ActivityAnswer:
    """Return what was done within a period, by hour or day and by app. The last two minutes may be missing.

    The counters: `connect:started`, `connect:finished`, `connect:cancelled`, `connect:failed:ERR`;
    `fetch:answered:KEY`, `fetch:refused:KEY`, `fetch:failed:KEY` by the key's id, or `user`; `refresh:ok`,
    `refresh:retried`, `refresh:ended`, `refresh:refused`, `refresh:app_refused`, `refresh:broken`; `webhook:ID:ok`,
    `webhook:ID:failed`; `issuer:ID:accepted`, `issuer:ID:refused`; `call:MS` for calls to token
    endpoints that took no longer; `refresher` for each look of a refresher at the clock. evergrant keeps counts for
    90 days.
    """
    return _activity(await read_activity(broker, principal, period, app_id=app_id, now=clock.now()))


@router.get("/attention", summary="Ask what needs somebody", responses=errors())
async def load_attention(broker: BrokerDep, principal: ConnectionsReader) -> AttentionAnswer:
    """Return what somebody has to do something about, the worst first, and how each app is.

    Webhooks are among it for keys with `webhooks`, keys that expire within 14 days for those with `keys`.
    """
    glance = await take_a_glance(broker, principal, now=clock.now())
    return AttentionAnswer(
        concerns=[_concern(one) for one in glance.concerns], apps=[_glance(one) for one in glance.apps]
    )


def _activity(found: ActivityOf) -> ActivityAnswer:
    return ActivityAnswer.model_validate(
        {
            "period": found.period,
            "steps": [
                {
                    "time": epoch(step.start),
                    "without_refresher": step.without_refresher,
                    "counters": _counters(step.sums),
                }
                for step in found.steps
            ],
            "apps": [
                {"app_id": app_id, "counters": _counters(sums), "calls": _calls(sums)}
                for app_id, sums in sorted(found.by_app.items())
            ],
        }
    )


def _counters(sums: Sums) -> dict[str, int]:
    return {counter: one.n for counter, one in sorted(sums.items()) if one.n}


def _calls(sums: Sums) -> dict[str, int | None]:
    calls = sums.of("call:")
    return {
        "count": calls.n,
        "average_milliseconds": calls.average,
        "longest_milliseconds": calls.ms_max if calls.n else None,
        "within_milliseconds": sums.within,
    }


def _concern(one: Concern) -> ConcernBody:
    refused = one.app.unhealthy_reason if one.app is not None and not one.of_app else ""
    return ConcernBody(
        what=one.what.value,
        app_id=one.app.id if one.app is not None else "",
        about=one.about,
        name=one.name,
        since=epoch(one.since),
        count=one.count,
        reason=one.reason or refused,
    )


def _glance(one: AppAtAGlance) -> AppGlance:
    return AppGlance(
        app_id=one.app.id,
        connections=one.connections,
        counted_time=epoch(one.counted_at),
        reconnect=one.reconnect,
        retrying=one.retrying,
        pending=one.pending,
        due=one.due,
        due_since=epoch(one.due_since),
    )
