"""A client that a generator makes of the OpenAPI document works against a running server as it comes."""

import subprocess
import sys
from collections.abc import Iterator
from http import HTTPStatus
from importlib import import_module
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.infra.installation import APP_ID, BACK, SCOPES, Installation

CONFIG = "content_type_overrides: {application/jsonl: text/plain}\npost_hooks: []\n"


class Generated:
    """The generated package: its calls by their module's name, its models by their class's name."""

    def __init__(self, here: Installation) -> None:
        self.models = import_module("evergrant_generated.models")
        client = import_module("evergrant_generated.client").AuthenticatedClient
        token = f"{here.backend.project_id}:{here.backend.management_key}"
        self.client = client(base_url=here.url, token=token, httpx_args={"trust_env": False})

    def call(self, name: str, *arguments: Any, **parameters: Any) -> Any:
        """Make a call, and return its answer as the client understands it, with its status."""
        module = import_module(f"evergrant_generated.api.{name}")
        return module.sync_detailed(*arguments, client=self.client, **parameters)

    def good(self, name: str, *arguments: Any, **parameters: Any) -> Any:
        answer = self.call(name, *arguments, **parameters)
        assert answer.status_code == HTTPStatus.OK, answer.content
        assert answer.parsed is not None
        return answer.parsed


@pytest.fixture
def generated(here: Installation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Generated]:
    """Generate the client from what the server publishes. A warning of the generator is a failure."""
    (tmp_path / "openapi.json").write_bytes(httpx2.get(f"{here.url}/openapi.json", trust_env=False).content)
    (tmp_path / "config.yaml").write_text(CONFIG)
    command = [sys.executable, "-m", "openapi_python_client", "generate", "--path", "openapi.json", "--meta", "none"]
    options = ["--output-path", "evergrant_generated", "--config", "config.yaml", "--fail-on-warning"]
    done = subprocess.run([*command, *options], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert "WARNING" not in done.stdout
    assert "Unable to" not in done.stdout
    monkeypatch.syspath_prepend(tmp_path)
    made = Generated(here)
    with made.client:
        yield made


def test_a_generated_client_makes_the_main_trip_and_understands_every_kind_of_answer(
    here: Installation, generated: Generated
) -> None:
    models = generated.models
    app = generated.good(
        "apps.create_app",
        body=models.CreateApp.from_dict({**here.provider.registration, "id": "generated", "name": "Generated"}),
    ).app
    assert (app.id, app.has_client_secret, app.health.status) == ("generated", True, "ok")

    missing = generated.call(
        "tokens.fetch_user_token", body=models.FetchUserToken(app_id="generated", user_id="gina", scopes=SCOPES)
    )
    assert missing.status_code == HTTPStatus.NOT_FOUND
    assert isinstance(missing.parsed, models.ErrorBody)
    assert (missing.parsed.error_code, missing.parsed.request_id) == ("E111504", missing.headers["x-request-id"])

    wrong = generated.call(
        "apps.create_app", body=models.CreateApp.from_dict({"name": "x", "tokenUrl": "http://example.com"})
    )
    assert [field.field for field in wrong.parsed.details.fields] == ["tokenUrl"]

    link = generated.good(
        "connect.start_connect",
        body=models.Connect(
            app_id="generated", user_id="gina", options=models.ConnectOptions(redirect_url=BACK, scopes=SCOPES)
        ),
    )
    assert here.browser().connect(link.url)["outboundStatus"] == "connected"

    fetched = generated.good(
        "tokens.fetch_latest_user_token", body=models.FetchUserTokenLatest(app_id="generated", user_id="gina")
    )
    assert here.provider.lets_in({"accessToken": fetched.token.access_token})

    listed = generated.good("connections.list_tokens", app_id="generated")
    assert [(one.id, one.user_id) for one in listed.tokens] == [(fetched.token.id, "gina")]

    # What a load returns can be sent back.
    changed = models.UpdatedApp.from_dict({**app.to_dict(), "description": "By a generated client"})
    updated = generated.good("apps.update_app", body=models.UpdateApp(app=changed)).app
    assert updated.description == "By a generated client"
    assert APP_ID in [one.id for one in generated.good("apps.load_all_apps").apps]

    # Claims are an object whose members nobody knows beforehand; exports and health are no JSON models.
    wanted = models.CreatePolicy(
        app_id=APP_ID,
        action=models.CreatePolicyAction.FETCH,
        claims=models.CreatePolicyClaims.from_dict({"roles": ["support"]}),
    )
    made = generated.good("policies.create_policy", body=wanted).policy
    assert made.claims["roles"] == ["support"]
    assert [one.id for one in generated.good("policies.load_policies").policies] == [made.id]
    generated.good("policies.delete_policy", id=made.id)
    assert generated.good("policies.load_policies").policies == []
    exported = generated.good("audit.export_records")
    assert '"policy.deleted"' in exported
    assert generated.good("templates.load_template", "discord").template.id == "discord"
    assert generated.good("health.healthz") is not None
