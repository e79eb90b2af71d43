"""Access policies: without any, everything is as it was; with one, whoever it does not allow is refused."""

from collections.abc import Iterator
from typing import Any

import pytest

from evergrant.broker.runtime.broker import REMEMBER_SECONDS
from tests.infra.installation import APP_ID, BACK, SCOPES, Backend, Installation, new_project
from tests.infra.issuer import Issuer
from tests.infra.people import connect, fetch, refused
from tests.infra.rows import dump
from tests.web.conftest import MakeBackend


@pytest.fixture(scope="module")
def idp(here: Installation, idp: Issuer) -> Issuer:
    """The identity provider that the project trusts; alice is connected."""
    here.connected("alice")
    return idp


@pytest.fixture(autouse=True)
def _no_policies_are_left(here: Installation) -> Iterator[None]:
    yield
    for policy in here.backend.get("policies").json()["policies"]:
        assert here.backend.http.delete(f"/v1/mgmt/outbound/policies?id={policy['id']}").json() == {}


def allow(here: Installation, action: str = "fetch", **limits: Any) -> str:
    answer = here.backend.post("policies", {"appId": APP_ID, "action": action, **limits})
    assert answer.status_code == 200, answer.text
    return str(answer.json()["policy"]["id"])


def denials(here: Installation) -> list[dict[str, Any]]:
    return [event for event in dump(here.settings)["audit_events"] if event["action"] == "policy.denied"]


def forbidden(answer: Any) -> bool:
    return refused(answer, 403, "E011006") and "policies" in answer.json()["message"]


def test_an_app_without_policies_is_open(here: Installation, idp: Issuer) -> None:
    assert fetch(here, idp.access("alice")).status_code == 200
    assert here.backend.fetch("alice").status_code == 200


@pytest.mark.parametrize(
    ("claims", "allowed"),
    [
        ({"roles": ["sales"]}, True),
        ({"roles": "sales"}, True),
        ({"roles": ["guest", "support"]}, True),
        ({"roles": {"sales": {}}}, True),
        ({"roles": ["Sales"]}, False),
        ({"roles": []}, False),
        ({"roles": None}, False),
        ({}, False),
    ],
)
def test_a_user_is_allowed_by_what_its_token_says(
    here: Installation, idp: Issuer, claims: dict[str, Any], allowed: bool
) -> None:
    allow(here, claims={"roles": ["sales", "support"]})
    answer = fetch(here, idp.access("alice", **claims))
    assert answer.status_code == 200 if allowed else forbidden(answer)


def test_every_claim_of_a_policy_must_hold_and_one_policy_is_enough(here: Installation, idp: Issuer) -> None:
    allow(here, claims={"roles": ["sales"], "verified": ["true"]})
    assert forbidden(fetch(here, idp.access("alice", roles=["sales"])))
    assert fetch(here, idp.access("alice", roles=["sales"], verified=True)).status_code == 200
    allow(here, claims={"level": ["7"]})
    assert fetch(here, idp.access("alice", level=7)).status_code == 200


def test_a_policy_about_users_lets_no_key_in_nor_the_other_way_round(
    here: Installation, idp: Issuer, backend_with: MakeBackend
) -> None:
    backend_with(key_id="chosen")
    first = allow(here, claims={"sub": ["alice"]})
    assert forbidden(here.backend.fetch("alice"))
    here.backend.http.delete(f"/v1/mgmt/outbound/policies?id={first}")
    allow(here, keyIds=["chosen"])
    assert forbidden(fetch(here, idp.access("alice")))


def test_a_key_is_allowed_by_its_id(here: Installation, backend_with: MakeBackend) -> None:
    here.connected("alice")
    chosen = backend_with(key_id="agents")
    allow(here, keyIds=["agents"])
    assert chosen.fetch("alice").status_code == 200
    assert forbidden(here.backend.fetch("alice"))


def test_scopes_are_a_limit(here: Installation, idp: Issuer) -> None:
    limited = here.backend.connect_url("narrow", options={"redirectUrl": BACK, "scopes": SCOPES[:1]})
    here.browser().connect(limited, scopes=SCOPES[:1])
    allow(here, scopes=SCOPES[:1])
    assert here.backend.fetch("narrow", scopes=SCOPES[:1]).status_code == 200
    answer = here.backend.fetch("alice")
    assert forbidden(answer)
    assert "scopes" in answer.json()["message"]


def test_a_token_with_more_scopes_than_the_policy_is_not_handed_out_for_fewer(here: Installation, idp: Issuer) -> None:
    allow(here, scopes=SCOPES[:1])
    assert forbidden(here.backend.fetch("alice", scopes=SCOPES[:1]))
    assert forbidden(here.backend.post("app/user/token/latest", {"appId": APP_ID, "userId": "alice"}))


def test_who_may_not_fetch_does_not_learn_who_is_connected(here: Installation, idp: Issuer) -> None:
    allow(here, claims={"roles": ["sales"]})
    assert forbidden(here.backend.fetch("alice"))
    assert forbidden(here.backend.fetch("nobody-of-this-name"))


