"""Agent sessions by the API: what they can be made to do, by whom, and what they never can."""

import json
import time
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest

from tests.infra.installation import APP_ID, BACK, SCOPES, Backend, Installation
from tests.infra.issuer import Issuer
from tests.infra.people import call, fetch, refused, trust
from tests.infra.rows import execute
from tests.infra.scripted import serving

SESSION = "urn:evergrant:token-type:agent-session"
ACCESS_TOKEN = "urn:ietf:params:oauth:token-type:access_token"
AGENT = {"id": "mail-helper", "name": "Mail helper"}
OPEN_TO_SESSIONS = {
    ("post", "app/connect"),
    ("get", "apps-with-user-token"),
    ("get", "tokens"),
    ("get", "token"),
    ("get", "token/events"),
    *(("post", f"app/{whose}/token{latest}") for whose in ("user", "tenant") for latest in ("", "/latest")),
}
"""Calls that users may make for themselves, and sessions for their owner; each is in a test of its own."""


@pytest.fixture(scope="module", autouse=True)
def people(here: Installation) -> None:
    """Alice is connected, alone and in the tenant acme, which is connected itself; so is bob."""
    here.connected("alice")
    here.connected("alice", tenantId="acme")
    here.connected("alice", tenantId="acme", tenantLevel=True)
    here.connected("bob")


def mint(backend: Backend, **fields: Any) -> httpx2.Response:
    body = {"userId": "alice", "apps": [{"appId": APP_ID}], "agent": AGENT, **fields}
    return backend.post("session/create", {name: value for name, value in body.items() if value is not None})


def minted(backend: Backend, **fields: Any) -> tuple[str, str]:
    """Mint a session that must be, and return its id and its key."""
    answer = mint(backend, **fields)
    assert answer.status_code == 200, answer.text
    return answer.json()["session"]["id"], answer.json()["key"]


@pytest.fixture
def fetcher(here: Installation) -> str:
    """The key of a session that may do all for alice."""
    apps = [{"appId": APP_ID, "access": "write"}]
    return minted(here.backend, fetch=True, connect=True, apps=apps)[1]


@pytest.fixture
def key_with(here: Installation) -> Iterator[Any]:
    made: list[Backend] = []

    def make(*permissions: str, **limits: Any) -> Backend:
        body = {"name": "some", "permissions": list(permissions), **limits}
        answer = here.backend.http.put("/v1/mgmt/managementkey", json=body)
        assert answer.status_code == 200, answer.text
        made.append(Backend(here.url, here.backend.project_id, answer.json()["cleartext"]))
        made[-1].key_id = answer.json()["key"]["id"]  # type: ignore[attr-defined]  # for the test that deletes it
        return made[-1]

    yield make
    for backend in made:
        backend.http.close()


def test_a_session_is_answered_as_designed_and_works_with_and_without_its_project(here: Installation) -> None:
    answer = mint(here.backend, fetch=True, apps=[{"appId": APP_ID, "access": "write"}]).json()
    session, key = answer["session"], answer["key"]
    assert set(answer) == {"session", "key"}
    assert session == {
        "id": session["id"],
        "expiresAt": session["expiresAt"],
        "mcpUrl": f"{here.url}/mcp/{here.backend.project_id}",
        "proxyUrls": {APP_ID: f"{here.url}/v1/proxy/{APP_ID}"},
    }
    assert abs(int(session["expiresAt"]) - time.time() - 900) < 60
    assert key.startswith(f"evs_{here.backend.project_id}_{session['id']}_")
    for project in ("", None):
        body = {"appId": APP_ID, "userId": "alice", "scopes": SCOPES}
        answer = call(here, "app/user/token", key, body, project=project)
        assert answer.json()["token"]["userId"] == "alice", answer.text


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"userId": None}, "userId"),
        ({"apps": []}, "apps"),
        ({"apps": [{"appId": "nowhere"}]}, "apps[0].appId"),
        ({"apps": [{"appId": APP_ID}, {"appId": APP_ID}]}, "apps[1].appId"),
        ({"apps": [{"appId": APP_ID, "methods": ["TRACE"]}]}, "apps[0].methods"),
        ({"apps": [{"appId": APP_ID, "paths": ["users"]}]}, "apps[0].paths"),
        ({"apps": [{"appId": APP_ID, "paths": ["/users?x"]}]}, "apps[0].paths"),
        ({"apps": [{"appId": APP_ID, "scopes": ["two words"]}]}, "apps[0].scopes"),
        ({"apps": [{"appId": APP_ID, "access": "all"}]}, "apps[0].access"),
        ({"fetch": True}, "apps[0].access"),
        ({"fetch": True, "apps": [{"appId": APP_ID, "access": "write", "approve": "writes"}]}, "apps[0].access"),
        ({"fetch": True, "apps": [{"appId": APP_ID, "access": "write"}], "maxCalls": 3}, "maxCalls"),
        ({"ttlSeconds": 86_401}, "ttlSeconds"),
        ({"ttlSeconds": 0}, "ttlSeconds"),
        ({"maxCalls": 0}, "maxCalls"),
        ({"permittedIps": ["here"]}, "permittedIps"),
        ({"agent": {"id": ""}}, "agent.id"),
        ({"agent": None}, "agent"),
        ({"toolset": "mail"}, "toolset"),
    ],
)
def test_what_a_session_cannot_be_is_refused_by_its_field(here: Installation, fields: Any, field: str) -> None:
    answer = mint(here.backend, **fields)
    assert answer.status_code == 400
    assert field in {one["field"] for one in answer.json()["details"]["fields"]}, answer.text


