"""Users by their own JWT: what one may do for itself, and every way to pass for somebody else."""

import base64
import hmac
import json
import time
from typing import Any

import httpx2
import pytest
from joserfc import jwt
from joserfc.jwk import ECKey

from tests.conftest import Clock
from tests.infra.installation import APP_ID, BACK, SCOPES, Backend, Installation
from tests.infra.issuer import AUDIENCE, Issuer
from tests.infra.people import call, connect, fetch, refused, trust
from tests.infra.rows import dump
from tests.infra.scripted import serving


@pytest.fixture(scope="module")
def idp(here: Installation, idp: Issuer) -> Issuer:
    """The identity provider that the project trusts; alice and the tenant acme are connected."""
    here.connected("alice")
    here.connected("alice", tenantId="acme")
    here.connected("alice", tenantId="acme", tenantLevel=True)
    here.connected("bob")
    return idp


def tenant_fetch(here: Installation, token: str, tenant_id: str = "acme", path: str = "app/tenant/token") -> Any:
    return call(here, path, token, {"appId": APP_ID, "tenantId": tenant_id, "scopes": SCOPES})


# What a user may do


def test_an_access_token_fetches_the_token_of_the_user_it_names(here: Installation, idp: Issuer) -> None:
    answer = fetch(here, idp.access("alice"))
    assert answer.status_code == 200, answer.text
    assert answer.json()["token"]["userId"] == "alice"
    latest = call(here, "app/user/token/latest", idp.access("alice"), {"appId": APP_ID, "userId": "alice"})
    assert latest.json()["token"]["id"] == answer.json()["token"]["id"]


@pytest.mark.parametrize(
    "scope",
    [
        {"scope": "outbound.token.fetch"},
        {"scope": ["a", "outbound.token.fetch"]},
        {"scope": ..., "scp": ["outbound.token.fetch"]},
        {"scope": ..., "scp": "a outbound.token.fetch"},
    ],
)
def test_the_scope_is_read_however_issuers_spell_it(here: Installation, idp: Issuer, scope: Any) -> None:
    assert fetch(here, idp.access("alice", **scope)).status_code == 200


def test_a_project_is_not_needed_where_one_only_trusts_the_issuer(here: Installation, idp: Issuer) -> None:
    body = {"appId": APP_ID, "userId": "alice", "scopes": SCOPES}
    assert call(here, "app/user/token", idp.access("alice"), body, project="").status_code == 200


def test_a_project_is_needed_where_several_trust_the_issuer(here: Installation, idp: Issuer, other: Backend) -> None:
    with serving(Issuer()) as shared:
        trust(here.backend, shared)
        trust(other, shared)
        body = {"appId": APP_ID, "userId": "alice", "scopes": SCOPES}
        answer = call(here, "app/user/token", shared.access("alice"), body, project="")
        assert refused(answer, 401, "E011005")
        assert "several projects" in answer.json()["message"]
        answer = fetch(here, shared.access("alice"))
        assert answer.status_code == 200, answer.text


def test_a_session_connects_the_user_it_names(here: Installation, idp: Issuer) -> None:
    for fields in ({}, {"userId": "dora"}):
        answer = connect(here, idp.session("dora"), **fields)
        assert answer.status_code == 200, answer.text
        browser = here.browser()
        assert browser.connect(answer.json()["url"])["outboundStatus"] == "connected"
    assert here.backend.token("dora")["userId"] == "dora"


def test_the_browser_sdks_path_connects_too(here: Installation, idp: Issuer) -> None:
    body = {"appId": APP_ID, "options": {"redirectUrl": BACK, "scopes": SCOPES}}
    answer = call(here, "/v1/outbound/oauth/connect", idp.session("erin"), body)
    assert here.browser().connect(answer.json()["url"])["outboundStatus"] == "connected"
    assert here.backend.token("erin")["scopes"] == SCOPES


def test_a_user_in_a_tenant_fetches_and_connects_for_itself_there(here: Installation, idp: Issuer) -> None:
    for tenants in ("acme", ["other", "acme"], {"acme": {"roles": ["admin"]}}):
        token = idp.access("alice", tenant=tenants)
        assert fetch(here, token, tenantId="acme").json()["token"]["tenantId"] == "acme"
        assert connect(here, token, tenantId="acme").status_code == 200


def test_a_machine_fetches_its_tenants_token(here: Installation, idp: Issuer) -> None:
    for token in (
        idp.machine("acme"),
        idp.machine("acme", client_id=..., azp="job"),
        idp.machine("acme", client_id=..., azp="its-client", gty="client-credentials"),
        idp.machine("acme", client_id=..., idtyp="app"),
        idp.access(sub=..., tenant="acme", gty="client_credentials"),
        idp.machine("acme", "globex"),
    ):
        answer = tenant_fetch(here, token)
        assert answer.status_code == 200, answer.text
        assert "tenantId" in answer.json()["token"]
    assert tenant_fetch(here, idp.machine("acme"), path="app/tenant/token/latest").status_code == 200


