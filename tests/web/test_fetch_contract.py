"""Fetching tokens as the vendor documents it, by the same request of the same tool; and which grant answers."""

import json
import shlex
import subprocess
import time
import uuid
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from tests.conftest import Clock
from tests.infra.installation import APP_ID, Backend, Browser, Installation, came_back
from tests.infra.people import kill, someone
from tests.infra.scripted import ScriptedProvider, serving
from tests.infra.waiting import PATIENCE

DOCUMENTED_SCOPE = "https://www.googleapis.com/auth/contacts.readonly"

# As published; only the host, the project and the key are replaced.
DOCUMENTED_REQUEST = r"""
curl -X POST "https://api.descope.com/v1/mgmt/outbound/app/user/token" \
  -H "Content-Type: application/json" \
  -H "Authorization: Bearer <PROJECT_ID:MANAGEMENT_KEY>" \
  -d '{
  "appId": "google-contacts",
  "userId": "xxxxx",
  "scopes": [
    "https://www.googleapis.com/auth/contacts.readonly"
  ],
  "options": {
    "withRefreshToken": true,
    "forceRefresh": true
  }
}'
"""

DOCUMENTED_ANSWER = """
{
  "token": {
    "id": "xxxx",
    "appId": "google-contacts",
    "userId": "xxxx",
    "tokenSub": "",
    "accessToken": "ya29.xxxx",
    "accessTokenType": "Bearer",
    "accessTokenExpiry": "1741107113",
    "hasRefreshToken": true,
    "refreshToken": "xxxx",
    "lastRefreshTime": "1741103514",
    "lastRefreshError": "",
    "scopes": [
      "https://www.googleapis.com/auth/contacts.readonly"
    ]
  }
}
"""