def test_a_session_can_do_no_more_than_the_key_that_mints_it(here: Installation, key_with: Any) -> None:
    write, other = [{"appId": APP_ID, "access": "write"}], here.backend.new_app(here.provider.registration)
    few, whole = key_with("calls", "sessions"), key_with("calls", "sessions", "connect", "tokens:fetch")
    one_app = key_with("calls", "sessions", appIds=[APP_ID])
    short, near = (
        key_with("calls", "sessions", expiresIn=600),
        key_with("calls", "sessions", permittedIps=["127.0.0.0/8"]),
    )
    good = [
        mint(few),
        mint(whole, connect=True, fetch=True, apps=write),
        mint(one_app),
        mint(short, ttlSeconds=300),
        mint(near),
        mint(near, permittedIps=["127.0.0.1"]),
    ]
    assert [answer.status_code for answer in good] == [200] * len(good)
    refusals = [
        (mint(key_with("calls", "tokens:fetch", "connect")), "sessions"),
        (mint(key_with("sessions")), "calls"),
        (mint(few, connect=True), "connect"),
        (mint(few, fetch=True, apps=write), "tokens:fetch"),
        (mint(one_app, apps=[{"appId": APP_ID}, {"appId": other}]), "limited to other apps"),
        (mint(short), "expires"),
        (mint(near, permittedIps=["127.0.0.1", "203.0.113.0/24"]), "networks"),
    ]
    for answer, word in refusals:
        assert refused(answer, 403, "E011006"), answer.text
        assert word in answer.json()["message"]


def test_no_call_of_management_takes_a_session(here: Installation, fetcher: str) -> None:
    document = here.backend.http.get("/openapi.json").json()
    asked = 0
    with httpx2.Client(base_url=here.url, headers={"Authorization": f"Bearer {fetcher}"}, trust_env=False) as http:
        for path, methods in document["paths"].items():
            for method in methods:
                if not path.startswith("/v1/mgmt/") or path == "/v1/mgmt/license":  # it says nothing of the project
                    continue
                if (method, path.removeprefix("/v1/mgmt/outbound/")) in OPEN_TO_SESSIONS:
                    continue
                body = {"userId": "alice"} if path.endswith("/accounts/session") else {}
                body |= {"projectId": here.backend.project_id} if path.endswith("/project/delete") else {}
                answer = http.request(method, path.replace("{", "").replace("}", ""), json=body)
                asked += 1
                assert answer.status_code == 403, (method, path, answer.text)
    assert asked > 40


def test_a_session_that_may_not_fetch_is_never_handed_a_token(here: Installation) -> None:
    _, key = minted(here.backend, connect=True)
    for path in ("app/user/token", "app/user/token/latest", "app/tenant/token", "app/tenant/token/latest"):
        body = {"appId": APP_ID, "userId": "alice", "tenantId": "acme", "scopes": SCOPES}
        assert refused(call(here, path, key, body), 403, "E011006")
    form = {"subject_token": key, "audience": APP_ID}
    assert exchanged(here, key, None, **form).json()["error"] == "invalid_request"


