"""Lists of connections, and refreshing one on request."""

import time
import uuid
from typing import Any

import pytest

from evergrant.broker.runtime.principal import Permission
from evergrant.practice.faults import instead
from tests.conftest import Clock
from tests.infra.installation import APP_ID, Installation, new_project
from tests.infra.people import someone
from tests.infra.rows import dump, execute
from tests.web.conftest import MakeBackend


def upload(here: Installation, user: str, **fields: Any) -> None:
    answer = here.backend.post(
        "app/user/oauthtoken/upload", {"appId": APP_ID, "userId": user, "accessToken": "at-listed", **fields}
    )
    assert answer.status_code == 200, answer.text


def tokens(here: Installation, query: str) -> list[dict[str, Any]]:
    answer = here.backend.get(f"tokens?{query}")
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()["tokens"]
    return found


def test_the_list_tells_everything_but_the_secrets(here: Installation) -> None:
    user, expiry = someone(), int(time.time()) + 600
    upload(here, user, accessTokenExpiry=expiry, refreshToken="rt-listed", scopes=["contacts"], grantedBy="boss")
    [token] = tokens(here, f"userId={user}")
    connected = int(token.pop("connectedTime"))
    assert abs(connected - time.time()) < 60
    assert len(token.pop("id")) == 32
    assert token == {
        "appId": APP_ID,
        "userId": user,
        "tenantId": "",
        "externalIdentifier": "",
        "status": "active",
        "scopes": ["contacts"],
        "requestedScopes": ["contacts"],
        "tokenSub": "",
        "tokenSubProblem": "",
        "grantedBy": "boss",
        "accessTokenType": "Bearer",
        "accessTokenExpiry": str(expiry),
        "hasRefreshToken": True,
        "refreshTokenExpiry": "",
        "lastRefreshTime": "",
        "lastRefreshError": "",
        "details": {},
    }


def test_a_list_is_read_page_by_page_without_gaps_or_repetitions(here: Installation) -> None:
    user = someone()
    for number in range(7):
        upload(here, user, externalIdentifier=str(number))
    pages, cursor = [], ""
    while True:
        answer = here.backend.get(f"tokens?userId={user}&limit=3&cursor={cursor}").json()
        pages.append([token["externalIdentifier"] for token in answer["tokens"]])
        cursor = answer["nextCursor"]
        if not cursor:
            break
    assert [len(page) for page in pages] == [3, 3, 1]
    assert sorted(account for page in pages for account in page) == [str(number) for number in range(7)]


def test_a_list_is_narrowed_by_each_filter(here: Installation) -> None:
    user, tenant = someone(), f"tenant-{uuid.uuid4().hex}"
    upload(here, user)
    upload(here, user, tenantId=tenant)
    here.connected(user, appId=APP_ID, tenantId="dead")
    dead = here.backend.token(user, tenantId="dead")
    here.provider.state.access_tokens[dead["accessToken"]].family.revoked_because = "the user said so"
    here.backend.fetch(user, tenantId="dead", options={"forceRefresh": True})
    assert len(tokens(here, f"userId={user}")) == 3
    assert [token["tenantId"] for token in tokens(here, f"userId={user}&tenantId={tenant}")] == [tenant]
    [found] = tokens(here, f"userId={user}&status=reauthorization_required")
    assert (found["id"], "invalid_grant" in found["lastRefreshError"]) == (dead["id"], True)
    assert len(tokens(here, f"userId={user}&status=active&appId={APP_ID}")) == 2
    assert tokens(here, f"userId={user}&appId=another") == []


@pytest.mark.parametrize("query", ["limit=0", "limit=201", "limit=x", "status=alive", "cursor=" + "x" * 33])
def test_a_list_refuses_what_it_does_not_know_by_name(here: Installation, query: str) -> None:
    answer = here.backend.get(f"tokens?{query}")
    assert answer.status_code == 400
    assert [entry["field"] for entry in answer.json()["details"]["fields"]] == [query.partition("=")[0]]


def test_lists_end_at_the_project_and_at_a_limited_keys_apps(here: Installation, backend_with: MakeBackend) -> None:
    user = someone()
    upload(here, user)
    other = backend_with(new_project(here.settings).project_id)
    limited = backend_with(app_ids=["another"])
    for backend in (other, limited):
        assert backend.get(f"tokens?userId={user}").json()["tokens"] == []
        assert backend.get(f"apps-with-user-token?userId={user}").json() == {"appIds": []}
    assert limited.get(f"tokens?appId={APP_ID}").status_code == 403
    # and by its id it is not there either, whatever is wrong with it: that it exists is nobody else's to know
    [token] = tokens(here, f"userId={user}")
    for backend in (other, backend_with(other.project_id, app_ids=["another"])):
        for call in ("token/refresh", "token/revoke"):
            answer = backend.post(call, {"id": token["id"]})
            assert (answer.status_code, answer.json()["errorCode"]) == (404, "E111504"), call
    unable = backend_with(permissions=[Permission.APPS_READ, Permission.CONNECT])
    assert unable.get("tokens").status_code == unable.get(f"apps-with-user-token?userId={user}").status_code == 403


