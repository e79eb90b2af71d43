"""Uploading OAuth tokens: what users have elsewhere works here, or nothing is stored."""

import time
import uuid
from typing import Any

import pytest

from evergrant.broker.runtime.principal import Permission
from evergrant.practice.faults import instead
from evergrant.practice.state import Tokens
from evergrant.practice.world import PERSONS
from tests.conftest import Clock
from tests.infra.installation import APP_ID, CLIENT_ID, SCOPES, Backend, Installation
from tests.infra.people import someone
from tests.infra.rows import dump
from tests.web.conftest import MakeBackend

ADA = PERSONS["practice-ada"]
USER = "app/user/oauthtoken/upload"
TENANT = "app/tenant/oauthtoken/upload"
BATCH = "app/user/oauthtoken/batch/upload"
TENANT_BATCH = "app/tenant/oauthtoken/batch/upload"


def from_elsewhere(here: Installation) -> Tokens:
    """Tokens that the provider issued to the same client while it was used by something else."""
    family = here.provider.state.start_family(client_id=CLIENT_ID, person=ADA, scopes=SCOPES)
    return here.provider.state.issue(family)


def upload(here: Installation, user: str, *, status: int = 200, path: str = USER, **fields: Any) -> dict[str, Any]:
    answer = here.backend.post(path, {"appId": APP_ID, "userId": user, **fields})
    assert answer.status_code == status, answer.text
    body: dict[str, Any] = answer.json()
    return body


def refused(here: Installation, user: str, code: str, **fields: Any) -> dict[str, Any]:
    """Upload what must be refused, and make sure that nothing was written."""
    before = dump(here.settings)
    error = upload(here, user, status=fields.pop("status", 400), **fields)
    assert error["errorCode"] == code, error
    assert dump(here.settings) == before
    return error


def test_an_uploaded_access_token_is_fetched_as_it_is(here: Installation) -> None:
    user, expiry = someone(), int(time.time()) + 3_000
    assert upload(here, user, accessToken="at-elsewhere", accessTokenExpiry=expiry, scopes=["contacts"]) == {}
    token = here.backend.token(user, scopes=["contacts"])
    assert (token["accessToken"], token["accessTokenType"]) == ("at-elsewhere", "Bearer")
    assert token["accessTokenExpiry"] == str(expiry)
    assert (token["hasRefreshToken"], token["scopes"], token["tokenSub"]) == (False, ["contacts"], "")


def test_a_refresh_token_alone_becomes_an_access_token_at_the_first_fetch(here: Installation) -> None:
    user, tokens = someone(), from_elsewhere(here)
    calls = here.provider.state.token_calls["refresh_token"]
    upload(here, user, refreshToken=tokens.refresh_token)
    assert here.provider.state.token_calls["refresh_token"] == calls
    token = here.backend.token(user)
    assert here.provider.state.access_tokens[token["accessToken"]].works
    assert here.backend.token(user)["accessToken"] == token["accessToken"]
    assert here.provider.state.token_calls["refresh_token"] == calls + 1


@pytest.mark.parametrize("path", ["app/user/token", "app/user/token/latest"])
def test_no_empty_token_is_handed_out_while_the_provider_is_away(here: Installation, path: str) -> None:
    user, tokens = someone(), from_elsewhere(here)
    upload(here, user, refreshToken=tokens.refresh_token)
    here.provider.state.next_token_answers.append(instead(503))
    answer = here.backend.post(path, {"appId": APP_ID, "userId": user, "scopes": SCOPES})
    assert (answer.status_code, answer.json()["errorCode"]) == (503, "E111505")


def test_an_expired_access_token_with_a_refresh_token_is_refreshed(here: Installation) -> None:
    user, tokens = someone(), from_elsewhere(here)
    upload(here, user, accessToken="at-old", refreshToken=tokens.refresh_token, accessTokenExpiry=int(time.time()) - 9)
    assert here.provider.state.access_tokens[here.backend.token(user)["accessToken"]].works


