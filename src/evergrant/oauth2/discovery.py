"""Finds an authorization server's metadata from a URL (RFC 8414, OpenID Connect Discovery 1.0)."""

import re
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from authlib.oauth2.rfc8414 import get_well_known_url as before_the_path
from authlib.oidc.discovery import get_well_known_url as behind_the_path

from evergrant.errors import InvalidValue, UpstreamError
from evergrant.oauth2.registration import ServerMetadata
from evergrant.oauth2.token_response import parse_body
from evergrant.oauth2.transport import Http, check_url

_OIDC = "/.well-known/openid-configuration"
_RFC8414 = "/.well-known/oauth-authorization-server"

_ENDPOINTS = {
    "authorization_endpoint": True,
    "token_endpoint": True,
    "revocation_endpoint": False,
    "userinfo_endpoint": False,
    "jwks_uri": False,
    "registration_endpoint": False,
}
"""Each endpoint, and whether a server that a user can be sent to must have it."""


async def discover(http: Http, url: str) -> ServerMetadata:
    """Fetch and check the metadata at `url`, an issuer or the whole URL of its metadata document.

    Raises:
        InvalidValue: for the field `discoveryUrl`; everything here is the operator's to mend, an unreachable server
            included. The message says what to do.
    """
    found = await look_up(http, url)
    if isinstance(found, NoMetadata):
        raise found.error()
    return found


@dataclass(frozen=True, slots=True)
class NoMetadata:
    """No place that could have the metadata has it; `problem` says what was found instead."""

    problem: str

    def error(self) -> InvalidValue:
        """Make the error for the operator."""
        return invalid(f"{self.problem}; check the address, or leave discoveryUrl out and enter the endpoints")


async def look_up(http: Http, url: str) -> ServerMetadata | NoMetadata:
    """Fetch and check the metadata at `url`, or return why there is none.

    Raises:
        InvalidValue: there is metadata, and it cannot be used.
    """
    issuer, candidates = _locate(allowed(http, url, what="it"))
    problem = ""
    for candidate in candidates:
        try:
            answer = await http.get_json(candidate)
        except UpstreamError as error:
            problem = problem or error.message.rstrip(".")
            continue
        document = parse_body(answer.body, "application/json") if answer.status == 200 else None
        if document is None or "issuer" not in document:
            problem = problem or f"there is no metadata at {candidate} (status {answer.status})"
            continue
        return _metadata(http, document, issuer)
    return NoMetadata(problem)


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
    ]
    return issuer, list(dict.fromkeys(candidates))


def _metadata(http: Http, document: dict[str, Any], expected: str) -> ServerMetadata:
    issuer = document["issuer"]
    if not isinstance(issuer, str) or not _stands_for(issuer, expected):
        # RFC 8414 section 3.3: otherwise one server could pass for another.
        raise invalid(
            "the document there is for another issuer than its address says; "
            "use the discovery URL that the provider documents for this issuer"
        )
    endpoints: dict[str, str] = {}
    for name, required in _ENDPOINTS.items():
        value = document.get(name)
        if value is None and not required:
            continue
        if not isinstance(value, str) or not value:
            raise invalid(f"the document has no {name}; leave discoveryUrl out and enter the endpoints")
        endpoints[name] = allowed(http, value, what=f"its {name}")
    return ServerMetadata(
        issuer=issuer,
        token_endpoint_auth_methods_supported=strings(document, "token_endpoint_auth_methods_supported"),
        authorization_response_iss_parameter_supported=(
            document.get("authorization_response_iss_parameter_supported") is True
        ),
        client_id_metadata_document_supported=document.get("client_id_metadata_document_supported") is True,
        **endpoints,
    )


def _stands_for(issuer: str, expected: str) -> bool:
    """Tell whether a document's issuer is the expected one, but for a final slash (OpenID Connect Discovery 4.1).

    The well-known address cannot show that slash. Microsoft's shared endpoints publish the template
    `.../{tenantid}/v2.0`, which any tenant in the URL fills.
    """
    pattern = re.escape(issuer.rstrip("/")).replace(re.escape("{tenantid}"), "[^/]+")
    return re.fullmatch(pattern, expected.rstrip("/")) is not None


def allowed(http: Http, url: str, *, what: str) -> str:
    """Return `url` if it may be called at all.

    Raises:
        InvalidValue: for the field `discoveryUrl`; `what` is the subject of the sentence.
    """
    try:
        check_url(url, what=what, egress_allow=http.egress_allow)
    except ValueError as error:
        raise invalid(str(error)) from None
    return url


def strings(document: dict[str, Any], name: str) -> tuple[str, ...]:
    """Return the strings in a member that is a list; none of any other member."""
    value = document.get(name)
    return tuple(item for item in value if isinstance(item, str)) if isinstance(value, list) else ()


def invalid(problem: str) -> InvalidValue:
    """Make the error for the field `discoveryUrl`."""
    return InvalidValue.of(("discoveryUrl", problem))
