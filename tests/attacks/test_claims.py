"""More rights never come from leaving something out of a token, nor from adding something. A machine is known by a
sign, a bearer's token by its kind, a project's user by what the project itself trusts; and no number breaks that."""

import json
import time
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import httpx2
import pytest
from joserfc import jws

from tests.infra.installation import APP_ID, SCOPES, Backend, Installation, new_project
from tests.infra.issuer import AUDIENCE, Issuer
from tests.infra.people import call, connect, fetch, refused, trust
from tests.infra.rows import dump
from tests.infra.scripted import serving

EXCHANGE = {
    "grant_type": "urn:ietf:params:oauth:grant-type:token-exchange",
    "subject_token_type": "urn:ietf:params:oauth:token-type:access_token",
    "audience": APP_ID,
}


@pytest.fixture(scope="module")
def by_mail(here: Installation) -> Iterator[Issuer]:
    """An issuer whose users are named by `email`; alice and the tenant acme have a token."""
    upload(here.backend, "user", userId="alice")
    upload(here.backend, "user", userId="alice", tenantId="acme")
    upload(here.backend, "tenant", tenantId="acme")
    with serving(Issuer()) as running:
        trust(here.backend, running, userClaim="email")
        yield running


def upload(backend: Backend, level: str, **owner: str) -> None:
    token = {"appId": APP_ID, **owner, "accessToken": f"of-{level}-{len(owner)}", "scopes": SCOPES}
    assert backend.post(f"app/{level}/oauthtoken/upload", token).status_code == 200


def tenants(here: Installation, token: str) -> httpx2.Response:
    return call(here, "app/tenant/token/latest", token, {"appId": APP_ID, "tenantId": "acme"})


def exchanged(here: Installation, token: str) -> httpx2.Response:
    form = {**EXCHANGE, "subject_token": token, "project_id": here.backend.project_id}
    return here.backend.http.post("/oauth2/v1/token", data={**form, "tenant_id": "acme"})


def is_refused(here: Installation, token: str) -> bool:
    """Whether a token is believed by no call."""
    calls = (
        fetch(here, token),
        connect(here, token, tenantId="acme", tenantLevel=True),
        tenants(here, token),
    )
    by_exchange = exchanged(here, token).json().get("error")
    return all(refused(answer, 401, "E011005") for answer in calls) and by_exchange == "invalid_request"


def signed(idp: Issuer, claims: dict[str, Any], **header: Any) -> str:
    return jws.serialize_compact({"alg": "ES256", "kid": "key-1", **header}, json.dumps(claims).encode(), idp.key)


# -- users and machines


def test_a_user_who_leaves_the_user_claim_out_does_not_become_the_tenants_machine(
    here: Installation, by_mail: Issuer
) -> None:
    whole = {"email": "alice", "tenant": "acme", "client_id": "spa", "azp": "spa"}
    assert fetch(here, by_mail.access("u-1", **whole)).status_code == 200  # a user's own works
    assert tenants(here, by_mail.access("u-1", **whole)).status_code == 403
    for left_out in ({}, {"azp": ...}, {"client_id": ...}, {"sub": ...}, {"sub": ""}, {"sub": "", "azp": ""}):
        answer = tenants(here, by_mail.access("u-1", **{**whole, "email": ..., **left_out}))
        assert refused(answer, 401, "E011005"), (left_out, answer.text)
        assert "does not name a user" in answer.json()["message"]
        assert is_refused(here, by_mail.access("u-1", **{**whole, "email": ..., **left_out}))


@pytest.mark.parametrize(
    "value", [None, "", 7, ["alice"], ["alice", "bob"], {"alice": {}}, True, " ", "a\u0000b", "\ud800"]
)
def test_a_user_claim_that_is_no_name_makes_nobody(here: Installation, by_mail: Issuer, value: Any) -> None:
    for signs in ({}, {"client_id": "u-1"}, {"gty": "client-credentials"}, {"idtyp": "app"}):
        claims = by_mail.claims("u-1", tenant="acme", scope="outbound.token.fetch", email=value, **signs)
        token = signed(by_mail, claims)
        assert tenants(here, token).status_code in (401, 403), signs
        assert fetch(here, token).status_code in (401, 403), signs


@pytest.mark.parametrize(
    "signs",
    [
        {"client_id": "u-1"},
        {"azp": "u-1"},
        {"gty": "client-credentials"},
        {"idtyp": "app"},
        {"gty": "client_credentials"},
    ],
)
def test_a_token_that_names_a_user_is_that_users_whatever_else_it_says(
    here: Installation, by_mail: Issuer, signs: dict[str, str]
) -> None:
    token = by_mail.access("u-1", email="alice", tenant="acme", **signs)
    assert tenants(here, token).status_code == 403
    assert fetch(here, token).json()["token"]["userId"] == "alice"
    machine = by_mail.access("u-1", tenant="acme", **signs)  # without any user, it is a machine by its sign
    assert tenants(here, machine).status_code == 200
    assert fetch(here, machine).status_code == 403


