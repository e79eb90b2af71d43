"""When tokens end, in whatever way an answer states it.

RFC 6749 has one way, `expires_in`: seconds from now. Providers also write moments, as seconds or milliseconds since
1970 or as a date, under many names, and some put a moment into `expires_in`. A signed token can state its end itself.
"""

import base64
import binascii
import math
import re
from collections.abc import Iterable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

from evergrant.oauth2.lenient_json import read_json
from evergrant.oauth2.pointers import find, first
from evergrant.oauth2.quirks import ResponseShape

MAX_LIFETIME_SECONDS = 10 * 366 * 24 * 3600
"""Longer than any real lifetime: what exceeds it is a provider's way to say "never"."""
_FIRST_MOMENT = 1_600_000_000
"""No token that is issued now ended before 2020, while "50 years" in seconds is a way to say "never"."""
_LAST_MOMENT = 253_402_300_800

# Names are compared without their case, hyphens, underscores and dots.
_NAMES = (
    "expiresin", "expiresat", "expireson", "expires", "expiry", "expiration", "expirationtime", "expirydate",
    "expiretime", "accesstokenexpiresin", "accesstokenexpiresat", "accesstokenexpireson", "accesstokenexpiry",
    "accesstokenexpiration", "tokenexpiresin", "tokenexpiresat", "exp", "validuntil",
)  # fmt: skip
_REFRESH_NAMES = (
    "refreshtokenexpiresin", "refreshexpiresin", "xrefreshtokenexpiresin", "rtexpiresin", "refreshtokenexpiresat",
    "refreshtokenexpireson", "refreshexpiresat", "refreshtokenexpires", "refreshtokenexpiry", "refreshtokenexpiration",
    "refreshtokenvalidtime", "refreshtokenlifetime",
)  # fmt: skip
_PASSED = -math.inf
"""What is left until a moment that has passed."""
_UNITS = {"s": 1.0, "ms": 0.001, "min": 60.0}
_AMOUNTS = re.compile(r"(\d+(?:\.\d+)?) ?(d(?:ays?)?|h(?:ours?)?|m(?:in(?:ute)?s?)?|s(?:ec(?:ond)?s?)?)(?![a-z])")
_SECONDS_OF = {"d": 86_400.0, "h": 3_600.0, "m": 60.0, "s": 1.0}


def access_token_seconds(
    members: dict[str, Any],
    shape: ResponseShape,
    token: str,
    *,
    can_be_refreshed: bool,
    never_ends: bool,
    now: datetime,
) -> int | None:
    """Return the seconds that an access token has left; 0 when it is said to have ended, None when nothing is said.

    What counts is, in this order: the places that the provider's catalogue entry names, `expires_in`, the other names
    that are in use, and the `exp` of a token that is a JWT, which also counts where it is earlier. It is read without
    verifying the token: believing an end can only be too careful.

    A lifetime of 0 or less is an end only where the token `can_be_refreshed`, so that a wrong guess costs one call;
    else, and where the entry says that tokens `never_ends`, it is a way to say that there is none. A moment that has
    passed is never the absence of an end: where nothing can be refreshed, 1 second is left.
    """
    said = [_left(find(members, place), now, unit=_UNITS[shape.expires_unit]) for place in shape.expires_in]
    said.append(_until(_instant(first(members, shape.expires_at), shape.expires_at_format), now))
    said += _by_names(members, shape.access_token, _NAMES, now)
    exp = _until_exp(token, now)
    said.append(exp)
    seconds = _first_that_lives(said)
    if seconds is not None:
        return seconds if exp is None or exp <= 0 else min(seconds, max(int(exp), 1))
    if can_be_refreshed and (_PASSED in said or not never_ends):
        return 0 if any(left is not None and left <= 0 for left in said) else None
    return 1 if _PASSED in said else None


def refresh_token_seconds(members: dict[str, Any], shape: ResponseShape, token: str, *, now: datetime) -> int | None:
    """Return the seconds until a refresh token itself ends, None when it does not or nothing is said."""
    said = _by_names(members, shape.refresh_token, _REFRESH_NAMES, now)
    return _first_that_lives([*said, _until_exp(token, now)])