def test_connecting_has_policies_of_its_own(here: Installation, idp: Issuer) -> None:
    allow(here, "connect", claims={"roles": ["member"]}, scopes=SCOPES)
    assert fetch(here, idp.access("alice")).status_code == 200
    assert forbidden(connect(here, idp.session("alice")))
    assert connect(here, idp.session("alice", roles=["member"])).status_code == 200
    options = {"redirectUrl": BACK, "scopes": [*SCOPES, "contacts.write"]}
    assert forbidden(connect(here, idp.session("alice", roles=["member"]), options=options))


def test_a_denial_is_in_the_audit_log(here: Installation, idp: Issuer) -> None:
    allow(here, claims={"roles": ["sales"]})
    before = len(denials(here))
    for _ in range(3):  # and once is enough for a minute
        assert forbidden(fetch(here, idp.access("zoe"), "zoe"))
    assert len(denials(here)) == before + 1
    (event,) = (one for one in denials(here) if one["user_id"] == "zoe")
    assert (event["actor"], event["app_id"]) == ("user:zoe", APP_ID)


def test_a_change_takes_effect_at_once_here_and_elsewhere_within_seconds(here: Installation, idp: Issuer) -> None:
    assert here.backend.fetch("alice").status_code == 200
    policy_id = allow(here, claims={"roles": ["sales"]})
    assert forbidden(here.backend.fetch("alice"))
    here.backend.http.delete(f"/v1/mgmt/outbound/policies?id={policy_id}")
    assert here.backend.fetch("alice").status_code == 200
    assert REMEMBER_SECONDS < 5


def test_another_projects_policies_do_not_count(here: Installation, backend_with: MakeBackend) -> None:
    made = new_project(here.settings)
    other = Backend(here.url, made.project_id, made.management_key)
    other.create_app(here.provider.registration)
    assert other.post("policies", {"appId": APP_ID, "action": "fetch", "claims": {"a": ["b"]}}).status_code == 200
    assert here.backend.fetch("alice").status_code == 200
    assert here.backend.get("policies").json() == {"policies": []}
    other.http.close()


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"appId": "nothing", "action": "fetch"}, 404),
        ({"appId": APP_ID, "action": "delete"}, 400),
        ({"appId": APP_ID, "action": "fetch", "claims": {"roles": []}}, 400),
        ({"appId": APP_ID, "action": "fetch", "keyIds": ["nobody"]}, 400),
        ({"appId": APP_ID, "action": "fetch", "scopes": ["two words"]}, 400),
        ({"appId": APP_ID, "action": "fetch", "claim": {"roles": ["a"]}}, 400),
        ({"appId": APP_ID, "action": "fetch", "methods": ["GET"]}, 400),
        ({"appId": APP_ID, "action": "connect", "effect": "deny"}, 400),
        ({"appId": APP_ID, "action": "call", "scopes": ["a"]}, 400),
        ({"appId": APP_ID, "action": "call", "methods": ["TRACE"]}, 400),
        ({"appId": APP_ID, "action": "call", "paths": ["v1/**"]}, 400),
        ({"appId": APP_ID, "action": "call", "paths": ["/v1/%61"]}, 400),
    ],
)
def test_a_policy_that_could_not_work_is_not_made(here: Installation, body: Any, status: int) -> None:
    before = dump(here.settings)
    answer = here.backend.post("policies", body)
    assert answer.status_code == status, answer.text
    assert dump(here.settings) == before


def test_a_policy_about_calls_is_kept_as_it_was_made(here: Installation) -> None:
    calls = {"methods": ["POST"], "paths": ["/v1/*", "/v2/**"], "agents": ["bot"], "via": ["mcp"], "effect": "approve"}
    allow(here, "call", **calls)
    (stored,) = here.backend.get("policies").json()["policies"]
    assert {name: stored[name] for name in calls} == calls
    assert here.backend.fetch("alice").status_code == 200, "fetching has policies of its own"


def test_a_policy_about_an_agent_lets_nobody_else_fetch(here: Installation, idp: Issuer) -> None:
    allow(here, agents=["bot"])
    assert forbidden(here.backend.fetch("alice"))
    assert forbidden(fetch(here, idp.access("alice")))
    assert fetch(here, idp.access("alice", act={"sub": "bot"})).status_code == 200


def test_deleting_what_is_not_there_says_so(here: Installation) -> None:
    assert refused(here.backend.http.delete("/v1/mgmt/outbound/policies?id=nothing"), 404, "E011004")


def test_policies_go_with_their_app(here: Installation) -> None:
    here.backend.create_app({"id": "brief", "name": "Brief"})
    assert here.backend.post("policies", {"appId": "brief", "action": "fetch"}).status_code == 200
    assert here.backend.post("app/delete", {"id": "brief"}).status_code == 200
    assert here.backend.get("policies").json() == {"policies": []}
