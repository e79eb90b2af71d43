"""What a call may do: the verdict against a naive reading of the rules, and ways round a rule that servers offer."""

import re
from dataclasses import replace
from itertools import product
from typing import Any
from urllib.parse import unquote

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from evergrant.broker.calls.call_rules import Requested, Verdict, verdict
from evergrant.broker.runtime.agent_limits import AgentLimits, SessionApp
from evergrant.broker.runtime.path_globs import covers, covers_alike, glob_problem
from evergrant.broker.runtime.principal import Principal
from evergrant.db import AccessPolicy

KEY = Principal(
    project_id="P",
    key_id="backend",
    permissions=frozenset({"calls"}),
    app_ids=frozenset(),
    networks=(),
    expires_at=None,
)
SEGMENT = st.sampled_from(["v1", "V1", "a", "ab", "%61", "a;x", "", "b%2Fc", "b", "c"])
PATHS = st.lists(SEGMENT, min_size=1, max_size=4).map(lambda names: "/" + "/".join(names))
GLOBS = st.lists(st.sampled_from(["v1", "a", "a*", "*", "**", "b", "c"]), min_size=1, max_size=4).map(
    lambda names: "/" + "/".join(names)
)


def policy(effect: str = "allow", *paths: str, **more: Any) -> AccessPolicy:
    limits: dict[str, Any] = {"claims": {}, "key_ids": [], "levels": [], "methods": [], "agents": [], "via": []}
    made = {"id": more.pop("id", effect), "app_id": "crm", "action": "call", "scopes": [], "paths": list(paths)}
    return AccessPolicy(project_id="P", effect=effect, **{**limits, **made, **more})


def readings(path: str) -> tuple[str, ...]:
    """Every reading of a path, as the proxy tells them."""
    return tuple(dict.fromkeys((path, re.sub("%2f", "/", path, flags=re.IGNORECASE), unquote(path))))


def ask(path: str = "/v1/a", method: str = "GET", **more: Any) -> Requested:
    return Requested(**{"app_id": "crm", "via": "proxy", "level": "user", **more}, method=method, paths=readings(path))


def says(
    *policies: AccessPolicy,
    path: str = "/v1/a",
    method: str = "GET",
    who: Principal = KEY,
    forbidden: tuple[str, ...] = (),
    safe: tuple[str, ...] = (),
    **more: Any,
) -> Verdict:
    return verdict(policies, who, ask(path, method, **more), forbidden=forbidden, safe=safe)


def session(**limits: Any) -> Principal:
    app = SessionApp(app_id="crm", **limits)
    return replace(
        KEY, session=AgentLimits(id="s", agent_name="Helper", apps={"crm": app}, key_id="backend"), agent="bot"
    )


def naive(glob: str, path: str) -> bool:
    """A glob as a regular expression, which is simple, and takes for ever where somebody means harm."""
    pattern = "".join(
        "(?:/[^/]*)*" if name == "**" else "/[^/]+" if name == "*" else "/" + re.escape(name).replace(r"\*", "[^/]*")
        for name in glob.split("/")[1:]
    )
    return re.fullmatch(pattern, path) is not None


def forgiving(glob: str, path: str) -> bool:
    """Whether some mixture of what servers look away from makes a path one that the glob stands for."""
    found = False
    for bare in (False, True):
        names = [re.sub(";.*", "", name) if bare else name for name in path.lower().split("/")]
        found = found or naive(glob.lower().rstrip("/"), "".join(f"/{name}" for name in names if name))
    return found


@given(GLOBS, PATHS)
@example("/**", "/")
@example("/v1/**", "/v1")
@example("/**/a/**/b", "/a/x/a/y/b")
def test_a_glob_stands_for_what_it_says(glob: str, path: str) -> None:
    assert covers(glob, path) == naive(glob, path)
    assert covers_alike(glob, path) == forgiving(glob, path)


@given(st.lists(st.tuples(st.sampled_from(["allow", "deny", "approve"]), GLOBS), max_size=4), PATHS)
@example([("allow", "/**"), ("deny", "/a/**")], "/%61")
@example([("allow", "/v1/*")], "/v1/b%2Fc")
def test_the_worst_reading_of_a_path_decides(rules: list[tuple[str, str]], path: str) -> None:
    """An allow holds for all readings of a path, a deny or an approval for any; deny > approve > allow."""
    policies = [policy(effect, glob) for effect, glob in rules]
    expected = "allow"
    if rules:
        seen, lets = readings(path), [glob for effect, glob in rules if effect != "deny"]
        by = {"deny": False, "approve": False}
        for (effect, glob), one in product(rules, seen):
            by[effect] = by.get(effect, False) or forgiving(glob, one)
        is_let = all(any(naive(glob, one) for glob in lets) for one in seen)
        expected = "deny" if by["deny"] or not is_let else "approve" if by["approve"] else "allow"
    assert says(*policies, path=path).effect == expected