def test_a_session_that_fetches_does_so_for_its_one_owner_and_app_alone(here: Installation, fetcher: str) -> None:
    other = here.backend.new_app(here.provider.registration)
    assert fetch(here, fetcher).status_code == 200
    for fields in (
        {"user_id": "bob"},
        {"tenantId": "acme"},
        {"appId": other},
        {"options": {"withRefreshToken": True}},
    ):
        assert refused(fetch(here, fetcher, **fields), 403, "E011006"), fields
    body = {"appId": APP_ID, "tenantId": "acme", "scopes": SCOPES}
    assert refused(call(here, "app/tenant/token", fetcher, body), 403, "E011006")
    apps = [{"appId": APP_ID, "access": "write"}]
    _, in_acme = minted(here.backend, tenantId="acme", fetch=True, apps=apps)
    assert fetch(here, in_acme, tenantId="acme").status_code == 200
    assert refused(fetch(here, in_acme), 403, "E011006")
    _, of_acme = minted(here.backend, userId=None, tenantId="acme", fetch=True, apps=apps)
    assert call(here, "app/tenant/token", of_acme, body).status_code == 200
    assert refused(fetch(here, of_acme, tenantId="acme"), 403, "E011006")


def test_a_session_connects_its_owner_with_its_scopes_and_nobody_else(here: Installation) -> None:
    apps = [{"appId": APP_ID, "scopes": SCOPES[:1]}]
    _, key = minted(here.backend, userId="dora", connect=True, apps=apps)
    _, without = minted(here.backend, userId="dora")
    _, in_acme = minted(here.backend, userId="dora", tenantId="acme", connect=True)
    back = {"options": {"redirectUrl": BACK}}
    body = {"appId": APP_ID, **back}
    assert call(here, "app/connect", key, body).status_code == 200
    for session, fields in (
        (key, {"userId": "bob"}),
        (key, {"tenantId": "acme"}),
        (key, {"options": {"redirectUrl": BACK, "scopes": ["something.else"]}}),
        (in_acme, {}),
        (in_acme, {"tenantId": "acme", "tenantLevel": True}),
        (without, {}),
    ):
        assert refused(call(here, "app/connect", session, {**body, **fields}), 403, "E011006"), fields


def test_the_lists_show_a_session_its_owners_connections_of_its_apps(here: Installation) -> None:
    other = here.backend.new_app(here.provider.registration)
    _, key = minted(here.backend)
    _, elsewhere = minted(here.backend, apps=[{"appId": other}])
    _, named = minted(here.backend, apps=[{"appId": APP_ID, "externalIdentifier": "work"}])

    def seen(session: str, path: str) -> Any:
        headers = {"Authorization": f"Bearer {session}"}
        with httpx2.Client(base_url=here.url, headers=headers, trust_env=False) as http:
            return http.get(f"/v1/mgmt/outbound/{path}")

    for path in ("tokens", "tokens?order=newest"):
        found = seen(key, path).json()["tokens"]
        assert {(one["userId"], one["tenantId"], one["appId"]) for one in found} == {("alice", "", APP_ID)}
        assert seen(elsewhere, path).json()["tokens"] == seen(named, path).json()["tokens"] == []
    assert seen(key, "apps-with-user-token").json() == {"appIds": [APP_ID]}
    assert refused(seen(key, "tokens?userId=bob"), 403, "E011006")
    theirs = here.backend.token("bob")["id"]
    assert seen(key, f"token?id={theirs}").status_code == 404
    assert seen(named, f"token?id={here.backend.token('alice')['id']}").status_code == 404


