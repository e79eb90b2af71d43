"""Dynamic client registration (RFC 7591): evergrant makes itself a client of an authorization server."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from pydantic import SecretStr

from evergrant import clock
from evergrant.errors import UpstreamRejected, UpstreamUnavailable
from evergrant.oauth2.error_words import NOTHING
from evergrant.oauth2.failures import failure_of, moved
from evergrant.oauth2.token_response import MAX_TOKEN_LENGTH, parse_body
from evergrant.oauth2.transport import Http, HttpAnswer

AUTH_METHODS = ("client_secret_post", "client_secret_basic", "none")
GRANT_TYPES = ("authorization_code", "refresh_token")
_MAX_ID_LENGTH = 2_000


@dataclass(frozen=True, slots=True)
class RegisteredClient:
    """A client as the server registered it (RFC 7591 section 3.2.1). `expires_at` ends its secret; None for never."""

    client_id: str
    client_secret: SecretStr | None = field(repr=False)
    expires_at: datetime | None
    auth_method: str


async def register(
    http: Http,
    url: str,
    *,
    redirect_uri: str,
    client_name: str,
    scopes: Sequence[str] = (),
    auth_method: str,
    grant_types: Sequence[str] = GRANT_TYPES,
) -> RegisteredClient:
    """Register a client at `url` (RFC 7591 section 3.1). `auth_method` is a wish: the server decides.

    Raises:
        UpstreamRejected: the server refuses, or registered what cannot be used.
        UpstreamUnavailable: later.
    """
    wish: dict[str, Any] = {
        "client_name": client_name,
        "redirect_uris": [redirect_uri],
        "grant_types": list(grant_types),
        "response_types": ["code"],
        "token_endpoint_auth_method": auth_method,
    }
    if scopes:
        wish["scope"] = " ".join(scopes)
    answer = await http.post_json(url, wish)
    failure = moved(answer, client_name=f"The registration of {client_name}") or failure_of(
        answer,
        client_name=f"The registration of {client_name}",
        secrets=(),
        presented=NOTHING,
        when_dead=lambda text, code: UpstreamRejected(text, provider_error=code),
    )
    if failure is not None:
        raise failure
    return _registered(answer, client_name, redirect_uri, auth_method)


def metadata_document(*, client_id: str, client_name: str, redirect_uri: str, logo_uri: str = "") -> dict[str, Any]:
    """Return the document that a server reads at the URL that is our client id.

    draft-ietf-oauth-client-id-metadata-document section 4: there is no secret to share, so the method is `none`.
    """
    document = {
        "client_id": client_id,
        "client_name": client_name,
        "redirect_uris": [redirect_uri],
        "grant_types": list(GRANT_TYPES),
        "response_types": ["code"],
        "token_endpoint_auth_method": "none",
    }
    return document | ({"logo_uri": logo_uri} if logo_uri else {})


def _registered(answer: HttpAnswer, client_name: str, redirect_uri: str, asked_method: str) -> RegisteredClient:
    members = parse_body(answer.body, "application/json")
    if members is None:
        raise UpstreamUnavailable(f"{client_name}: the registration's answer is not JSON. It is tried again later.")
    client_id = members.get("client_id")
    if not _is_credential(client_id, _MAX_ID_LENGTH):
        raise _unusable(client_name, "it names no usable client_id")
    secret = members.get("client_secret")
    if secret in (None, ""):
        secret = None
    elif not _is_credential(secret, MAX_TOKEN_LENGTH):
        raise _unusable(client_name, "its client_secret has characters that no secret has")
    method = members.get("token_endpoint_auth_method") or (asked_method if secret is not None else "none")
    if method not in AUTH_METHODS:
        raise _unusable(client_name, "it demands a way of authentication that evergrant does not have")
    if method != "none" and secret is None:
        raise _unusable(client_name, "it demands a client_secret and gives none")
    registered = members.get("redirect_uris")
    if isinstance(registered, list) and redirect_uri not in registered:
        raise _unusable(client_name, f"it was made for other redirect URIs than {redirect_uri}")
    return RegisteredClient(
        client_id=str(client_id),
        # A secret that is not to be used is not kept either.
        client_secret=SecretStr(str(secret)) if secret is not None and method != "none" else None,
        expires_at=_expiry(members.get("client_secret_expires_at"))
        if secret is not None and method != "none"
        else None,
        auth_method=str(method),
    )


def _is_credential(value: object, most: int) -> bool:
    """Tell whether `value` is visible ASCII (RFC 6749 appendix A.1, A.2)."""
    return isinstance(value, str) and 0 < len(value) <= most and value.isascii() and value.isprintable()


def _expiry(value: object) -> datetime | None:
    """Read `client_secret_expires_at`, seconds since 1970; None for never, for nonsense and for the past.

    Believing an end that has passed would cost a registration, and with it every user's consent, at each connect. A
    server that means it says invalid_client soon enough.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value) or value <= 0:
        return None
    try:
        at = datetime.fromtimestamp(value, UTC)
    except (ValueError, OverflowError, OSError):
        return None
    return at if at > clock.now() else None


def _unusable(client_name: str, why: str) -> UpstreamRejected:
    return UpstreamRejected(
        f"{client_name}: the registration cannot be used: {why}. Register evergrant there yourself and enter clientId.",
        provider_error="invalid_registration",
    )
