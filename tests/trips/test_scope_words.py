"""Scopes that a provider about which nothing is known writes otherwise than they were asked for."""

import pytest

from tests.infra.installation import Installation
from tests.infra.rows import expire
from tests.infra.scripted import ScriptedProvider
from tests.trips.test_connect import scripted_app
from tests.trips.test_consent_again import connect, fetch, listed, token_endpoint

TOKENS = {"access_token": "at-1", "refresh_token": "rt-1", "expires_in": 3600}
SPELLINGS = {
    "the offline scope is not named": (
        ["openid", "offline_access", "User.Read"],
        "openid profile User.Read email",
    ),
    "another case": (["mail.read"], "Mail.Read"),
    "asked long, granted short": (["https://graph.microsoft.com/User.Read"], "User.Read"),
    "asked short, granted long": (["User.Read"], "https://graph.microsoft.com/User.Read"),
    "asked long, granted short, elsewhere": (["https://api.example.com/read"], "read"),
    "a name of Google's": (["openid", "email"], "https://www.googleapis.com/auth/userinfo.email openid"),
    "other separators": (["a", "b"], "b,a"),
}


@pytest.mark.parametrize("which", SPELLINGS)
def test_a_fetch_by_what_was_asked_for_works(
    here: Installation, scripted: ScriptedProvider, user: str, which: str
) -> None:
    asked, answered = SPELLINGS[which]
    app_id = scripted_app(here, scripted, user, defaultScopes=asked)
    token_endpoint(scripted, {**TOKENS, "scope": answered})
    connect(here, app_id, user)
    for _ in range(2):  # the second after a refresh that names them in the same way
        token = here.backend.token(user, appId=app_id, scopes=asked)
        assert token["scopes"][: len(asked)] == asked
        expire(here.settings, user)


def test_a_provider_may_rename_at_a_refresh(here: Installation, scripted: ScriptedProvider, user: str) -> None:
    app_id = scripted_app(here, scripted, user, defaultScopes=["mail.read", "offline_access"])
    token_endpoint(
        scripted,
        {**TOKENS, "scope": "mail.read offline_access"},
        {**TOKENS, "scope": "https://api.example.com/Mail.Read"},
    )
    connect(here, app_id, user)
    expire(here.settings, user)
    assert fetch(here, app_id, user, "mail.read", "offline_access").status_code == 200


def test_what_a_refresh_really_takes_away_is_missing(here: Installation, scripted: ScriptedProvider, user: str) -> None:
    app_id = scripted_app(here, scripted, user, defaultScopes=["a", "b"])
    token_endpoint(scripted, TOKENS, {**TOKENS, "scope": "A"})
    connect(here, app_id, user)
    expire(here.settings, user)
    refused = fetch(here, app_id, user, "a", "b")
    assert refused.status_code == 404
    assert refused.json()["details"] == {"missingScopes": ["b"], "refusedScopes": ["b"]}
    assert fetch(here, app_id, user, "a").status_code == 200


def test_a_scope_that_the_person_left_out_stays_missing(
    here: Installation, scripted: ScriptedProvider, user: str
) -> None:
    app_id = scripted_app(here, scripted, user, defaultScopes=["a", "b"])
    token_endpoint(scripted, {**TOKENS, "scope": "a"})
    connect(here, app_id, user)
    refused = fetch(here, app_id, user, "a", "b", "c")
    assert refused.json()["details"] == {"missingScopes": ["b", "c"], "refusedScopes": ["b"]}
    assert "The last consent was asked for b, and the provider did not grant it." in refused.json()["message"]


def test_what_was_asked_for_is_kept_beside_what_was_granted(
    here: Installation, scripted: ScriptedProvider, user: str
) -> None:
    app_id = scripted_app(here, scripted, user, defaultScopes=["a", "b"])
    token_endpoint(scripted, {**TOKENS, "scope": "c A"})
    connect(here, app_id, user)
    [connection] = listed(here, user)
    assert (connection["requestedScopes"], connection["scopes"]) == (["a", "b"], ["a", "c"])


def test_a_policy_holds_for_the_same_scope_in_other_words(
    here: Installation, scripted: ScriptedProvider, user: str
) -> None:
    app_id = scripted_app(here, scripted, user, defaultScopes=["mail.read"])
    token_endpoint(scripted, {**TOKENS, "scope": "Mail.Read"})
    connect(here, app_id, user)
    policy = {"appId": app_id, "action": "fetch", "scopes": ["Mail.Read"]}
    assert here.backend.post("policies", policy).status_code == 200
    assert fetch(here, app_id, user, "MAIL.READ").status_code == 200
    assert fetch(here, app_id, user, "mail.send").status_code == 403