def test_the_scopes_are_the_apps_default_ones_where_none_are_named(here: Installation) -> None:
    user = someone()
    upload(here, user, accessToken="at-elsewhere")
    assert here.backend.token(user, scopes=SCOPES)["scopes"] == SCOPES


def test_an_upload_takes_the_place_of_the_connection_with_the_same_scopes(here: Installation) -> None:
    user = someone()
    for number in (1, 2):
        upload(here, user, accessToken=f"at-{number}", scopes=["contacts"])
    upload(here, user, accessToken="at-other", scopes=["email"])
    assert here.backend.token(user, scopes=["contacts"])["accessToken"] == "at-2"
    assert len(here.backend.get(f"tokens?userId={user}").json()["tokens"]) == 2


def test_a_tenants_own_a_users_in_a_tenant_and_an_account_are_kept_apart(here: Installation) -> None:
    user, tenant = someone(), f"tenant-{uuid.uuid4().hex}"
    upload(here, user, accessToken="at-user")
    upload(here, user, accessToken="at-in-tenant", tenantId=tenant)
    upload(here, user, accessToken="at-work", externalIdentifier="work")
    answer = here.backend.post(
        TENANT, {"appId": APP_ID, "tenantId": tenant, "accessToken": "at-tenant", "grantedBy": user}
    )
    assert answer.json() == {}
    assert here.backend.token(user)["accessToken"] == "at-user"
    assert here.backend.token(user, tenantId=tenant)["accessToken"] == "at-in-tenant"
    assert here.backend.token(user, externalIdentifier="work")["accessToken"] == "at-work"
    tenants = here.backend.post("app/tenant/token", {"appId": APP_ID, "tenantId": tenant, "scopes": SCOPES}).json()
    assert (tenants["token"]["accessToken"], tenants["token"]["grantedBy"]) == ("at-tenant", user)


def test_the_subject_is_taken_from_an_id_token_that_is_valid(here: Installation) -> None:
    user, tokens = someone(), from_elsewhere(here)
    upload(here, user, accessToken=tokens.access_token, idToken=tokens.id_token)
    assert here.backend.token(user)["tokenSub"] == ADA.id


def test_an_id_token_that_does_not_hold_is_ignored(here: Installation) -> None:
    user, tokens = someone(), from_elsewhere(here)
    assert tokens.id_token is not None
    upload(here, user, accessToken=tokens.access_token, idToken=tokens.id_token[:-4] + "AAAA")
    assert here.backend.token(user)["tokenSub"] == ""
    [listed] = here.backend.get(f"tokens?userId={user}").json()["tokens"]
    assert "signature is wrong" in listed["tokenSubProblem"]


def test_a_verified_refresh_token_is_rotated_and_what_came_back_is_stored(here: Installation) -> None:
    user, tokens = someone(), from_elsewhere(here)
    assert tokens.refresh_token is not None
    upload(here, user, refreshToken=tokens.refresh_token, verifyRefresh=True)
    assert here.provider.state.refresh_tokens[tokens.refresh_token].spent
    token = here.backend.token(user)
    assert here.provider.state.access_tokens[token["accessToken"]].works
    again = here.backend.token(user, options={"forceRefresh": True})  # the spent one would end the consent
    assert here.provider.state.access_tokens[again["accessToken"]].works


def test_a_verified_refresh_token_that_does_not_rotate_is_kept(here: Installation) -> None:
    user = someone()
    here.provider.state.next_token_answers.append(instead(200, {"access_token": "at-new", "token_type": "Bearer"}))
    upload(here, user, refreshToken="rt-that-stays", verifyRefresh=True)
    token = here.backend.token(user, options={"withRefreshToken": True})
    assert (token["accessToken"], token["refreshToken"]) == ("at-new", "rt-that-stays")


