"""A stored secret never follows a definition that somebody changed without knowing it.

Whoever may change apps decides where their client secrets, codes and tokens go. So who moves an address brings the
secret, and who moves an app that has connections may see refresh tokens anyway.
"""

import contextlib
from collections.abc import Iterator
from datetime import timedelta
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx2
import pytest
from joserfc import jwt
from joserfc.jwk import ECKey

from evergrant import clock
from tests.infra.databases import settings_for
from tests.infra.installation import Backend, Installation, came_back, installation
from tests.infra.people import someone
from tests.infra.rows import execute, expire
from tests.infra.scripted import TOKENS, Request, ScriptedProvider, serving
from tests.infra.waiting import wait_until
from tests.web.conftest import MakeBackend

SECRET = "the provider's secret for evergrant"
PRIVATE_KEY = ECKey.generate_key("P-256").as_pem(private=True).decode()
JWK = ECKey.generate_key("P-256").as_dict(private=True)
FACTS = """
name = "{id}"
category = "other"
documentation_url = "https://example.com/docs"
verification = "unconfirmed"
authorization_endpoint = "http://127.0.0.1/authorize"
token_endpoint = "https://{{host}}/token"
revocation = {{ url = "{{api}}/revoke" }}
{more}
[variables.host]
title = "Host"
pattern = "[a-z0-9.:-]+"
[variables.region]
title = "Region"
source = "user"
enum = ["eu", "us"]
[variables.api]
title = "API"
source = "token"
from = "/api_domain"
pattern = "https://(eu|us)[.]example[.]com"
default = "https://eu.example.com"
"""
REGION = '[authorization_params]\nregion = "{region}"'


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def here(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """A running installation with templates of its operator's."""
    entries = tmp_path_factory.mktemp("entries")
    for name in ("honest", "other"):
        (entries / f"{name}.toml").write_text(FACTS.format(id=name, more=REGION))
    with contextlib.ExitStack() as stack:
        settings = stack.enter_context(settings_for(request, tmp_path_factory, catalog_dir=entries))
        yield stack.enter_context(installation(settings))


@pytest.fixture
def honest() -> Iterator[ScriptedProvider]:
    with serving(ScriptedProvider({"/token": TOKENS})) as provider:
        yield provider


@pytest.fixture
def evil() -> Iterator[ScriptedProvider]:
    with serving(ScriptedProvider({"/token": TOKENS})) as provider:
        yield provider


@pytest.fixture
def thief(backend_with: MakeBackend) -> Backend:
    """Somebody with a key that may write apps, and nothing else."""
    return backend_with(permissions=["apps:read", "apps:write"])


def new_app(here: Installation, honest: ScriptedProvider, **fields: Any) -> str:
    app_id = f"app-{someone()}"
    here.backend.create_app({**honest.registration(app_id), "clientSecret": SECRET, **fields})
    return app_id


def from_template(here: Installation, honest: ScriptedProvider, **overrides: Any) -> str:
    """Make an app from a template, whose variable `host` is part of the token endpoint's host."""
    app_id = f"app-{someone()}"
    body = {
        "templateId": "honest",
        "id": app_id,
        "clientId": "evergrant",
        "clientSecret": SECRET,
        "variables": {"host": "idp.example.com"},
        "overrides": {"name": app_id, "authorizationUrl": f"{honest.url}/authorize", **overrides},
    }
    answer = here.backend.post("app/create/bytemplate", body)
    assert answer.status_code == 200, answer.text
    return app_id


def change(backend: Backend, app_id: str, **fields: Any) -> httpx2.Response:
    """Send an app back as a load returns it, but for these fields."""
    return backend.post("app/update", {"app": {**backend.app(app_id), **fields}})


def demands_secret(answer: httpx2.Response, *moved: str) -> bool:
    """Tell whether an update was refused for want of the secret, and names what moved."""
    (entry,) = answer.json()["details"]["fields"]
    return (
        (answer.status_code, entry["field"]) == (400, "app.clientSecret")
        and all(name in entry["problem"] for name in moved)
        and "secret for evergrant" not in answer.text
    )


def upload(here: Installation, app_id: str, user: str, **fields: Any) -> httpx2.Response:
    body = {"appId": app_id, "userId": user, "refreshToken": "rt-0", "scopes": ["files"], **fields}
    return here.backend.post("app/user/oauthtoken/upload", body)


def connected(here: Installation, app_id: str) -> str:
    """Return a user of the app, whose access token has to be refreshed."""
    user = someone()
    assert upload(here, app_id, user).status_code == 200
    return user


def leave(here: Installation, app_id: str) -> tuple[Any, str, str]:
    """Go to the provider; returns the browser, the link, and the answer that the provider would send it back with."""
    browser = here.browser()
    link = here.backend.connect_url(someone(), appId=app_id)
    state = parse_qs(urlsplit(browser.agree(link)).query)["state"][0]
    return browser, link, f"{here.backend.app(app_id)['callbackUrl']}?code=the-code&state={state}"


ADDRESSES = ["tokenUrl", "revocationUrl", "userinfoUrl", "jwksUrl", "dcrUrl", "issuer", "discoveryUrl"]


@pytest.mark.parametrize("field", ADDRESSES)
def test_an_attacker_who_moves_an_address_has_to_know_the_client_secret(
    here: Installation, honest: ScriptedProvider, evil: ScriptedProvider, thief: Backend, field: str
) -> None:
    evil.answers({"issuer": evil.url, "token_endpoint": f"{evil.url}/t", "authorization_endpoint": f"{evil.url}/a"})
    app_id = new_app(here, honest, **{field: f"{honest.url}/{field}"} if field != "discoveryUrl" else {})
    before = here.backend.app(app_id)
    moved = evil.url if field == "discoveryUrl" else f"{evil.url}/{field}"
    assert demands_secret(change(thief, app_id, **{field: moved}), field)
    assert here.backend.app(app_id) == before
    # At the provider's own host as well: on a shared one, the path says whose it is.
    if field != "discoveryUrl":
        assert demands_secret(change(thief, app_id, **{field: f"{honest.url}/elsewhere"}), field)
    # Who knows it may.
    assert change(thief, app_id, **{field: moved}, clientSecret=SECRET).status_code == 200


@pytest.mark.parametrize(
    "fields",
    [{"templateId": "other"}, {"templateId": ""}, {"variables": {"host": "evil.example"}}],
    ids=["template", "no template", "variables"],
)
def test_an_attacker_who_changes_what_fills_the_addresses_has_to_know_the_client_secret(
    here: Installation, honest: ScriptedProvider, thief: Backend, fields: dict[str, Any]
) -> None:
    app_id = from_template(
        here, honest, tokenUrl=f"{honest.url}/token" if "templateId" in fields else "https://{host}/"
    )
    more: dict[str, Any] = {} if fields.get("templateId") != "" else {"variables": {}}
    assert demands_secret(
        change(thief, app_id, **fields, **more), "templateId" if "templateId" in fields else "tokenUrl"
    )
    assert change(thief, app_id, **fields, **more, clientSecret=SECRET).status_code == 200


def test_an_attacker_who_empties_an_address_first_has_to_know_the_client_secret_to_fill_it(
    here: Installation, honest: ScriptedProvider, evil: ScriptedProvider, thief: Backend
) -> None:
    app_id = new_app(here, honest)
    assert change(thief, app_id, tokenUrl="").status_code == 200
    assert demands_secret(change(thief, app_id, tokenUrl=f"{evil.url}/token"), "tokenUrl")
    # It does not know any more what it was.
    assert demands_secret(change(thief, app_id, tokenUrl=f"{honest.url}/token"), "tokenUrl")
    assert change(here.backend, app_id, tokenUrl=f"{honest.url}/token", clientSecret=SECRET).status_code == 200


def test_an_attacker_who_says_that_there_is_no_secret_has_none(
    here: Installation, honest: ScriptedProvider, evil: ScriptedProvider, thief: Backend
) -> None:
    app_id = new_app(here, honest)
    assert change(thief, app_id, tokenUrl=f"{evil.url}/token", clientSecret="").status_code == 200
    assert here.backend.app(app_id)["hasClientSecret"] is False
    user = connected(here, app_id)
    expire(here.settings, user)
    here.backend.fetch(user, appId=app_id, scopes=["files"])
    (form,) = evil.forms_at("/token")
    assert "client_secret" not in form


def test_what_a_load_returns_can_be_sent_back_by_who_does_not_know_the_secret(
    here: Installation, honest: ScriptedProvider, thief: Backend
) -> None:
    app_id = new_app(here, honest, revocationUrl="https://IDP.example.com:443/revoke")
    connected(here, app_id)
    assert change(thief, app_id).status_code == 200
    assert change(thief, app_id, name=f"{app_id} renamed", defaultScopes=["other"]).status_code == 200
    assert change(thief, app_id, revocationUrl="https://idp.example.com/revoke").status_code == 200
    assert change(thief, app_id, revocationUrl="").status_code == 200
    assert here.backend.app(app_id)["hasClientSecret"] is True


@pytest.mark.parametrize("field", [*ADDRESSES[:4], "authorizationUrl", "issuer"])
def test_a_stolen_key_that_may_write_apps_gets_no_tokens_of_their_users(
    here: Installation, honest: ScriptedProvider, evil: ScriptedProvider, thief: Backend, field: str
) -> None:
    app_id = new_app(here, honest)
    user = connected(here, app_id)
    for secret in ("", "a secret of its own", SECRET):
        answer = change(thief, app_id, **{field: f"{evil.url}/token"}, clientSecret=secret)
        assert answer.status_code == 403
        assert field in answer.json()["errorMessage"]
        assert "tokens:fetch:refresh_token" in answer.json()["errorMessage"]
    expire(here.settings, user)
    assert here.backend.token(user, appId=app_id, scopes=["files"])["accessToken"] == "at-1"
    assert evil.requests == []
    assert honest.forms_at("/token")[0]["client_secret"] == SECRET
    # Who may see refresh tokens may send them elsewhere.
    assert change(here.backend, app_id, **{field: f"{evil.url}/token"}, clientSecret=SECRET).status_code == 200


def test_a_stolen_key_of_few_moments_or_places_moves_nothing_that_lasts(
    here: Installation, honest: ScriptedProvider, evil: ScriptedProvider, backend_with: MakeBackend
) -> None:
    app_id, other = new_app(here, honest), new_app(here, honest)
    connected(here, app_id)
    may = ["apps:read", "apps:write", "tokens:fetch", "tokens:fetch:refresh_token"]
    moved = {"tokenUrl": f"{evil.url}/token", "clientSecret": SECRET}
    for limits in (
        {"expires_at": clock.now() + timedelta(hours=1)},
        {"allowed_cidrs": ("127.0.0.0/8",)},
        {"app_ids": (other,)},
        {"permissions": [each for each in may if each != "tokens:fetch"]},  # fetches nothing
    ):
        thief = backend_with(**{"permissions": may, **limits})
        assert change_by_owner(here, thief, app_id, moved).status_code == 403
    assert change(backend_with(permissions=may, app_ids=(app_id,)), app_id, **moved).status_code == 200


@pytest.mark.parametrize("limits", [{"keyIds": ["{chosen}"]}, {"scopes": ["other"]}, {"levels": ["tenant"]}])
def test_a_key_that_policies_keep_from_tokens_does_not_have_them_sent_to_itself(
    here: Installation,
    honest: ScriptedProvider,
    evil: ScriptedProvider,
    backend_with: MakeBackend,
    limits: dict[str, list[str]],
) -> None:
    app_id, chosen = new_app(here, honest), someone()
    user = connected(here, app_id)
    may = ["apps:read", "apps:write", "tokens:fetch", "tokens:fetch:refresh_token"]
    excluded, keeper = backend_with(permissions=may), backend_with(permissions=[*may, "policies"])
    allowed = backend_with(permissions=may, key_id=chosen)
    limits = {name: [value.format(chosen=chosen) for value in values] for name, values in limits.items()}
    policy = here.backend.post("policies", {"appId": app_id, "action": "fetch", **limits})
    assert policy.status_code == 200, policy.text
    assert excluded.fetch(user, appId=app_id, scopes=["files"]).status_code == 403
    moved = {"tokenUrl": f"{evil.url}/token", "clientSecret": SECRET}
    answer = change(excluded, app_id, **moved)
    assert answer.status_code == 403
    assert "tokenUrl" in answer.json()["errorMessage"]
    assert "'policies'" in answer.json()["errorMessage"]
    # Who is allowed everything may move it, and so may who could let itself in.
    assert change(allowed, app_id, **moved).status_code == (200 if "keyIds" in limits else 403)
    assert change(keeper, app_id, **{**moved, "tokenUrl": f"{evil.url}/other"}).status_code == 200


def change_by_owner(here: Installation, backend: Backend, app_id: str, fields: dict[str, Any]) -> httpx2.Response:
    """The same, of an app that the key may not load."""
    return backend.post("app/update", {"app": {**here.backend.app(app_id), **fields}})


@pytest.mark.parametrize("key", [PRIVATE_KEY, PRIVATE_KEY.replace("PRIVATE", "ENCRYPTED PRIVATE"), str(JWK)])
def test_a_private_key_is_taken_for_no_way_that_sends_it(
    here: Installation, honest: ScriptedProvider, key: str
) -> None:
    for method in ("client_secret_post", "client_secret_basic"):
        body = {**honest.registration(f"app-{someone()}"), "clientSecret": key.replace("'", '"')}
        answer = here.backend.post("app/create", {**body, "tokenEndpointAuthMethod": method})
        fields = [entry["field"] for entry in answer.json()["details"]["fields"]]
        assert (answer.status_code, fields) == (400, ["clientSecret", "tokenEndpointAuthMethod"])


def test_an_attacker_who_changes_how_the_secret_is_used_does_not_make_it_travel(
    here: Installation, honest: ScriptedProvider, thief: Backend
) -> None:
    app_id = new_app(here, honest, clientSecret=PRIVATE_KEY, tokenEndpointAuthMethod="private_key_jwt")
    for method in ("client_secret_post", "client_secret_basic"):
        assert change(thief, app_id, tokenEndpointAuthMethod=method).status_code == 400
        by_way = change(thief, app_id, tokenEndpointAuthMethod="client_secret_jwt")
        assert by_way.status_code == 200
        assert change(thief, app_id, tokenEndpointAuthMethod=method).status_code == 400
    shared = new_app(here, honest, tokenEndpointAuthMethod="client_secret_jwt")
    assert demands_secret(change(thief, shared, tokenEndpointAuthMethod="client_secret_post"), "AuthMethod")
    copies = [{"key": "copy", "value": "{client_secret}"}]
    assert demands_secret(change(thief, shared, tokenUrlParams=copies), "tokenUrlParams")
    assert change(thief, shared, tokenUrlParams=[{"key": "format", "value": "json"}]).status_code == 200
    sent = new_app(here, honest, tokenEndpointAuthMethod="client_secret_post")
    assert change(thief, sent, tokenEndpointAuthMethod="client_secret_basic").status_code == 200


def test_an_attacker_who_leaves_the_template_that_signs_does_not_make_the_key_travel(
    here: Installation, thief: Backend
) -> None:
    app_id = f"app-{someone()}"
    variables = {"team_id": "A1B2C3D4E5", "key_id": "ABC123DEFG"}
    body = {"templateId": "apple", "id": app_id, "clientId": "c", "clientSecret": PRIVATE_KEY, "variables": variables}
    answer = here.backend.post("app/create/bytemplate", {**body, "overrides": {"name": app_id}})
    assert answer.status_code == 200, answer.text
    assert change(thief, app_id, templateId="", variables={}).status_code == 400
    assert change(thief, app_id, description="Signs in").status_code == 200


@pytest.mark.parametrize("method", ["client_secret_post", "client_secret_basic"])
def test_a_private_key_that_got_into_an_app_all_the_same_is_never_on_the_wire(
    here: Installation, honest: ScriptedProvider, method: str
) -> None:
    params = [{"key": "also", "value": "{client_secret}"}]
    app_id = new_app(
        here, honest, clientSecret=PRIVATE_KEY, tokenEndpointAuthMethod="private_key_jwt", tokenUrlParams=params
    )
    user = connected(here, app_id)
    assert here.backend.token(user, appId=app_id, scopes=["files"])["accessToken"] == "at-1"
    (form,) = honest.forms_at("/token")
    assert form["client_assertion"]
    assert "also" not in form
    # As an earlier version may have stored it:
    execute(here.settings, f"UPDATE outbound_apps SET token_endpoint_auth_method = '{method}' WHERE id = '{app_id}'")
    expire(here.settings, user)
    refused = here.backend.fetch(user, appId=app_id, scopes=["files"])
    assert refused.status_code in (502, 503), refused.text  # 503 where a slow machine lets the caller wait too long
    assert "BEGIN" not in refused.text
    wait_until(lambda: "private_key_jwt" in here.backend.app(app_id)["health"]["reason"], "the app says why")
    assert len(honest.requests) == 1


def test_an_attacker_who_moves_an_app_under_way_gets_neither_code_nor_verifier(
    here: Installation, honest: ScriptedProvider, evil: ScriptedProvider, thief: Backend
) -> None:
    app_id = new_app(here, honest, clientSecret="")
    browser, link, back = leave(here, app_id)
    still_good, _, good = leave(here, app_id)
    assert came_back(still_good.open(good))["outboundStatus"] == "connected"
    execute(here.settings, f"DELETE FROM grants WHERE app_id = '{app_id}'")
    honest.requests.clear()
    assert change(thief, app_id, tokenUrl=f"{evil.url}/token").status_code == 200
    # Leaving once more does not make the first tab's code good for the new place.
    again = browser.http.post(link, data={"decision": "connect"})
    assert again.status_code == 400
    end = came_back(browser.open(back))
    assert (end["outboundStatus"], end["err"]) == ("failed", "app_changed")
    assert evil.requests == honest.requests == []


def test_an_attacker_who_moves_an_app_while_a_code_is_redeemed_gets_no_refresh_token(
    here: Installation, honest: ScriptedProvider, evil: ScriptedProvider, thief: Backend
) -> None:
    app_id = new_app(here, honest, clientSecret="")
    browser, _, back = leave(here, app_id)

    def move_first(_: Any) -> Any:
        assert change(thief, app_id, tokenUrl=f"{evil.url}/token").status_code == 200
        return TOKENS

    honest.routes["/token"] = move_first
    end = came_back(browser.open(back))
    assert end["err"] == "app_changed"
    assert evil.requests == []


@pytest.mark.parametrize("revocation", ["", "/revoke"])
def test_an_attacker_who_moves_an_app_while_an_upload_is_verified_gets_no_refresh_token(
    here: Installation, honest: ScriptedProvider, evil: ScriptedProvider, thief: Backend, revocation: str
) -> None:
    app_id, user = new_app(here, honest, clientSecret=""), someone()

    def move_first(_: Any) -> Any:
        moved = {"tokenUrl": f"{evil.url}/token", "revocationUrl": revocation and f"{evil.url}{revocation}"}
        assert change(thief, app_id, **moved).status_code == 200
        return TOKENS

    honest.routes["/token"] = move_first
    answer = upload(here, app_id, user, verifyRefresh=True)
    assert (answer.status_code, answer.json()["errorCode"]) == (400, "E011003")
    assert here.backend.fetch(user, appId=app_id, scopes=["files"]).status_code == 404
    assert evil.requests == []
    assert upload(here, app_id, user, verifyRefresh=True).status_code == 200  # for the new place, and knowingly


@pytest.mark.parametrize("batch", [False, True])
def test_an_attacker_who_moves_an_app_while_an_upload_is_checked_gets_no_refresh_token(
    here: Installation, honest: ScriptedProvider, evil: ScriptedProvider, thief: Backend, batch: bool
) -> None:
    checks = {"issuer": honest.url, "jwksUrl": f"{honest.url}/jwks"}
    app_id, user, now = new_app(here, honest, clientSecret="", **checks), someone(), int(clock.now().timestamp())
    claims = {"iss": honest.url, "aud": here.backend.app(app_id)["clientId"], "sub": "u", "iat": now, "exp": now + 600}
    token = jwt.encode({"alg": "ES256"}, claims, ECKey.import_key(JWK))

    def move_first(_: Any) -> Any:
        assert change(thief, app_id, tokenUrl=f"{evil.url}/token").status_code == 200
        return {"keys": []}

    honest.routes["/jwks"] = move_first  # asked before anything is stored
    item = {"appId": app_id, "userId": user, "refreshToken": "rt-0", "scopes": ["files"], "idToken": token}
    if batch:
        answer = here.backend.post("app/user/oauthtoken/batch/upload", {"tokens": [item]})
        assert [failure["userId"] for failure in answer.json()["failures"]] == [user]
    else:
        assert here.backend.post("app/user/oauthtoken/upload", item).status_code == 400
    assert "/jwks" in [request.path for request in honest.requests]
    assert here.backend.fetch(user, appId=app_id, scopes=["files"]).status_code == 404
    assert evil.requests == []


def test_an_attacker_who_uploads_a_connection_does_not_choose_who_gets_the_secret(
    here: Installation, honest: ScriptedProvider
) -> None:
    app_id = from_template(here, honest, tokenUrl=f"{honest.url}/token")
    for details in ({"api": "https://evil.example.com"}, {"api": "https://eu.example.com.evil"}, {"host": "evil.com"}):
        answer = upload(here, app_id, someone(), details={"region": "eu", **details})
        (entry,) = answer.json()["details"]["fields"]
        assert (answer.status_code, entry["field"]) == (400, f"details.{next(iter(details))}")
    good = {"region": "eu", "api": "https://us.example.com"}
    assert upload(here, app_id, someone(), details=good).status_code == 200
    # What the operator has fixed for everybody is fixed for uploads.
    variables = {"host": "idp.example.com", "region": "eu"}
    assert change(here.backend, app_id, variables=variables, clientSecret=SECRET).status_code == 200
    assert upload(here, app_id, someone(), details={"region": "us"}).status_code == 400
    assert upload(here, app_id, someone(), details={"region": "eu"}).status_code == 200


def test_a_registration_that_evergrant_made_does_not_follow_either(
    here: Installation, honest: ScriptedProvider, evil: ScriptedProvider, thief: Backend
) -> None:
    honest.routes["/register"] = lambda request: (201, {**request.json, "client_id": "c", "client_secret": "given"})
    app_id = new_app(here, honest, clientId="", clientSecret="", useDcr=True, dcrUrl=f"{honest.url}/register")
    here.backend.connect_url(someone(), appId=app_id)
    assert here.backend.app(app_id)["hasClientSecret"] is True
    refused = change(thief, app_id, revocationUrl=f"{evil.url}/revoke")
    assert demands_secret(refused, "revocationUrl", "register anew")
    # At another server it is worth nothing, and gone.
    assert change(thief, app_id, tokenUrl=f"{evil.url}/token").status_code == 200
    after = here.backend.app(app_id)
    assert (after["clientId"], after["hasClientSecret"]) == ("", False)


def test_an_attacker_who_moves_an_app_while_it_registers_does_not_get_the_new_secret(
    here: Installation, honest: ScriptedProvider, evil: ScriptedProvider, thief: Backend
) -> None:
    app_id = new_app(here, honest, clientId="", clientSecret="", useDcr=True, dcrUrl=f"{honest.url}/register")

    def move_first(request: Request) -> Any:
        if len(honest.requests_to("/register")) == 1:
            assert change(thief, app_id, revocationUrl=f"{evil.url}/revoke").status_code == 200
        return 201, {**request.json, "client_id": "by-itself", "client_secret": "given"}

    honest.routes["/register"] = move_first
    here.backend.connect_url(someone(), appId=app_id)
    app = here.backend.app(app_id)
    assert (app["clientId"], app["hasClientSecret"]) == ("", False)
    # The next connect registers for the definition that there is now.
    here.backend.connect_url(someone(), appId=app_id)
    assert here.backend.app(app_id)["clientId"] == "by-itself"


def test_whoever_looks_after_an_attack_reads_from_where_to_where_it_moved(
    here: Installation, honest: ScriptedProvider, evil: ScriptedProvider
) -> None:
    app_id = new_app(here, honest)
    assert change(here.backend, app_id, tokenUrl=f"{evil.url}/token?a=b", clientSecret=SECRET).status_code == 200
    search = {"actions": ["app.updated"], "text": app_id}
    (found,) = here.backend.http.post("/v1/mgmt/audit/search", json=search).json()["audits"]
    assert found["data"]["moved"] == {"tokenUrl": {"from": honest.url, "to": evil.url}}