@pytest.mark.parametrize(
    "signs",
    [
        {"gty": ["client-credentials"]},
        {"gty": "password"},
        {"idtyp": "user"},
        {"idtyp": ["app"]},
        {"client_id": ["u-1"]},
        {"azp": {"u-1": 1}},
    ],
)
def test_what_only_looks_like_a_machines_sign_is_none(here: Installation, by_mail: Issuer, signs: Any) -> None:
    assert refused(tenants(here, by_mail.access("u-1", tenant="acme", **signs)), 401, "E011005")


def test_an_operator_who_says_so_has_the_old_rule_for_an_issuer(here: Installation, by_mail: Issuer) -> None:
    with serving(Issuer()) as old:
        trust(here.backend, old, userClaim="email", machinesWithoutUser=True)
        assert tenants(here, old.access("job", tenant="acme")).status_code == 200
        assert tenants(here, old.access("job", tenant="acme", email="alice")).status_code == 403
        for value in (None, ""):
            assert refused(tenants(here, old.access("job", tenant="acme", email=value)), 401, "E011005")
        assert refused(tenants(here, old.access("job")), 401, "E011005")
        listed = here.backend.http.get("/v1/mgmt/trustedissuer").json()["trustedIssuers"]
        assert {one["issuer"]: one["machinesWithoutUser"] for one in listed}[old.url] is True
        assert {one["issuer"]: one["machinesWithoutUser"] for one in listed}[by_mail.url] is False


def test_less_in_a_token_is_never_more(here: Installation, by_mail: Issuer) -> None:
    """Whatever is left out of a good token, or emptied, the rest opens nothing that the whole one did not."""
    whole = {"email": "alice", "tenant": "acme", "client_id": "spa", "scope": "outbound.token.fetch"}
    for name in ("email", "tenant", "client_id", "scope", "aud", "exp", "iat", "iss", "sub"):
        values: list[Any] = [..., None, "", [], {}]
        for value in values:
            claims = {**by_mail.claims("u-1", **whole), name: value}
            token = signed(by_mail, {key: one for key, one in claims.items() if one is not ...})
            assert tenants(here, token).status_code in (401, 403), (name, value)
            level = connect(here, token, tenantId="acme", tenantLevel=True)
            assert level.status_code in (400, 401, 403), (name, value)
            other = fetch(here, token, "bob")
            assert other.status_code in (401, 403), (name, value)
            if name in ("scope", "aud", "exp", "iss", "email"):
                assert fetch(here, token).status_code in (401, 403), (name, value)
    assert fetch(here, by_mail.access("u-1", **whole)).status_code == 200


# -- kinds of tokens


def test_a_stolen_token_that_is_bound_to_its_senders_key_is_no_bearer_token(here: Installation, idp: Issuer) -> None:
    upload(here.backend, "user", userId="alice")
    for cnf in (
        {"jkt": "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I"},
        {"x5t#S256": "bwcK0esc3ACC3DB2Y5_lESsXE8o9ltc05O89jdN-dg2"},
        {},
        None,
    ):
        token = signed(idp, idp.claims("alice", scope="outbound.token.fetch", cnf=cnf))
        answer = fetch(here, token)
        assert refused(answer, 401, "E011005"), cnf
        assert "cnf" in answer.json()["message"]
        assert exchanged(here, token).json()["error"] == "invalid_request"
    assert fetch(here, idp.access("alice")).status_code == 200


OTHER_KINDS = [
    "logout+jwt", "application/logout+jwt", "secevent+jwt", "dpop+jwt", "oauth-authz-req+jwt",
    "token-introspection+jwt", "passport", "JWTX", "at+jwt ", "",
]  # fmt: skip


def test_what_the_issuer_signs_for_other_ends_identifies_nobody(here: Installation, idp: Issuer) -> None:
    upload(here.backend, "user", userId="alice")
    claims = idp.claims("alice", scope="outbound.token.fetch")
    logout: dict[str, Any] = {"http://schemas.openid.net/event/backchannel-logout": {}}
    others = [
        *(signed(idp, claims, typ=kind) for kind in OTHER_KINDS),
        signed(idp, {**claims, "events": logout}),
        signed(idp, {**claims, "events": logout}, typ="JWT"),
    ]
    for token in others:
        assert refused(fetch(here, token), 401, "E011005")
        assert exchanged(here, token).json()["error"] == "invalid_request"
    for kind in ("JWT", "jwt", "at+jwt", "AT+JWT", "application/at+jwt"):
        assert fetch(here, signed(idp, claims, typ=kind)).status_code == 200, kind
    assert fetch(here, signed(idp, claims)).status_code == 200