def test_a_refresh_token_that_the_provider_refuses_is_not_stored(here: Installation) -> None:
    error = refused(here, someone(), "E111508", refreshToken="rt-of-nobody", accessToken="at", verifyRefresh=True)
    assert error["details"] == {"providerError": "invalid_grant"}
    assert "rt-of-nobody" not in str(error)


@pytest.mark.parametrize(
    ("fault", "status", "code"),
    [
        (instead(503), 503, "E111505"),
        (instead(401, {"error": "invalid_client"}), 502, "E111506"),
    ],
    ids=["away", "wrong registration"],
)
def test_what_cannot_be_verified_is_not_stored(here: Installation, fault: Any, status: int, code: str) -> None:
    tokens = from_elsewhere(here)
    here.provider.state.next_token_answers.append(fault)
    refused(here, someone(), code, status=status, refreshToken=tokens.refresh_token, verifyRefresh=True)


@pytest.mark.parametrize(
    ("fields", "code", "field"),
    [
        ({}, "E011002", "refreshToken"),
        ({"refreshToken": "", "accessToken": ""}, "E011002", "refreshToken"),
        ({"accessToken": "at", "verifyRefresh": True}, "E011002", "refreshToken"),
        ({"accessToken": "at", "accessTokenExpiry": 1}, "E011003", "accessTokenExpiry"),
        ({"accessToken": "at", "accessTokenExpiry": "soon"}, "E011001", "accessTokenExpiry"),
        ({"accessToken": "at", "accessTokenExpiry": -1}, "E011003", "accessTokenExpiry"),
        ({"accessToken": "two words"}, "E011003", "accessToken"),
        ({"refreshToken": "line\nbreak"}, "E011003", "refreshToken"),
        ({"accessToken": "at", "idToken": "é"}, "E011003", "idToken"),
        ({"accessToken": "at", "scopes": ["two words"]}, "E011003", "scopes"),
        ({"accessToken": "at", "accessTokenType": "Bear er"}, "E011003", "accessTokenType"),
        ({"accessToken": 7}, "E011001", "accessToken"),
    ],
)
def test_a_wrong_field_is_named_and_nothing_is_stored(
    here: Installation, fields: dict[str, Any], code: str, field: str
) -> None:
    error = refused(here, someone(), code, **fields)
    assert [entry["field"] for entry in error["details"]["fields"]] == [field]


@pytest.mark.parametrize(("text", "end"), [("2000000000", "2000000000"), ("", ""), ("0", ""), (0, "")])
def test_an_end_may_be_written_as_a_fetch_writes_it(here: Installation, text: Any, end: str) -> None:
    user = someone()
    upload(here, user, accessToken="at-1", accessTokenExpiry=text, scopes=["contacts"])
    assert here.backend.token(user, scopes=["contacts"])["accessTokenExpiry"] == end


@pytest.mark.parametrize("text", ["2033-05-18T03:33:20Z", "2000000000.5", "-1", "1e9", " 0x10", "٢٠٠٠", True, 1.5])
def test_an_end_in_another_form_is_refused(here: Installation, text: Any) -> None:
    error = refused(here, someone(), "E011001", accessToken="at-1", accessTokenExpiry=text)
    assert [entry["field"] for entry in error["details"]["fields"]] == ["accessTokenExpiry"]
    refused(here, someone(), "E011003", accessToken="at-1", accessTokenExpiry="9" * 30)


def test_tokens_may_be_as_long_as_those_that_a_provider_issues(here: Installation) -> None:
    user, longest = someone(), 64 * 1024
    tokens: dict[str, Any] = {"accessToken": "a" * longest, "refreshToken": "r" * longest, "idToken": "i" * longest}
    upload(here, user, accessTokenExpiry=2_000_000_000, **tokens)
    token = here.backend.token(user, options={"withRefreshToken": True})
    assert (token["accessToken"], token["refreshToken"]) == (tokens["accessToken"], tokens["refreshToken"])
    error = refused(here, someone(), "E011003", accessToken="a" * (longest + 1))
    assert [entry["field"] for entry in error["details"]["fields"]] == ["accessToken"]


