"""Credentials that tokens are obtained from: what they are, no token pretends to be, and what signs never travels."""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from joserfc.jwk import RSAKey

from evergrant.catalog.loader import load_catalogue
from evergrant.errors import ConfigurationError
from tests.infra.databases import settings_for
from tests.infra.installation import Backend, Installation, installation
from tests.infra.people import someone
from tests.infra.scripted import TOKENS, Request, ScriptedProvider, json_answer, serving
from tests.web.conftest import MakeBackend

KEY = RSAKey.generate_key(2048).as_pem(private=True).decode()
MARK = "evergrant-credentials:"
FACTS = """
name = "{id}"
category = "other"
documentation_url = "https://example.com/docs"
verification = "unconfirmed"
"""
ENTRIES = {
    "plain": """
app_type = "apikey"
[variables.site]
title = "Site"
source = "user"
pattern = "[a-z]{{1,40}}"
example = "acme"
[api]
base_url = "{url}/api/{{site}}"
check = "GET /me"
""",
    "hosted": """
app_type = "apikey"
[variables.host]
title = "Host"
pattern = "[a-z0-9.:-]+"
[api]
base_url = "https://{{host}}"
check = "GET /me"
""",
    "anywhere": """
app_type = "apikey"
[variables.host]
title = "Host"
source = "user"
pattern = "[a-z.]+"
example = "shop.example.com"
[api]
base_url = "https://{{host}}"
""",
    "file": """
app_type = "apikey"
[fields.file]
title = "Key file"
multiline = true
[fields.key]
title = "Key"
in = "file"
from = "/key"
[api]
credential = {{ name = "X-Key", value = "{{key}}" }}
""",
    "account": """
app_type = "jwt_bearer"
token_endpoint = "{url}/token"
[assertion]
alg = "RS256"
key = "{{private_key}}"
claims = {{ iss = "{{email}}" }}
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
    "signer": """
app_type = "signed_jwt"
[assertion]
alg = "RS256"
key = "{{key}}"
claims = {{ iss = "us" }}
[fields.key]
title = "Private key"
multiline = true
""",
    "door": """
app_type = "login"
[[login]]
url = "{url}/login"
basic = "{{user}}:{{password}}"
[fields.user]
title = "User"
[fields.password]
title = "Password"
""",
}


@pytest.fixture(scope="module")
def provider() -> Iterator[ScriptedProvider]:
    with serving(ScriptedProvider({"/token": TOKENS})) as running:
        yield running


@pytest.fixture(scope="module", params=["sqlite"])  # nothing of it is stored, or a database's matter
def here(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, provider: ScriptedProvider
) -> Iterator[Installation]:
    entries = tmp_path_factory.mktemp("entries")
    for name, text in ENTRIES.items():
        (entries / f"{name}.toml").write_text(FACTS.format(id=name) + text.format(url=provider.url))
    with contextlib.ExitStack() as stack:
        settings = stack.enter_context(settings_for(request, tmp_path_factory, catalog_dir=entries))
        yield stack.enter_context(installation(settings))


@pytest.fixture
def backend(here: Installation, provider: ScriptedProvider) -> Backend:
    provider.requests.clear()
    return here.backend


def app_of(backend: Backend, template: str, *, variables: dict[str, str] | None = None, **overrides: Any) -> str:
    app_id = f"app-{someone()}"
    given = {"variables": variables} if variables else {}
    body = {"templateId": template, "id": app_id, "overrides": {"name": app_id, **overrides}, **given}
    answer = backend.post("app/create/bytemplate", body)
    assert answer.status_code == 200, answer.text
    return app_id


def upload(backend: Backend, app_id: str, user: str, fields: dict[str, str], **more: Any) -> Any:
    return backend.post("app/user/credentials/upload", {"appId": app_id, "userId": user, "fields": fields, **more})


def key_file(**members: str) -> str:
    return json.dumps({"client_email": "robot@example.com", "private_key": KEY, **members})


@pytest.mark.parametrize(
    "token",
    [
        {"refreshToken": f'{MARK}{{"fields":{{"site":"elsewhere"}}}}'},
        {"accessToken": f"{MARK}nothing"},
        {"accessToken": "at", "accessTokenType": "credentials"},
    ],
)
def test_no_token_that_somebody_uploads_passes_for_credentials(
    backend: Backend, provider: ScriptedProvider, token: dict[str, str]
) -> None:
    app_id = f"app-{someone()}"
    backend.create_app(provider.registration(app_id))
    answer = backend.post("app/user/oauthtoken/upload", {"appId": app_id, "userId": someone(), **token})
    assert answer.status_code == 400, answer.text


def test_a_key_that_begins_as_credentials_do_fills_no_address(backend: Backend, provider: ScriptedProvider) -> None:
    app_id, user = app_of(backend, "plain"), someone()
    key = f'{MARK}{{"fields":{{"site":"elsewhere","token":"t"}}}}'
    assert upload(backend, app_id, user, {"token": key}, details={"site": "acme"}, verify=False).status_code == 200
    provider.routes["/api/acme/me"] = {"id": 1}
    backend.post("app/test", {"id": app_id})
    assert [(r.path, r.headers["authorization"]) for r in provider.requests] == [("/api/acme/me", f"Bearer {key}")]


def test_an_attacker_who_changes_what_fills_the_api_has_no_key_tried_there(
    here: Installation, backend: Backend, backend_with: MakeBackend, provider: ScriptedProvider
) -> None:
    app_id = app_of(backend, "hosted", variables={"host": "api.example.com"})
    assert upload(backend, app_id, someone(), {"token": "k-1"}, verify=False).status_code == 200
    thief = backend_with(permissions=["apps:read", "apps:write"])
    moved = {**backend.app(app_id), "variables": {"host": provider.url.removeprefix("http://")}}
    answer = thief.post("app/update", {"app": moved})
    assert (answer.status_code, "variables of the API" in answer.text) == (403, True)


def test_hosts_that_uploaders_may_name_for_their_keys_get_no_clients_secret(
    backend: Backend, provider: ScriptedProvider
) -> None:
    client = {**provider.registration(f"app-{someone()}"), "templateId": "anywhere", "tokenUrl": "https://{host}/token"}
    answer = backend.post("app/create", client)
    assert (answer.status_code, "lets 'evil" in answer.text) == (400, True)


def test_an_operator_who_asks_for_the_key_of_a_connection_does_not_make_it_travel(
    backend: Backend, provider: ScriptedProvider
) -> None:
    asked = [{"key": name, "value": f"{{{name}}}"} for name in ("private_key", "key_file", "email")]
    app_id = app_of(backend, "account", tokenUrlParams=asked)
    assert upload(backend, app_id, someone(), {"key_file": key_file()}).status_code == 200
    sent = provider.requests[0]
    assert sent.form["email"] == "robot@example.com"
    assert b"PRIVATE" not in sent.head + sent.body


def test_a_provider_that_repeats_a_login_does_not_have_the_password_shown(
    backend: Backend, provider: ScriptedProvider
) -> None:
    def repeat(request: Request) -> Any:
        text = f"who is {request.headers['authorization']}?"
        return json_answer(401, {"error": "no", "error_description": text})

    provider.routes["/login"] = repeat
    answer = upload(backend, app_of(backend, "door"), someone(), {"user": "ada", "password": "correct horse"})
    assert answer.status_code == 400
    assert "who is Basic [redacted]?" in answer.text


@pytest.mark.parametrize("text", ["[" * 19_000, '{"kty":' + '{"a":' * 3_000, KEY + "x" * 10_000])
def test_a_key_or_key_file_that_is_a_bomb_is_refused_as_bad_and_not_as_a_bug(backend: Backend, text: str) -> None:
    whole = upload(backend, app_of(backend, "signer"), someone(), {"key": text})
    assert (whole.status_code, whole.json()["errorCode"]) == (400, "E111508"), whole.text
    inside = upload(backend, app_of(backend, "account"), someone(), {"key_file": text})
    assert inside.status_code == 400, inside.text


def test_a_key_with_line_breaks_adds_no_header_to_those_that_are_ready(backend: Backend) -> None:
    app_id, user = app_of(backend, "file"), someone()
    for key, headers in (("k-1", {"X-Key": "k-1"}), ("k-1\r\nX-Admin: yes", None)):
        assert upload(backend, app_id, user, {"file": json.dumps({"key": key})}).status_code == 200
        assert backend.token(user, appId=app_id, scopes=["any"]).get("headers") == headers


def test_an_app_whose_kind_is_changed_while_an_upload_is_verified_keeps_nothing_of_it(
    backend: Backend, provider: ScriptedProvider
) -> None:
    app_id, user = f"app-{someone()}", someone()
    app = backend.create_app({**provider.registration(app_id), "authorizationUrl": ""})

    def change_first(_: Any) -> Any:
        body = {"app": {**app, "appType": "client_credentials"}}
        assert backend.post("app/update", body).status_code == 200
        return TOKENS

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(provider.routes, "/token", change_first)
        body = {"appId": app_id, "userId": user, "refreshToken": "rt-0", "verifyRefresh": True}
        assert backend.post("app/user/oauthtoken/upload", body).status_code == 400
    assert backend.fetch(user, appId=app_id, scopes=["files"]).status_code == 404


def test_what_an_answer_brought_chooses_no_address_of_a_login(tmp_path: Path) -> None:
    onward = 'keep = { next = "/next" }\n[[login]]\nurl = "https://example.com{next}"\n[fields.user]'
    text = ENTRIES["door"].format(url="https://example.com").replace("[fields.user]", onward)
    (tmp_path / "door.toml").write_text(FACTS.format(id="door") + text)
    with pytest.raises(ConfigurationError, match=r"login.1.url: \{next\} is not declared"):
        load_catalogue(tmp_path)
