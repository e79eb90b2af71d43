"""Translates every failure of a provider's token or revocation endpoint, in one place.

The three outcomes are never confused: the consent is dead (only the user can mend it), the provider refuses what was
asked (whose fault that is, the broker finds out), or it is a matter of time. What an answer means is decided on the
provider's own words; what is shown of them is redacted afterwards, so that a secret that is part of a word changes
nothing.
"""

import math
import re
from collections.abc import Callable, Iterable
from datetime import UTC
from email.utils import parsedate_to_datetime

from evergrant import clock
from evergrant.errors import EvergrantError, GrantRefused, Refusal, Trouble, UpstreamRejected, UpstreamUnavailable
from evergrant.oauth2.documents import redirect_of, shown_address
from evergrant.oauth2.error_answer import ErrorAnswer, read_error
from evergrant.oauth2.error_words import Meaning, Presented, meaning_of
from evergrant.oauth2.provider_text import provider_text
from evergrant.oauth2.quirks import NO_QUIRKS, Quirks
from evergrant.oauth2.transport import HttpAnswer

MAX_RETRY_AFTER = 3600


def failure_of(
    answer: HttpAnswer,
    *,
    client_name: str,
    secrets: Iterable[str],
    presented: Presented,
    when_dead: Callable[[str, str], EvergrantError],
    quirks: Quirks = NO_QUIRKS,
) -> EvergrantError | None:
    """Return the error that an answer means; None when it reports success.

    `secrets` are the values that we sent and that must not come back in a message. `presented` is what the request
    showed (a refresh token, a code); `when_dead` makes the error for the answer that it is used up, from the
    explanation and the provider's error code.
    """
    error = read_error(answer, quirks.response)
    if error is None:
        return None
    who, status = client_name or "The provider", answer.status
    meaning = meaning_of(error, presented, quirks)
    code, description = words_of(error, tuple(secrets))
    said = f"{code}: {description}" if code and description else code or description
    if meaning in (Meaning.LATER, Meaning.TOO_MUCH):
        return UpstreamUnavailable(
            f"{who} answered {status}{f' ({said})' if said else ''}. It is tried again later.",
            retry_after=retry_after(answer),
            in_doubt=status in (502, 504),  # a gateway's words: what is behind it may have done its work
            trouble=Trouble.LIMIT if meaning is Meaning.TOO_MUCH else Trouble.SILENCE,
            provider_error=code,
            provider_description=description,
        )
    code = code or ("not_ok" if status < 300 else f"http_{status}")
    said = said.rstrip(".") or (code if status < 300 else f"it answered {status}")
    if meaning is Meaning.DEAD:
        return when_dead(f"{who}: {said}.", code)
    if not error.is_readable and status != 401:
        return UpstreamUnavailable(
            f"{who} answered {status} with something that is not an OAuth answer. It is tried again later.",
            retry_after=retry_after(answer),
            in_doubt=status < 300,
        )
    if not error.is_reported:
        return None
    is_apps = meaning in ABOUT_THE_CLIENT or not presented.is_a_grants
    kind = UpstreamRejected if is_apps else GrantRefused
    return kind(
        app_refused(who, said) if is_apps else grant_refused(who, said),
        provider_error=code,
        provider_description=description,
        said=said,
        refusal=meaning,
        fingerprint=_fingerprint(status, code, description),
    )


ABOUT_THE_CLIENT = frozenset({Refusal.CLIENT_UNKNOWN, Refusal.CLIENT, Refusal.UNSAID})


def app_refused(who: str, said: str) -> str:
    """Return the message about a refusal that only the operator can mend."""
    return f"{who} refuses this app: {said}. Correct the app's settings."


def grant_refused(who: str, said: str) -> str:
    """Return the message about a refusal that is one connection's, as far as anybody knows."""
    return f"{who} refuses what was asked: {said}."


def credentials_refused(who: str, said: str) -> str:
    """Return the message about a refusal of what a connection has brought itself."""
    return f"{who} refuses this connection's credentials: {said}. If they are not good any more, upload others."


def moved(answer: HttpAnswer, *, client_name: str, secrets: Iterable[str] = ()) -> UpstreamRejected | None:
    """Return the error that a redirect means; None where it is none.

    It is never followed: what was sent is secret, and whoever answers elsewhere would get it.
    """
    onward = redirect_of("", answer)
    if not onward:
        return None
    return UpstreamRejected(
        f"{client_name or 'The provider'} answered {answer.status}: the address that was asked has moved to "
        f"{shown_address(onward, secrets=secrets)}. Redirects are not followed; update the app's URLs.",
        provider_error=f"http_{answer.status}",
    )


def not_a_token_response(client_name: str, why: str) -> UpstreamUnavailable:
    """Make the error for a success status without a usable token."""
    return UpstreamUnavailable(f"{client_name or 'The provider'}: {why}. It is tried again later.", in_doubt=True)


def words_of(error: ErrorAnswer, secrets: tuple[str, ...]) -> tuple[str, str]:
    """Return the error code and its explanation (RFC 6749 section 5.2) as a person may see them."""
    code = provider_text(next(iter(error.codes), ""), secrets=secrets)
    texts = (provider_text(text, secrets=secrets) for text in error.texts)
    return code, next((text for text in texts if text != code), "")


_VARYING = re.compile(r"""(["'`])[^"'`]*\d[^"'`]*\1|\S*[0-9@]\S*""")
"""Numbers, dates, ids, and quoted values that hold one."""


def _fingerprint(status: int, code: str, description: str) -> str:
    """Return what two answers share that say the same of two tokens."""
    return f"{status} {_VARYING.sub('#', f'{code} {description}')}".lower()


def retry_after(answer: HttpAnswer, *, most: int = MAX_RETRY_AFTER) -> int | None:
    """Read `Retry-After` (RFC 9110 section 10.2.3), a number of seconds or a date, as 1 to `most` seconds.

    Whatever stands there, it never raises: None where it tells nothing.
    """
    text = answer.headers.get("retry-after", "").strip()
    try:
        seconds = float(text) if _NUMBER.fullmatch(text) else _seconds_until(text)
    except (ValueError, OverflowError, TypeError, IndexError):  # what the library has raised for odd dates
        return None
    return math.ceil(min(max(seconds, 1), most))


_NUMBER = re.compile(r"[0-9]+(?:\.[0-9]*)?")
"""Fractions are not the standard's, and sent all the same."""


def _seconds_until(date: str) -> float:
    at = parsedate_to_datetime(date)
    aware = at if at.tzinfo else at.replace(tzinfo=UTC)
    return float(int((aware - clock.now()).total_seconds()))
