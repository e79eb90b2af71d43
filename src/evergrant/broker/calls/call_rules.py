"""What a call may do: the verdict on one request, by the app, the session and the policies. Pure: nothing is asked.

A path can be read in several ways, and which of them the provider takes is not known. So each reading has a verdict of
its own, and the worst one holds: a deny or an approval is asked for by any reading, and an allow holds for all of them.
What forbids is read as a forgiving server would (`covers_alike`); what allows, to the letter.

| first that applies | verdict |
|---|---|
| the call hands out credentials | deny, `forbidden` |
| the session does not let it be | deny, `session` |
| a policy denies it | deny, the policy's id |
| there are policies, and none is about it | deny, `policies` |
| a policy, or the session, asks for approval | approve, the policy's id or `session` |
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from evergrant.broker.calls.asked import Via
from evergrant.broker.runtime.admission import LEVELS, Policy, is_about
from evergrant.broker.runtime.agent_limits import SessionApp
from evergrant.broker.runtime.path_globs import covers, covers_alike
from evergrant.broker.runtime.principal import Principal

Effect = Literal["allow", "deny", "approve"]
READS = frozenset({"GET", "HEAD", "OPTIONS"})
_SEVERITY = {"allow": 0, "approve": 1, "deny": 2}


@dataclass(slots=True, kw_only=True)
class Requested:
    """A call, as far as rules are about it."""

    app_id: str
    method: str
    paths: tuple[str, ...] = field(repr=False)
    """Every reading of the path below the base: as it came, with `%2F` decoded, wholly decoded."""
    via: Via
    level: str
    """Whose connection: `user` or `tenant`."""
    query: str = field(default="", repr=False)
    """As it came."""


@dataclass(slots=True)
class Verdict:
    """What becomes of a call."""

    effect: Effect
    rule: str = ""
    """What says so: a policy's id, `session`, `forbidden`, or `policies` where none is about it. Empty: nothing."""


def verdict(
    policies: Sequence[Policy],
    principal: Principal,
    requested: Requested,
    *,
    forbidden: Sequence[str],
    safe: Sequence[str],
) -> Verdict:
    """Return what becomes of a call.

    `policies` are all of the app about calls. `forbidden` and `safe` are the API's rules, like `POST /search/*`: what
    hands out credentials, and what only reads although it is a POST.
    """
    if any(_is_forbidden(rule, requested) for rule in forbidden):
        return Verdict("deny", "forbidden")
    reads = is_read(requested, safe)
    by_session = _by_session(principal, requested, reads=reads)
    if by_session.effect == "deny":
        return by_session
    if not policies:
        return by_session
    about = [policy for policy in policies if _is_about(policy, principal, requested)]
    found = [_by_policies(about, path) for path in requested.paths]
    # Of two that are as bad, the last reading's says it, and the session only what no policy does.
    return max((*reversed(found), by_session), key=_severity)


def _severity(said: Verdict) -> int:
    return _SEVERITY[said.effect]


def is_read(requested: Requested, safe: Sequence[str]) -> bool:
    """Tell whether a call changes nothing, by its method or by the API's rules."""
    return requested.method in READS or any(_is_safe(rule, requested) for rule in safe)


def _by_policies(about: Sequence[Policy], path: str) -> Verdict:
    """Return the verdict on one reading of a path, by the policies that are about everything else of the call."""
    if denies := _first(about, "deny", path):
        return Verdict("deny", denies.id)
    # An approval that only a forgiving server would ask for lets nothing be that no policy is about to the letter.
    for lets in about:
        if lets.effect != "deny" and _is_below(lets.paths, path):
            break
    else:
        return Verdict("deny", "policies")
    if asks := _first(about, "approve", path):
        return Verdict("approve", asks.id)
    return Verdict("allow", lets.id)


def _by_session(principal: Principal, requested: Requested, *, reads: bool) -> Verdict:
    if principal.session is None:
        return Verdict("allow")
    limits = principal.session.apps.get(requested.app_id)
    if limits is None or not _session_lets(limits, requested, reads=reads):
        return Verdict("deny", "session")
    asks = limits.approve == "always" or (limits.approve == "writes" and not reads)
    return Verdict("approve", "session") if asks else Verdict("allow")


def _session_lets(limits: SessionApp, requested: Requested, *, reads: bool) -> bool:
    if limits.access != "write" and not reads:
        return False
    if limits.methods and requested.method not in limits.methods:
        return False
    return all(_is_below(limits.paths, path) for path in requested.paths)


def _is_about(policy: Policy, principal: Principal, requested: Requested) -> bool:
    return (
        (not policy.methods or requested.method in policy.methods)
        and (not policy.via or requested.via in policy.via)
        and requested.level in (policy.levels or LEVELS)
        and is_about(policy, principal)
    )


def _first(about: Sequence[Policy], effect: Effect, path: str) -> Policy | None:
    for policy in about:
        if policy.effect == effect and (not policy.paths or any(covers_alike(glob, path) for glob in policy.paths)):
            return policy
    return None


def _is_below(globs: Sequence[str], path: str) -> bool:
    return not globs or any(covers(glob, path) for glob in globs)


def _is_forbidden(rule: str, requested: Requested) -> bool:
    method, _, place = rule.partition(" ")
    glob = place.partition("?")[0]  # whatever stands in the query: that can be written in many ways
    return method in ("*", requested.method) and any(covers_alike(glob, path) for path in requested.paths)


def _is_safe(rule: str, requested: Requested) -> bool:
    method, _, place = rule.partition(" ")
    glob, _, query = place.partition("?")
    if method not in ("*", requested.method) or (query and query != requested.query):
        return False
    return all(covers(glob, path) for path in requested.paths)
