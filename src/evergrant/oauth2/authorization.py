"""The authorization request and its answer (RFC 6749 section 4.1, RFC 7636, RFC 8707, RFC 9207)."""

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, cast
from urllib.parse import parse_qsl, quote, urlencode, urlsplit, urlunsplit

from authlib.oauth2.rfc7636 import create_s256_code_challenge
from pydantic import SecretStr

from evergrant.errors import ConnectFailed
from evergrant.oauth2.documents import same_origin, stands_for
from evergrant.oauth2.provider_text import provider_text
from evergrant.oauth2.quirks import NO_QUIRKS, Quirks, renamed
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
"""Parameters that only this file sets: neither an app's own parameters nor its endpoint's query may. `request`
(RFC 9101) is here because a server that honours it takes every other parameter from inside it. In an endpoint's
query it may stay where it cannot be meant: `?request=authorize` is a page's name, and no JWT."""


@dataclass(frozen=True, slots=True)
class CodeVerifier:
    """A PKCE code verifier (RFC 7636 section 4.1): a secret until the code is redeemed."""

    _value: SecretStr

    @classmethod
    def new(cls) -> "CodeVerifier":
        """Make a verifier of 64 characters, which are 384 random bits."""
        return cls(SecretStr(secrets.token_urlsafe(48)))

    @classmethod
    def from_secret(cls, text: str) -> "CodeVerifier":
        """Read a verifier that was made earlier.

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
        """Hide the verifier."""
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
    quirks: Quirks = NO_QUIRKS,
) -> str:
    """Return the URL that asks the user for consent (RFC 6749 section 4.1.1).

    A parameter that is empty is left out. The app's own parameters are added, except where the request
    already has one of that name: so they can neither redirect the answer nor weaken the protection of the
    trip.

    Raises:
        UpstreamRejected: the address or a scope needs a variable that has no value.
    """
    redirect_uri = quirks.redirect(redirect_uri, client.name)
    scope = quirks.scope(scopes, client.name)
    challenge = code_verifier.challenge if code_verifier is not None else ""
    asked = [
        ("response_type", "code"),
        ("client_id", client.client_id),
        ("redirect_uri", redirect_uri),
        ("scope", scope),
        ("state", state),
        ("access_type", client.access_type),
        ("code_challenge", challenge),
        ("code_challenge_method", "S256" if challenge else ""),
        ("nonce", nonce or ""),  # OpenID Connect Core section 3.1.2.1
        ("prompt", " ".join(prompt)),
        ("login_hint", login_hint),
        *(("resource", resource) for resource in resources),  # repeated, RFC 8707 section 2
    ]
    parameters = renamed(asked, quirks.authorization_names)
    taken = _RESERVED | {name for name, _ in parameters}
    values = {
        "client_id": client.client_id,
        "redirect_uri": redirect_uri,
        "scope": scope,
        "state": state,
        "nonce": nonce or secrets.token_urlsafe(16),
        "random": secrets.token_urlsafe(16),
    }
    own = [(name, value) for name, value in quirks.fill_all(client.authorization_params, values) if name not in taken]
    return _with_parameters(quirks.url(server.authorization_endpoint, client.name), [*parameters, *own], taken)


def _with_parameters(endpoint: str, parameters: Sequence[tuple[str, str]], taken: frozenset[str]) -> str:
    """Add parameters to an endpoint's URL, and drop those of its own that are `taken` (RFC 6749 section 3.1).

    That section allows no fragment, but some providers have one. Where it is a page's route ("#/authorize"), the page
    reads the parameters from behind it; any other is a mark that stays at the end.
    """
    parts = urlsplit(endpoint)
    route, _, behind = parts.fragment.partition("?")
    if not route.startswith("/"):
        return urlunsplit(parts._replace(query=urlencode([*_kept(parts.query, taken), *parameters])))
    # A space as %20: not every page reads a "+" behind its "#" as one.
    query = urlencode([*_kept(behind, taken), *parameters], quote_via=quote)
    return urlunsplit(parts._replace(query=urlencode(_kept(parts.query, taken)), fragment=f"{route}?{query}"))


def _kept(query: str, taken: frozenset[str]) -> list[tuple[str, str]]:
    own = parse_qsl(query, keep_blank_values=True)
    return [(name, value) for name, value in own if name not in taken or (name == "request" and "." not in value)]


_ERROR_NAMES = (
    *("error", "error_code", "errorCode", "error_type", "errorType", "oauth_error", "oauth_problem", "err"),
    *("error_subtype", "error_reason"),
)
_DESCRIPTION_NAMES = (
    *("error_description", "errorDescription", "error_message", "errorMessage", "error_msg", "error_detail"),
    *("error_details", "err_msg", "error_reason", "error_subtype"),
)
"""What providers call `error` and `error_description`, the plainest first: `error_code` and `error_message` are
Facebook's. `denied` (of OAuth 1) says by being there that the person refused."""


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
    NAMES: ClassVar = frozenset({"code", "state", "iss", "denied", *_ERROR_NAMES, *_DESCRIPTION_NAMES})
    """The parameters that are read, but for those that a provider's quirks name."""

    captured: Mapping[str, str] = field(default_factory=dict)
    """What the provider's quirks take from the callback, by variable, not yet checked."""

    def __repr__(self) -> str:
        """Show the error only: a code and a state are credentials."""
        return f"AuthorizationResponse(error={self.error!r})"

    @classmethod
    def parse(cls, params: Mapping[str, str], quirks: Quirks = NO_QUIRKS) -> "AuthorizationResponse":
        """Read the callback's query or form; one with neither a code nor an error becomes `invalid_response`.

        Some providers have names of their own for what RFC 6749 calls `error`. They count where there is no code.
        """
        names = quirks.callback_names

        def first(*candidates: str) -> str:
            return next((text for name in candidates if (text := provider_text(params.get(name, "")))), "")

        error = first(names.get("error", "error"))
        description = first(names.get("error_description", "error_description"), *_DESCRIPTION_NAMES)
        code = "" if error else params.get(names.get("code", "code"), "")
        if not error and not code:
            error = first(*_ERROR_NAMES) or ("access_denied" if params.get("denied") else "invalid_response")
            if error == "invalid_response":
                description = description or "The provider sent back neither a code nor an error."
        return cls(
            code=code,
            state=params.get("state", ""),
            iss=params.get("iss", ""),
            error=error,
            error_description=description,
            captured=quirks.captured("callback", params.get),
        )


