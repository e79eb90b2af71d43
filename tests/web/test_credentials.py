"""Credentials for apps that nobody connects: keys of several fields, and what tokens are obtained from."""

import base64
import contextlib
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx2
import pytest

from tests.infra.databases import settings_for
from tests.infra.installation import Installation, installation
from tests.infra.issuer import Issuer
from tests.infra.people import someone, trust
from tests.infra.rows import dump
from tests.infra.scripted import ScriptedProvider, serving

GRANT_TYPE = "urn:ietf:params:oauth:grant-type:token-exchange"
ACCESS_TOKEN = "urn:ietf:params:oauth:token-type:access_token"
USER = "app/user/credentials/upload"
FACTS = """
name = "Our own {id}"
category = "other"
documentation_url = "https://example.com/docs"
verification = "unconfirmed"
"""
ENTRIES = {
    # Basic with a user name and a password, at a host of the connection's own
    "desk": """
app_type = "apikey"
[fields.username]
title = "User name"
secret = false
[fields.password]
title = "API password"
hint = "Under Profile, API access"
[variables.site]
title = "Site"
source = "user"
pattern = "[a-z0-9-]{{1,40}}"
example = "acme"
[api]
base_url = "{url}/api/{{site}}"
credential = {{ in = "basic", username = "{{username}}", password = "{{password}}" }}
headers = {{ "X-Version" = "2" }}
check = "GET /me"
""",
    # two headers
    "dog": """
app_type = "apikey"
[fields.api_key]
title = "API key"
pattern = "[a-f0-9]{{8}}"
example = "0a1b2c3d"
[fields.app_key]
title = "Application key"
required = false
[api]
credential = {{ name = "DD-API-KEY", value = "{{api_key}}" }}
headers = {{ "DD-APPLICATION-KEY" = "{{app_key}}" }}
""",
    # one field, in the query
    "map": """
app_type = "apikey"
[fields.key]
title = "Key"
[api]
credential = {{ in = "query", name = "key", value = "{{key}}" }}
""",
    "machine": """
app_type = "client_credentials"
token_endpoint = "{url}/token"
[fields.client_id]
title = "Client ID"
secret = false
[fields.client_secret]
title = "Client secret"
""",
    # a key file, whose parts are found in it
    "account": """
app_type = "login"
[[login]]
url = "{url}/login"
body = {{ who = "{{email}}", key = "{{private_key}}" }}
[fields.key_file]
title = "Key file"
multiline = true
[fields.email]
title = "Address"
in = "key_file"
from = "/client_email"
[fields.private_key]
title = "Private key"
in = "key_file"
from = "/private_key"
""",
}
TOKEN = {"access_token": "at-1", "token_type": "Bearer", "expires_in": 3600}


@dataclass
class Here:
    """An installation with these entries, and the provider that they describe."""

    installation: Installation
    provider: ScriptedProvider

    def app(self, template: str, **fields: Any) -> str:
        """Make an app from an entry and return its id."""
        app_id = f"app-{uuid.uuid4().hex[:12]}"
        wanted = {"templateId": template, "id": app_id, "overrides": {"name": app_id}, **fields}
        answer = self.installation.backend.post("app/create/bytemplate", wanted)
        assert answer.status_code == 200, answer.text
        return app_id

    def upload(self, app_id: str, user: str, fields: dict[str, str], **more: Any) -> Any:
        """Upload a user's credentials."""
        body = {"appId": app_id, "userId": user, "fields": fields, **more}
        return self.installation.backend.post(USER, body)

    def stored(self, app_id: str, user: str, fields: dict[str, str], **more: Any) -> None:
        """Upload credentials that must be taken."""
        answer = self.upload(app_id, user, fields, **more)
        assert (answer.status_code, answer.json()) == (200, {})

    def refused(self, app_id: str, fields: dict[str, str], **more: Any) -> dict[str, str]:
        """Upload what is wrong; returns the problems by field. Nothing is stored, and no value is told."""
        before = dump(self.installation.settings)
        answer = self.upload(app_id, someone(), fields, **more)
        assert answer.status_code == 400, answer.text
        assert dump(self.installation.settings) == before
        assert not [value for value in fields.values() if len(value) > 3 and value in answer.text]
        return {entry["field"]: entry["problem"] for entry in answer.json()["details"]["fields"]}

    def token(self, app_id: str, user: str, **fields: Any) -> dict[str, Any]:
        return self.installation.backend.token(user, appId=app_id, scopes=["any"], **fields)


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def running(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Here]:
    entries = tmp_path_factory.mktemp("entries")
    with contextlib.ExitStack() as stack:
        provider = stack.enter_context(serving(ScriptedProvider()))
        for name, text in ENTRIES.items():
            (entries / f"{name}.toml").write_text(FACTS.format(id=name) + text.format(url=provider.url))
        settings = stack.enter_context(settings_for(request, tmp_path_factory, catalog_dir=entries))
        yield Here(stack.enter_context(installation(settings)), provider)