@pytest.mark.parametrize(
    "path",
    [
        "/v1/admin",
        "/v1/admin/",
        "/v1/admin/keys",
        "/v1/%61dmin/keys",
        "/v1%2Fadmin",
        "/V1/ADMIN",
        "/v1//admin",
        "/v1/admin;x=1/keys",
        "/v1/admin%3Bx",
        "/;x/v1/admin",
    ],
)
def test_no_spelling_goes_round_what_is_forbidden(path: str) -> None:
    everything = policy("allow", "/**")
    assert says(everything, policy("deny", "/v1/admin/**"), path=path) == Verdict("deny", "deny")
    assert says(everything, policy("approve", "/v1/admin/**"), path=path) == Verdict("approve", "approve")
    assert says(everything, path=path, forbidden=("* /v1/admin/**",)) == Verdict("deny", "forbidden")
    assert says(everything, path=path, forbidden=("POST /v1/admin/**",)).effect == "allow"


def test_what_no_policy_is_about_is_refused_once_there_is_one() -> None:
    assert says() == Verdict("allow")
    assert says(policy("deny", "/v2/**")) == Verdict("deny", "policies")
    assert says(policy("allow", "/v1/A")) == Verdict("deny", "policies")
    limits: tuple[dict[str, Any], ...] = (
        {"methods": ["POST"]},
        {"via": ["mcp"]},
        {"levels": ["tenant"]},
        {"key_ids": ["other"]},
    )
    for limit in limits:
        assert says(policy(**limit)) == Verdict("deny", "policies"), limit
    assert says(policy(agents=["bot"])) == Verdict("deny", "policies")
    assert says(policy(agents=["bot"]), who=session()).effect == "allow"


def test_a_session_narrows_and_widens_nothing() -> None:
    safe = ("POST /search/*", "POST /v2/user?action=list")
    assert says(who=session(), method="POST", safe=safe) == Verdict("deny", "session")
    assert says(who=session(), method="POST", path="/search/x", safe=safe).effect == "allow"
    assert says(who=session(), method="POST", path="/search/%2e", safe=safe).effect == "allow"
    assert says(who=session(), method="POST", path="/search/a%2Fb", safe=safe).effect == "deny"
    assert says(who=session(), method="POST", path="/SEARCH/x", safe=safe).effect == "deny"
    for query, effect in (("action=list", "allow"), ("action=drop", "deny"), ("action=list&action=drop", "deny")):
        assert says(who=session(), method="POST", path="/v2/user", query=query, safe=safe).effect == effect
    assert says(who=session(access="write"), method="POST").effect == "allow"
    assert says(who=session(methods=("HEAD",))).effect == "deny"
    assert says(who=session(paths=("/v1/*",)), path="/v1/a%2Fb").effect == "deny"
    assert says(policy("deny"), who=session(access="write")) == Verdict("deny", "deny")
    other = replace(session(), session=AgentLimits(id="s", agent_name="", apps={}))
    assert says(policy("allow"), who=other) == Verdict("deny", "session")


def test_a_session_asks_for_approval_of_what_it_says() -> None:
    for approve, method in product(("never", "writes", "always"), ("GET", "POST")):
        asks = approve == "always" or (approve == "writes" and method == "POST")
        who = session(access="write", approve=approve)
        assert says(who=who, method=method) == (Verdict("approve", "session") if asks else Verdict("allow"))
        assert says(policy("deny"), who=who, method=method).effect == "deny"


def test_a_glob_that_could_not_work_is_refused_and_none_takes_long() -> None:
    for wrong in ("v1", "", "/a b", "/a?b", "/%61", "/a**", "/a//b", "/../a", "/ä", "/" + "a" * 500, "/a;b"):
        assert glob_problem(wrong), wrong
    for good in ("/", "/**", "/v1/*/x.json", "/v1/a:*", "/v1/"):
        assert not glob_problem(good), good
    assert not covers("/" + "*a" * 200 + "b", "/" + "a" * 5000)
    assert not covers("/**/a" * 60 + "/b", "/a" * 2000)
