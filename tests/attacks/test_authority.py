"""No key makes anything that can do more than itself, reaches further or lasts longer; and none shows what it does not
concern. Each attack begins with a key that is limited, and ends without more than that."""

import asyncio
import base64
import secrets
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import httpx2
import pytest
from pydantic import SecretStr

from evergrant import clock
from evergrant.broker.access.management_keys import check_key_text
from evergrant.broker.operations.setup import prepare_database
from evergrant.errors import InvalidValue
from evergrant.settings import Settings
from tests.infra.installation import APP_ID, SCOPES, Backend, Installation
from tests.infra.issuer import AUDIENCE, Issuer
from tests.infra.people import connect, fetch, trust
from tests.infra.receiver import Receiver
from tests.infra.rows import dump
from tests.infra.scripted import serving
from tests.web.conftest import MakeBackend

NEAR = {"allowed_cidrs": ["127.0.0.0/8"]}
OF_AN_APP = {"app_ids": [APP_ID]}
ISSUERS = "/v1/mgmt/trustedissuer"
KEYS = "/v1/mgmt/managementkey"


def brief() -> dict[str, Any]:
    return {"expires_at": clock.now() + timedelta(hours=1)}


@pytest.fixture
def mine() -> Iterator[Issuer]:
    """An identity provider that only the attacker trusts."""
    with serving(Issuer()) as running:
        yield running


@pytest.fixture
def an_app(here: Installation) -> str:
    """An app of the test's own, without policies."""
    return here.backend.new_app(here.provider.registration)


def trusting(backend: Backend, issuer: Issuer) -> httpx2.Response:
    return backend.http.post(ISSUERS, json={"issuer": issuer.url, "audience": AUDIENCE})


def policy(backend: Backend, app_id: str, action: str = "fetch", **limits: Any) -> httpx2.Response:
    return backend.post("policies", {"appId": app_id, "action": action, **limits})


def made(answer: httpx2.Response) -> str:
    assert answer.status_code == 200, answer.text
    return str(answer.json()["policy"]["id"])


def remove(backend: Backend, policy_id: str) -> httpx2.Response:
    return backend.http.delete(f"/v1/mgmt/outbound/policies?id={policy_id}")


def upload(here: Installation, app_id: str, **owner: str) -> None:
    level = "user" if "userId" in owner else "tenant"
    token = {"appId": app_id, **owner, "accessToken": "a-token", "scopes": SCOPES}
    assert here.backend.post(f"app/{level}/oauthtoken/upload", token).status_code == 200


def may_fetch(backend: Backend, app_id: str, user: str) -> bool:
    return backend.fetch(user, appId=app_id).status_code != 403


# -- issuers


@pytest.mark.parametrize("limits", [brief, lambda: NEAR, lambda: OF_AN_APP])
def test_a_stolen_key_that_is_limited_makes_no_issuer_whose_users_outlive_or_outreach_it(
    here: Installation, backend_with: MakeBackend, mine: Issuer, limits: Any
) -> None:
    stolen = backend_with(permissions=["keys", "tokens:fetch", "connect"], **limits())
    before = dump(here.settings)
    answer = trusting(stolen, mine)
    assert (answer.status_code, answer.json()["errorCode"]) == (403, "E011006")
    assert dump(here.settings) == before
    assert mine.requests == []  # nor does it make evergrant call an address for it
    assert fetch(here, mine.access("alice")).status_code == 401


def test_a_key_makes_no_issuer_whose_users_may_do_more(backend_with: MakeBackend, mine: Issuer) -> None:
    for permissions in (["keys"], ["keys", "tokens:fetch"], ["keys", "connect"]):
        answer = trusting(backend_with(permissions=permissions), mine)
        assert answer.status_code == 403
        assert "a trusted issuer" in answer.json()["message"]
    able = backend_with(permissions=["keys", "tokens:fetch", "connect"])
    assert trusting(able, mine).status_code == 200


def test_a_limited_key_does_not_sign_everybody_out_by_removing_their_issuer(
    here: Installation, backend_with: MakeBackend, mine: Issuer
) -> None:
    issuer_id = trust(here.backend, mine)
    for limits in (brief(), NEAR, OF_AN_APP, {"permissions": ["keys", "connect"]}):
        stolen = backend_with(**limits)
        assert stolen.http.delete(f"{ISSUERS}?id={issuer_id}").status_code == 403
    assert fetch(here, mine.access("new"), "new").status_code == 404  # known, and not connected
    able = backend_with(permissions=["keys", "tokens:fetch", "connect"])
    assert able.http.delete(f"{ISSUERS}?id={issuer_id}").status_code == 200


