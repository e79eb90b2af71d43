"""What is wrong with a policy that somebody wants to make, by field."""

from collections.abc import Callable, Sequence

from evergrant.broker.runtime.admission import ACTIONS, CALL, EFFECTS, LEVELS, VIAS
from evergrant.broker.runtime.path_globs import glob_problem, method_problem
from evergrant.db import AccessPolicy

MAX_TEXT = 2_000
MAX_AGENT = 255
Problems = list[tuple[str, str]]


def problems_of_policy(policy: AccessPolicy) -> Problems:
    """Return what is wrong with a policy: each field, and what to do."""
    action = policy.action
    problems = [] if action in ACTIONS else [("action", f"use {', '.join(ACTIONS[:-1])} or {ACTIONS[-1]}")]
    problems += [("claims", "give each claim at least one value") for values in policy.claims.values() if not values]
    problems += _each("levels", policy.levels, lambda level: "" if level in LEVELS else f"use {' or '.join(LEVELS)}")
    problems += _each("scopes", policy.scopes, lambda scope: "" if scope.split() == [scope] else "each is one word")
    problems += _each("agents", policy.agents, _agent_problem)
    problems += _too_long_or_many(policy)
    return problems + (_problems_of_call(policy) if action == CALL else _only_for_calls(policy))


def _problems_of_call(policy: AccessPolicy) -> Problems:
    problems = [("scopes", "limit calls by methods and paths instead")] if policy.scopes else []
    problems += _each("methods", policy.methods, method_problem)
    problems += _each("paths", policy.paths, glob_problem)
    problems += _each("via", policy.via, lambda via: "" if via in VIAS else f"use {' or '.join(VIAS)}")
    if policy.effect not in EFFECTS:
        problems.append(("effect", f"use {', '.join(EFFECTS[:-1])} or {EFFECTS[-1]}"))
    return problems


def _only_for_calls(policy: AccessPolicy) -> Problems:
    given = {"methods": policy.methods, "paths": policy.paths, "via": policy.via, "effect": policy.effect != "allow"}
    return [(field, "leave it out: it is for the action 'call'") for field, value in given.items() if value]


def _agent_problem(agent: str) -> str:
    return "" if agent and len(agent) <= MAX_AGENT else f"give each agent's id, of at most {MAX_AGENT} characters"


def _each(field: str, values: Sequence[str], problem_of: Callable[[str], str]) -> Problems:
    return [(field, problem) for problem in dict.fromkeys(problem_of(value) for value in values) if problem]


def _too_long_or_many(policy: AccessPolicy) -> Problems:
    claims = policy.claims
    values = [value for some in claims.values() for value in some]
    many = [("claims", len(claims), 20), ("keyIds", len(policy.key_ids), 100), ("scopes", len(policy.scopes), 500)]
    many += [("claims", len(some), 100) for some in claims.values()]
    many += [("paths", len(policy.paths), 100), ("agents", len(policy.agents), 100)]
    long = [("claims", [*claims, *values]), ("scopes", policy.scopes)]
    return [(field, f"use at most {most}") for field, n, most in many if n > most] + [
        (field, f"use at most {MAX_TEXT:,} characters for each")
        for field, texts in long
        if any(len(text) > MAX_TEXT for text in texts)
    ]