def curl(backend: Backend, command: str) -> str:
    """Run a documented command against this installation, and return what it prints."""
    command = command.replace("https://api.descope.com", backend.url)
    command = command.replace("<PROJECT_ID:MANAGEMENT_KEY>", f"{backend.project_id}:{backend.management_key}")
    arguments = shlex.split(command.replace("\\\n", " "))
    assert arguments[0] == "curl"
    done = subprocess.run([*arguments, "--silent", "--noproxy", "*"], capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_documented_request_is_answered_as_documented(here: Installation) -> None:
    with serving(ScriptedProvider()) as provider:
        tokens = {"access_token": "ya29.first", "token_type": "Bearer", "expires_in": 3599, "scope": DOCUMENTED_SCOPE}
        provider.routes["/token"] = {**tokens, "refresh_token": "1//first"}
        app = here.backend.create_app(provider.registration("google-contacts", defaultScopes=[DOCUMENTED_SCOPE]))
        leaving = here.browser()
        url = leaving.agree(here.backend.connect_url("xxxxx", appId="google-contacts"))
        state = parse_qs(urlsplit(url).query)["state"][0]
        answer = leaving.open(f"{app['callbackUrl']}?code=4/0Adeu5B&state={state}")
        assert came_back(answer)["outboundStatus"] == "connected"

        provider.routes["/token"] = {**tokens, "access_token": "ya29.second"}  # Google keeps the refresh token
        printed = json.loads(curl(here.backend, DOCUMENTED_REQUEST))

    documented: dict[str, Any] = json.loads(DOCUMENTED_ANSWER)
    token, example = printed["token"], documented["token"]
    assert list(printed) == list(documented)
    assert list(token) == list(example)
    assert [type(value) for value in token.values()] == [type(value) for value in example.values()]
    for same in ("appId", "tokenSub", "accessTokenType", "hasRefreshToken", "lastRefreshError", "scopes"):
        assert token[same] == example[same]
    assert (token["userId"], token["accessToken"], token["refreshToken"]) == ("xxxxx", "ya29.second", "1//first")
    assert abs(int(token["lastRefreshTime"]) - time.time()) < 60
    assert int(token["accessTokenExpiry"]) - int(token["lastRefreshTime"]) in (3598, 3599, 3600)


def test_a_plain_fetch_leaves_out_what_was_not_asked_for_or_does_not_apply(here: Installation) -> None:
    user = someone()
    here.connected(user)
    token = here.backend.token(user)
    assert not token.keys() & {"refreshToken", "tenantId", "grantedBy", "externalIdentifier"}
    assert token["hasRefreshToken"] is True
    assert token["tokenSub"] == "practice-ada"
    assert token["lastRefreshTime"] == ""


def connect(here: Installation, user: str, *scopes: str, **fields: Any) -> dict[str, Any]:
    """Connect with these scopes and return the token."""
    options = {"redirectUrl": "https://app.example.com/done", "scopes": list(scopes)}
    here.connected(user, options=options | fields.pop("options", {}), **fields)
    return here.backend.token(user, scopes=list(scopes))


def test_the_grant_with_exactly_these_scopes_answers_whatever_their_order(here: Installation) -> None:
    user = someone()
    exact = connect(here, user, "contacts", "email")
    connect(here, user, "contacts")
    connect(here, user, "contacts", "email", "profile")
    for scopes in (["contacts", "email"], ["email", "contacts"], ["email", "email", "contacts"]):
        assert here.backend.token(user, scopes=scopes)["id"] == exact["id"]


def test_else_the_smallest_grant_that_covers_them(here: Installation) -> None:
    user = someone()
    smaller = connect(here, user, "contacts", "email")
    connect(here, user, "contacts", "email", "profile")
    assert here.backend.token(user, scopes=["contacts"])["id"] == smaller["id"]


def test_else_none_and_the_missing_scopes_are_named(here: Installation) -> None:
    user = someone()
    connect(here, user, "contacts", "email")
    answer = here.backend.fetch(user, scopes=["contacts", "profile", "contacts.readonly"])
    assert (answer.status_code, answer.json()["errorCode"]) == (404, "E111504")
    assert answer.json()["details"]["missingScopes"] == ["contacts.readonly", "profile"]


def test_nobody_connected_is_told_without_missing_scopes(here: Installation) -> None:
    answer = here.backend.fetch(someone())
    assert (answer.status_code, answer.json()["errorCode"]) == (404, "E111504")
    assert "details" not in answer.json()


def test_an_unknown_app_is_told_apart_from_an_unknown_user(here: Installation) -> None:
    answer = here.backend.fetch(someone(), appId="nowhere")
    assert (answer.status_code, answer.json()["errorCode"]) == (404, "E111503")


def test_a_dead_grant_is_told_with_what_the_provider_said(here: Installation) -> None:
    user = someone()
    kill(here, user, scopes=connect(here, user, "contacts")["scopes"])
    answer = here.backend.fetch(user, scopes=["contacts"])
    assert (answer.status_code, answer.json()["errorCode"]) == (404, "E111504")
    assert answer.json()["details"]["reason"] == "reauthorization_required"
    assert "invalid_grant" in answer.json()["details"]["lastRefreshError"]


def test_a_living_grant_that_covers_the_scopes_answers_for_a_dead_one_that_is_exact(here: Installation) -> None:
    user = someone()
    dead = connect(here, user, "contacts")
    alive = connect(here, user, "contacts", "email")
    kill(here, user, scopes=dead["scopes"])
    assert here.backend.token(user, scopes=["contacts"])["id"] == alive["id"]


def test_latest_is_the_most_recently_consented_grant_that_still_works(here: Installation, clock: Clock) -> None:
    user = someone()
    tokens = []
    for scopes in (("contacts",), ("email", "profile"), ("contacts", "email")):
        clock.advance(1)
        tokens.append(connect(here, user, *scopes))

    def latest() -> str:
        answer = here.backend.post("app/user/token/latest", {"appId": APP_ID, "userId": user})
        return str(answer.json()["token"]["id"]) if answer.status_code == 200 else str(answer.json()["errorCode"])

    here.backend.token(user, scopes=["contacts"], options={"forceRefresh": True})  # a refresh is no consent
    clock.advance(60)
    for token in reversed(tokens):
        assert latest() == token["id"]
        kill(here, user, scopes=token["scopes"])
    assert latest() == "E111504"


def test_connecting_again_takes_the_place_of_the_dead_grant(here: Installation) -> None:
    user = someone()
    dead = connect(here, user, "contacts")
    kill(here, user, scopes=dead["scopes"])
    new = connect(here, user, "contacts")
    assert new["id"] != dead["id"]
    listed = here.backend.get(f"tokens?userId={user}").json()["tokens"]
    assert [token["id"] for token in listed] == [new["id"]]


def test_the_three_levels_never_stand_in_for_each_other(here: Installation) -> None:
    user, tenant = someone(), f"tenant-{uuid.uuid4().hex}"
    scopes = ["contacts"]
    wanted: dict[str, tuple[str, dict[str, str]]] = {
        "user": ("app/user/token", {"userId": user}),
        "user in tenant": ("app/user/token", {"userId": user, "tenantId": tenant}),
        "tenant": ("app/tenant/token", {"tenantId": tenant}),
    }
    options = {"redirectUrl": "https://app.example.com/done", "scopes": scopes}
    trips: dict[str, dict[str, Any]] = {
        "user": {},
        "user in tenant": {"tenantId": tenant},
        "tenant": {"tenantId": tenant, "tenantLevel": True},
    }
    found: dict[str, dict[str, Any]] = {}
    for level, trip in trips.items():
        here.connected(user, options=options, **trip)
        for other, (path, owner) in wanted.items():
            answers = [
                here.backend.post(path, {"appId": APP_ID, "scopes": scopes, **owner}),
                here.backend.post(f"{path}/latest", {"appId": APP_ID, **owner}),
            ]
            if other == level or other in found:
                found[other] = answers[0].json()["token"]
                assert found[other] == answers[1].json()["token"]
            else:
                assert [answer.status_code for answer in answers] == [404, 404]
    assert len({token["id"] for token in found.values()}) == 3
    assert "tenantId" not in found["user"]
    assert (found["user in tenant"]["userId"], found["user in tenant"]["tenantId"]) == (user, tenant)
    assert (found["tenant"]["userId"], found["tenant"]["tenantId"]) == ("", tenant)
    assert found["tenant"]["grantedBy"] == user


def test_several_accounts_of_one_user_are_told_apart(here: Installation) -> None:
    user = someone()
    for account, person in (("work", "practice-ada"), ("home", "practice-grace")):
        options = {"redirectUrl": "https://app.example.com/done", "externalIdentifier": account}
        Browser.connect(here.browser(), here.backend.connect_url(user, options=options), person=person)
    subjects = {
        account: here.backend.token(user, externalIdentifier=account)["tokenSub"] for account in ("work", "home")
    }
    assert subjects == {"work": "practice-ada", "home": "practice-grace"}
    assert here.backend.token(user, externalIdentifier="work")["externalIdentifier"] == "work"
    assert here.backend.fetch(user).status_code == 404


@pytest.mark.parametrize("path", ["app/user/token", "app/user/token/latest"])
def test_a_token_lives_at_least_as_long_as_was_asked(here: Installation, clock: Clock, path: str) -> None:
    user = someone()
    first = connect(here, user, "contacts")
    body = {"appId": APP_ID, "userId": user, "scopes": ["contacts"]}
    clock.advance(600)  # 3,000 seconds are left

    def fetch(seconds: int) -> dict[str, Any]:
        token: dict[str, Any] = here.backend.post(path, {**body, "options": {"minimumSeconds": seconds}}).json()[
            "token"
        ]
        return token

    assert fetch(2_999)["accessToken"] == first["accessToken"]
    renewed = fetch(3_001)
    assert renewed["accessToken"] != first["accessToken"]
    assert int(renewed["accessTokenExpiry"]) >= clock.now.timestamp() + 3_001


def test_a_token_is_not_for_caches(here: Installation) -> None:
    user = someone()
    here.connected(user)
    assert here.backend.fetch(user).headers["cache-control"] == "no-store"
