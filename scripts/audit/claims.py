"""What one package says about one provider, in the words of the catalogue."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

ENDPOINTS = ("authorization_endpoint", "token_endpoint")
"""A package that says both, as we do, agrees with us."""

_ROLES = {
    "authorization_endpoint": "authorizationurl authorizeurl authurl userauthorizationurl authorizationendpoint"
    " authorizeendpoint authorizationuri",
    "token_endpoint": "accesstokenurl tokenurl accessurl accesstokenendpoint tokenendpoint accesstokenuri tokenuri",
    "refresh_endpoint": "refreshtokenurl refreshurl autorefreshurl refreshtokenendpoint refreshendpoint",
    "revocation_endpoint": "revoketokenurl revokeurl revocationurl revoketokenendpoint revokeendpoint"
    " revocationendpoint tokenrevocationendpoint",
    "auth_method": "tokenendpointauthmethod tokenrequestauthmethod",
    "scope_separator": "scopeseparator scopedelimiter",
    "oauth1": "requesttokenurl requesturl temporary",
    "api_call": "profileurl profileendpoint userinfourl userinfoendpoint userinfo userurl userdataurl identityurl"
    " apiurl apibaseurl baseurl",
}
_FIELD_OF = {word: name for name, words in _ROLES.items() for word in words.split()}
_METHODS = {
    "basic": "client_secret_basic",
    "header": "client_secret_basic",
    "post": "client_secret_post",
    "body": "client_secret_post",
}


@dataclass(frozen=True)
class Claim:
    """What a package says about a provider."""

    source: str
    """The package."""
    name: str
    """What the package calls the provider."""
    facts: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Values by field; several where the package offers a choice. URLs hold `{name}` where something is filled in."""

    @property
    def is_of_an_api(self) -> bool:
        """Whether it says where an API is, or how a call carries the credential."""
        return "api_base" in self.facts or "placement" in self.facts

    @property
    def is_whole(self) -> bool:
        """Whether it names both endpoints of OAuth 2: less says nothing that could be compared."""
        return "oauth1" not in self.facts and all(self.facts.get(name) for name in ENDPOINTS)


def field_of(name: str) -> str:
    """Return the field that a name in a program means (`ACCESS_TOKEN_URL`, `tokenUrl`); empty for any other name."""
    return _FIELD_OF.get(re.sub(r"[^a-z]", "", name.lower()), "")


def normal_value(name: str, value: str) -> str:
    """Return a value as the catalogue writes it; empty when it is not one that the field can have."""
    value = value.strip()
    if name.endswith("_endpoint") or name in ("api_base", "api_call"):
        value = re.sub(r"\$?\{\{.*?\}\}|\$\{[^}]*\}|\[[^\]]*\]", "{x}", value.removeprefix("="))
        value = re.sub(r"^(https?://)+", "https://", value)
        value = re.sub(r"^(https://[^/{]*\.[a-z]{2,})\{[^}]*\}(?=/)", r"\1", value)  # the start of a path, or nothing
        return value if re.match(r"https://[^/]|\{[^}]*\}/", value) else ""
    if name == "auth_method":
        value = _METHODS.get(value, value)
        return value if re.fullmatch(r"client_secret_(basic|post|jwt)|private_key_jwt|none", value) else ""
    if name == "scope_separator":
        return {"%20": " "}.get(value, value) or " "
    return value


def add(facts: dict[str, tuple[str, ...]], name: str, value: str) -> None:
    """Add a value to `facts`, unless it is none or is there already."""
    value = normal_value(name, value)
    if value and value not in facts.get(name, ()):
        facts[name] = (*facts.get(name, ()), value)
