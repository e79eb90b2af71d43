"""The authorization request and its answer (RFC 6749 section 4.1, RFC 7636, RFC 8707, RFC 9207)."""

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from authlib.common.urls import add_params_to_uri
from authlib.oauth2.rfc6749.parameters import prepare_grant_uri
from authlib.oauth2.rfc7636 import create_s256_code_challenge
from pydantic import SecretStr

from evergrant.errors import ConnectFailed
from evergrant.oauth2.provider_text import provider_text
from evergrant.oauth2.registration import ClientRegistration, ServerMetadata

_RESERVED = frozenset(
    {
        "response_type",
        "client_id",
        "client_secret",
        "redirect_uri",
        "state",
        "nonce",
        "code_challenge",
        "code_challenge_method",
        "request",
        "request_uri",
    }
)
"""What only this file sets: neither an app's own parameters nor its endpoint's query may. `request`
(RFC 9101) is here because a server that honours it takes every other parameter from inside it."""


@dataclass(frozen=True, slots=True)
class CodeVerifier:
    """A PKCE code verifier (RFC 7636 section 4.1): a secret until the code is redeemed."""

    _value: SecretStr

    @classmethod
    def new(cls) -> "CodeVerifier":
        """Make one of 64 characters, 384 random bits."""
        return cls(SecretStr(secrets.token_urlsafe(48)))

    @classmethod
    def from_secret(cls, text: str) -> "CodeVerifier":
        """Take up a verifier that was made earlier.

        Raises:
            ValueError: `text` is not 43 to 128 unreserved ASCII characters.
        """
        if not (43 <= len(text) <= 128 and text.isascii() and text.translate(_PUNCTUATION).isalnum()):
            raise ValueError("a code verifier has 43 to 128 letters, digits, '-', '.', '_' or '~'")
        return cls(SecretStr(text))

    def secret(self) -> str:
        """Return the verifier itself, for storage under seal and for the token request."""
        return self._value.get_secret_value()

    @property
    def challenge(self) -> str:
        """The S256 challenge (RFC 7636 section 4.2), which may be seen by anybody."""
        return cast(str, create_s256_code_challenge(self.secret()))

    def __repr__(self) -> str:
        """Show that there is one, and nothing of it."""
        return "CodeVerifier('**********')"


_PUNCTUATION = str.maketrans("", "", "-._~")


def authorization_url(
    server: ServerMetadata,
    client: ClientRegistration,
    *,
    redirect_uri: str,
    state: str,
    scopes: Sequence[str],
    code_verifier: CodeVerifier | None,
    nonce: str | None,
    prompt: Sequence[str] = (),
    login_hint: str = "",
    resources: Sequence[str] = (),
) -> str:
    """Return the URL that asks the user for consent (RFC 6749 section 4.1.1).

    A parameter that is empty is left out. The app's own parameters are added, except where the request
    already has one of that name: so they can neither redirect the answer nor weaken the protection of the
    trip.
    """
    parameters: dict[str, str | list[str]] = {}
    if client.access_type:
        parameters["access_type"] = client.access_type
    if code_verifier is not None:
        parameters["code_challenge"] = code_verifier.challenge
        parameters["code_challenge_method"] = "S256"
    if nonce:
        parameters["nonce"] = nonce  # OpenID Connect Core section 3.1.2.1
    if prompt:
        parameters["prompt"] = " ".join(prompt)
    if login_hint:
        parameters["login_hint"] = login_hint
    if resources:
        parameters["resource"] = list(resources)  # repeated, RFC 8707 section 2

    taken = _RESERVED | parameters.keys() | ({"scope"} if scopes else set())
    url = prepare_grant_uri(
        _without(server.authorization_endpoint, taken),
        client.client_id,
        "code",
        redirect_uri=redirect_uri,
        scope=list(scopes) or None,
        state=state,
        **parameters,
    )
    own = [(name, value) for name, value in client.authorization_params if name not in taken]
    return cast(str, add_params_to_uri(url, own)) if own else cast(str, url)


def _without(endpoint: str, names: frozenset[str] | set[str]) -> str:
    """Drop `names` from the endpoint's own query: no parameter may be sent twice (RFC 6749 section 3.1)."""
    parts = urlsplit(endpoint)
    kept = [(name, value) for name, value in parse_qsl(parts.query, keep_blank_values=True) if name not in names]
    return urlunsplit(parts._replace(query=urlencode(kept), fragment=""))


@dataclass(frozen=True, slots=True)
class AuthorizationResponse:
    """What the browser brought back (RFC 6749 sections 4.1.2 and 4.1.2.1). Nothing in it is verified yet.

    Exactly one of `code` and `error` is set. `error` and `error_description` are the provider's words, safe
    to show.
    """

    code: str
    state: str
    iss: str
    error: str
    error_description: str

    def __repr__(self) -> str:
        """Show the outcome; a code and a state are credentials."""
        return f"AuthorizationResponse(error={self.error!r})"

    @classmethod
    def parse(cls, params: Mapping[str, str]) -> "AuthorizationResponse":
        """Read the callback's query or form. With neither a code nor an error, it is `invalid_response`."""
        error = provider_text(params.get("error", ""))
        description = provider_text(params.get("error_description", ""))
        code = "" if error else params.get("code", "")
        if not error and not code:
            error, description = "invalid_response", "The provider sent back neither a code nor an error."
        return cls(
            code=code,
            state=params.get("state", ""),
            iss=params.get("iss", ""),
            error=error,
            error_description=description,
        )


def check_issuer(response: AuthorizationResponse, server: ServerMetadata) -> None:
    """Refuse an answer from another server than the one that was asked (mix-up attack, RFC 9207 section 2.4).

    Raises:
        ConnectFailed: `issuer_mismatch`; the code must not be redeemed.
    """
    if not response.iss:
        if server.issuer and server.authorization_response_iss_parameter_supported:
            raise ConnectFailed(
                "issuer_mismatch",
                "The answer does not say which provider it is from, and it should. Connect again.",
            )
        return
    if server.issuer and response.iss != server.issuer:
        raise ConnectFailed(
            "issuer_mismatch",
            "The answer came from another provider than the one that was asked. Connect again.",
        )
