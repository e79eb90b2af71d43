"""Issuers and policies at the console, and what a token may do by them."""

from collections.abc import Iterator

import pytest

from tests.infra.console import Operator, words_of
from tests.infra.installation import APP_ID, Installation
from tests.infra.issuer import AUDIENCE, Issuer
from tests.infra.rows import dump
from tests.infra.scripted import serving

pytestmark = pytest.mark.parametrize("here", ["sqlite"], indirect=True)


@pytest.fixture(scope="module")
def issuer() -> Iterator[Issuer]:
    with serving(Issuer()) as running:
        yield running


@pytest.fixture
def trusted(operator: Operator, issuer: Issuer) -> Iterator[Issuer]:
    """An issuer that the project trusts for one test."""
    form = {"issuer": issuer.url, "audience": AUDIENCE, "user_claim": "sub", "tenant_claim": "tenant"}
    assert operator.post("issuers/new", form).status_code == 303
    yield issuer
    http = operator.http
    listed = operator.get("issuers").text
    issuer_id = listed.partition("/remove")[0].rpartition("/")[2]
    assert http.get(f"/console/{operator.project_id}/issuers/{issuer_id}/remove").status_code == 200
    assert operator.post(f"issuers/{issuer_id}/remove").status_code == 303


def test_a_token_is_tried_claim_by_claim_and_kept_nowhere(
    here: Installation, operator: Operator, trusted: Issuer
) -> None:
    token = trusted.access("alice", tenant="acme")
    page = operator.post("issuers/try", {"token": token})
    said = words_of(page)
    assert "This token is accepted" in said
    assert "The user is alice." in said
    assert "The tenant is acme." in said
    assert "Fetch Practice contacts No policy limits it." in said
    assert token.split(".")[1] not in page.text + str(dump(here.settings))
    refused = {
        "It is for another audience": trusted.access(aud="https://other.example"),
        "It has expired": trusted.access(exp=1_000_000_000),
        "is not trusted here": trusted.access(iss="https://evil.example"),
        "Its signature is wrong": token[:-6] + "AAAAAA",
        "It is not a signed token": "nonsense",
        "It does not name a user": trusted.access(sub=...),
    }
    for why, wrong in refused.items():
        said = words_of(operator.post("issuers/try", {"token": wrong}))
        assert "This token is refused" in said, why
        assert why in said
    assert "Token lacks" not in said
    without_scope = words_of(operator.post("issuers/try", {"token": trusted.session("alice")}))
    assert "The token lacks the scope outbound.token.fetch." in without_scope
    assert "It may connect, and neither have calls made" in without_scope
    calls = trusted.access("alice", scope="outbound.call", act={"sub": "mail-helper"})
    may_call = words_of(operator.post("issuers/try", {"token": calls}))
    assert "With outbound.call it may have calls made, and not fetch" in may_call
    assert "Policies and logs know its agent as mail-helper." in may_call
    assert "Call Practice contacts No policy limits it." in may_call


def test_a_call_tries_a_token_too(here: Installation, operator: Operator, trusted: Issuer) -> None:
    answer = here.backend.http.post("/v1/mgmt/trustedissuer/try", json={"token": trusted.access("alice")})
    assert answer.json()["accepted"] is True
    assert {(one["appId"], one["action"]) for one in answer.json()["apps"]} >= {(APP_ID, "fetch"), (APP_ID, "connect")}


def test_an_issuer_whose_keys_cannot_be_read_is_not_trusted(operator: Operator, issuer: Issuer) -> None:
    form = {"issuer": issuer.url, "audience": AUDIENCE, "user_claim": "sub", "jwks_url": f"{issuer.url}/nothing"}
    page = operator.post("issuers/new", form)
    assert page.status_code == 400
    assert "signing keys cannot be read" in words_of(page)
    assert AUDIENCE in page.text


def test_a_policy_reads_as_a_sentence_and_counts_at_once(
    here: Installation, operator: Operator, trusted: Issuer
) -> None:
    form = {"app": APP_ID, "action": "fetch", "claim": ["roles", ""], "values": ["sales, support", ""]}
    assert operator.post("policies/new", {**form, "scopes": "contacts.readonly\n"}).status_code == 303
    listed = operator.get("policies")
    sentence = "Users with roles = sales or support may fetch Practice contacts , at most contacts.readonly"
    assert sentence in words_of(listed)
    for roles, word in ((["sales"], "Yes Fetch Practice contacts"), (["legal"], "No Fetch Practice contacts")):
        assert word in words_of(operator.post("issuers/try", {"token": trusted.access(roles=roles)}))
    policy_id = listed.text.partition("/remove")[0].rpartition("/")[2]
    assert "It is the last one." in words_of(operator.get(f"policies/{policy_id}/remove"))
    assert operator.post(f"policies/{policy_id}/remove").status_code == 303
    assert "No policy limits anybody yet" in words_of(operator.get("policies"))
    wrong = operator.post("policies/new", {"app": APP_ID, "action": "fetch", "claim": "roles", "values": ""})
    assert (wrong.status_code, 'value="roles"' in wrong.text) == (400, True)