def test_the_apps_of_a_user_are_those_whose_token_works(here: Installation, clock: Clock) -> None:
    user, apps = someone(), dict[str, str]()
    now = int(clock.now.timestamp())
    uploads: dict[str, dict[str, Any]] = {
        "endless": {},
        "expiring": {"accessTokenExpiry": now + 60},
        "renewable": {"accessTokenExpiry": now + 60, "refreshToken": "rt"},
    }
    for name, fields in uploads.items():
        apps[name] = here.backend.create_app(
            here.provider.registration | {"id": f"{name}-{uuid.uuid4().hex}", "name": someone()}
        )["id"]
        upload(here, user, appId=apps[name], **fields)

    def listed(query: str) -> set[str]:
        return set(here.backend.get(f"apps-with-user-token?{query}").json()["appIds"])

    assert listed(f"userId={user}") == set(apps.values())
    clock.advance(61)
    assert listed(f"userId={user}") == {apps["endless"], apps["renewable"]}
    assert here.backend.fetch(user, appId=apps["renewable"], options={"forceRefresh": True}).status_code == 404
    assert listed(f"userId={user}") == {apps["endless"]}
    assert listed(f"userId={user}&tenantId=acme") == set()
    upload(here, user, tenantId="acme")
    assert listed(f"userId={user}&tenantId=acme") == {APP_ID}


def test_the_apps_of_nobody_are_not_listed(here: Installation) -> None:
    answer = here.backend.get("apps-with-user-token")
    assert (answer.status_code, answer.json()["errorCode"]) == (400, "E011002")


def test_a_connection_is_refreshed_on_request(here: Installation) -> None:
    user = someone()
    here.connected(user)
    old = here.backend.token(user)
    answer = here.backend.post("token/refresh", {"id": old["id"]})
    assert answer.status_code == 200, answer.text
    refreshed = answer.json()["token"]
    assert refreshed["lastRefreshTime"] != ""
    fresh = here.backend.token(user)
    assert fresh["accessToken"] != old["accessToken"]
    assert fresh["accessToken"] not in answer.text
    assert "practice_" not in answer.text


def test_a_key_for_named_apps_refreshes_no_connection_of_others(here: Installation, backend_with: MakeBackend) -> None:
    user = someone()
    here.connected(user)
    token = here.backend.token(user)
    answer = backend_with(app_ids=["another"]).post("token/refresh", {"id": token["id"]})
    assert (answer.status_code, answer.json()["errorCode"]) == (403, "E011006")
    assert here.backend.token(user) == token
    assert backend_with(app_ids=[APP_ID]).post("token/refresh", {"id": token["id"]}).status_code == 200


def test_what_cannot_be_refreshed_is_told_and_stays_as_it_is(here: Installation) -> None:
    user = someone()
    upload(here, user)
    [token] = tokens(here, f"userId={user}")
    before = dump(here.settings)
    answer = here.backend.post("token/refresh", {"id": token["id"]})
    assert (answer.status_code, answer.json()["errorCode"]) == (400, "E011003")
    for call in ("token/refresh", "token/revoke"):
        answer = here.backend.post(call, {"id": "0" * 32})
        assert (answer.status_code, answer.json()["errorCode"]) == (404, "E111504")
    assert dump(here.settings) == before


def test_a_refresh_on_request_that_fails_says_why(here: Installation) -> None:
    user = someone()
    here.connected(user)
    token = here.backend.token(user)
    here.provider.state.next_token_answers.append(instead(503))
    answer = here.backend.post("token/refresh", {"id": token["id"]})
    assert (answer.status_code, answer.json()["errorCode"]) == (503, "E111505")
    here.provider.state.access_tokens[token["accessToken"]].family.revoked_because = "the user said so"
    execute(here.settings, "UPDATE grants SET refresh_not_before = NULL")  # the pause after a failure is over
    answer = here.backend.post("token/refresh", {"id": token["id"]})
    assert answer.json()["details"]["reason"] == "reauthorization_required"


def test_a_connection_that_awaits_its_confirmation_is_listed_and_not_refreshed(here: Installation) -> None:
    registration = here.provider.registration | {"id": "", "name": someone(), "requireConfirmation": True}
    app, user = here.backend.create_app(registration), someone()
    here.connected(user, appId=app["id"])
    [token] = tokens(here, f"userId={user}&status=pending")
    assert here.backend.post("token/refresh", {"id": token["id"]}).status_code == 404
    assert here.backend.get(f"apps-with-user-token?userId={user}").json() == {"appIds": []}
