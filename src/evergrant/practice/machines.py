"""Tokens for machines: by client credentials (RFC 6749 section 4.4), and by signed assertions (RFC 7523)."""

import base64
import binascii
import json
from collections.abc import Mapping

from joserfc import jwt
from joserfc.errors import JoseError

from evergrant import clock
from evergrant.practice.refusal import Refusal
from evergrant.practice.state import Machine, ProviderState, Tokens

JWT_BEARER = "urn:ietf:params:oauth:grant-type:jwt-bearer"
LEEWAY_SECONDS = 180
"""By so much a machine's clock may be wrong."""
LONGEST_SECONDS = 3600
"""An assertion that is good for longer is refused."""


def presented_by(sent: Mapping[str, str]) -> str:
    """Return what a call of /token presents, before anything is checked: a refresh token, or a machine's id."""
    if sent.get("grant_type") == "client_credentials":
        return sent.get("client_id", "")
    if sent.get("grant_type") == JWT_BEARER:
        return _issuer_of(sent.get("assertion", ""))
    return sent.get("refresh_token", "")


def issue_for_itself(state: ProviderState, form: Mapping[str, str], client_id: str) -> Tokens:
    """Issue a token for a machine that has authenticated by its secret."""
    machine = state.machines.get(client_id)
    if machine is None:
        raise Refusal("unauthorized_client", "This client may not ask for itself.")
    return _issue(state, machine, form)


def issue_for_assertion(state: ProviderState, form: Mapping[str, str]) -> Tokens:
    """Issue a token for a machine whose key has signed an assertion for this token endpoint."""
    assertion = form.get("assertion", "")
    issuer = _issuer_of(assertion)
    machine = state.machines.get(issuer)
    if machine is None or machine.key is None:
        raise Refusal("invalid_grant", "The assertion is nobody's that is known.")
    now = int(clock.now().timestamp())
    rules = jwt.JWTClaimsRegistry(
        now=now,
        leeway=LEEWAY_SECONDS,
        iss={"essential": True, "value": issuer},
        aud={"essential": True, "value": f"{state.issuer}/token"},
        exp={"essential": True},
        iat={"essential": True},
    )
    try:
        claims = jwt.decode(assertion, machine.key, algorithms=["ES256", "RS256"]).claims
        rules.validate(claims)
    except (JoseError, ValueError) as error:
        raise Refusal("invalid_grant", f"The assertion is not good: {error}") from None
    if claims["exp"] - claims["iat"] > LONGEST_SECONDS:
        raise Refusal("invalid_grant", "The assertion is good for too long.")
    return _issue(state, machine, form)


def _issue(state: ProviderState, machine: Machine, form: Mapping[str, str]) -> Tokens:
    scopes = frozenset(form.get("scope", "").split()) or machine.family.scopes
    if not scopes <= machine.family.scopes:
        raise Refusal("invalid_scope", "The machine may not have all of that.")
    return state.issue(machine.family, scopes=scopes, with_refresh_token=False)


def _issuer_of(assertion: str) -> str:
    try:
        part = assertion.split(".")[1]
        issuer = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))).get("iss", "")
    except (IndexError, ValueError, AttributeError, binascii.Error):
        return ""
    return issuer if isinstance(issuer, str) else ""