def test_an_excluded_key_does_not_get_in_by_users_that_it_makes_up(
    here: Installation, backend_with: MakeBackend, mine: Issuer, an_app: str
) -> None:
    """An issuer writes the claims that policies ask for, so it can be whomever they let in."""
    policy_id = made(policy(here.backend, an_app, claims={"roles": ["sales"]}))
    excluded = backend_with(permissions=["keys", "tokens:fetch", "connect"])
    try:
        answer = trusting(excluded, mine)
        assert answer.status_code == 403
        assert "policies" in answer.json()["message"]
        issuer_id = trust(here.backend, mine)
        assert excluded.http.delete(f"{ISSUERS}?id={issuer_id}").status_code == 403
        assert fetch(here, mine.access("new", roles="sales"), "new", appId=an_app).status_code == 404
        assert fetch(here, mine.access("new"), "new", appId=an_app).status_code == 403
    finally:
        assert remove(here.backend, policy_id).status_code == 200


# -- webhooks


@pytest.mark.parametrize("limits", [brief, lambda: NEAR, lambda: OF_AN_APP])
def test_a_stolen_key_that_is_limited_makes_no_webhook_that_goes_on_telling(
    here: Installation, backend_with: MakeBackend, limits: Any
) -> None:
    stolen = backend_with(permissions=["webhooks"], **limits())
    with serving(Receiver()) as receiver:
        kept = here.backend.post("webhook/create", {"url": receiver.url}).json()["webhook"]["id"]
        before = dump(here.settings)
        for path, body in (
            ("create", {"url": receiver.url}),
            ("update", {"id": kept, "url": f"{receiver.url}/mine", "enabled": True}),
            ("rotate-secret", {"id": kept}),
            ("delete", {"id": kept}),
        ):
            assert stolen.post(f"webhook/{path}", body).status_code == 403, path
        assert dump(here.settings) == before
        able = backend_with(permissions=["webhooks"])
        own = able.post("webhook/create", {"url": receiver.url})
        assert own.status_code == 200
        for webhook_id in (kept, own.json()["webhook"]["id"]):
            assert able.post("webhook/delete", {"id": webhook_id}).status_code == 200


# -- policies


def test_an_excluded_key_does_not_admit_itself(
    here: Installation, backend_with: MakeBackend, an_app: str, user: str
) -> None:
    upload(here, an_app, userId=user)
    chosen, excluded = backend_with(key_id="chosen"), backend_with(permissions=["keys", "tokens:fetch"], key_id="out")
    policy_id = made(policy(here.backend, an_app, keyIds=["chosen"]))
    attempts: list[Any] = [{"keyIds": ["out"]}, {}, {"keyIds": ["out"], "scopes": SCOPES}, {"levels": ["user"]}]
    before = dump(here.settings)
    for limits in attempts:
        answer = policy(excluded, an_app, **limits)
        assert (answer.status_code, answer.json()["errorCode"]) == (403, "E011006")
        assert "'policies'" in answer.json()["message"]
    assert remove(excluded, policy_id).status_code == 403
    assert dump(here.settings) == before
    assert not may_fetch(excluded, an_app, user)
    assert may_fetch(chosen, an_app, user)
    keeper = backend_with(permissions=["policies"])  # who may, may let in whom it likes
    made(policy(keeper, an_app, keyIds=["out"]))
    assert may_fetch(excluded, an_app, user)


def test_an_excluded_key_does_not_get_in_by_another_key_that_it_makes_or_deletes(
    here: Installation, backend_with: MakeBackend, an_app: str, user: str
) -> None:
    upload(here, an_app, userId=user)
    excluded = backend_with(permissions=["keys", "tokens:fetch"], key_id="outside")
    named = here.backend.http.put(KEYS, json={"name": "named", "permissions": ["tokens:fetch"]}).json()["key"]["id"]
    made(policy(here.backend, an_app, keyIds=[named]))
    wish = {"name": "mine", "permissions": ["tokens:fetch"], "id": named, "keyId": named}
    new = excluded.http.put(KEYS, json=wish).json()
    assert new["key"]["id"] != named  # evergrant chooses
    mine = Backend(here.url, here.backend.project_id, new["cleartext"])
    assert not may_fetch(mine, an_app, user)
    assert excluded.http.post(f"{KEYS}/delete", json={"ids": [named]}).json() == {"total": 1}
    again = excluded.http.put(KEYS, json=wish).json()["key"]["id"]
    assert again != named
    assert not may_fetch(excluded, an_app, user)  # a policy about nobody shuts out everybody
    assert not may_fetch(mine, an_app, user)
    more = excluded.http.put(KEYS, json={"name": "more", "permissions": ["policies"]})
    assert more.status_code == 403
    mine.http.close()


