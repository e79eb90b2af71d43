"""Redirects of an API: into the proxy where they stay inside a base, to file stores that its entry names, else data."""

import re
from functools import partial
from urllib.parse import urljoin, urlsplit

from evergrant.broker.calls.outgoing import PreparedCall
from evergrant.broker.calls.retries import StandingAnswer
from evergrant.broker.calls.sending import send
from evergrant.oauth2.documents import REDIRECTS
from evergrant.oauth2.hygiene import RawHeaders, path_problem

PROXY_PATH = "/v1/proxy/"
"""Below it stand the ids of apps, and below these the paths of their APIs."""
HOPS = 3
_LEADING = frozenset((b"link", b"location"))
_PATH_END = re.compile(r"[?#]")
_TARGET = re.compile(r"<([^<>]*)>")
"""Of one link in a `Link` header (RFC 8288 section 3)."""


def proxy_url(public_url: str, app_id: str) -> str:
    """Return the base URL to use instead of an app's own API. `public_url` is evergrant's own."""
    return f"{public_url}{PROXY_PATH}{app_id}"


async def followed(prepared: PreparedCall, given: StandingAnswer) -> StandingAnswer:
    """Return the answer behind redirects to the file stores that the app's entry names. No credential goes there.

    `given` is ended where another one is returned, or none.
    """
    if given.answer.status not in REDIRECTS:
        return given
    url = _url(prepared)
    for _ in range(HOPS):
        try:
            url = _joined(url, location_of(given.answer.headers))
            is_file_store = given.answer.status in REDIRECTS and _is_file_store(prepared, url)
        except BaseException:
            given.answer.end()
            raise
        if not is_file_store:
            break
        given.answer.end()
        answer = await send(prepared, prepared.followed(url))
        given = StandingAnswer(answer, answer.body, url)
    return given


def _is_file_store(prepared: PreparedCall, url: str) -> bool:
    if prepared.asked.method != "GET" or not url.isascii() or not url.isprintable():
        return False
    there, here = urlsplit(url), urlsplit(prepared.credential.base.url)
    if (there.hostname or "") not in prepared.api.api.follow or "@" in there.netloc:
        return False
    is_usual = there.scheme == "https" and there.netloc == there.hostname
    return is_usual or (there.scheme == here.scheme == "http")


def location_of(headers: RawHeaders) -> str:
    """Return where an answer leads; empty where it leads nowhere."""
    return next((value.decode("latin-1") for name, value in headers if name.lower() == b"location"), "")


def rewritten(prepared: PreparedCall, headers: RawHeaders, *, url: str = "") -> list[tuple[bytes, bytes]]:
    """Return an answer's headers, in lower case, with `Location` and `Link` leading through the proxy inside a base.

    `url` is where the answer comes from, where it is no answer of the API itself: there, relative ones lead elsewhere.

    `Evergrant-Base` names the base of a location where it is another than that of the call. A link to another stays as
    it is: whoever follows links knows nothing of bases.
    """
    if _LEADING.isdisjoint([name for name, _ in headers]):
        return list(headers)
    found: list[tuple[bytes, bytes]] = []
    here = url or _url(prepared)
    for name, value in headers:
        if name == b"link":
            found.append(
                (name, _TARGET.sub(partial(_linked, prepared, here), value.decode("latin-1")).encode("latin-1"))
            )
            continue
        if name != b"location":
            found.append((name, value))
            continue
        whole = _joined(here, value.decode("latin-1"))
        base, rest = _base_of(prepared, whole)
        if rest is None:
            found.append((name, whole.encode("latin-1") or value))
            continue
        found.append((name, f"{_proxied(prepared)}{rest}".encode("latin-1")))
        if base != prepared.asked.base:
            found.append((b"evergrant-base", base.encode()))
    return found


def _linked(prepared: PreparedCall, here: str, target: re.Match[str]) -> str:
    """Return one link's target as it goes back. Lists page by it, so an SDK would else leave the proxy at page two."""
    base, rest = _base_of(prepared, _joined(here, target[1]))
    return f"<{_proxied(prepared)}{rest}>" if rest is not None and base == prepared.asked.base else target[0]


def _proxied(prepared: PreparedCall) -> str:
    return proxy_url(prepared.broker.settings.public_url, prepared.asked.app_id)


def _base_of(prepared: PreparedCall, url: str) -> tuple[str, str | None]:
    """Return the base in which a URL is, the call's own first, and what stands behind it.

    What is no path of a call is in none: `..` would lead whoever follows it to another app, or out of the proxy.
    """
    own = prepared.credential.base
    others = prepared.api.filled(prepared.api.values(prepared.view.details))
    for base in (own, *others.values()):
        if (rest := base.below(url)) is not None and not path_problem(_PATH_END.split(rest, maxsplit=1)[0]):
            return base.name, rest
    return "", None


def _joined(base: str, url: str) -> str:
    """Return where a link leads; empty where it is none, whatever an API sends."""
    try:
        return urljoin(base, url)
    except ValueError:
        return ""


def _url(prepared: PreparedCall) -> str:
    return f"{prepared.credential.base.url}{prepared.asked.path}"
