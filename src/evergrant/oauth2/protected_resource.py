"""Finds the authorization server that guards a protected resource, such as an MCP server (RFC 9728)."""

import re
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from evergrant.errors import UpstreamError
from evergrant.oauth2.discovery import NoMetadata, allowed, discover, invalid, look_up, strings
from evergrant.oauth2.provider_text import provider_text
from evergrant.oauth2.registration import ServerMetadata
from evergrant.oauth2.token_response import parse_body
from evergrant.oauth2.transport import Http

_WELL_KNOWN = "/.well-known/oauth-protected-resource"
_CHALLENGE = re.compile(r'\bresource_metadata\s*=\s*"([^"\s]+)"', re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Discovered:
    """An authorization server, and the resource that led to it where one did, with the scopes that it names."""

    server: ServerMetadata
    resource: str = ""
    scopes: tuple[str, ...] = ()


async def discover_either(http: Http, url: str, *, resource_first: bool = False) -> Discovered:
    """Find the authorization server that `url` stands for: an issuer, a metadata document or a protected resource.

    Where both would be found, the issuer wins, unless `resource_first`: an MCP server at the root of its host is
    often its own authorization server, and tokens for it have to name it (RFC 8707).

    Raises:
        InvalidValue: for the field `discoveryUrl`; the message says what to do.
    """
    allowed(http, url, what="it")
    if resource_first or urlsplit(url).path.startswith(_WELL_KNOWN):
        found = await _through_resource(http, url)
        return found or Discovered(await discover(http, url))
    server = await look_up(http, url)
    if isinstance(server, ServerMetadata):
        return Discovered(server)
    found = await _through_resource(http, url)
    if found is None:
        raise server.error()
    return found


async def _through_resource(http: Http, url: str) -> Discovered | None:
    """Find the authorization server of the resource at `url`; None where nothing says that it is a resource."""
    resource, address = _locate(url)
    document = await _document(http, address)
    if document is None and address != url:
        challenged = await _challenge(http, url)
        document = (
            await _document(http, allowed(http, challenged, what="its resource metadata")) if challenged else None
        )
    if document is None:
        return None
    named = document["resource"]
    if not isinstance(named, str) or not _same(named, resource):
        # RFC 9728 section 3.3: otherwise one resource could have tokens made out for another.
        said = provider_text(named) or "no resource at all"
        raise invalid(f"its metadata is for another resource ({said}); use the URL that the metadata names")
    servers = strings(document, "authorization_servers")
    if not servers:
        raise invalid("its metadata names no authorization server; leave discoveryUrl out and enter the endpoints")
    issuer = allowed(http, servers[0], what="its authorization server")
    server = await look_up(http, issuer)
    if isinstance(server, NoMetadata):
        raise invalid(f"its authorization server cannot be used: {server.problem}")
    return Discovered(server, named, strings(document, "scopes_supported"))


def _locate(url: str) -> tuple[str, str]:
    """Return the resource that `url` stands for and the address of its metadata (RFC 9728 section 3.1)."""
    parts = urlsplit(url)
    if parts.path.startswith(_WELL_KNOWN):
        return urlunsplit(parts._replace(path=parts.path.removeprefix(_WELL_KNOWN), fragment="")), url
    path = _WELL_KNOWN + ("" if parts.path == "/" else parts.path)
    return urlunsplit(parts._replace(fragment="")), urlunsplit(parts._replace(path=path, fragment=""))


async def _document(http: Http, address: str) -> dict[str, Any] | None:
    try:
        answer = await http.get_json(address)
    except UpstreamError:
        return None  # whether anything else answers decides what the operator is told
    document = parse_body(answer.body, "application/json") if answer.status == 200 else None
    return document if document is not None and "resource" in document else None


async def _challenge(http: Http, url: str) -> str:
    """Ask the resource itself: without a token it answers 401 and may say where its metadata is (section 5.1)."""
    try:
        answer = await http.get_json(url)
    except UpstreamError:
        return ""
    found = _CHALLENGE.search(answer.headers.get("www-authenticate", "")) if answer.status == 401 else None
    return found.group(1) if found else ""


def _same(named: str, asked: str) -> bool:
    """Tell whether two URLs name one resource (RFC 9728 section 3.3); an empty path is "/" (RFC 3986 6.2.3)."""
    return _with_path(named) == _with_path(asked)


def _with_path(url: str) -> str:
    try:
        parts = urlsplit(url)
    except ValueError:
        return url
    return urlunsplit(parts._replace(path=parts.path or "/"))
