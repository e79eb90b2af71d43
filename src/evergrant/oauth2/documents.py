"""Reads published JSON documents, wherever one may be, and keeps what was found in each place for the operator."""

import re
from collections.abc import Iterable, Sequence
from typing import Any
from urllib.parse import urldefrag, urljoin, urlsplit, urlunsplit

from evergrant.errors import UpstreamError
from evergrant.oauth2.egress import parse_target
from evergrant.oauth2.provider_text import provider_text
from evergrant.oauth2.token_response import parse_body
from evergrant.oauth2.transport import Http, HttpAnswer

REDIRECTS = frozenset({301, 302, 303, 307, 308})
_DEFAULT_PORTS = {"https": ":443", "http": ":80"}


async def read_document(http: Http, address: str, member: str, tried: list[str]) -> dict[str, Any] | None:
    """Return the JSON object at `address` that has a `member`; None where there is none, and `tried` says why.

    One redirect is followed, on the same origin: another host's document would be believed to be this one's.
    """
    try:
        answer = await http.get_json(address)
        onward = redirect_of(address, answer)
        if onward and same_origin(onward, address):
            answer = await http.get_json(onward)
            onward = redirect_of(onward, answer)
    except UpstreamError as error:
        tried.append(f"{address} ({error.message.rstrip('.')})")
        return None
    document = parse_body(answer.body, "application/json") if answer.status == 200 else None
    if document is not None and member in document:
        return document
    leads = f", which leads to {shown_address(onward)}: enter that if it is the provider's" if onward else ""
    tried.append(f"{address} (status {answer.status}{leads})")
    return None


def nothing_at(tried: Sequence[str]) -> str:
    """Say where no metadata was found."""
    return f"there is no metadata at {', at '.join(dict.fromkeys(tried))}"


def redirect_of(url: str, answer: HttpAnswer) -> str:
    """Return where an answer to a request for `url` leads (RFC 9110 section 15.4), empty where it is no redirect."""
    location = answer.headers.get("location", "").strip()
    if answer.status not in REDIRECTS or not location:
        return ""
    try:
        return urldefrag(urljoin(url, location)).url
    except ValueError:
        return ""


def same_origin(one: str, other: str) -> bool:
    """Tell whether two URLs have the same scheme, host and port (RFC 6454)."""
    try:
        first, second = parse_target(one), parse_target(other)
    except ValueError:
        return False
    return (first.scheme, first.host, first.port) == (second.scheme, second.host, second.port)


def normalized(url: str) -> str:
    """Return a URL with scheme and host in small letters, and without a default port (RFC 3986 section 6.2.3)."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return url
    host = parts.netloc.lower().removesuffix(_DEFAULT_PORTS.get(parts.scheme, ":"))
    return urlunsplit(parts._replace(netloc=host))


def stands_for(issuer: str, named: str) -> bool:
    """Tell whether a provider's issuer is the one that is named, but for a final slash (OpenID Connect Discovery 4.1).

    A well-known address cannot show that slash. Microsoft's shared endpoints publish the template
    `.../{tenantid}/v2.0`, which any tenant fills.
    """
    pattern = re.escape(normalized(issuer).rstrip("/")).replace(re.escape("{tenantid}"), "[^/]+")
    return re.fullmatch(pattern, normalized(named).rstrip("/")) is not None


def shown_address(url: str, *, secrets: Iterable[str] = ()) -> str:
    """Return an address as a person may see it: without its query, in which a server may have put what it was sent."""
    return provider_text(url.partition("#")[0].partition("?")[0], secrets=secrets)