# -- numbers


NUMBERS = [
    "1" + "0" * 400, "9" * 5000, "-1" + "0" * 400, "1e400", "-1e400", "1e308", "NaN", "Infinity",
    "-Infinity", "true", "false", '"4102444800"', "[4102444800]", "{}", "253402300800", "4102444800000", '""',
]  # fmt: skip


@pytest.mark.parametrize("name", ["exp", "nbf", "iat"])
def test_no_number_in_a_token_breaks_what_reads_it(here: Installation, idp: Issuer, name: str) -> None:
    upload(here.backend, "user", userId="alice")
    claims = json.dumps(idp.claims("alice", scope="outbound.token.fetch") | {name: "HERE"})
    for number in NUMBERS:
        payload = claims.replace('"HERE"', number).encode()
        token = jws.serialize_compact({"alg": "ES256", "kid": "key-1"}, payload, idp.key)
        answer = fetch(here, token)
        assert refused(answer, 401, "E011005"), (number[:20], answer.text)
        assert exchanged(here, token).json()["error"] == "invalid_request"
    good = {**idp.claims("alice", scope="outbound.token.fetch"), "nbf": time.time() - 5.5}
    assert fetch(here, signed(idp, good)).status_code == 200  # fractions are numbers (RFC 7519 section 2)


# -- other projects


def of_no_project(here: Installation, token: str, app_id: str = APP_ID) -> httpx2.Response:
    body = {"appId": app_id, "userId": "alice", "scopes": SCOPES}
    return call(here, "app/user/token", token, body, project="")


def test_another_project_that_trusts_the_same_issuer_breaks_nothing_here(
    here: Installation, other: Backend, idp: Issuer
) -> None:
    upload(here.backend, "user", userId="alice")
    trust(other, idp, audience="https://other.example.com")
    assert of_no_project(here, idp.access("alice")).status_code == 200
    theirs = of_no_project(here, idp.access("alice", aud="https://other.example.com"))
    assert refused(theirs, 404, "E111503")  # it reaches their project, which has no such app
    both = of_no_project(here, idp.access("alice", aud=[AUDIENCE, "https://other.example.com"]))
    assert refused(both, 401, "E011005")
    assert "several projects" in both.json()["message"]
    assert fetch(here, idp.access("alice", aud=[AUDIENCE, "https://other.example.com"])).status_code == 200


def test_a_hostile_project_neither_locks_out_nor_passes_for_the_users_of_another(here: Installation) -> None:
    """It trusts the same issuer, for the same audience, with keys of its own: or with none that can be read."""
    upload(here.backend, "user", userId="alice")
    with serving(Issuer()) as honest, serving(Issuer()) as hostile, ExitStack() as stack:
        trust(here.backend, honest)
        with serving(Issuer()) as away:
            for keys in (hostile, away):
                made = new_project(here.settings)
                attacker = Backend(here.url, made.project_id, made.management_key)
                stack.callback(attacker.http.close)
                trust(attacker, keys, issuer=honest.url, jwksUrl=f"{keys.url}/jwks")
        answer = of_no_project(here, honest.access("alice"))
        assert answer.status_code == 200, answer.text
        assert answer.json()["token"]["userId"] == "alice"
        forged = signed(hostile, honest.claims("alice", scope="outbound.token.fetch"))
        assert refused(of_no_project(here, forged), 404, "E111503")  # it is a user of the attacker's own project
        assert refused(fetch(here, forged), 401, "E011005")


def test_many_projects_with_the_same_issuer_do_not_make_evergrant_fetch_many_keys(here: Installation) -> None:
    upload(here.backend, "user", userId="alice")
    with serving(Issuer()) as honest, ExitStack() as stack:
        trust(here.backend, honest)
        hosts = [stack.enter_context(serving(Issuer())) for _ in range(6)]
        for number, host in enumerate(hosts):
            made = new_project(here.settings)
            attacker = Backend(here.url, made.project_id, made.management_key)
            stack.callback(attacker.http.close)
            trust(attacker, host, issuer=honest.url, jwksUrl=f"{host.url}/jwks", audience=f"https://{number}.example")
        before = [len(host.requests) for host in hosts]
        assert of_no_project(here, honest.access("alice")).status_code == 200
        assert [len(host.requests) for host in hosts] == before
        audiences = [f"https://{number}.example" for number in range(6)]
        everybodys = of_no_project(here, honest.access("alice", aud=audiences))
        assert refused(everybodys, 401, "E011005")
        assert [len(host.requests) for host in hosts] == before


def test_a_token_that_is_refused_leaves_nothing_behind(here: Installation, by_mail: Issuer) -> None:
    before = dump(here.settings)
    assert is_refused(here, by_mail.access("u-1", tenant="acme"))
    assert dump(here.settings) == before