def jwt_end(token: str) -> datetime | None:
    """Return the `exp` (RFC 7519 section 4.1.4) of a token that is a JWT, unverified."""
    claims = _unverified_claims(token)
    return _instant(claims.get("exp"), "epoch")


def _first_that_lives(said: Iterable[float | None]) -> int | None:
    lives = (left for left in said if left is not None and 0 < left <= MAX_LIFETIME_SECONDS)
    return next((max(int(left), 1) for left in lives), None)


def _by_names(
    members: dict[str, Any], pointers: Iterable[str], names: Iterable[str], now: datetime
) -> list[float | None]:
    """Read the members of these names beside a token, and at the top, in the order of the names."""
    place = next((place for place in pointers if find(members, place)), "")
    beside = find(members, place.rpartition("/")[0])
    said = [here for here in (beside, members) if isinstance(here, dict)]
    plain = [{_plain(name): value for name, value in here.items()} for here in said]
    return [_left(here[name], now) for here in plain for name in names if name in here]


def _plain(name: str) -> str:
    return "".join(c for c in name.lower() if c.isalnum())


def _left(value: object, now: datetime, *, unit: float = 1.0) -> float | None:
    """Return the seconds that are left by a lifetime in units, or by a moment, whichever it is by its size."""
    number = finite_number(value)
    if number is None:
        duration = _duration(value)
        return duration if duration is not None else _until(_date(value), now)
    if number * unit <= MAX_LIFETIME_SECONDS:
        return number * unit
    moments = (epoch for epoch in (number, number / 1000) if _FIRST_MOMENT <= epoch < _LAST_MOMENT)
    return _until(next((datetime.fromtimestamp(epoch, UTC) for epoch in moments), None), now)


def _duration(value: object) -> float | None:
    """Return the seconds of a lifetime that says its unit: `3600s`, `1 hour`, or ISO 8601's `PT1H`."""
    text = value.strip().lower() if isinstance(value, str) else ""
    if text.startswith("p"):
        text = text[1:].replace("t", " ")
    parts = _AMOUNTS.findall(text)
    if not parts or _AMOUNTS.sub("", text).strip():
        return None
    return sum(float(amount) * _SECONDS_OF[unit[0]] for amount, unit in parts)


def _until(at: datetime | None, now: datetime) -> float | None:
    if at is None:
        return None
    return (at - now).total_seconds() if at > now else _PASSED


def finite_number(value: object) -> float | None:
    """Read a number, which some write as text; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def _instant(value: object, form: str) -> datetime | None:
    """Read a moment of a form that is known."""
    if form == "iso":
        return _date(value)
    number = finite_number(value)
    epoch = number / 1000 if number is not None and form == "epoch_ms" else number
    # 0 and the like are ways to say "never"
    return datetime.fromtimestamp(epoch, UTC) if epoch is not None and 86_400 < epoch < _LAST_MOMENT else None


def _date(value: object) -> datetime | None:
    """Read a date as ISO 8601 writes it, or as HTTP does; one without a zone is UTC."""
    if not isinstance(value, str):
        return None
    for read in (datetime.fromisoformat, parsedate_to_datetime):
        try:
            at = read(value.strip())
            return at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)
        except (ValueError, OverflowError):
            continue
    return None


def _until_exp(token: str, now: datetime) -> float | None:
    claims = _unverified_claims(token)
    end, issued = _instant(claims.get("exp"), "epoch"), _instant(claims.get("iat"), "epoch")
    left = _until(end, now)
    if left is None or end is None or issued is None or end <= issued:
        return left
    return min(left, (end - issued).total_seconds())  # our clock may be behind theirs


def _unverified_claims(token: str) -> dict[str, Any]:
    parts = token.split(".")
    if len(parts) != 3 or not token.startswith("ey"):
        return {}
    try:
        payload = base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4))
        claims = read_json(payload.decode())
    except (binascii.Error, ValueError):
        return {}
    return claims if isinstance(claims, dict) else {}
