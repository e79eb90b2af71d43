"""Translates every failure of a provider's token or revocation endpoint, in one place.

The three outcomes are never confused: the consent is dead (only the user can mend it), the registration is
wrong (only the operator can), or it is a matter of time.
"""

from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

from evergrant import clock
from evergrant.errors import EvergrantError, UpstreamRejected, UpstreamUnavailable
from evergrant.oauth2.pointers import first
from evergrant.oauth2.provider_text import provider_text
from evergrant.oauth2.quirks import NO_QUIRKS, Quirks, ResponseShape, plain_code
from evergrant.oauth2.token_response import parse_body
from evergrant.oauth2.transport import HttpAnswer

MAX_RETRY_AFTER = 3600

DEAD_GRANT = frozenset(
    {
        "invalid_grant",  # RFC 6749 section 5.2; the others say the same in providers' own words
        "bad_refresh_token",
        "consent_required",
        "expired_refresh_token",
        "expired_token",
        "interaction_required",
        "invalid_refresh_token",
        "login_required",
        "refresh_token_expired",
        "refresh_token_revoked",
        "revoked_token",
        "token_expired",
        "token_revoked",
    }
)
DEAD_CODE = DEAD_GRANT | {"bad_verification_code", "invalid_code", "code_expired", "code_already_used"}
DEAD_TOKEN = DEAD_GRANT | {"invalid_token"}

_NO_ERROR = frozenset({"0", "ok", "success", "false", "none"})
"""What providers put into a place for errors when there is none."""

_LATER = frozenset(
    {
        "rate_limit_exceeded",
        "rate_limited",
        "ratelimited",
        "server_error",
        "service_unavailable",
        "slow_down",
        "temporarily_unavailable",
        "too_many_requests",
    }
)


def failure_of(
    answer: HttpAnswer,
    *,
    client_name: str,
    secrets: Iterable[str],
    dead: frozenset[str],
    when_dead: Callable[[str, str], EvergrantError],
    quirks: Quirks = NO_QUIRKS,
) -> EvergrantError | None:
    """Return the error that an answer means; None when it reports success.

    `secrets` are the values that we sent and that must not come back in a message. `dead` are the error codes
    that mean that what was presented (refresh token, code) is used up; `when_dead` makes the error from the
    explanation and the provider's error code.
    """
    who = client_name or "The provider"
    status = answer.status
    members = parse_body(answer.body, answer.headers.get("content-type", ""))
    code, description = ("", "") if members is None else _error(members, status, tuple(secrets), quirks.response)
    normalized = plain_code(code)
    said = f"{code}: {description}" if code and description else code or description

    if status in (408, 425, 429) or not (200 <= status < 300 or 400 <= status < 500) or normalized in _LATER:
        return UpstreamUnavailable(
            f"{who} answered {status}{f' ({said})' if said else ''}. It is tried again later.",
            retry_after=retry_after(answer),
            in_doubt=status in (502, 504),  # a gateway's words: what is behind it may have done its work
            provider_error=code,
            provider_description=description,
        )
    is_dead = normalized in dead or any(
        known.fits(status, code, description or code) for known in quirks.dead_refresh_token
    )
    if is_dead and (status < 300 or 400 <= status < 500):
        return when_dead(f"{who}: {said.rstrip('.')}.", code)
    if status < 300 and not said:
        return None
    if members is None and status != 401:
        return UpstreamUnavailable(
            f"{who} answered {status} with something that is not an OAuth answer. It is tried again later.",
            retry_after=retry_after(answer),
            in_doubt=status < 300,
        )
    return UpstreamRejected(
        f"{who} refuses this app: {said.rstrip('.') or f'it answered {status}'}. Correct the app's settings.",
        provider_error=code or f"http_{status}",
        provider_description=description,
    )


def not_a_token_response(client_name: str, why: str) -> UpstreamUnavailable:
    """Make the error for a success status without a usable token."""
    return UpstreamUnavailable(f"{client_name or 'The provider'}: {why}. It is tried again later.", in_doubt=True)


def _error(members: dict[str, Any], status: int, secrets: tuple[str, ...], shape: ResponseShape) -> tuple[str, str]:
    """Find the error code and its description (RFC 6749 section 5.2), wherever the provider puts them."""
    if status < 300 and first(members, shape.access_token) and members.get("ok") is not False:
        return "", ""
    error: Any = first(members, shape.error)
    if status < 300 and str(error).lower() in _NO_ERROR:
        error = None
    if not error and isinstance(members.get("errors"), list) and members["errors"]:
        error = members["errors"][0]
    description: Any = first(members, shape.error_description) or members.get("message")
    if isinstance(error, dict):
        description = error.get("message") or error.get("error_description") or description
        error = next((error[k] for k in ("error", "errorType", "code", "type", "status") if error.get(k)), "")
    if not error and (status >= 400 or members.get("ok") is False):
        error = members.get("error_code") or members.get("code") or members.get("message") or ""
        error = error or ("not_ok" if status < 300 else "")
    if isinstance(error, int) and not isinstance(error, bool) and error:
        error = str(error)
    code = provider_text(error, secrets=secrets)
    if not code and status < 300:
        return "", ""  # a remark beside a success
    text = provider_text(description, secrets=secrets)
    return code, "" if text == code else text


def retry_after(answer: HttpAnswer, *, most: int = MAX_RETRY_AFTER) -> int | None:
    """Read `Retry-After` (RFC 9110 section 10.2.3), a number of seconds or a date, as 1 to `most` seconds."""
    text = answer.headers.get("retry-after", "").strip()
    if text.isascii() and text.isdigit():
        seconds = int(text[:9])
    else:
        try:
            at = parsedate_to_datetime(text)
        except ValueError:
            return None
        seconds = int((_aware(at) - clock.utcnow()).total_seconds())
    return min(max(seconds, 1), most)


def _aware(at: datetime) -> datetime:
    return at if at.tzinfo else at.replace(tzinfo=UTC)
