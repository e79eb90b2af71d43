"""Which people of an identity provider may be operators, and with which role: rules as the settings write them."""

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

ROLES = ("viewer", "operator", "admin")
"""What people at the console can be, from the least to the most."""
DEFAULT_ROLE = "viewer"


def check_allowed(rules: Sequence[str]) -> None:
    """Check who may sign in: addresses, domains as `@example.com`, or `claim=value`.

    Raises:
        ValueError: one is none of these.
    """
    for rule in rules:
        claim, equals, value = rule.partition("=")
        if not (claim.strip() and value.strip()) if equals else not re.fullmatch(r"[^@\s]*@[^@\s]+", rule):
            raise ValueError(f"'{rule}' is neither an address, nor a domain like @example.com, nor claim=value")


def check_roles(rules: Sequence[str]) -> None:
    """Check who is what: `claim:value=role`, and at most one role alone, for everybody else.

    Raises:
        ValueError: one is neither.
    """
    for rule in rules:
        who, _, role = rule.rpartition("=")
        claim, colon, value = who.partition(":")
        if role not in ROLES or (("=" in rule) and not (claim and colon and value)):
            raise ValueError(f"'{rule}' is not claim:value=role, nor a role alone; roles are {', '.join(ROLES)}")
    if sum("=" not in rule for rule in rules) > 1:
        raise ValueError("give at most one role alone: it is for everybody whom no other rule fits")


def is_allowed(rules: Sequence[str], claims: Mapping[str, Any]) -> bool:
    """Tell whether claims, verified, are those of somebody who may sign in."""
    address = verified_address(claims)
    domain = address.rpartition("@")[2]
    for rule in rules:
        claim, equals, value = rule.partition("=")
        if equals:
            if _says(claims, claim, value):
                return True
        elif rule.startswith("@"):
            if domain and domain == _small(rule[1:]):
                return True
        elif address and address == _small(rule):
            return True
    return False


def role_of(rules: Sequence[str], claims: Mapping[str, Any]) -> str:
    """Return the greatest role that a rule gives; without one the role that stands alone, or `viewer`."""
    found = []
    for rule in rules:
        who, equals, role = rule.rpartition("=")
        claim, _, value = who.partition(":")
        if equals and _says(claims, claim, value):
            found.append(role)
    alone = next((rule for rule in rules if "=" not in rule), DEFAULT_ROLE)
    return max(found, key=ROLES.index) if found else alone


def verified_address(claims: Mapping[str, Any]) -> str:
    """Return the address that the provider vouches for (`email_verified`), in small letters; empty for none."""
    address = claims.get("email")
    # "true" as a text is how some providers say it, against OpenID Connect Core section 5.1.
    if claims.get("email_verified") not in (True, "true") or not isinstance(address, str):
        return ""
    return _small(address) if address.isprintable() and address.count("@") == 1 else ""


def _says(claims: Mapping[str, Any], claim: str, value: str) -> bool:
    """Tell whether a claim has a value: an address only where the provider vouches for it. People type theirs."""
    name, wanted = claim.strip(), value.strip()
    if name == "email":
        return _small(wanted) == verified_address(claims) != ""
    return wanted in _values(claims.get(name))


def _small(address: str) -> str:
    """Return an address in small letters. Only of ASCII: beyond it, other letters become the same (U+212A is a `k`)."""
    return address.lower() if address.isascii() else address


def _values(claim: object) -> Collection[str]:
    """Return a claim's values as text: one, or those of a list."""
    values = claim if isinstance(claim, list) else [claim]
    return {str(value).lower() if isinstance(value, bool) else str(value) for value in values if value is not None}
