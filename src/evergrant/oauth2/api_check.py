"""Makes the harmless call of a provider's API that tells whether a credential works there.

Three outcomes are never confused: the credential is refused, it is a matter of time, or the call itself is wrong.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from urllib.parse import urlencode

from evergrant import clock
from evergrant.errors import GrantRefused, Trouble, UpstreamError, UpstreamRejected, UpstreamUnavailable
from evergrant.oauth2.documents import REDIRECTS
from evergrant.oauth2.error_answer import read_error
from evergrant.oauth2.failures import MAX_RETRY_AFTER, moved, retry_after, words_of
from evergrant.oauth2.lenient_json import read_json, read_text
from evergrant.oauth2.pointers import find
from evergrant.oauth2.quirks import ResponseShape
from evergrant.oauth2.transport import Http, HttpAnswer

SECONDS = 10.0
"""How long the whole call may take."""
_SHAPE = ResponseShape()


@dataclass(frozen=True, slots=True)
class Expected:
    """What an API says, besides its status, to a credential that works and to one that does not."""

    ok: tuple[str, ...] = ()
    """JSON pointers: one of them finds something that is neither null nor false."""
    ok_values: tuple[str, ...] = ()
    """What that must be, as text; none: anything."""
    expired: tuple[tuple[int, str, tuple[str, ...]], ...] = ()
    """Answers that refuse a credential: the status, a JSON pointer (or none), and its values (or none: any)."""
    wait_after: tuple[str, ...] = ()
    """Headers with the seconds until the next call may come, besides `Retry-After`."""
    wait_until: tuple[str, ...] = ()
    """Headers with the moment of that, in epoch seconds."""
    remaining: tuple[str, ...] = ()
    """Headers with how many calls are left: 0 beside a refusal means that it is a matter of time."""


@dataclass(frozen=True, slots=True)
class ApiCall:
    """A call, ready to be sent, with a credential in it."""

    method: str
    url: str = field(repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    query: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Parameters behind those that the URL has."""
    body: str = field(default="", repr=False)
    """JSON."""
    secrets: tuple[str, ...] = field(default=(), repr=False)
    """What must not come back in any text, in each form in which it was sent."""


async def check_call(http: Http, call: ApiCall, expected: Expected = Expected(), *, who: str = "") -> int:
    """Make a check call, once, and return the status of an answer that tells that the credential works.

    `who` is what a person calls the provider; messages begin with it.

    Raises:
        GrantRefused: the credential is refused (401, 403, or an answer that says so).
        UpstreamUnavailable: away, 5xx, or too many calls: nothing can be told now.
        UpstreamRejected: the API's address or the check is wrong (404, 400, a redirect, a web page), whatever the
            credential is. EgressRefused: it may not be called.
    """
    headers = {"Accept": "application/json", **call.headers}
    if not all(value.isascii() and value.isprintable() for value in headers.values()):
        raise GrantRefused(
            "The credential has characters that no header can have.", provider_error="invalid_characters"
        )
    content: bytes | None = None
    if call.method == "POST":
        content = call.body.encode()
        headers = {"Content-Type": "application/json", **headers}
    url = call.url
    if call.query:
        url += ("&" if "?" in url else "?") + urlencode(call.query)
    answer = await http.under(seconds=SECONDS).request(call.method, url, headers=headers, content=content)
    failure = _failure(answer, expected, call.secrets, who or "The provider's API")
    if failure is not None:
        raise failure
    return answer.status


def _failure(answer: HttpAnswer, expected: Expected, secrets: Sequence[str], who: str) -> UpstreamError | None:
    status, said, code = answer.status, _said(answer, secrets), f"http_{answer.status}"
    value = _json(answer)
    if status == 429 or _is_spent(answer, expected):
        return UpstreamUnavailable(
            f"{who} takes no more calls for now (it answered {status}).",
            retry_after=stated_wait(answer, expected),
            trouble=Trouble.LIMIT,
            provider_error=code,
        )
    if status >= 500:
        return UpstreamUnavailable(
            f"{who} answered {status}{said}.", retry_after=retry_after(answer), provider_error=code
        )
    if status in (401, 403) or says_expired(status, value, expected):
        return GrantRefused(f"{who} refuses the credential: it answered {status}{said}.", provider_error=code)
    if status in REDIRECTS:
        onward = moved(answer, client_name=who, secrets=secrets)
        return onward or UpstreamRejected(f"{who} answered {status}, which leads nowhere.", provider_error=code)
    if not 200 <= status < 300:
        return UpstreamRejected(
            f"{who} answered {status}{said}: the API's address or the check call is wrong.", provider_error=code
        )
    if expected.ok and not _is_ok(value, expected):
        if value is None:
            return UpstreamRejected(
                f"{who} answered {status} with something that is not JSON.", provider_error="no_api"
            )
        return GrantRefused(
            f"{who} answered {status}, but not as to a credential that works{said}.", provider_error="not_ok"
        )
    if value is None and "html" in answer.headers.get("content-type", "").lower():
        return UpstreamRejected(
            f"{who} answered with a web page: the API's address or the check call is wrong.", provider_error="no_api"
        )
    return None


def _json(answer: HttpAnswer) -> object | None:
    try:
        return read_json(read_text(answer.body, answer.headers.get("content-type", "")).strip())
    except ValueError:
        return None


def _is_ok(value: object, expected: Expected) -> bool:
    found = [one for pointer in expected.ok if (one := find(value, pointer)) not in (None, False)]
    return any(not expected.ok_values or _text(one) in expected.ok_values for one in found)


def _fits(status: int, value: object, wanted: int, pointer: str, values: tuple[str, ...]) -> bool:
    if status != wanted:
        return False
    found = find(value, pointer) if pointer else True
    return found not in (None, False) and (not values or _text(found) in values)


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _said(answer: HttpAnswer, secrets: Sequence[str]) -> str:
    """Return what the answer says of an error, as it continues a sentence; empty where it says nothing."""
    error = read_error(answer, _SHAPE)
    if error is None or not error.is_readable:
        return ""
    words = [word for word in words_of(error, tuple(secrets)) if word]
    return f" ({': '.join(words).rstrip('.')})" if words else ""


def _is_spent(answer: HttpAnswer, expected: Expected) -> bool:
    """Tell whether a 403 means that there were too many calls."""
    none_left = any(answer.headers.get(name.lower(), "").strip() == "0" for name in expected.remaining)
    return answer.status == 403 and (none_left or "retry-after" in answer.headers)


def says_expired(status: int, value: object, expected: Expected) -> bool:
    """Tell whether an answer, and the JSON in it, refuse a token in the API's own way."""
    return any(_fits(status, value, *one) for one in expected.expired)


def stated_wait(answer: HttpAnswer, expected: Expected) -> int | None:
    """Return the seconds until the next call may come, at most an hour; None where nothing tells them."""
    if (told := retry_after(answer)) is not None:
        return told
    now = int(clock.now().timestamp())
    for names, since in ((expected.wait_after, 0), (expected.wait_until, now)):
        for name in names:
            text = answer.headers.get(name.lower(), "").strip()
            if text.isascii() and text.isdigit():
                return max(1, min(MAX_RETRY_AFTER, int(text[:12]) - since))
    return None