@pytest.fixture
def here(running: Here) -> Here:
    """The same for every test, with nothing left of the one before."""
    running.provider.routes.clear()
    running.provider.requests.clear()
    return running


# keys of several fields


def test_a_fetch_answers_with_the_fields_and_ready_headers(here: Here) -> None:
    app, user = here.app("desk"), someone()
    here.provider.routes["/api/acme/me"] = {"id": 7}
    here.stored(app, user, {"username": "ada", "password": " p:w \n"}, details={"site": "acme"})
    text = base64.b64encode(b"ada: p:w ").decode()
    assert here.provider.requests_to("/api/acme/me")[0].headers["authorization"] == f"Basic {text}"
    token = here.token(app, user)
    assert token["details"] == {"site": "acme", "username": "ada", "password": " p:w "}
    assert token["headers"] == {"Authorization": f"Basic {text}", "X-Version": "2"}
    assert (token["accessTokenType"], token["accessToken"]) == ("Basic", text)
    assert (token["hasRefreshToken"], token["accessTokenExpiry"], "query" in token) == (False, "", False)
    (listed,) = here.installation.backend.get(f"tokens?userId={user}").json()["tokens"]
    assert (listed["accessTokenType"], listed["details"]) == ("credentials", {"site": "acme"})


def test_what_needs_two_headers_has_both(here: Here) -> None:
    app, user = here.app("dog"), someone()
    here.stored(app, user, {"api_key": " 0a1b2c3d\n", "app_key": "second"})
    token = here.token(app, user)
    assert token["headers"] == {"DD-API-KEY": "0a1b2c3d", "DD-APPLICATION-KEY": "second"}
    assert (token["accessTokenType"], token["accessToken"]) == ("credentials", "0a1b2c3d")
    here.stored(app, user, {"api_key": "ffffffff"})
    assert here.token(app, user)["headers"] == {"DD-API-KEY": "ffffffff"}
    assert len(here.installation.backend.get(f"tokens?userId={user}").json()["tokens"]) == 1


def test_the_call_for_one_key_will_do_where_one_field_is_required(here: Here) -> None:
    app, user = here.app("map"), someone()
    owner = {"appId": app, "userId": user}
    assert here.installation.backend.post("app/user/apikey/upload", {**owner, "apiKey": "k-1"}).json() == {}
    token = here.token(app, user)
    assert (token["query"], token["accessToken"], token["accessTokenType"]) == ({"key": "k-1"}, "k-1", "apikey")
    answer = here.installation.backend.post(
        "app/user/apikey/upload", {**owner, "appId": here.app("desk"), "apiKey": "k"}
    )
    assert answer.status_code == 400
    assert "username, password: use credentials/upload" in answer.text


def test_several_accounts_of_one_owner_are_told_apart(here: Here) -> None:
    app, user, tenant = here.app("map"), someone(), someone()
    for account in ("one", "two"):
        here.stored(app, user, {"key": account}, externalIdentifier=account)
    assert here.token(app, user, externalIdentifier="two")["accessToken"] == "two"
    upload = {"appId": app, "tenantId": tenant, "fields": {"key": "theirs"}}
    assert here.installation.backend.post("app/tenant/credentials/upload", upload).status_code == 200
    answer = here.installation.backend.post("app/tenant/token/latest", {"appId": app, "tenantId": tenant})
    assert answer.json()["token"]["accessToken"] == "theirs"