def test_a_revoked_session_is_over_at_once(here: Installation, key_with: Any) -> None:
    apps = [{"appId": APP_ID, "access": "write"}]
    by = [
        ("id", None),
        ("userId", "erin"),
        ("agentId", "agent-erin"),
        ("appId", here.backend.new_app(here.provider.registration)),
    ]
    here.connected("erin")
    for field, value in by:
        more = [{"appId": value, "access": "write"}] if field == "appId" else []
        session_id, key = minted(
            here.backend, userId="erin", agent={"id": "agent-erin"}, fetch=True, apps=[*apps, *more]
        )
        assert fetch(here, key, "erin").status_code == 200
        answer = here.backend.post("session/revoke", {field: value or session_id})
        assert answer.json() == {"total": 1}, answer.text
        answer = fetch(here, key, "erin")
        assert refused(answer, 401, "E011005")
        assert "revoked" in answer.json()["message"]
        assert here.backend.post("session/revoke", {"id": session_id}).json() == {"total": 0}
    assert here.backend.post("session/revoke", {"id": "nowhere"}).status_code == 404
    assert here.backend.post("session/revoke", {}).status_code == 400
    assert here.backend.post("session/revoke", {"userId": "erin", "agentId": "x"}).status_code == 400
    limited = key_with("calls", "sessions", appIds=[by[-1][1]])
    session_id, _ = minted(here.backend, userId="erin")
    assert limited.post("session/revoke", {"id": session_id}).status_code == 404
    assert limited.get("sessions?userId=erin").json()["sessions"] == []


def test_sessions_are_listed_with_what_they_may_and_never_with_their_keys(here: Installation) -> None:
    user = {"userId": "fred", "labels": {"run": "7"}, "maxCalls": 3, "ttlSeconds": 60}
    made = [minted(here.backend, agent={"id": f"agent-{n}"}, **user) for n in range(3)]
    here.backend.post("session/revoke", {"id": made[0][0]})
    first = here.backend.get("sessions?userId=fred&limit=2").json()
    second = here.backend.get(f"sessions?userId=fred&limit=2&cursor={first['nextCursor']}").json()
    assert [one["id"] for one in first["sessions"] + second["sessions"]] == [one for one, _ in reversed(made)]
    assert second["nextCursor"] == ""
    assert first["sessions"][0] | {"createdTime": "", "expiresAt": ""} == {
        "id": made[2][0],
        "status": "active",
        "userId": "fred",
        "tenantId": "",
        "agent": {"id": "agent-2", "name": ""},
        "act": [],
        "apps": [
            {
                "appId": APP_ID,
                "scopes": [],
                "externalIdentifier": None,
                "access": "read",
                "methods": [],
                "paths": [],
                "approve": "never",
            }
        ],
        "connect": False,
        "fetch": False,
        "maxCalls": 3,
        "calls": 0,
        "permittedIps": [],
        "elicitation": "url",
        "labels": {"run": "7"},
        "createdBy": first["sessions"][0]["createdBy"],
        "createdTime": "",
        "expiresAt": "",
        "revokedTime": "",
    }
    revoked = here.backend.get("sessions?userId=fred&status=revoked").json()["sessions"]
    assert [one["id"] for one in revoked] == [made[0][0]]
    assert [one["id"] for one in here.backend.get("sessions?agentId=agent-1").json()["sessions"]] == [made[1][0]]
    assert not any(key in json.dumps([first, second, revoked]) for _, key in made)


def test_a_session_ends_with_the_key_that_minted_it(here: Installation, key_with: Any) -> None:
    apps = [{"appId": APP_ID, "access": "write"}]
    for end in ("delete", "disable"):
        key = key_with("calls", "sessions", "tokens:fetch")
        _, session = minted(key, fetch=True, apps=apps)
        assert fetch(here, session).status_code == 200
        if end == "delete":
            here.backend.http.post("/v1/mgmt/managementkey/delete", json={"ids": [key.key_id]})
        else:
            body = {"id": key.key_id, "name": "some", "status": "inactive"}
            here.backend.http.patch("/v1/mgmt/managementkey", json=body)
        assert refused(fetch(here, session), 401, "E011005")