def listed(here: Installation, token: str, path: str, **query: str) -> httpx2.Response:
    headers = {"Authorization": f"Bearer {here.backend.project_id}:{token}"}
    with httpx2.Client(base_url=here.url, headers=headers, trust_env=False) as http:
        return http.get(f"/v1/mgmt/outbound/{path}", params=query)


def test_a_user_lists_what_it_has_connected_and_nobody_else_has(here: Installation, idp: Issuer) -> None:
    for query in ({}, {"userId": "alice"}):
        answer = listed(here, idp.session("alice"), "tokens", **query)
        assert {(token["userId"], token["tenantId"]) for token in answer.json()["tokens"]} == {("alice", "")}
        assert listed(here, idp.session("alice"), "apps-with-user-token", **query).json() == {"appIds": [APP_ID]}
    within = listed(here, idp.session("alice", tenant="acme"), "tokens", tenantId="acme").json()["tokens"]
    assert {(token["userId"], token["tenantId"]) for token in within} == {("alice", "acme")}
    tenants = listed(here, idp.machine("acme"), "tokens").json()["tokens"]
    assert {(token["userId"], token["tenantId"]) for token in tenants} == {("", "acme")}


def test_a_user_does_not_list_what_others_have_connected(here: Installation, idp: Issuer) -> None:
    for path in ("tokens", "apps-with-user-token"):
        assert refused(listed(here, idp.session("alice"), path, userId="bob"), 403, "E011006")
        assert refused(listed(here, idp.session("alice"), path, userId="alice", tenantId="acme"), 403, "E011006")
        assert refused(listed(here, idp.machine("acme"), path, userId="alice"), 403, "E011006")


# What a user may not do


def test_a_session_does_not_fetch(here: Installation, idp: Issuer) -> None:
    answer = fetch(here, idp.session("alice"))
    assert refused(answer, 403, "E011006")
    assert "'outbound.token.fetch'" in answer.json()["message"]
    assert refused(fetch(here, idp.access("alice", scope="outbound.token.fetcher")), 403, "E011006")


def test_a_user_reaches_no_other_user(here: Installation, idp: Issuer) -> None:
    assert refused(fetch(here, idp.access("bob"), "alice"), 403, "E011006")
    assert refused(connect(here, idp.session("bob"), userId="alice"), 403, "E011006")
    body = {"appId": APP_ID, "userId": "alice"}
    assert refused(call(here, "app/user/token/latest", idp.access("bob"), body), 403, "E011006")


def test_a_user_reaches_no_other_tenant(here: Installation, idp: Issuer) -> None:
    for token in (idp.access("alice"), idp.access("alice", tenant="globex"), idp.access("alice", tenant=["Acme"])):
        assert refused(fetch(here, token, tenantId="acme"), 403, "E011006")
        assert refused(connect(here, token, tenantId="acme"), 403, "E011006")
        assert refused(connect(here, token, tenantId="acme", tenantLevel=True), 403, "E011006")
    assert refused(tenant_fetch(here, idp.machine("globex")), 403, "E011006")


def test_users_and_tenants_do_not_stand_in_for_each_other(here: Installation, idp: Issuer) -> None:
    assert refused(tenant_fetch(here, idp.access("alice", tenant="acme")), 403, "E011006")
    assert refused(fetch(here, idp.machine("acme"), tenantId="acme"), 403, "E011006")
    assert refused(fetch(here, idp.machine("acme"), "job"), 403, "E011006")
    assert refused(connect(here, idp.machine("acme"), tenantId="acme"), 400, "E011003")
    assert connect(here, idp.machine("acme"), tenantId="acme", tenantLevel=True).status_code == 200


def test_a_user_never_sees_a_refresh_token(here: Installation, idp: Issuer) -> None:
    answer = fetch(here, idp.access("alice"), options={"withRefreshToken": True})
    assert refused(answer, 403, "E011006")
    assert "refreshToken" not in fetch(here, idp.access("alice")).text


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("app/create", {"name": "Mine"}),
        ("app/update", {"app": {"id": APP_ID, "name": "Mine"}}),
        ("app/delete", {"id": APP_ID}),
        ("app/connect/confirm", {"confirmation": "x", "userId": "alice"}),
        ("policies", {"appId": APP_ID, "action": "fetch"}),
        ("/v1/mgmt/trustedissuer", {"issuer": "https://mine.example", "audience": "a"}),
    ],
)
def test_every_other_call_takes_a_management_key(here: Installation, idp: Issuer, path: str, body: Any) -> None:
    before = dump(here.settings)
    answer = call(here, path, idp.access("alice"), body)
    assert refused(answer, 403, "E011006")
    assert "management key" in answer.json()["message"]
    assert dump(here.settings) == before


# Attacks