def test_what_is_wrong_is_named_with_the_remedy(here: Here) -> None:
    desk, dog = here.app("desk"), here.app("dog")
    assert here.refused(desk, {"username": "ada", "pass": "secret"}) == {
        "fields.pass": "there is no such field; use username, password",
        "fields.password": "is required: API password. Under Profile, API access",
        "details.site": "is required: Site, like acme",
    }
    good = {"username": "ada", "password": "secret"}
    assert here.refused(desk, good, details={"site": "a/b"}) == {"details.site": "use a value like acme"}
    assert here.refused(dog, {"api_key": "not-a-key"}) == {"fields.api_key": "use a value like 0a1b2c3d"}
    assert here.refused(dog, {"api_key": "0a1b2c3d"}, scopes=["x"]) == {"scopes": "a key has none: leave it out"}
    blank = "must not contain line breaks and invisible characters: paste it again"
    assert here.refused(desk, {**good, "password": "se\ncret"}, details={"site": "a"}) == {"fields.password": blank}


def test_a_key_that_the_api_refuses_is_not_stored(here: Here) -> None:
    app, fields, site = here.app("desk"), {"username": "ada", "password": "wrong-one"}, {"site": "acme"}
    before = dump(here.installation.settings)
    here.provider.routes["/api/acme/me"] = (401, {"error": "wrong-one is no password"})
    answer = here.upload(app, someone(), fields, details=site)
    assert (answer.status_code, answer.json()["errorCode"]) == (400, "E111508")
    assert "Nothing was stored." in answer.text
    assert "wrong-one" not in answer.text
    here.provider.routes["/api/acme/me"] = (503, {})
    assert here.upload(app, someone(), fields, details=site).status_code == 503
    here.provider.routes["/api/acme/me"] = (404, {})
    answer = here.upload(app, someone(), fields, details=site)
    assert (answer.status_code, "verify: false" in answer.text) == (502, True)
    assert dump(here.installation.settings) == before
    here.stored(app, someone(), fields, details=site, verify=False)


def test_one_value_goes_by_the_token_exchange_and_several_do_not(here: Here) -> None:
    backend, user = here.installation.backend, someone()
    exchanged = {"map": 200, "dog": 400}
    with serving(Issuer()) as idp:
        trust(backend, idp)
        for template, fields in (("map", {"key": "k-1"}), ("dog", {"api_key": "0a1b2c3d", "app_key": "second"})):
            app = here.app(template)
            here.stored(app, user, fields)
            form = {"grant_type": GRANT_TYPE, "subject_token": idp.access(sub=user), "subject_token_type": ACCESS_TOKEN}
            answer = httpx2.post(f"{here.installation.url}/oauth2/v1/token", data={**form, "audience": app})
            assert answer.status_code == exchanged[template], answer.text
            if template == "map":
                body = answer.json()
                assert (body["access_token"], body["token_type"], body["query"]) == ("k-1", "apikey", {"key": "k-1"})
            else:
                assert answer.json()["error"] == "invalid_target"


def test_a_template_says_what_to_enter_and_where_it_goes(here: Here) -> None:
    backend = here.installation.backend
    (desk,) = backend.get("templates?search=DESK+our").json()["templates"]
    assert backend.get("templates/desk").json() == {"template": desk}
    assert (desk["appType"], desk["kind"], desk["apiKey"]) == ("apikey", "API key", None)
    name, password = desk["fields"]
    assert (name["name"], name["title"], name["secret"], name["required"]) == ("username", "User name", False, True)
    assert (password["hint"], password["multiline"]) == ("Under Profile, API access", False)
    api = desk["api"]
    assert (api["baseUrl"], api["check"]) == (f"{here.provider.url}/api/{{site}}", "GET /me")
    assert api["credential"] == {"in": "basic", "name": "Authorization", "prefix": "Basic "}
    assert api["headers"] == ["X-Version"]
    account = backend.get("templates/account").json()["template"]
    assert [field["name"] for field in account["fields"]] == ["key_file"]


# what tokens are obtained from


def test_the_first_token_of_a_client_of_ones_own_comes_with_the_upload(here: Here) -> None:
    app, user = here.app("machine"), someone()
    here.provider.routes["/token"] = [TOKEN, {**TOKEN, "access_token": "at-2"}]
    here.stored(app, user, {"client_id": " mine ", "client_secret": "own-secret"}, scopes=["read"])
    (form,) = here.provider.forms_at("/token")
    assert (form["grant_type"], form["client_id"], form["client_secret"]) == (
        "client_credentials",
        "mine",
        "own-secret",
    )
    backend = here.installation.backend
    token = backend.token(user, appId=app, scopes=["read"])
    assert (token["accessToken"], token["accessTokenType"], token["hasRefreshToken"]) == ("at-1", "Bearer", True)
    token = backend.token(user, appId=app, scopes=["read"], options={"forceRefresh": True})
    assert token["accessToken"] == "at-2"


