"""What tokens are obtained with where there is no refresh token, as data: a signed assertion, and login requests.

A catalogue entry is made of these shapes. Their texts hold `{names}`: variables of the app and the connection, the
fields of its credentials, `{client_id}`, `{client_secret}`, `{scope}`, and what each step has brought.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from evergrant.oauth2.quirk_types import Headers, Url

SigningAlg = Literal["RS256", "RS384", "RS512", "PS256", "ES256", "ES384", "EdDSA", "HS256", "HS512"]
Claims = dict[str, str | int | list[str]]
"""Texts are filled; one that comes out empty is left out."""


@dataclass(frozen=True, slots=True)
class Assertion:
    """A JWT that evergrant signs (RFC 7519): it stands for `{assertion}`, or is the token itself."""

    alg: SigningAlg
    key: str = "{signing_key}"
    """What signs: a private key in PEM or as a JWK, or a shared secret with HS256 and HS512. It is the app's own
    `{signing_key}`, its `{client_secret}`, or a field of the connection's credentials."""
    key_encoding: Literal["text", "hex", "base64"] = "text"
    """How a shared secret is written."""
    header: Mapping[str, str] = field(default_factory=dict)
    """Beside `alg` and `typ`: `{ kid = "{key_id}" }`."""
    claims: Annotated[Claims, Field(min_length=1)] = field(default_factory=dict)
    """Beside `iat` and `exp`. `{public_key_sha256}` is the key's fingerprint, in base64."""
    seconds: Annotated[int, Field(ge=60, le=86_400)] = 300
    """From `iat` to `exp`."""
    backdated: Annotated[int, Field(ge=0, le=300)] = 0
    """So many seconds before now is `iat`, for providers whose clocks are behind."""
    jti: bool = False
    """A random `jti` in each."""


def _login_pointers(pointers: Mapping[str, str]) -> Mapping[str, str]:
    for name, pointer in pointers.items():
        if not pointer.startswith("/"):
            raise ValueError(f"{name}: use a JSON pointer, like /data/id")
    return pointers


@dataclass(frozen=True, slots=True)
class LoginStep:
    """One request of a login. The last one's answer holds the token, where the entry's `token_response` says."""

    url: Url
    method: Literal["POST", "GET", "PUT"] = "POST"
    format: Literal["form", "json", "query"] = "json"
    headers: Headers = field(default_factory=dict)
    basic: str = ""
    """`name:password` for HTTP Basic, with `{names}`."""
    body: Mapping[str, Any] = field(default_factory=dict)
    """Its texts are filled, however deep they are; those that come out empty are left out."""
    keep: Annotated[Mapping[str, str], AfterValidator(_login_pointers)] = field(default_factory=dict)
    """JSON pointers into the answer, by the name that later steps use them by."""