def test_a_session_works_from_its_networks_and_as_long_as_it_says(here: Installation, key_with: Any) -> None:
    apps, forever = [{"appId": APP_ID, "access": "write"}], {"name": "some", "status": "active"}
    _, far = minted(here.backend, fetch=True, apps=apps, permittedIps=["203.0.113.0/24"])
    assert "address" in fetch(here, far).json()["message"]
    key = key_with("calls", "sessions", "tokens:fetch")
    _, session = minted(key, fetch=True, apps=apps)
    assert fetch(here, session).status_code == 200
    body = {"id": key.key_id, "permittedIps": ["203.0.113.0/24"], **forever}
    assert here.backend.http.patch("/v1/mgmt/managementkey", json=body).status_code == 200
    assert refused(fetch(here, session), 401, "E011005")  # its key's networks are its own
    session_id, short = minted(here.backend, fetch=True, apps=apps)
    execute(here.settings, f"UPDATE agent_sessions SET expires_at = created_at WHERE id = '{session_id}'")
    answer = fetch(here, short)
    assert refused(answer, 401, "E011005")
    assert "expired" in answer.json()["message"]


def test_a_key_of_a_session_that_is_changed_or_brought_elsewhere_is_nobodys(
    here: Installation, other: Backend, fetcher: str
) -> None:
    start, secret = fetcher.rsplit("_", 1)
    misspelt = f"{start}_{'A' if secret[0] != 'A' else 'B'}{secret[1:]}"
    foreign = minted_in(other)
    for key, project in (
        (misspelt, ""),
        (misspelt, None),
        (fetcher, other.project_id),
        (foreign.replace(other.project_id, here.backend.project_id), ""),
        (foreign, None),
        ("evs_", ""),
    ):
        body = {"appId": APP_ID, "userId": "alice", "scopes": SCOPES}
        assert refused(call(here, "app/user/token", key, body, project=project), 401, "E011005"), key


def minted_in(other: Backend) -> str:
    other.create_app({"id": APP_ID, "name": "Other"})
    return minted(other)[1]


def test_policies_about_the_key_are_about_its_sessions(here: Installation, key_with: Any) -> None:
    registration = here.provider.registration
    app_id = here.backend.new_app(registration)
    one, two = (key_with("calls", "sessions", "connect") for _ in range(2))
    policy = {"appId": app_id, "action": "connect", "keyIds": [one.key_id]}
    answer = here.backend.http.post("/v1/mgmt/outbound/policies", json=policy)
    assert answer.status_code == 200, answer.text
    wanted = {"appId": app_id, "options": {"redirectUrl": BACK}}
    for key, status in ((one, 200), (two, 403)):
        _, session = minted(key, connect=True, apps=[{"appId": app_id}])
        assert call(here, "app/connect", session, wanted).status_code == status


# By exchange (RFC 8693)


def details(**fields: Any) -> str:
    return json.dumps([{"type": "outbound_app", "appId": APP_ID, **fields}])


def exchanged(here: Installation, subject: str, actor: str | None, **fields: Any) -> httpx2.Response:
    form = {
        "grant_type": "urn:ietf:params:oauth:grant-type:token-exchange",
        "subject_token": subject,
        "subject_token_type": ACCESS_TOKEN,
        "project_id": here.backend.project_id,
    }
    if actor is not None:
        form |= {"requested_token_type": SESSION, "actor_token": actor, "actor_token_type": ACCESS_TOKEN}
        form |= {"authorization_details": details()}
    form = {name: value for name, value in {**form, **fields}.items() if value is not None}
    with httpx2.Client(base_url=here.url, trust_env=False) as http:
        return http.post("/oauth2/v1/token", data=form)


def test_a_user_exchanges_its_token_and_its_agents_for_a_session_for_itself(here: Installation, idp: Issuer) -> None:
    subject = idp.session("alice", scope="outbound.call", act={"sub": "orchestrator"})
    answer = exchanged(here, subject, idp.session("planner"), authorization_details=details(paths=["/api/**"]))
    assert answer.status_code == 200, answer.text
    body = answer.json()
    assert body["access_token"].startswith("evs_")
    assert "refresh_token" not in body
    assert (body["issued_token_type"], body["token_type"], body["scope"]) == (SESSION, "Bearer", "outbound.call")
    assert 0 < body["expires_in"] <= 600  # as long as the tokens
    assert body["authorization_details"][0]["paths"] == ["/api/**"]
    assert answer.headers["cache-control"] == "no-store"
    (listed,) = here.backend.get("sessions?agentId=planner").json()["sessions"]
    assert (listed["userId"], listed["act"]) == ("alice", ["planner", "orchestrator"])
    assert listed["id"] == body["session"]["id"]
    assert fetch(here, body["access_token"]).status_code == 403
    found = here.backend.http.post("/v1/mgmt/audit/search", json={"actions": ["session.created"], "limit": 1}).json()
    (record,) = found["audits"]
    assert (record["actor"], record["data"]["agent"]) == ("user:alice", "orchestrator")


