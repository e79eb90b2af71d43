"""Trying a token: what a user's JWT may do here, and claim by claim why. It is neither kept nor counted."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from evergrant.broker.access.policies import list_policies
from evergrant.broker.access.user_tokens import looks_like_jwt, principal_by
from evergrant.broker.apps.apps import list_apps
from evergrant.broker.projects.trusted_issuers import list_issuers
from evergrant.broker.runtime.admission import ACTIONS, CALL, FETCH, TENANT, USER, is_about
from evergrant.broker.runtime.broker import Broker
from evergrant.broker.runtime.principal import CALL_SCOPE, FETCH_SCOPE, Permission, Principal
from evergrant.db import AccessPolicy, TrustedIssuer
from evergrant.errors import EvergrantError
from evergrant.oauth2.signed_token import (
    InvalidToken,
    check_parties,
    check_times,
    header_of,
    signed_claims,
    unverified_claims,
)

MOST_APPS = 200
_NEEDED = {FETCH: (Permission.TOKENS_FETCH, FETCH_SCOPE), CALL: (Permission.CALLS, CALL_SCOPE)}
"""What a token has to say for an action."""


@dataclass(frozen=True, slots=True)
class TokenCheck:
    """One thing that was looked at."""

    claim: str
    """The claims that it is about, or what else of a token."""
    good: bool
    says: str


@dataclass(frozen=True, slots=True)
class AppVerdict:
    """What a user may do with one app."""

    app_id: str
    app_name: str
    action: str
    allowed: bool
    scopes: Sequence[str] = ()
    """At most these; empty for any."""
    why: str = ""


@dataclass(slots=True)
class TokenVerdict:
    """What a token may do, and why."""

    checks: list[TokenCheck] = field(default_factory=list)
    issuer_id: str = ""
    user_id: str = ""
    tenant_ids: Sequence[str] = ()
    apps: list[AppVerdict] = field(default_factory=list)

    @property
    def accepted(self) -> bool:
        """Whether evergrant would take it as a credential."""
        return bool(self.checks) and all(check.good for check in self.checks)

    def note(self, claim: str, problem: str, good: str) -> bool:
        """Note one check; an empty problem is none."""
        self.checks.append(TokenCheck(claim, not problem, f"{problem or good}."))
        return not problem


async def try_token(broker: Broker, project_id: str, token: str, *, now: datetime) -> TokenVerdict:
    """Look at a token as a call with it would be looked at, in this project, and say what is found.

    It raises nothing for a token that is wrong: that is the answer.
    """
    verdict, token = TokenVerdict(), token.strip().removeprefix("Bearer ").strip()
    _, _, token = token.rpartition(":")
    try:
        header, claims = header_of(token), unverified_claims(token)
    except InvalidToken as error:
        verdict.note("JWT", str(error), "")
        return verdict
    problem = "" if looks_like_jwt(token) else "it is longer than evergrant takes"
    if not verdict.note("JWT", problem, f"It is signed with {_short(header.get('alg'))}"):
        return verdict
    trusted = await _issuer_of(broker, project_id, claims, verdict)
    if trusted is None:
        return verdict
    verdict.issuer_id = trusted.id
    if not await _is_signed(broker, trusted, token, header, verdict, now=now):
        return verdict
    _check_claims(trusted, claims, verdict, now=now)
    if verdict.accepted:
        principal = principal_by(trusted, claims)
        verdict.user_id, verdict.tenant_ids = principal.user_id, sorted(principal.tenant_ids)
        verdict.note("scope", "", _scope_said(principal))
        if principal.agent:
            verdict.note("act", "", f"Policies and logs know its agent as {_short(principal.agent)}")
        verdict.apps = await _apps_of(broker, principal)
    return verdict


async def _issuer_of(
    broker: Broker, project_id: str, claims: Mapping[str, Any], verdict: TokenVerdict
) -> TrustedIssuer | None:
    issuer = claims.get("iss")
    found = next((one for one in await list_issuers(broker, project_id) if one.issuer == issuer), None)
    problem = ""
    if found is None:
        problem = f"{_short(issuer)} is not trusted here" if issuer else "the token names no issuer"
    verdict.note("iss", problem, f"{_short(issuer)} is trusted")
    return found


async def _is_signed(
    broker: Broker,
    trusted: TrustedIssuer,
    token: str,
    header: Mapping[str, Any],
    verdict: TokenVerdict,
    *,
    now: datetime,
) -> bool:
    problem = ""
    try:
        await signed_claims(broker.http, trusted.jwks_url, token, now=now)
    except InvalidToken as error:
        problem = str(error)
    except EvergrantError as error:
        problem = error.message.rstrip(".")
    return verdict.note("signature", problem, f"It is signed by the issuer's key {_short(header.get('kid', ''))}")


def _check_claims(trusted: TrustedIssuer, claims: Mapping[str, Any], verdict: TokenVerdict, *, now: datetime) -> None:
    problem = _problem(lambda: check_times(claims, now))
    until = claims.get("exp")
    ends = f"{datetime.fromtimestamp(until, UTC):%Y-%m-%d %H:%M:%S} UTC" if not problem and until else ""
    verdict.note("exp", f"{problem}{_time_said(claims, 'exp')}" if problem else "", f"It is valid until {ends}")
    audience = trusted.audience
    problem = _problem(lambda: check_parties(claims, issuer=trusted.issuer, audience=audience, recipient="audience"))
    verdict.note("aud", f"{problem}, and must be for {_short(audience)}" if problem else "", f"It is for {audience}")
    if not verdict.accepted:
        return
    principal: list[Principal] = []
    problem = _problem(lambda: principal.append(principal_by(trusted, claims)))
    who = principal[0] if principal else None
    if who is None or who.user_id:
        verdict.note(trusted.user_claim, problem, f"The user is {who.user_id if who else ''}")
    else:
        verdict.note(trusted.user_claim, "", "It is a machine's, and stands for its tenant alone")
    if trusted.tenant_claim and who is not None:
        tenants = ", ".join(sorted(who.tenant_ids))
        verdict.note(trusted.tenant_claim, "", f"The tenant is {tenants}" if tenants else "It names no tenant")


def _scope_said(principal: Principal) -> str:
    if Permission.TOKENS_FETCH in principal.permissions:
        return f"With {FETCH_SCOPE} it may fetch tokens, and have calls made"
    if Permission.CALLS in principal.permissions:
        return f"With {CALL_SCOPE} it may have calls made, and not fetch; that takes {FETCH_SCOPE}"
    return f"It may connect, and neither have calls made ({CALL_SCOPE}) nor fetch ({FETCH_SCOPE})"


async def _apps_of(broker: Broker, principal: Principal) -> list[AppVerdict]:
    """Return what a user may do with each app, as far as policies say."""
    policies = await list_policies(broker, principal.project_id)
    found = []
    for app in (await list_apps(broker, principal.project_id))[:MOST_APPS]:
        for action in ACTIONS:
            permission, scope = _NEEDED.get(action, ("", ""))
            if permission and permission not in principal.permissions:
                why = f"the token lacks the scope {scope}"
                found.append(AppVerdict(app.id, app.name, action, False, (), why))
                continue
            mine = [policy for policy in policies if (policy.app_id, policy.action) == (app.id, action)]
            found.append(_verdict(app.id, app.name, action, mine, principal))
    return found


def _verdict(app_id: str, name: str, action: str, policies: Sequence[AccessPolicy], principal: Principal) -> AppVerdict:
    if not policies:
        return AppVerdict(app_id, name, action, True, (), "no policy limits it")
    levels = {*([USER] if principal.user_id else []), *([TENANT] if principal.tenant_ids else [])}
    about = [
        policy
        for policy in policies
        if is_about(policy, principal)
        and (not policy.levels or levels.intersection(policy.levels))
        and policy.effect != "deny"
    ]
    if not about:
        return AppVerdict(app_id, name, action, False, (), "no policy of this app is about this token")
    if action == CALL and not any(_is_whole(policy) for policy in policies if is_about(policy, principal)):
        return AppVerdict(app_id, name, action, True, (), "policies allow some calls")
    if any(not policy.scopes for policy in about):
        return AppVerdict(app_id, name, action, True, (), "a policy allows it")
    scopes = sorted({scope for policy in about for scope in policy.scopes})
    return AppVerdict(app_id, name, action, True, scopes, "a policy allows these scopes at most")


def _is_whole(policy: AccessPolicy) -> bool:
    return policy.effect == "allow" and not (policy.methods or policy.paths or policy.via)


def _problem(check: Any) -> str:
    try:
        check()
    except InvalidToken as error:
        return str(error)
    return ""


def _time_said(claims: Mapping[str, Any], name: str) -> str:
    value = claims.get(name)
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not 0 <= value < 253_402_300_800:
        return ""
    return f" ({name} is {datetime.fromtimestamp(value, UTC):%Y-%m-%d %H:%M:%S} UTC)"


def _short(value: object) -> str:
    """Return a value of a token for people: nobody has verified it."""
    text = str(value)
    return text if len(text) <= 200 else f"{text[:200]}..."
