"""What the guide remembers of the visitor's walk, and how it puts answers into words."""

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from evergrant import clock
from evergrant.practice.calls import Answer
from evergrant.practice.state import ProviderState


@dataclass(frozen=True, slots=True)
class Connection:
    """How the trip through the browser ended, as the query of the redirect tells it."""

    connected: bool
    words: str
    error: str = ""


@dataclass(frozen=True, slots=True)
class Sighting:
    """A token that was not seen before."""

    at: datetime
    last_four: str


@dataclass(slots=True)
class Walk:
    """One visitor's progress; the guide has one visitor, the person who started the demo."""

    user_id: str = "alice"
    answers: dict[str, Answer] = field(default_factory=dict)
    """The last answer of each step, by its name: create, connect, fetch, call, force."""
    connection: Connection | None = None
    sightings: deque[Sighting] = field(default_factory=lambda: deque(maxlen=6))
    """The latest tokens that evergrant handed out, newest first."""

    def change_user(self, user_id: str) -> None:
        """Begin again as somebody else; the app stays."""
        if user_id != self.user_id:
            self.user_id = user_id
            self.answers = {name: answer for name, answer in self.answers.items() if name == "create"}
            self.connection = None
            self.sightings.clear()

    def see(self, answer: Answer) -> None:
        """Note the token of an answer when it is a new one."""
        last_four = access_token(answer)[-4:]
        if last_four and (not self.sightings or self.sightings[0].last_four != last_four):
            self.sightings.appendleft(Sighting(clock.now(), last_four))


@dataclass(frozen=True, slots=True)
class Live:
    """What the live panel shows at one moment."""

    answer: Answer
    last_four: str
    expires_at: int | None
    """Epoch seconds."""
    seconds_left: int | None
    lifetime: int
    """Seconds that the provider gives a token."""
    refreshed_at: datetime | None
    refreshes: int
    """How often the provider has renewed this connection."""
    sightings: tuple[Sighting, ...]


def look(answer: Answer, walk: Walk, provider: ProviderState) -> Live:
    """Note the answer in `walk` and read off what the live panel shows."""
    walk.see(answer)
    token = answer.fields.get("token")
    token = token if isinstance(token, Mapping) else {}
    expires_at = _epoch(token.get("accessTokenExpiry"))
    refreshed = _epoch(token.get("lastRefreshTime"))
    left = None if expires_at is None else max(0, expires_at - int(clock.now().timestamp()))
    return Live(
        answer=answer,
        last_four=access_token(answer)[-4:],
        expires_at=expires_at,
        seconds_left=left,
        lifetime=provider.access_token_seconds,
        refreshed_at=None if refreshed is None else datetime.fromtimestamp(refreshed, UTC),
        refreshes=provider.renewals_of(access_token(answer)),
        sightings=tuple(walk.sightings),
    )


def access_token(answer: Answer) -> str:
    """Return the access token in an answer of evergrant, or "" when there is none."""
    token = answer.fields.get("token")
    return str(token.get("accessToken", "")) if isinstance(token, Mapping) else ""


def outcome_of(query: Mapping[str, str]) -> Connection:
    """Put the parameters of the redirect after a connect trip into words."""
    if query.get("outboundStatus") == "connected":
        return Connection(True, "Connected. evergrant holds the tokens now; this application never saw them.")
    error = query.get("err", "")
    if error == "access_denied":
        return Connection(False, "You said no, so nothing was stored. Connect again whenever you like.", error)
    words = query.get("errDescription") or "evergrant did not say why."
    return Connection(False, f"No connection was made: {words[:300]}", error)


def explain(answer: Answer) -> str:
    """Say in words what an unsuccessful answer means and what to do; "" for a success."""
    if answer.ok:
        return ""
    if answer.status == 0:
        return "evergrant does not answer. Is the demo still running in its terminal?"
    details: Any = answer.fields.get("details")
    details = details if isinstance(details, Mapping) else {}
    if details.get("missingScopes"):
        scopes = ", ".join(map(str, details["missingScopes"]))
        return f"The person did not grant {scopes}. Do step 2 again and leave it ticked."
    if details.get("reason") == "reauthorization_required":
        return "This connection is over: the person revoked it or it expired for good. Do step 2 again."
    match answer.fields.get("errorCode"):
        case "E111503":
            return "evergrant does not know the app yet. Do step 1 first."
        case "E111504":
            return "This user has not connected the app yet. Do step 2 first."
    message = answer.fields.get("errorMessage") or answer.fields.get("errorDescription")
    return str(message)[:300] if message else f"The answer was HTTP {answer.status}."


def _epoch(value: object) -> int | None:
    # Epoch seconds travel as strings, "" when unknown.
    return int(value) if isinstance(value, str) and value.isdecimal() and value != "0" else None
