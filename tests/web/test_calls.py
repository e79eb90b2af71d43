"""The call log over HTTP: who fetched and called what, newest first, for who may see it."""

from typing import Any

from evergrant.broker.calls.call_log import write_calls
from evergrant.broker.runtime.broker import open_broker
from evergrant.broker.runtime.unwritten_calls import Call
from evergrant.clock import now
from evergrant.crypto.opaque import new_id
from tests.infra.installation import APP_ID, Backend, Installation
from tests.infra.issuer import Issuer
from tests.infra.people import someone
from tests.infra.waiting import in_a_thread, wait_until
from tests.web.conftest import MakeBackend

FIELDS: dict[str, Any] = {"actor": "session:S1", "agent": "helper", "session_id": "S1", "status": 200}


def log(here: Installation, *calls: dict[str, Any]) -> None:
    """Write calls as one batch."""

    async def run() -> None:
        async with open_broker(here.settings) as broker:
            for fields in calls:
                made = {
                    "project_id": here.backend.project_id,
                    "id": new_id(),
                    "kind": "call",
                    "at": now(),
                }
                broker.calls.note(Call(**{**made, "source": "provider", **FIELDS, **fields}))
            await write_calls(broker)

    in_a_thread(run())


def listed(backend: Backend, **query: Any) -> list[dict[str, Any]]:
    """Return all calls that a query finds, page by page."""
    found, cursor = [], ""
    while True:
        answer = backend.http.get("/v1/mgmt/outbound/calls", params={**query, "limit": 2, "cursor": cursor})
        assert answer.status_code == 200, answer.text
        page = answer.json()
        found += page["calls"]
        if not (cursor := page["nextCursor"]):
            return found


def test_calls_are_listed_newest_first_by_whatever_is_asked_for(here: Installation, backend_with: MakeBackend) -> None:
    user, app = someone(), here.backend.new_app(here.provider.registration)
    log(
        here, *({"user_id": user, "path": f"/{n}", "app_id": app if n % 2 else "other", "agent": "a"} for n in range(5))
    )
    assert [call["path"] for call in listed(here.backend, userId=user)] == ["/4", "/3", "/2", "/1", "/0"]
    assert {call["sealed"] for call in listed(here.backend, userId=user)} == {True}
    for query, paths in (
        ({"appId": app}, ["/3", "/1"]),
        ({"agentId": "a"}, ["/4", "/3", "/2", "/1", "/0"]),
        ({"agentId": "nobody"}, []),
        ({"sessionId": "S1", "kind": "call"}, ["/4", "/3", "/2", "/1", "/0"]),
        ({"kind": "mcp"}, []),
        ({"to": 1}, []),
    ):
        assert [call["path"] for call in listed(here.backend, userId=user, **query)] == paths, query
    limited = backend_with(permissions=("audit",), app_ids=(app,))
    assert [call["path"] for call in listed(limited, userId=user)] == ["/3", "/1"]
    calls = "/v1/mgmt/outbound/calls"
    assert limited.http.get(calls, params={"appId": "other"}).status_code == 403
    assert limited.http.get(f"{calls}/export").status_code == 403
    assert backend_with(permissions=("apps:read",)).http.get(calls).status_code == 403
    assert here.backend.http.get(calls, params={"cursor": "zz"}).status_code == 400
    assert user in here.backend.http.get(f"{calls}/export").text


def test_fetches_of_users_are_logged_within_a_second_and_those_of_keys_are_not(here: Installation, idp: Issuer) -> None:
    user = someone()
    here.connected(user)
    body = {"appId": APP_ID, "userId": user}
    path, latest = "/v1/mgmt/outbound/app/user/token/latest", here.backend.post("app/user/token/latest", body)
    assert latest.status_code == 200, "by a key, which the log does not tell of"
    bearer = {"Authorization": f"Bearer {here.backend.project_id}:{idp.access(user, azp='crm-sync')}"}
    assert here.backend.http.post(path, json=body, headers=bearer).status_code == 200
    assert here.backend.http.post(path, json={**body, "appId": "no-such"}, headers=bearer).status_code == 404
    exchange = {
        "grant_type": "urn:ietf:params:oauth:grant-type:token-exchange",
        "subject_token": idp.access(user),
        "subject_token_type": "urn:ietf:params:oauth:token-type:access_token",
        "audience": APP_ID,
    }
    assert here.backend.http.post("/oauth2/v1/token", data=exchange, headers={"Authorization": ""}).status_code == 200
    wait_until(lambda: len(listed(here.backend, userId=user)) == 3, "all three are written down")
    told = [(one["kind"], one["appId"], one["status"], one["code"]) for one in listed(here.backend, userId=user)]
    assert told == [("exchange", APP_ID, 200, ""), ("fetch", "no-such", 404, "E111503"), ("fetch", APP_ID, 200, "")]
    last = listed(here.backend, userId=user)[-1]
    assert (last["actor"], last["source"]) == (f"user:{user}", "evergrant")
    assert last["grantId"] == latest.json()["token"]["id"]
