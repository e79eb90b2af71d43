"""An installation whose apps obtain their tokens by themselves, from a provider that a test scripts."""

import json
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest
from joserfc import jwt
from joserfc.jwk import RSAKey

from tests.infra.credentials import Uploaded, upload_credentials
from tests.infra.databases import settings_for
from tests.infra.installation import Installation, installation
from tests.infra.people import someone
from tests.infra.scripted import ScriptedProvider, serving

KEY = RSAKey.generate_key(2048)
OTHER_KEY = RSAKey.generate_key(2048)
FACTS = """
id = "{id}"
name = "Scripted {id}"
category = "dev-tools"
documentation_url = "https://docs.example.com/apps"
verification = "unconfirmed"
app_type = "{kind}"
"""
ASSERTION = """
token_endpoint = "{url}/token"
token_endpoint_auth_methods_supported = ["none"]
[assertion]
alg = "RS256"
key = "{key}"
claims = {{ iss = "{iss}", aud = "{url}/token", scope = "{{scope}}" }}
"""
FIELDS = {
    "client": """
token_endpoint = "{url}/token"
[fields.client_id]
title = "Client id"
[fields.client_secret]
title = "Client secret"
""",
    "robot": ASSERTION.replace("{key}", "{{private_key}}").replace("{iss}", "{{robot}}")
    + """
[fields.key_file]
title = "Key file"
multiline = true
[fields.private_key]
title = "Private key"
in = "key_file"
from = "/private_key"
[fields.robot]
title = "Robot"
in = "key_file"
from = "/robot"
""",
    "signed": ASSERTION.replace("{key}", "{{signing_key}}").replace("{iss}", "{{client_id}}"),
    "installed": """
authorization_endpoint = "{url}/install"
token_endpoint = "{url}/token"
userinfo_endpoint = "{url}/me"
installation_check = "{url}/installations/{{installation_id}}"
pkce = "absent"
[assertion]
alg = "RS256"
claims = {{ iss = "{{client_id}}" }}
[[login]]
url = "{url}/installations/{{installation_id}}/token"
headers = {{ Authorization = "Bearer {{assertion}}" }}
[token_response]
access_token = ["/token", "/access_token"]
expires_at = "/expires_at"
expires_at_format = "iso"
[variables.installation_id]
title = "Installation"
source = "callback"
from = "installation_id"
pattern = "[0-9]{{1,20}}"
required = true
""",
}
KINDS = {"client": "client_credentials", "robot": "jwt_bearer", "signed": "jwt_bearer", "installed": "installation"}


def write_entries(folder: Path, url: str) -> None:
    """Write one entry of each kind, whose provider is at `url`, as an operator's own library."""
    for name, kind in KINDS.items():
        text = FACTS.format(id=name, kind=kind) + FIELDS[name].format(url=url)
        (folder / f"{name}.toml").write_text(text, encoding="utf-8")


def key_file(key: RSAKey = KEY, robot: str = "robot-1") -> str:
    """Return a service account's key file."""
    return json.dumps({"robot": robot, "private_key": key.as_pem(private=True).decode()})


def tokens(**members: Any) -> dict[str, Any]:
    """Return a token answer with a token that nobody has seen before, and a refresh token that is to be ignored."""
    fresh = {"access_token": f"at-{secrets.token_hex(6)}", "token_type": "Bearer", "expires_in": 3600}
    return {**fresh, "refresh_token": "not for us", **members}


@dataclass
class Sources:
    """The installation and the provider."""

    here: Installation
    provider: ScriptedProvider

    def app(self, template: str = "", **fields: Any) -> str:
        """Make an app of a template, or of client credentials without one, and return its id."""
        app_id = f"app-{someone()}"
        own = {"clientId": "ours", "clientSecret": "app-secret"} if template in ("", "installed") else {}
        if template == "installed":
            own |= {"authorizationUrl": f"{self.provider.url}/install", "userinfoUrl": f"{self.provider.url}/me"}
        definition = {
            "id": app_id,
            "name": app_id,
            "appType": KINDS[template] if template else "client_credentials",
            "templateId": template,
            "tokenUrl": f"{self.provider.url}/token",
            "defaultScopes": ["read"],
            **own,
            **fields,
        }
        self.here.backend.create_app(definition)
        return app_id

    def connected(self, app_id: str, fields: Mapping[str, str] | None = None, *more: Mapping[str, str]) -> list[str]:
        """Give users connections with these fields, without a token, and return their ids."""
        users = {someone(): Uploaded(own) for own in (fields or {}, *more)}
        upload_credentials(self.here.settings, self.here.backend.project_id, app_id, users)
        return list(users)

    def fetch(self, app_id: str, user: str, **fields: Any) -> httpx2.Response:
        """Fetch a user's token."""
        return self.here.backend.fetch(user, appId=app_id, scopes=["read"], **fields)

    def token(self, app_id: str, user: str, **fields: Any) -> str:
        """Fetch a token that must be there, and return it."""
        answer = self.fetch(app_id, user, **fields)
        assert answer.status_code == 200, answer.text
        return str(answer.json()["token"]["accessToken"])


def claims_of(assertion: str, key: RSAKey = KEY) -> dict[str, Any]:
    """Return what an assertion claims, whose signature must be by this key."""
    return dict(jwt.decode(assertion, key, algorithms=["RS256"]).claims)


@contextmanager
def obtaining(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sources]:
    """Run all of it, on a fresh database of `request.param`'s kind."""
    folder = tmp_path_factory.mktemp("entries")
    with serving(ScriptedProvider()) as provider:
        write_entries(folder, provider.url)
        with settings_for(request, tmp_path_factory, catalog_dir=folder) as settings, installation(settings) as here:
            yield Sources(here, provider)


@contextmanager
def nothing_asked(provider: ScriptedProvider) -> Iterator[None]:
    """Check that the provider hears nothing meanwhile."""
    before = len(provider.requests)
    yield
    assert len(provider.requests) == before