@pytest.mark.parametrize("whose", ["user", "tenant"])
def test_what_a_fetch_answers_moves_to_another_evergrant(here: Installation, other: Backend, whose: str) -> None:
    owner, long = someone(), "rt-" + "x" * 20_000
    tokens = {"accessToken": "at-moved", "refreshToken": long, "accessTokenExpiry": 2_000_000_000}
    fields = {"scopes": ["contacts"], "externalIdentifier": "work", "grantedBy": "boss"}
    path, name = (USER, "userId") if whose == "user" else (TENANT, "tenantId")
    stored = here.backend.post(path, {"appId": APP_ID, name: owner, **tokens, **fields})
    assert stored.status_code == 200, stored.text
    fetch = {"appId": APP_ID, name: owner, "externalIdentifier": "work", "options": {"withRefreshToken": True}}
    fetched = here.backend.post(f"app/{whose}/token/latest", fetch).json()["token"]
    other.create_app(here.provider.registration)
    moved = other.post(path, fetched)
    assert moved.status_code == 200, moved.text
    there = other.post(f"app/{whose}/token/latest", fetch).json()["token"]
    assert there | {"id": ""} == fetched | {"id": ""}
    # and the list's entry is the same but for what it never shows
    listed = here.backend.get(f"tokens?{name}={owner}").json()["tokens"][0]
    assert other.post(path, {**listed, "accessToken": "at-moved"}).status_code == 200


def test_an_app_that_cannot_refresh_takes_no_refresh_token(here: Installation) -> None:
    app = here.backend.create_app({"name": f"App {uuid.uuid4().hex}"})
    error = refused(here, someone(), "E011003", appId=app["id"], refreshToken="rt")
    assert "clientId, tokenUrl" in error["message"]


def test_an_unknown_app_is_told(here: Installation) -> None:
    refused(here, someone(), "E111503", status=404, appId="nowhere", accessToken="at")


@pytest.mark.parametrize(
    "path", [USER, TENANT, BATCH, TENANT_BATCH, "app/user/apikey/upload", "app/tenant/apikey/upload"]
)
def test_uploading_needs_its_permission(here: Installation, backend_with: MakeBackend, path: str) -> None:
    fields = {"appId": APP_ID, "userId": "eve", "tenantId": "acme", "accessToken": "at", "apiKey": "k", "tokens": []}
    answer = backend_with(permissions=[Permission.TOKENS_FETCH, Permission.APPS_WRITE]).post(path, fields)
    assert (answer.status_code, answer.json()["errorCode"]) == (403, "E011006")


def test_a_key_that_is_limited_to_other_apps_uploads_nothing(here: Installation, backend_with: MakeBackend) -> None:
    limited, before = backend_with(app_ids=["another"]), dump(here.settings)
    answer = limited.post(USER, {"appId": APP_ID, "userId": "eve", "accessToken": "at"})
    assert (answer.status_code, answer.json()["errorCode"]) == (403, "E011006")
    item = {"appId": APP_ID, "userId": "eve", "accessToken": "at"}
    assert [f["errorCode"] for f in limited.post(BATCH, {"tokens": [item]}).json()["failures"]] == ["E011006"]
    after = dump(here.settings)
    assert after["grants"] == before["grants"]


def test_an_upload_is_in_the_audit_log_without_its_secrets(here: Installation) -> None:
    user = someone()
    upload(here, user, accessToken="at-secret-of-the-upload", scopes=["contacts"])
    events = [event for event in dump(here.settings)["audit_events"] if event["user_id"] == user]
    assert [event["action"] for event in events] == ["token.uploaded"]
    assert "at-secret-of-the-upload" not in str(dump(here.settings))


def test_a_batch_is_stored_whole(here: Installation) -> None:
    users = [someone() for _ in range(5)]
    items = [{"appId": APP_ID, "userId": user, "accessToken": f"at-{user}"} for user in users]
    assert here.backend.post(BATCH, {"tokens": items}).json() == {"failures": []}
    assert [here.backend.token(user)["accessToken"] for user in users] == [f"at-{user}" for user in users]
    assert here.backend.post(BATCH, {"tokens": []}).json() == {"failures": []}


