"""The states of apps and connections: each a shape, a word and a colour, the same on every page."""

from dataclasses import dataclass

from evergrant.app_types import AppType
from evergrant.db import GrantStatus, OutboundApp


@dataclass(frozen=True, slots=True)
class State:
    """What `ui.badge` draws."""

    kind: str
    """`good`, `warn`, `bad`, `info`, or empty for what is neither."""
    icon: str
    word: str


HEALTHY = State("good", "circle-check", "Healthy")
RETRYING = State("warn", "clock", "Retrying")
APP_REFUSED = State("warn", "triangle-alert", "App refused")
RECONNECT = State("bad", "unplug", "Reconnect")
UNCONFIRMED = State("info", "circle-dashed", "Unconfirmed")
API_KEY = State("", "key-round", "API key")
REFUSED = State("bad", "triangle-alert", "Refused")
INCOMPLETE = State("warn", "circle-dashed", "Incomplete")


def state_of_app(app: OutboundApp) -> State:
    """Return an app's state: whether its provider accepts it."""
    if app.unhealthy_since is not None:
        return REFUSED
    return API_KEY if app.app_type == AppType.API_KEY else HEALTHY


def state_of_connection(status: str, last_refresh_error: str, *, app_type: str, app_is_refused: bool) -> State:
    """Return a connection's state. Where the provider refuses the app, the connection is innocent."""
    match status:
        case GrantStatus.REAUTHORIZATION_REQUIRED:
            return RECONNECT
        case GrantStatus.PENDING:
            return UNCONFIRMED
    if app_type == AppType.API_KEY:
        return API_KEY
    if app_is_refused:
        return APP_REFUSED
    return RETRYING if last_refresh_error else HEALTHY