def test_a_session_by_exchange_fetches_only_where_its_user_may(here: Installation, idp: Issuer) -> None:
    fields = {"scope": "outbound.token.fetch outbound.connect", "authorization_details": details(access="write")}
    answer = exchanged(here, idp.access("alice"), idp.session("planner"), **fields)
    assert fetch(here, answer.json()["access_token"]).status_code == 200
    answer = exchanged(here, idp.session("alice", scope="outbound.call"), idp.session("planner"), **fields)
    assert answer.json()["error"] == "invalid_request"


def test_a_token_that_may_have_calls_made_neither_fetches_nor_is_exchanged(here: Installation, idp: Issuer) -> None:
    token = idp.session("alice", scope="outbound.call")
    assert refused(fetch(here, token), 403, "E011006")
    assert exchanged(here, token, None, audience=APP_ID).json()["error"] == "invalid_target"


def test_an_exchange_that_proves_too_little_mints_nothing(here: Installation, idp: Issuer) -> None:
    before = len(here.backend.get("sessions?agentId=evil").json()["sessions"])
    subject, actor = idp.access("alice"), idp.session("evil")
    with serving(Issuer()) as foreign:
        wrong: list[tuple[str, str, dict[str, Any], str]] = [
            (idp.session("alice"), actor, {}, "invalid_request"),  # without outbound.call
            (subject, idp.session("evil", aud="https://other.example.com"), {}, "invalid_request"),
            (idp.access("alice", aud="https://other.example.com"), actor, {}, "invalid_request"),
            (subject, foreign.session("evil"), {}, "invalid_request"),
            (foreign.access("alice"), actor, {}, "invalid_request"),
            (subject, idp.session("evil", exp=int(time.time()) - 1), {}, "invalid_request"),
            (subject, idp.session("evil", act={"sub": "other"}), {}, "invalid_request"),
            (subject, idp.session("evil", sub=...), {}, "invalid_request"),
            (subject, here.backend.management_key, {}, "invalid_request"),
            (idp.access("alice", may_act={"sub": "planner"}), actor, {}, "invalid_request"),
            (subject, actor, {"actor_token": None}, "invalid_request"),
            (subject, actor, {"actor_token_type": None}, "invalid_request"),
            (subject, actor, {"tenant_id": "acme"}, "invalid_request"),  # not the user's
            (subject, actor, {"audience": APP_ID}, "invalid_request"),
            (subject, actor, {"scope": "all"}, "invalid_scope"),
            (subject, actor, {"authorization_details": None}, "invalid_authorization_details"),
            (subject, actor, {"authorization_details": "[]"}, "invalid_authorization_details"),
            (subject, actor, {"authorization_details": details(appId="nowhere")}, "invalid_authorization_details"),
            (subject, actor, {"authorization_details": details(type="other")}, "invalid_authorization_details"),
            (subject, actor, {"authorization_details": details(host="x")}, "invalid_authorization_details"),
        ]
        for a_subject, an_actor, fields, error in wrong:
            answer = exchanged(here, a_subject, an_actor, **fields)
            assert (answer.status_code, answer.json()["error"]) == (400, error), (fields, answer.text)
    assert len(here.backend.get("sessions?agentId=evil").json()["sessions"]) == before


def test_a_session_by_exchange_ends_with_the_trust_in_its_issuer(here: Installation) -> None:
    with serving(Issuer()) as passing:
        issuer_id = trust(here.backend, passing)
        fields = {"scope": "outbound.token.fetch", "authorization_details": details(access="write")}
        answer = exchanged(here, passing.access("alice"), passing.session("planner"), **fields)
        key = answer.json()["access_token"]
        assert fetch(here, key).status_code == 200
        answer = here.backend.http.delete(f"/v1/mgmt/trustedissuer?id={issuer_id}")
        assert answer.status_code == 200, answer.text
        assert refused(fetch(here, key), 401, "E011005")
