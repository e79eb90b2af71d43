"""One connection and what happened to it, how many there are, and all of them as a file."""

from typing import Annotated, Any, Literal

from fastapi.responses import StreamingResponse
from pydantic import Field

from evergrant.broker.connections import listing
from evergrant.broker.connections.browsing import ConnectionState
from evergrant.broker.connections.export import export_connections
from evergrant.broker.connections.summary import summarise
from evergrant.broker.grants.counts import app_counts
from evergrant.db import GrantEvent
from evergrant.web.api.connection_wire import AnApp, OneToken, TokenMetadataAnswer, metadata, wanted_of
from evergrant.web.api.wire import OptionalId, PastedText, WireModel, epoch, errors, example
from evergrant.web.deps import BrokerDep, ConnectionsReader, ConnectionsReaderOrUser
from evergrant.web.routing import ApiRouter

router = ApiRouter(prefix="/v1/mgmt/outbound", tags=["connections"])

CSV = {"text/csv": {"schema": {"type": "string"}, "example": "id,appId,userId\r\n9b2f6f0c,google-contacts,alice\r\n"}}


class TokenEvent(WireModel):
    """Something that happened to a connection."""

    time: str = Field(description="Epoch seconds as text; of what is summed up by hour, the beginning of the hour.")
    kind: str = Field(
        description="`connected`, `uploaded`, `confirmed`, `refreshed`, `failed`, `app_refused`, `fetched`, "
        "`fetch_refused`, `refresh_token_seen`, `tested`, `replaces`, `replaced`, `ended`, `superseded`, `deleted`, "
        "`revoked` or `revocation_failed`. There may be more of them in later versions."
    )
    count: int = Field(description="How often, of what is summed up by hour; else 1.")
    actor: str = Field(description="Who did it, as in the audit log; empty where evergrant did.")
    data: dict[str, Any] = Field(description="What else is known of it: `ms`, `error`, `next` try, ...")


class TokenEventsAnswer(WireModel):
    """A connection's timeline."""

    model_config = example(
        {
            "events": [
                {
                    "time": "1741106000",
                    "kind": "refreshed",
                    "count": 1,
                    "actor": "",
                    "data": {"why": "background", "ms": 412, "rotated": True},
                }
            ]
        }
    )

    events: list[TokenEvent]


class StateCounts(WireModel):
    """How many connections are not as they should be."""

    retrying: int = Field(description="The last refresh failed and is tried again.")
    app_refused: int = Field(description="The provider refuses their app; they are innocent.")
    reconnect: int = Field(description="Only the user can mend them, by connecting again.")
    unconfirmed: int = Field(description="They wait for their confirmation.")


class AppCount(WireModel):
    """How many connections an app had."""

    app_id: str
    total: int
    counted_time: str = Field(description="Epoch seconds as text: when they were counted.")


class CountsAnswer(WireModel):
    """How many connections there are."""

    model_config = example(
        {
            "total": 48212,
            "exact": False,
            "countedTime": "1741106000",
            "states": {"retrying": 188, "appRefused": 1204, "reconnect": 37, "unconfirmed": 4},
            "apps": [{"appId": "google-contacts", "total": 30417, "countedTime": "1741106000"}],
        }
    )

    total: int
    exact: bool = Field(description="False where `total` is what was counted at `countedTime`.")
    counted_time: str = Field(description="Epoch seconds as text; empty where `total` is exact, or not counted yet.")
    states: StateCounts = Field(description="As they are now.")
    apps: list[AppCount] = Field(description="As the refresher counted them, every few minutes.")


class WhichConnections(WireModel):
    """Which connections to export; every filter is optional."""

    model_config = example({"appId": "google-contacts", "state": "reconnect"})

    app_id: PastedText = Field(default="", max_length=64)
    user_id: OptionalId = ""
    tenant_id: OptionalId = ""
    state: Literal["", "healthy", "retrying", "app_refused", "reconnect", "unconfirmed"] = ""
    search: OptionalId = Field(
        default="", description="The beginning of a user's or tenant's id, or a whole `tokenSub` or id."
    )
    order: Annotated[Literal["newest", "oldest"], Field(description="By the time of the consent.")] = "newest"


@router.get("/token", summary="Load a connection", responses=errors(400, 404))
async def load_token(broker: BrokerDep, principal: ConnectionsReaderOrUser, token_id: OneToken) -> TokenMetadataAnswer:
    """Return one connection without its secrets. With a user's JWT, one of the user's own."""
    return TokenMetadataAnswer(token=metadata(await listing.load_connection(broker, principal, token_id)))


@router.get("/token/events", summary="List what happened to a connection", responses=errors(400, 404))
async def list_token_events(
    broker: BrokerDep, principal: ConnectionsReaderOrUser, token_id: OneToken
) -> TokenEventsAnswer:
    """Return the last 50 events of a connection, the latest first, with fetches summed up by hour.

    A key that is not limited to some apps gets those of a deleted connection for 30 days. Fetches show up within a
    minute or so.
    """
    _, events = await listing.load_with_timeline(broker, principal, token_id)
    return TokenEventsAnswer(events=[_event(event) for event in events])


@router.get("/counts", summary="Count connections", responses=errors(400))
async def count_connections(broker: BrokerDep, principal: ConnectionsReader, app_id: AnApp = "") -> CountsAnswer:
    """Return how many connections there are, of an app or of all that the key may use.

    Up to a thousand are counted on the spot. More are counted in the background, every few minutes.
    """
    found = await summarise(broker, principal, app_id=app_id)
    seen = {app_id} if app_id else principal.app_ids
    apps = await app_counts(broker, principal.project_id)
    return CountsAnswer(
        total=found.total.n,
        exact=found.total.is_exact,
        counted_time=epoch(found.total.counted_at),
        states=StateCounts(
            retrying=found.states[ConnectionState.RETRYING],
            app_refused=found.states[ConnectionState.APP_REFUSED],
            reconnect=found.states[ConnectionState.RECONNECT],
            unconfirmed=found.states[ConnectionState.UNCONFIRMED],
        ),
        apps=[
            AppCount(app_id=one, total=n, counted_time=epoch(at))
            for one, (n, at) in sorted(apps.items())
            if not seen or one in seen
        ],
    )


@router.post(
    "/tokens/export",
    summary="Export connections as CSV",
    response_class=StreamingResponse,
    responses={**errors(400, 413), 200: {"content": CSV, "description": "A line for each connection."}},
)
async def export_tokens(body: WhichConnections, broker: BrokerDep, principal: ConnectionsReader) -> StreamingResponse:
    """Return connections without their secrets as a file (RFC 4180); the audit log says how many were given out.

    A cell that a spreadsheet would run as a formula begins with an apostrophe.
    """
    wanted = wanted_of(body.app_id, body.user_id, body.tenant_id, body.state, body.search, body.order)
    if wanted.app_id:
        principal.require_app(wanted.app_id)  # before the answer begins
    lines = export_connections(broker, principal, wanted)
    headers = {"Content-Disposition": 'attachment; filename="connections.csv"'}
    return StreamingResponse(lines, media_type="text/csv; charset=utf-8", headers=headers)


def _event(event: GrantEvent) -> TokenEvent:
    return TokenEvent(time=epoch(event.at), kind=event.kind, count=event.n, actor=event.actor, data=event.data)