def test_an_excluded_key_does_not_open_an_app_by_making_it_anew(
    here: Installation, backend_with: MakeBackend, an_app: str, user: str
) -> None:
    upload(here, an_app, userId=user)
    may = ["apps:read", "apps:write", "tokens:fetch", "keys"]
    excluded, brief_keeper = backend_with(permissions=may), backend_with(permissions=[*may, "policies"], **brief())
    keeper = backend_with(permissions=["apps:write", "policies"], app_ids=[an_app])
    made(policy(here.backend, an_app, claims={"roles": ["sales"]}))
    before = dump(here.settings)
    for thief in (excluded, brief_keeper):
        answer = thief.post("app/delete", {"id": an_app})
        assert (answer.status_code, answer.json()["errorCode"]) == (403, "E011006")
        assert "policies" in answer.json()["message"]
    assert dump(here.settings) == before
    assert keeper.post("app/delete", {"id": an_app}).status_code == 200
    open_to_all = here.backend.new_app(here.provider.registration)
    assert excluded.post("app/delete", {"id": open_to_all}).status_code == 200


def test_a_key_hands_on_by_a_policy_what_it_is_allowed_itself_and_no_more(
    here: Installation, backend_with: MakeBackend, an_app: str
) -> None:
    some = backend_with(permissions=["keys", "tokens:fetch"], key_id=f"some-{an_app[-6:]}")
    first = made(policy(here.backend, an_app, keyIds=[f"some-{an_app[-6:]}"], scopes=["a", "b"], levels=["user"]))
    beyond: list[Any] = [{}, {"scopes": ["a"]}, {"levels": ["user"]}, {"scopes": ["a", "c"], "levels": ["user"]}]
    for more in beyond:
        assert policy(some, an_app, **more).status_code == 403, more
    for levels in ([], ["tenant"], ["user", "tenant"]):
        assert policy(some, an_app, scopes=["a"], levels=levels).status_code == 403
    second = made(policy(some, an_app, claims={"roles": ["sales"]}, scopes=["a"], levels=["user"]))
    assert remove(some, second).status_code == 200
    last = remove(some, first)
    assert last.status_code == 403
    assert "open to everybody" in last.json()["message"]


def test_a_key_without_the_permission_shuts_out_and_does_not_open(
    here: Installation, backend_with: MakeBackend, an_app: str, user: str
) -> None:
    upload(here, an_app, userId=user)
    keeper = backend_with(permissions=["keys", "tokens:fetch", "connect"])
    assert may_fetch(keeper, an_app, user)
    assert policy(backend_with(permissions=["keys"]), an_app).status_code == 403  # it may not fetch itself
    assert policy(keeper, an_app, "connect", levels=["tenant"]).status_code == 403  # would let users in who were not
    only = made(policy(keeper, an_app, claims={"roles": ["sales"]}))
    assert not may_fetch(keeper, an_app, user)
    assert remove(keeper, only).status_code == 403
    assert remove(here.backend, only).status_code == 200


def test_a_key_without_the_permission_narrows_calls_and_frees_none(
    here: Installation, an_app: str, backend_with: MakeBackend
) -> None:
    keeper = backend_with(key_id=f"kept-{an_app[-6:]}", permissions=["keys", "calls"])
    me = {"keyIds": [f"kept-{an_app[-6:]}"]}
    first = made(policy(here.backend, an_app, "call", **me, methods=["GET"], paths=["/v1/**"]))
    for more in ({"methods": ["GET"]}, {"paths": ["/v1/**"]}, {"methods": ["GET"], "effect": "approve"}):
        assert policy(keeper, an_app, "call", **more).status_code == 403, more
    made(policy(keeper, an_app, "call", methods=["GET"], paths=["/v1/**"], via=["mcp"]))
    denies = made(policy(keeper, an_app, "call", paths=["/v1/admin/**"], effect="deny"))
    assert remove(keeper, denies).status_code == 403, "what is shut stays shut"
    again = policy(keeper, an_app, "call", methods=["GET"], paths=["/v1/**"])
    assert again.status_code == 403, "nor does whom a policy denies something let others have it"
    assert policy(backend_with(permissions=["keys"]), an_app, "call", effect="deny").status_code == 403
    assert remove(here.backend, denies).status_code == 200
    assert remove(keeper, first).status_code == 200