def check_issuer(response: AuthorizationResponse, server: ServerMetadata, quirks: Quirks = NO_QUIRKS) -> None:
    """Refuse an answer from another server than the one that was asked (mix-up attack, RFC 9207 section 2.4).

    Where the provider's issuer is not known, an answer may name what has the origin of one of its endpoints.

    Raises:
        ConnectFailed: `issuer_mismatch`; the code must not be redeemed.
    """
    if not response.iss:
        # An error redeems nothing, and who leaves the state out of it leaves out more.
        if response.code and server.issuer and server.authorization_response_iss_parameter_supported:
            raise ConnectFailed(
                "issuer_mismatch",
                "The answer does not say which provider it is from, and it should. Connect again.",
            )
        return
    if server.issuer:
        if not stands_for(server.issuer, response.iss):
            raise ConnectFailed(
                "issuer_mismatch",
                "The answer came from another provider than the one that was asked. Connect again.",
            )
        return
    endpoints = (server.authorization_endpoint, server.token_endpoint)
    if not any(same_origin(response.iss, quirks.fill(endpoint).partition("#")[0]) for endpoint in endpoints):
        raise ConnectFailed(
            "issuer_mismatch",
            f"The answer says that it is from {provider_text(response.iss)}, which is not where this app's endpoints "
            "are. If it is the app's provider, set the app's issuer to that.",
        )
