"""Finds an authorization server's metadata from a URL (RFC 8414, OpenID Connect Discovery 1.0)."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from authlib.oauth2.rfc8414 import get_well_known_url as before_the_path
from authlib.oidc.discovery import get_well_known_url as behind_the_path

from evergrant.errors import InvalidValue
from evergrant.oauth2.documents import nothing_at, read_document, stands_for
from evergrant.oauth2.registration import ServerMetadata
from evergrant.oauth2.transport import Http, check_url

_OIDC = "/.well-known/openid-configuration"
_RFC8414 = "/.well-known/oauth-authorization-server"

_REQUIRED = ("authorization_endpoint", "token_endpoint")
"""What a server that a user can be sent to must have."""
_OPTIONAL = ("revocation_endpoint", "userinfo_endpoint", "jwks_uri", "registration_endpoint")
_CHECK = "check the address, or leave discoveryUrl out and enter the endpoints"

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class NoMetadata:
    """There is no metadata in any place that could have it, or none that can be used.

    `tried` are the places without one; `unusable` says what is wrong with one that there is, and `remedy` what to do.
    """

    tried: Sequence[str] = ()
    unusable: str = ""
    remedy: str = _CHECK

    @property
    def problem(self) -> str:
        """Say what was found instead."""
        return self.unusable or nothing_at(self.tried)

    def after(self, tried: Sequence[str]) -> "NoMetadata":
        """Return the same after these places were tried in vain."""
        return replace(self, tried=[*tried, *self.tried])

    def error(self) -> InvalidValue:
        """Make the error for the operator."""
        return invalid(f"{self.problem}; {self.remedy}")


async def discover(http: Http, url: str) -> ServerMetadata:
    """Fetch and check the metadata at `url`, an issuer or the whole URL of its metadata document.

    Raises:
        InvalidValue: for the field `discoveryUrl`; everything here is the operator's to mend, an unreachable server
            included. The message says what to do.
    """
    found = await look_up(http, allowed(http, url, what="it"))
    if isinstance(found, NoMetadata):
        raise found.error()
    return found


async def look_up(http: Http, url: str) -> ServerMetadata | NoMetadata:
    """Fetch and check the metadata at `url`, which may be called; the first document that can be used counts."""
    issuer, candidates = _locate(url)
    tried: list[str] = []
    unusable: NoMetadata | None = None
    for candidate in candidates:
        document = await read_document(http, candidate, "issuer", tried)
        if document is None:
            continue
        found = _metadata(http, document, issuer)
        if isinstance(found, ServerMetadata):
            return found
        unusable = unusable or found
    return unusable or NoMetadata(tried)


def _locate(url: str) -> tuple[str, list[str]]:
    """Return the issuer that `url` stands for and where its metadata can be, in the order to try."""
    parts = urlsplit(url)
    path = parts.path

    def at(new_path: str, query: str = "") -> str:
        return urlunsplit((parts.scheme, parts.netloc, new_path, query, ""))

    for well_known in (_OIDC, _RFC8414):
        if path.endswith(well_known):
            return at(path.removesuffix(well_known)), [at(path, parts.query)]
        if path.startswith(well_known + "/"):
            return at(path.removeprefix(well_known)), [at(path, parts.query)]
    issuer = at(path.rstrip("/"))
    # OpenID appends, RFC 8414 section 3.1 inserts before the path; for an issuer without a path they are the same.
    candidates = [
        behind_the_path(issuer, external=True),
        before_the_path(issuer, external=True),
        before_the_path(issuer, external=True, suffix="openid-configuration"),
        issuer + _RFC8414,  # as some servers of MCP append it
    ]
    return issuer, list(dict.fromkeys(candidates))


def _metadata(http: Http, document: dict[str, Any], expected: str) -> ServerMetadata | NoMetadata:
    issuer = document["issuer"]
    if not isinstance(issuer, str) or not stands_for(issuer, expected):
        # RFC 8414 section 3.3: otherwise one server could pass for another.
        return NoMetadata(
            unusable="the document there is for another issuer than its address says",
            remedy="use the discovery URL that the provider documents for this issuer",
        )
    endpoints: dict[str, str] = {}
    for name in _REQUIRED:
        value = document.get(name)
        if not isinstance(value, str) or not value:
            remedy = "leave discoveryUrl out and enter the endpoints"
            return NoMetadata(unusable=f"the document has no {name}", remedy=remedy)
        if problem := _problem(http, value):
            return NoMetadata(unusable=f"its {name} {problem}")
        endpoints[name] = value
    for name in _OPTIONAL:
        value = document.get(name)
        if not isinstance(value, str) or not value:
            continue  # several publish "" or false for what they do not have
        if problem := _problem(http, value):
            log.info("an optional endpoint is left out", extra={"issuer": issuer, "endpoint": name, "problem": problem})
            continue
        endpoints[name] = value
    return ServerMetadata(
        issuer=issuer,
        token_endpoint_auth_methods_supported=strings(document, "token_endpoint_auth_methods_supported"),
        authorization_response_iss_parameter_supported=(
            document.get("authorization_response_iss_parameter_supported") is True
        ),
        client_id_metadata_document_supported=document.get("client_id_metadata_document_supported") is True,
        **endpoints,
    )


def _problem(http: Http, url: str) -> str:
    """Say why a URL may not be called, empty where it may."""
    try:
        check_url(url, what="it", egress_allow=http.egress_allow)
    except ValueError as error:
        return str(error).removeprefix("it ")
    return ""


def allowed(http: Http, url: str, *, what: str) -> str:
    """Return `url` if it may be called at all.

    Raises:
        InvalidValue: for the field `discoveryUrl`; `what` is the subject of the sentence.
    """
    if problem := _problem(http, url):
        raise invalid(f"{what} {problem}")
    return url


def strings(document: dict[str, Any], name: str) -> tuple[str, ...]:
    """Return the strings in a member that is a list; none of any other member."""
    value = document.get(name)
    return tuple(item for item in value if isinstance(item, str)) if isinstance(value, list) else ()


def invalid(problem: str) -> InvalidValue:
    """Make the error for the field `discoveryUrl`."""
    return InvalidValue.of(("discoveryUrl", problem))