@pytest.mark.parametrize("limits", [brief, lambda: NEAR, lambda: {"app_ids": ["another"]}])
def test_a_stolen_key_that_is_limited_makes_no_policy_that_lasts(
    here: Installation, backend_with: MakeBackend, an_app: str, limits: Any
) -> None:
    policy_id = made(policy(here.backend, an_app, keyIds=[]))
    for permissions in (["policies", "tokens:fetch"], ["keys", "tokens:fetch"]):
        stolen = backend_with(permissions=permissions, **limits())
        assert policy(stolen, an_app).status_code == 403
        assert remove(stolen, policy_id).status_code == 403
    of_this_app = backend_with(permissions=["policies"], app_ids=[an_app])
    assert remove(of_this_app, policy_id).status_code == 200


# -- a tenant's own connection


def test_a_member_of_a_tenant_does_not_put_an_account_of_theirs_in_the_companys_place(
    here: Installation, idp: Issuer, an_app: str
) -> None:
    here.connected("boss", appId=an_app, tenantId="acme", tenantLevel=True)
    wanted = {"appId": an_app, "tenantId": "acme", "tenantLevel": True}

    def attempt(**claims: Any) -> httpx2.Response:
        return connect(here, idp.session("mallory", tenant="acme", **claims), **wanted)

    answer = attempt()
    assert (answer.status_code, answer.json()["errorCode"]) == (403, "E011006")
    assert "levels: ['tenant']" in answer.json()["message"]
    # Nor by a policy that lets members connect, as long as it does not say so.
    made(policy(here.backend, an_app, "connect", claims={"tenant": ["acme"]}))
    assert attempt().status_code == 403
    made(policy(here.backend, an_app, "connect", levels=["user"]))
    assert attempt().status_code == 403
    made(policy(here.backend, an_app, "connect", claims={"roles": ["admin"]}, levels=["tenant"]))
    assert attempt(roles=["member"]).status_code == 403
    fields = {"appId": an_app, "tenantId": "acme"}
    assert connect(here, idp.session("mallory", tenant="acme"), **fields).status_code == 200
    assert attempt(roles=["admin"]).status_code == 200
    # Levels hold for backends too, and the tenant's own machine is the tenant, not a user of it.
    backends = {**wanted, "userId": "boss"}
    assert here.backend.post("app/connect", backends).status_code == 403
    made(policy(here.backend, an_app, "connect"))
    assert here.backend.post("app/connect", backends).status_code == 200
    assert connect(here, idp.machine("acme"), **wanted).status_code == 200
    assert attempt().status_code == 403


def test_a_policy_for_users_connections_lets_nobody_fetch_a_tenants(
    here: Installation, backend_with: MakeBackend, idp: Issuer, an_app: str, user: str
) -> None:
    upload(here, an_app, userId=user)
    upload(here, an_app, tenantId="acme")
    body = {"appId": an_app, "tenantId": "acme"}

    def tenants(backend: Backend) -> int:
        return backend.post("app/tenant/token/latest", body).status_code

    assert tenants(here.backend) == 200
    made(policy(here.backend, an_app, levels=["user"]))
    assert tenants(here.backend) == 403
    assert may_fetch(here.backend, an_app, user)
    exchanged = here.backend.http.post(
        "/oauth2/v1/token",
        data={
            "grant_type": "urn:ietf:params:oauth:grant-type:token-exchange",
            "subject_token": idp.machine("acme"),
            "subject_token_type": "urn:ietf:params:oauth:token-type:access_token",
            "audience": an_app,
            "project_id": here.backend.project_id,
        },
    )
    assert exchanged.json()["error"] == "invalid_target"
    made(policy(here.backend, an_app, levels=["tenant"]))
    assert tenants(here.backend) == 200


# -- what a limited key reads


def test_a_key_of_one_app_does_not_read_what_concerns_all(here: Installation, backend_with: MakeBackend) -> None:
    limited, whole = backend_with(**OF_AN_APP), backend_with()
    for backend, status in ((limited, 403), (whole, 200)):
        assert backend.http.post("/v1/mgmt/audit/search", json={}).status_code == status
        assert backend.http.get(ISSUERS).status_code == status
        assert backend.get("webhooks").status_code == status
        assert backend.get("webhook/deliveries").status_code == status


