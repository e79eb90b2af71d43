"""What to do about the error words of OAuth: general ones; what is peculiar about a provider is in the catalogue."""

from collections.abc import Mapping
from dataclasses import dataclass

CALLBACK = (
    "Register {callback} at {name}, exactly so: the same scheme and host, no slash more or less. Some providers take a "
    "few minutes until it counts."
)
CLIENT = (
    "Copy the client id and the secret from {name} again, both of the same client and the same environment. If they "
    "are right, another way to authenticate may be wanted: tokenEndpointAuthMethod."
)
SCOPES = (
    "{name} does not know one of the scopes, or has not given it to this client. Compare them with its list, letter by "
    "letter, and turn on there what they belong to."
)
PERSON = (
    "If you said no yourself, test again. If {name} did: the account may lack a role, or an administrator of its "
    "organisation has to allow the app first."
)
AGAIN = "Test again. If it comes back, {name}'s status page may know of it."
PROMPT = "prompt asks {name} to show nothing, and it has to: take 'none' off the app's prompt."
KIND = "Turn on the authorization code flow for this client at {name}, with refresh tokens where it asks."
OPENID = (
    "Check the issuer and the JWKS URL of the app, and that the client id is the one that {name} signs for. Without "
    "the scope openid there is no id_token."
)

REMEDIES: Mapping[str, str] = {
    "access_denied": PERSON,
    "app_changed": "Its addresses were changed while the test was under way. Test again.",
    "callback_mismatch": CALLBACK,
    "consent_required": PROMPT,
    "expired": "You have 15 minutes at the provider. Test again.",
    "interaction_required": PROMPT,
    "invalid_client": CLIENT,
    "invalid_grant": (
        "The code came too late, twice, or from another callback URL than the registered one. Test again; then compare "
        "the callback URL, and the PKCE setting, with the client at {name}."
    ),
    "invalid_id_token": OPENID,
    "invalid_request": (
        "{name} misses a parameter or refuses one. Compare the parameters that the app adds, PKCE and the scopes with "
        "its documentation."
    ),
    "invalid_response": "Compare the authorization endpoint and the parameters with {name}'s documentation.",
    "invalid_scope": SCOPES,
    "invalid_target": "Take the app's resource off, or give the one that {name} documents (RFC 8707).",
    "issuer_mismatch": (
        "The answer came from another issuer than the app has. Give the issuer that {name}'s metadata says, or load "
        "the metadata again by its discovery URL."
    ),
    "login_required": PROMPT,
    "redirect_uri_mismatch": CALLBACK,
    "server_error": AGAIN,
    "temporarily_unavailable": AGAIN,
    "unauthorized_client": KIND,
    "unsupported_grant_type": KIND,
    "unsupported_response_type": KIND,
}
OTHERWISE = "Look the code up in {name}'s documentation: it is theirs."


@dataclass(frozen=True, slots=True)
class Saying:
    """What a provider's own error page may say, and what to do then."""

    words: str
    remedy: str


_SAYINGS = (
    Saying("redirect_uri_mismatch, or: the redirect URI is not registered", CALLBACK),
    Saying(
        "Access blocked, or: the app is not verified",
        "The client is not published there. Add your account as a tester at {name}, or publish and verify the client.",
    ),
    Saying("invalid_scope, or: a permission is unknown", SCOPES),
    Saying("invalid_client, or: the application was not found", CLIENT),
    Saying("An administrator has to approve the app", PERSON),
    Saying("unauthorized_client, or: the response type is not supported", KIND),
    Saying("Nothing: the page stayed empty, or I closed it", AGAIN),
)


def remedy_for(code: str, *, name: str, callback: str) -> str:
    """Return what to do about an error code of a provider called `name`."""
    return _said(REMEDIES.get(code, OTHERWISE), name, callback)


def sayings(*, name: str, callback: str) -> tuple[Saying, ...]:
    """Return what a provider's page may say to somebody who does not come back from it."""
    return tuple(Saying(one.words, _said(one.remedy, name, callback)) for one in _SAYINGS)


def _said(text: str, name: str, callback: str) -> str:
    return text.replace("{name}", name).replace("{callback}", callback)
