"""Who signs in to evergrant itself, by an id_token (OpenID Connect Core 1.0 section 3.1.3.7): strict in everything.

Who connected an app is another matter, and lenient: `id_token`.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from pydantic import SecretStr

from evergrant.errors import ConnectFailed
from evergrant.oauth2.registration import ClientRegistration, ServerMetadata
from evergrant.oauth2.signed_token import InvalidToken, check_parties, verified_claims
from evergrant.oauth2.token_response import TokenResponse
from evergrant.oauth2.transport import Http
from evergrant.oauth2.userinfo import MAX_SUBJECT_LENGTH, fetch_userinfo


def sign_in_client(server: ServerMetadata, client_id: str, secret: SecretStr | None) -> ClientRegistration:
    """Return our client at a provider that signs people in to evergrant itself."""
    methods = server.token_endpoint_auth_methods_supported
    # OpenID Connect Discovery section 3: Basic, where nothing is said.
    takes_basic = not methods or "client_secret_basic" in methods
    method = "none" if secret is None else "client_secret_basic" if takes_basic else "client_secret_post"
    return ClientRegistration(client_id, secret, method, name="Your provider")


async def identity_of(
    http: Http, server: ServerMetadata, client_id: str, tokens: TokenResponse, *, nonce: str, now: datetime
) -> Mapping[str, Any]:
    """Return what the provider says of whoever has signed in: the claims of the id_token, and of userinfo beside them.

    Raises:
        ConnectFailed: `invalid_id_token`: it must not be believed, or belongs to another trip.
        UpstreamUnavailable, EgressRefused: the provider's keys or its userinfo cannot be read.
    """
    if tokens.id_token is None:
        raise ConnectFailed("invalid_id_token", "Your provider sent no id_token, so it is not known who you are.")
    try:
        claims = await verified_claims(http, server.jwks_uri, tokens.id_token.get_secret_value(), now=now)
        check_parties(claims, issuer=server.issuer, audience=client_id, recipient="client")
        _check_trip(claims, client_id, nonce)
    except InvalidToken as error:
        raise ConnectFailed("invalid_id_token", f"Your provider sent an id_token that is refused: {error}.") from None
    if not server.userinfo_endpoint:
        return claims
    members = await _userinfo(http, server, tokens.access_token, str(claims["sub"]))
    if "email" in claims and members.get("email") != claims["email"]:
        members = {name: value for name, value in members.items() if name != "email_verified"}  # of another address
    return {**members, **claims}


def _check_trip(claims: Mapping[str, Any], client_id: str, nonce: str) -> None:
    subject = claims.get("sub")
    if not isinstance(subject, str) or not 0 < len(subject) <= MAX_SUBJECT_LENGTH or not subject.isprintable():
        raise InvalidToken("it names no subject")
    if claims.get("nonce") != nonce:
        raise InvalidToken("it belongs to another trip (nonce)")
    if claims.get("azp", client_id) != client_id:
        raise InvalidToken("it was issued to another client (azp)")
    if isinstance(claims["aud"], list) and len(claims["aud"]) > 1 and "azp" not in claims:
        raise InvalidToken("it is for several clients, and does not say to which it was issued (azp)")


async def _userinfo(http: Http, server: ServerMetadata, access_token: SecretStr, subject: str) -> Mapping[str, Any]:
    """Return what userinfo adds. Several providers put addresses and groups only there."""
    members = await fetch_userinfo(http, server, access_token)
    if members.get("sub") != subject:  # OpenID Connect Core section 5.3.2
        raise ConnectFailed("invalid_userinfo", "Your provider's userinfo is about somebody else than its id_token.")
    return members