def test_a_key_of_one_app_lists_what_is_of_its_app(
    here: Installation, backend_with: MakeBackend, an_app: str, user: str
) -> None:
    upload(here, an_app, userId=user)
    policy_id = made(policy(here.backend, an_app))
    other, own = backend_with(**OF_AN_APP), backend_with(app_ids=[an_app])
    for backend, seen in ((other, False), (own, True)):
        policies = [one["id"] for one in backend.get("policies").json()["policies"]]
        tokens = [one["userId"] for one in backend.get("tokens").json()["tokens"]]
        apps = [one["id"] for one in backend.get("apps").json()["apps"]]
        assert ((policy_id in policies), (user in tokens), (an_app in apps)) == (seen, seen, seen)


def test_a_key_sees_only_keys_that_can_do_no_more(here: Installation, backend_with: MakeBackend) -> None:
    stronger = here.backend.http.put(KEYS, json={"name": "strong", "permissions": ["apps:write"]}).json()["key"]["id"]
    weak = backend_with(permissions=["keys", "apps:read"])
    own = weak.http.put(KEYS, json={"name": "own", "permissions": ["apps:read"]}).json()["key"]["id"]
    listed = [key["id"] for key in weak.http.get(f"{KEYS}/search").json()["keys"]]
    assert own in listed
    assert stronger not in listed
    assert weak.http.get(KEYS, params={"id": stronger}).status_code == 403
    assert weak.http.get(KEYS, params={"id": own}).status_code == 200
    every = [key["id"] for key in here.backend.http.get(f"{KEYS}/search").json()["keys"]]
    assert {own, stronger} <= set(every)


# -- the log


LOOK_ALIKES = [
    "App.deleted", " app.deleted", "app.deleted ", "\u0430pp.deleted", "APP.DELETED", "app.deleted\u200b",
    "a\u200bpp.deleted", "\uff41pp.deleted", "app\u2024deleted", "\tkey.created", "key.created\n",
    ".app.deleted", "app deleted", "app:deleted", "app-deleted", "token_revoked", "Key:created", "t0ken.revoked",
    "poIicy.deleted", "po1icy.deleted", "1ssuer.deleted", "webh00k.deleted", "i55uer.created", "keyrlng.rotated",
]  # fmt: skip


def test_nobody_writes_a_record_that_looks_like_one_of_evergrants(here: Installation) -> None:
    body = {"type": "info", "actorId": "me", "tenantId": ""}
    before = dump(here.settings)
    for action in LOOK_ALIKES:
        answer = here.backend.http.post("/v1/mgmt/audit/event", json={**body, "action": action})
        assert answer.status_code == 400, action
        assert [entry["field"] for entry in answer.json()["details"]["fields"]] == ["action"]
    assert dump(here.settings) == before
    for action in ("invoice.sent", "Pencil.Created", "user_login", "billing:refund-2"):
        assert here.backend.http.post("/v1/mgmt/audit/event", json={**body, "action": action}).json() == {}


# -- an operator's own key


GUESSABLE = [
    "a" * 32, "ab" * 20, "12345678" * 4, "changeme-changeme-changeme-changeme", "0123456789abcdef" * 3,
    "abcdefghijklmnopqrstuvwxyz0123456789", "ABCDEFGHIJKLMNOPQRSTUVWXYZABCDEFGHIJKLMNOPQRSTUVWXYZ",
    "zyxwvutsrqponmlkjihgfedcba9876543210", "aaaabbbbccccddddeeeeffffgggghhhhiiiijjjjkkkk", "0" * 31 + "1",
    "aTzQ7maT7QzmTQ7aazmTzQ7TamQ7zTmaQT", "kR7vQ2xT9mZ4bH1w" * 2,
]  # fmt: skip


def test_nobody_guesses_an_operators_own_key(settings: Settings) -> None:
    """Such a key may do everything, and nothing but its text protects it."""

    def start(key: str) -> None:
        update = {"bootstrap_project_id": "shop", "bootstrap_management_key": SecretStr(key)}
        asyncio.run(prepare_database(settings.model_copy(update=update)))

    for key in GUESSABLE:
        with pytest.raises(InvalidValue) as error:
            start(key)
        (field,) = error.value.details["fields"]
        assert field["field"] == "managementKey"
        assert "random" in field["problem"]
        assert key not in error.value.message
    assert dump(settings)["management_keys"] == []
    for _ in range(50):
        check_key_text(secrets.token_urlsafe(24))
        check_key_text(secrets.token_hex(32))
        check_key_text(base64.b64encode(secrets.token_bytes(32)).decode())
    start(secrets.token_urlsafe(32))
    assert len(dump(settings)["management_keys"]) == 1