def test_credentials_are_never_returned_for_a_refresh_token(here: Here) -> None:
    app, user = here.app("machine"), someone()
    here.provider.routes["/token"] = TOKEN
    here.stored(app, user, {"client_id": "mine", "client_secret": "own-secret"})
    records = dump(here.installation.settings)["audit_events"]
    answer = here.installation.backend.fetch(user, appId=app, options={"withRefreshToken": True})
    assert answer.status_code == 200
    assert "refreshToken" not in answer.json()["token"]
    assert "own-secret" not in answer.text
    assert dump(here.installation.settings)["audit_events"] == records


def test_credentials_that_the_provider_refuses_are_not_stored(here: Here) -> None:
    app = here.app("machine")
    before = dump(here.installation.settings)
    here.provider.routes["/token"] = (401, {"error": "invalid_client", "error_description": "own-secret is wrong"})
    answer = here.upload(app, someone(), {"client_id": "mine", "client_secret": "own-secret"})
    assert (answer.status_code, answer.json()["errorCode"]) == (400, "E111508"), answer.text
    assert answer.json()["details"]["providerError"] == "invalid_client"
    assert "refuses these credentials: invalid_client" in answer.json()["message"]
    assert "own-secret" not in answer.text
    assert dump(here.installation.settings) == before


def test_without_verify_the_first_fetch_obtains_the_token(here: Here) -> None:
    app, user = here.app("machine"), someone()
    here.stored(app, user, {"client_id": "mine", "client_secret": "own-secret"}, verify=False)
    assert here.provider.requests == []
    here.provider.routes["/token"] = TOKEN
    assert here.token(app, user)["accessToken"] == "at-1"


def test_a_client_is_the_apps_or_whole_the_connections(here: Here) -> None:
    none, own = here.app("machine"), here.app("machine", clientId="ours", clientSecret="our-secret")
    custom = {"appType": "client_credentials", "tokenUrl": f"{here.provider.url}/token"}
    custom_app = here.installation.backend.new_app({}, **custom)
    for app in (none, custom_app):
        assert list(here.refused(app, {})) == ["fields.client_id", "fields.client_secret"]
    assert list(here.refused(own, {"client_id": "mine"})) == ["fields.client_secret"]
    user = someone()
    here.provider.routes["/token"] = TOKEN
    here.stored(own, user, {})
    assert here.provider.forms_at("/token")[0]["client_id"] == "ours"
    here.stored(custom_app, user, {"client_id": "mine", "client_secret": "x"})
    assert here.token(custom_app, user)["accessToken"] == "at-1"


def test_parts_of_a_key_file_are_found_in_it_and_its_lines_stay(here: Here) -> None:
    app, user = here.app("account"), someone()
    here.provider.routes["/login"] = TOKEN
    file = '{"client_email": "a@example.com",\n "private_key": "-----BEGIN\\nEND-----\\n"}\n'
    here.stored(app, user, {"key_file": file})
    assert here.provider.requests[0].json == {"who": "a@example.com", "key": "-----BEGIN\nEND-----\n"}
    assert here.refused(app, {"key_file": "{}"}) == {
        "fields.key_file": "Address: is not in it, so paste the whole of it; "
        "Private key: is not in it, so paste the whole of it"
    }
    assert list(here.refused(app, {"email": "a@example.com"})) == ["fields.email", "fields.key_file"]


def test_apps_that_people_connect_take_no_credentials(here: Here) -> None:
    problems = here.refused("practice", {})
    assert problems == {"appId": "the app 'practice' takes OAuth tokens: use oauthtoken/upload"}
    upload = {"appId": here.app("machine"), "userId": "al", "accessToken": "at"}
    answer = here.installation.backend.post("app/user/oauthtoken/upload", upload)
    assert (answer.status_code, "credentials: use credentials/upload" in answer.text) == (400, True)