def b64(value: Any) -> str:
    raw = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def forged(idp: Issuer) -> dict[str, str]:
    """Return tokens that must not be believed, by what is wrong with them."""
    now = int(time.time())
    claims = idp.claims("alice", scope="outbound.token.fetch")
    good = idp.access("alice")
    head, payload, signature = good.split(".")
    public = idp.rsa.as_pem(private=False)
    confused = f"{b64({'alg': 'HS256', 'kid': 'rsa-1'})}.{payload}"
    stranger = ECKey.generate_key("P-256", {"kid": "key-1"})
    return {
        "alg none": f"{b64({'alg': 'none'})}.{payload}.",
        "alg none, signed": f"{b64({'alg': 'none', 'kid': 'key-1'})}.{payload}.{signature}",
        "HS256 with the public key": f"{confused}.{b64(hmac.digest(public, confused.encode(), 'sha256'))}",
        "another's key, same kid": jwt.encode({"alg": "ES256", "kid": "key-1"}, claims, stranger),
        "key in its own header": jwt.encode(
            {"alg": "ES256", "jwk": stranger.as_dict(private=False), "kid": "key-1"}, claims, stranger
        ),
        "altered": f"{head}.{b64(claims | {'sub': 'bob'})}.{signature}",
        "no signature": f"{head}.{payload}.",
        "another issuer": idp.access("alice", iss=f"{idp.url}/"),
        "no issuer": idp.access("alice", iss=...),
        "issuers": idp.access("alice", iss=[idp.url]),
        "another audience": idp.access("alice", aud="https://other.example.com"),
        "audience by part": idp.access("alice", aud=AUDIENCE + "/"),
        "no audience": idp.access("alice", aud=...),
        "expired": idp.access("alice", exp=now - 1),
        "no end": idp.access("alice", exp=...),
        "an end that is no time": idp.access("alice", exp="never"),
        "not yet": idp.access("alice", nbf=now + 300),
        "from the future": idp.access("alice", iat=now + 300),
        "nobody": idp.access(sub=...),
        "an empty user": idp.access(sub=""),
        "a number": idp.access(sub=7),
        "nobody, in a tenant": idp.access(sub=..., tenant="acme"),
        "null, in a tenant": idp.access(sub=None, tenant="acme"),
        "a machine of no tenant": idp.machine("acme", tenant=...),
        "a proof of possession": jwt.encode({"alg": "ES256", "kid": "key-1", "typ": "dpop+jwt"}, claims, idp.key),
        "not JSON": f"{head}.{base64.urlsafe_b64encode(b'[]').decode()}.{signature}",
        "too long": idp.access("alice", more="x" * 20_000),
        "rubbish": "eyJ.x.y",
    }


def test_a_token_that_must_not_be_believed_is_refused(here: Installation, idp: Issuer) -> None:
    before = dump(here.settings)
    for what, token in forged(idp).items():
        for project in (None, ""):
            body = {"appId": APP_ID, "userId": "alice", "scopes": SCOPES}
            answer = call(here, "app/user/token", token, body, project=project)
            assert refused(answer, 401, "E011005"), (what, answer.text)
            assert token not in answer.text
    assert dump(here.settings) == before


def test_another_projects_issuer_opens_nothing_here(here: Installation, idp: Issuer, other: Backend) -> None:
    with serving(Issuer()) as theirs:
        trust(other, theirs)
        assert refused(fetch(here, theirs.access("alice")), 401, "E011005")
        body = {"appId": APP_ID, "userId": "alice", "scopes": SCOPES}
        # named or not, it reaches its own project, which has no such app
        assert refused(call(here, "app/user/token", theirs.access("alice"), body, project=""), 404, "E111503")
    assert refused(call(here, "app/user/token", idp.access("alice"), body, project=other.project_id), 401, "E011005")


def test_unknown_keys_do_not_make_evergrant_flood_the_issuer(here: Installation, idp: Issuer) -> None:
    assert fetch(here, idp.access("alice")).status_code == 200
    before = len(idp.requests_to("/jwks"))
    stranger = ECKey.generate_key("P-256")
    for number in range(20):
        token = jwt.encode({"alg": "ES256", "kid": f"unknown-{number}"}, idp.claims(), stranger)
        assert refused(fetch(here, token), 401, "E011005")
    assert len(idp.requests_to("/jwks")) - before <= 1


def test_a_remembered_token_does_not_outlive_its_end(here: Installation, idp: Issuer, clock: Clock) -> None:
    token = idp.access("alice", exp=int(clock.now.timestamp()) + 60)
    assert fetch(here, token).status_code == 200
    clock.advance(60)
    assert refused(fetch(here, token), 401, "E011005")


def test_an_issuer_that_is_away_is_not_the_users_fault(here: Installation) -> None:
    with serving(Issuer()) as away:
        trust(here.backend, away)
    answer = fetch(here, away.access("alice"))
    assert refused(answer, 503, "E111505")
    assert answer.headers["retry-after"]


def test_an_issuer_is_trusted_no_longer_once_it_is_removed(here: Installation) -> None:
    here.connected("alice")
    with serving(Issuer()) as former:
        issuer_id = trust(here.backend, former)
        token = former.access("alice")
        assert fetch(here, token).status_code == 200
        assert here.backend.http.delete(f"/v1/mgmt/trustedissuer?id={issuer_id}").json() == {}
        assert refused(fetch(here, token), 401, "E011005")
