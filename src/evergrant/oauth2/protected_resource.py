"""Finds the authorization server that guards a protected resource, such as an MCP server (RFC 9728).

https://modelcontextprotocol.io/specification/2025-06-18/basic/authorization says where the metadata can be, and
https://modelcontextprotocol.io/specification/2025-03-26/basic/authorization what older servers have in its place.
"""

import asyncio
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from evergrant.errors import InvalidValue, UpstreamError
from evergrant.oauth2.challenge import Challenge, ask_for_challenge
from evergrant.oauth2.discovery import NoMetadata, allowed, invalid, look_up, strings
from evergrant.oauth2.documents import normalized, read_document, same_origin
from evergrant.oauth2.provider_text import provider_text
from evergrant.oauth2.registration import ServerMetadata
from evergrant.oauth2.token_response import parse_body
from evergrant.oauth2.transport import Http

_WELL_KNOWN = "/.well-known/oauth-protected-resource"
SECONDS = 40.0
"""How long a search may take in all: an address that swallows packets is asked a dozen times."""


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
    try:
        async with asyncio.timeout(SECONDS):
            return await _discover(http, url, resource_first=resource_first)
    except TimeoutError:
        raise invalid(f"it took longer than {SECONDS:.0f} s to answer; check the address, or try again") from None


async def _discover(http: Http, url: str, *, resource_first: bool) -> Discovered:
    place = _Place.of(url)
    server = None if resource_first or place.is_document else await look_up(http, url)
    if isinstance(server, ServerMetadata):
        return Discovered(server)
    tried: list[str] = []
    challenge = None if place.is_document else await ask_for_challenge(http, url, tried)
    if found := await _through_resource(http, place, challenge, tried):
        return found
    server = server or await look_up(http, url)
    if isinstance(server, NoMetadata) and not server.unusable and (resource_first or challenge):
        server = await _at_the_origin(http, url, server)
    if isinstance(server, NoMetadata):
        raise server.after(tried).error()
    return Discovered(server, scopes=challenge.scopes if challenge else ())


@dataclass(frozen=True, slots=True)
class _Place:
    """A resource, and where its metadata can be, in the order to try. `is_document`: that is what the operator gave."""

    resource: str
    addresses: list[str] = field(default_factory=list)
    is_document: bool = False
    of_the_host: str = ""
    """The last of these, where it is not the resource's own: other resources of the host may have it."""

    @classmethod
    def of(cls, url: str) -> "_Place":
        parts = urlsplit(url)._replace(fragment="")
        path = parts.path

        def at(new_path: str, query: str = "") -> str:
            return urlunsplit(parts._replace(path=new_path, query=query))

        if path == _WELL_KNOWN or path.startswith(_WELL_KNOWN + "/"):
            return cls(at(path.removeprefix(_WELL_KNOWN), parts.query), [url], is_document=True)
        if path.endswith(_WELL_KNOWN):
            return cls(at(path.removesuffix(_WELL_KNOWN), parts.query), [url], is_document=True)
        base = path.rstrip("/")
        # RFC 9728 section 3.1 inserts before the path; some append, and some have one document for the whole host.
        inserted = at(_WELL_KNOWN + ("" if path == "/" else path), parts.query)
        addresses = [inserted, at(_WELL_KNOWN + base), at(base + _WELL_KNOWN), at(_WELL_KNOWN)]
        of_the_host = at(_WELL_KNOWN) if base else ""
        return cls(at(path, parts.query), list(dict.fromkeys(addresses)), of_the_host=of_the_host)


async def _through_resource(
    http: Http, place: _Place, challenge: Challenge | None, tried: list[str]
) -> Discovered | None:
    """Find the authorization server of a resource; None where nothing says that it is one.

    Raises:
        InvalidValue: it is, and its metadata leads nowhere. The first that leads somewhere counts.
    """
    named = challenge.metadata_url if challenge else ""
    addresses = dict.fromkeys([named, *place.addresses] if named else place.addresses)
    problem: InvalidValue | None = None
    for address in addresses:
        try:
            may_call = allowed(http, address, what="its resource metadata")
            document = await read_document(http, may_call, "resource", tried)
            if document is None:
                continue
            resource = document["resource"]
            if not isinstance(resource, str) or not _covers(resource, place.resource):
                # RFC 9728 section 3.3: otherwise one resource could have tokens made out for another.
                said = provider_text(resource) or "no resource at all"
                if address == place.of_the_host and address != named:
                    tried.append(f"{address} (which is for another resource: {said})")
                    continue
                raise invalid(f"its metadata is for another resource ({said}); use the URL that the metadata names")
            server = await _server_of(http, document)
        except InvalidValue as error:
            problem = problem or error
            continue
        scopes = strings(document, "scopes_supported") or (challenge.scopes if challenge else ())
        return Discovered(server, resource, scopes)
    if problem is not None:
        raise problem
    return None


async def _server_of(http: Http, document: dict[str, Any]) -> ServerMetadata:
    """Return the first authorization server of a resource that can be used.

    Raises:
        InvalidValue: it names none, or none can be used.
    """
    issuers = strings(document, "authorization_servers")
    if not issuers:
        raise invalid("its metadata names no authorization server; leave discoveryUrl out and enter the endpoints")
    problems = []
    for issuer in issuers:
        try:
            server = await look_up(http, allowed(http, issuer, what="its authorization server"))
        except InvalidValue as error:
            problems.append(error.details["fields"][0]["problem"])
            continue
        if isinstance(server, ServerMetadata):
            return server
        problems.append(f"its authorization server cannot be used: {server.problem}")
    raise invalid("; ".join(problems))


def _covers(named: str, asked: str) -> bool:
    """Tell whether `named` is the resource that was asked for, or what it is a part of, on the same origin.

    RFC 9728 section 3.3 wants it to be the same. MCP servers name their origin for `/mcp`, or differ by the last slash:
    that is theirs to say, as long as no other origin's tokens can be meant.
    """
    if not same_origin(named, asked):
        return False
    whole, part = urlsplit(normalized(named)), urlsplit(normalized(asked))
    if whole.fragment or whole.query not in ("", part.query):
        return False
    return f"{part.path.rstrip('/')}/".startswith(f"{whole.path.rstrip('/')}/")


async def _at_the_origin(http: Http, url: str, nothing: NoMetadata) -> ServerMetadata | NoMetadata:
    """Find the server of an MCP server of 2025-03-26: at its origin, in metadata or else at the default addresses."""
    origin = urlunsplit(urlsplit(url)._replace(path="", query="", fragment=""))
    if url.rstrip("/") != origin:
        found = await look_up(http, origin)
        if isinstance(found, ServerMetadata) or found.unusable:
            return found
        nothing = found.after(nothing.tried)
    token_endpoint = f"{origin}/token"
    if not await _is_token_endpoint(http, token_endpoint):
        return nothing.after([f"{token_endpoint} (no token endpoint)"])
    return ServerMetadata(
        authorization_endpoint=f"{origin}/authorize",
        token_endpoint=token_endpoint,
        registration_endpoint=f"{origin}/register",
    )


async def _is_token_endpoint(http: Http, url: str) -> bool:
    """Tell whether a request without a code is refused as RFC 6749 section 5.2 says: a web page would not."""
    headers = {"accept": "application/json", "content-type": "application/x-www-form-urlencoded"}
    try:
        answer = await http.request("POST", url, headers=headers, content=b"grant_type=authorization_code")
    except UpstreamError:
        return False
    members = parse_body(answer.body, "application/json") if answer.status in (400, 401) else None
    return members is not None and isinstance(members.get("error"), str)
