"""How many connections there are in each state: what tabs and dashboards show."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from evergrant.broker.apps.apps import list_apps
from evergrant.broker.connections.browsing import ConnectionState
from evergrant.broker.grants.counts import Total, totals, unhealthy_counts
from evergrant.broker.runtime.broker import Broker
from evergrant.broker.runtime.principal import Principal
from evergrant.db import GrantStatus, OutboundApp


@dataclass(frozen=True, slots=True)
class Summary:
    """How many connections there are."""

    total: Total
    states: Mapping[ConnectionState, int]
    """Of what is not healthy. Exact, but for those of refused apps where these have many."""


async def summarise(
    broker: Broker, principal: Principal, *, app_id: str = "", apps: Sequence[OutboundApp] | None = None
) -> Summary:
    """Count the connections of a project, or of one app of it.

    A key that is limited to some apps has those counted. `apps` are the project's, where they are read already.

    Raises:
        PermissionDenied: the key is limited to other apps.
    """
    if app_id:
        principal.require_app(app_id)
    seen = {app_id} if app_id else set(principal.app_ids)
    known = await list_apps(broker, principal.project_id) if apps is None else apps
    refused = {app.id for app in known if app.unhealthy_since is not None and (not seen or app.id in seen)}
    groups = [sorted(seen), *([sorted(refused)] if refused else [])]
    total, *of_refused = await totals(broker, principal.project_id, *groups)
    states = dict.fromkeys(ConnectionState, 0)
    del states[ConnectionState.HEALTHY]
    states[ConnectionState.APP_REFUSED] = of_refused[0].n if of_refused else 0
    for found in await unhealthy_counts(broker, principal.project_id):
        if seen and found.app_id not in seen:
            continue
        if found.status == GrantStatus.REAUTHORIZATION_REQUIRED:
            states[ConnectionState.RECONNECT] += found.n
        elif found.status == GrantStatus.PENDING:
            states[ConnectionState.UNCONFIRMED] += found.n
        elif found.app_id not in refused:
            states[ConnectionState.RETRYING] += found.n
        if found.app_id in refused and found.status != GrantStatus.ACTIVE:
            states[ConnectionState.APP_REFUSED] -= found.n
    states[ConnectionState.APP_REFUSED] = max(0, states[ConnectionState.APP_REFUSED])
    return Summary(total, states)
