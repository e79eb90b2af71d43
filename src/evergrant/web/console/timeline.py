"""A connection's timeline as its page tells it: by day, each event a drawing, a heading and a sentence."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from evergrant import clock
from evergrant.broker.grants.events import GrantEventKind
from evergrant.db import GrantEvent
from evergrant.web.words import ago, counted, day, grouped

K = GrantEventKind
Data = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Entry:
    """One event."""

    at: datetime
    kind: str
    """`good`, `warn`, `bad`, `info` or empty."""
    icon: str
    heading: str
    text: str
    other: str
    """The id of another connection that it is about; empty for none."""

    @property
    def clock_time(self) -> str:
        """When on its day."""
        return f"{self.at:%H:%M}"


@dataclass(frozen=True, slots=True)
class Day:
    """What happened on one day (UTC)."""

    name: str
    entries: Sequence[Entry]


LOOKS: Mapping[str, tuple[str, str, str]] = {
    K.CONNECTED: ("good", "link-2", "Connected"),
    K.UPLOADED: ("good", "link-2", "Uploaded"),
    K.CONFIRMED: ("good", "check", "Confirmed"),
    K.REPLACES: ("info", "link-2", "Took the place of an earlier connection"),
    K.REPLACED: ("", "link-2", "Replaced by a newer connection"),
    K.REFRESHED: ("good", "refresh-cw", "Refreshed"),
    K.FAILED: ("warn", "clock", "Refresh failed"),
    K.APP_REFUSED: ("warn", "triangle-alert", "The provider refused the app"),
    K.ENDED: ("bad", "unplug", "Consent ended"),
    K.SUPERSEDED: ("", "unplug", "Consent ended, and another connection answers"),
    K.FETCHED: ("info", "download", "Fetched"),
    K.FETCH_REFUSED: ("warn", "circle-x", "Fetch refused"),
    K.REFRESH_TOKEN_SEEN: ("warn", "eye", "Refresh token handed out"),
    K.TESTED: ("info", "plug-zap", "API asked whether it works"),
    K.DELETED: ("", "trash-2", "Deleted"),
    K.REVOKED: ("good", "shield-check", "Revoked at the provider"),
    K.REVOCATION_FAILED: ("warn", "circle-x", "Not revoked at the provider"),
}
WHY = {"background": "In the background", "fetch": "For a fetch", "forced": "Because somebody asked for it"}
GONE_BECAUSE = {
    "deleted": "Somebody deleted it.",
    "refused": "The application confirmed somebody else.",
    "unconfirmed": "Nobody confirmed it in time.",
    "closed": "Its project was closed.",
}
REFUSED_BECAUSE = {
    "reauthorization_required": "The user must connect again",
    "UpstreamUnavailable": "The provider did not answer",
    "UpstreamRejected": "The provider refused the app",
    "GrantRefused": "The provider refused this connection",
    "TokenNotFound": "It lacks what was asked for",
}


OBTAINED: Mapping[str, tuple[str, str, str]] = {
    K.REFRESHED: ("good", "refresh-cw", "Renewed"),
    K.FAILED: ("warn", "clock", "No new token"),
    K.UPLOADED: ("good", "key-round", "Credentials added"),
}
"""What is called otherwise where tokens are obtained from credentials that stay."""


def days_of(
    events: Iterable[GrantEvent], *, name_of: Callable[[str], str], with_fetches: bool, obtains: bool = False
) -> list[Day]:
    """Return a timeline by day, the latest first.

    `name_of` turns who did something into words. `obtains`: its tokens come from credentials that stay.
    """
    days: dict[str, list[Entry]] = {}
    for event in events:
        if with_fetches or event.kind != K.FETCHED:
            days.setdefault(_day(event.at), []).append(_entry(event, name_of, obtains=obtains))
    return [Day(name, entries) for name, entries in days.items()]


def _day(at: datetime) -> str:
    today = clock.now().astimezone(UTC).date()
    if at.date() == today:
        return "Today"
    return "Yesterday" if at.date() == today - timedelta(days=1) else day(at)


def _entry(event: GrantEvent, name_of: Callable[[str], str], *, obtains: bool) -> Entry:
    looks = {**LOOKS, **OBTAINED} if obtains else LOOKS
    kind, icon, heading = looks.get(event.kind, ("", "info", event.kind.replace("_", " ").capitalize()))
    if event.n > 1:
        heading += f" {grouped(event.n)} times"
    data = event.data
    other = str(data.get("by") or next(iter(data.get("ids") or ()), ""))
    text = _text(event, data, name_of(event.actor), obtains=obtains)
    return Entry(event.at, kind, icon, heading, text[:1].upper() + text[1:], other)


def _text(event: GrantEvent, data: Data, who: str, *, obtains: bool) -> str:
    match event.kind:
        case K.CONNECTED:
            return _connected(data, who, name_made=data.get("madeBy", ""))
        case K.UPLOADED:
            tried = "They were" if obtains else "The refresh token was"
            return f"{_by(who, data)}{f' {tried} tried first.' if data.get('verified') else ''}"
        case K.REFRESHED:
            rotated = "Refresh token rotated." if data.get("rotated") else "The refresh token stays."
            rotated = "The credentials stay." if obtains else rotated
            asked = f" ({who})" if who and data.get("why") != "background" else ""
            why, ms = WHY.get(str(data.get("why", "")), "Refreshed"), grouped(int(data.get("ms", 0)))
            return f"{why}{asked}, {ms} ms. {rotated}"
        case K.FAILED | K.APP_REFUSED:
            return f"{data.get('error', '')}{_next_try(data)}"
        case K.ENDED | K.SUPERSEDED | K.REVOCATION_FAILED:
            return str(data.get("error", ""))
        case K.FETCHED:
            return f"{who}, within the hour."
        case K.FETCH_REFUSED:
            reason = str(data.get("reason", ""))
            return f"{who}. {REFUSED_BECAUSE.get(reason, reason)}."
        case K.TESTED:
            error = str(data.get("error", ""))
            return f"{f'By {who}. ' if who else ''}{f'It does not: {error}.' if error else 'It does.'}"
        case K.DELETED:
            because = GONE_BECAUSE.get(str(data.get("reason", "")), "")
            return f"By {who}." if data.get("reason") == "deleted" and who else because
    return f"By {who}." if who else ""


def _connected(data: Data, who: str, name_made: str) -> str:
    parts = [_by(who, data)]
    if data.get("renewed"):
        parts.append("The provider gave no refresh token, so the earlier one stays.")
    if data.get("pending"):
        parts.append("Waits for its confirmation.")
    if scopes := data.get("scopes"):
        parts.append(f"{counted(int(scopes), 'scope')}.")
    if name_made:
        parts.append(f"Link made by {name_made}.")
    return " ".join(parts)


def _by(who: str, data: Data) -> str:
    place = f" from {data['from']}" if data.get("from") else ""
    return f"By {who}{place}." if who or place else ""


def _next_try(data: Data) -> str:
    if not data.get("next"):
        return ""
    at = datetime.fromtimestamp(int(data["next"]), UTC)
    return f" Next try {ago(at)}." if at > clock.now() else ""