def test_a_batch_for_tenants_is_stored_whole(here: Installation) -> None:
    tenant = f"tenant-{uuid.uuid4().hex}"
    items = [{"appId": APP_ID, "tenantId": tenant, "accessToken": "at-tenant"}]
    assert here.backend.post(TENANT_BATCH, {"tokens": items}).json() == {"failures": []}
    body = {"appId": APP_ID, "tenantId": tenant, "scopes": SCOPES}
    assert here.backend.post("app/tenant/token", body).json()["token"]["accessToken"] == "at-tenant"


def test_one_bad_item_keeps_a_batch_out_and_each_failure_is_named(here: Installation) -> None:
    user, before = someone(), dump(here.settings)
    items: list[dict[str, Any]] = [
        {"appId": APP_ID, "userId": user, "accessToken": "at"},
        {"appId": APP_ID, "userId": user, "accessToken": "at-2"},
        {"appId": APP_ID, "userId": user, "tenantId": "acme"},
        {"appId": "nowhere", "userId": user, "accessToken": "at"},
        {"appId": APP_ID, "userId": someone(), "refreshToken": "rt", "verifyRefresh": True},
    ]
    answer = here.backend.post(BATCH, {"tokens": items})
    assert answer.status_code == 200
    failures = answer.json()["failures"]
    assert [failure["errorCode"] for failure in failures] == ["E011003", "E011002", "E111503", "E011003"]
    assert [failure["userId"] for failure in failures[:3]] == [user] * 3
    assert failures[1]["tenantId"] == "acme"
    assert failures[2]["appId"] == "nowhere"
    assert "twice" in failures[0]["reason"]
    assert "verifyRefresh" in failures[3]["reason"]
    assert dump(here.settings) == before


def test_a_batch_has_at_most_a_thousand_items(here: Installation) -> None:
    items = [{"appId": APP_ID, "userId": f"user-{n}", "accessToken": "at"} for n in range(1_001)]
    answer = here.backend.post(BATCH, {"tokens": items})
    assert (answer.status_code, answer.json()["details"]["fields"]) == (
        400,
        [{"field": "tokens", "problem": "use at most 1,000 items"}],
    )


@pytest.mark.parametrize(("path", "size", "status"), [(BATCH, 9, 200), (TENANT_BATCH, 11, 413), (USER, 2, 413)])
def test_only_a_batch_may_be_larger_than_1_mib_and_10_at_most(
    here: Installation, path: str, size: int, status: int
) -> None:
    answer = here.backend.post(path, {"tokens": [], "padding": "x" * (size * 1024 * 1024)})
    assert answer.status_code == status, answer.text


def test_a_whole_batch_of_a_thousand_goes_in_at_once(here: Installation) -> None:
    tenant = f"tenant-{uuid.uuid4().hex}"
    items = [{"appId": APP_ID, "userId": f"u{n}", "tenantId": tenant, "accessToken": f"at-{n}"} for n in range(1_000)]
    assert here.backend.post(BATCH, {"tokens": items}).json() == {"failures": []}
    assert here.backend.token("u999", tenantId=tenant)["accessToken"] == "at-999"


def test_a_provider_that_names_no_lifetime_after_an_upload_is_believed(here: Installation, clock: Clock) -> None:
    user, tokens = someone(), from_elsewhere(here)
    past = int(clock.now.timestamp()) - 9
    upload(here, user, accessToken="at-old", refreshToken=tokens.refresh_token, accessTokenExpiry=past)
    answer = {"access_token": "at-endless", "token_type": "Bearer"}
    here.provider.state.next_token_answers.append(instead(200, answer))
    token = here.backend.token(user)
    assert (token["accessToken"], token["accessTokenExpiry"]) == ("at-endless", "")
