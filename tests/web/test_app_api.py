"""Where an app's API is, and what calls of it carry: checked like the addresses that secrets go to."""

from collections.abc import Iterator
from typing import Any

import pytest

from tests.infra.databases import settings_for
from tests.infra.installation import Backend, Installation, installation
from tests.web.conftest import MakeBackend

API: dict[str, Any] = {
    "apiBaseUrl": "https://api.shop.example/v2",
    "apiFurther": {"uploads": "https://uploads.shop.example"},
    "apiHeaders": {"X-Client": "{client_id}", "Accept-Version": "2026-01"},
    "apiForbidden": ["POST /admin/**", "* /tokens/*"],
}
OF_AN_APP = {"name": "Shop", "tokenUrl": "https://shop.example/token"}


@pytest.fixture(scope="module", params=["sqlite"])
def here(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """One database will do: what is checked here is checked before it is stored."""
    with settings_for(request, tmp_path_factory) as settings, installation(settings) as running:
        yield running


@pytest.fixture
def backend(here: Installation) -> Backend:
    return here.backend


def api_of(app: dict[str, Any]) -> dict[str, Any]:
    return {name: app[name] for name in API}


def test_an_app_says_where_its_api_is_and_keeps_it_where_an_update_says_nothing(backend: Backend) -> None:
    app_id = backend.new_app({**OF_AN_APP, **API})
    assert api_of(backend.app(app_id)) == API
    same = {"id": app_id, "name": app_id, "tokenUrl": OF_AN_APP["tokenUrl"]}
    assert api_of(backend.post("app/update", {"app": same}).json()["app"]) == API
    loaded = backend.app(app_id)
    empty = {"apiBaseUrl": "", "apiFurther": {}, "apiHeaders": {}, "apiForbidden": []}
    assert api_of(backend.post("app/update", {"app": {**loaded, **empty}}).json()["app"]) == empty


def test_an_app_of_a_template_says_it_too(backend: Backend) -> None:
    body = {"templateId": "github", "overrides": {"name": "Git", **API, "apiHeaders": {"X-Client": "evergrant"}}}
    made = backend.post("app/create/bytemplate", body).json()["app"]
    assert api_of(made) == {**API, "apiHeaders": {"X-Client": "evergrant"}}


@pytest.mark.parametrize(
    ("field", "value", "problem"),
    [
        ("apiBaseUrl", "http://api.shop.example", "https"),
        ("apiBaseUrl", "https://10.0.0.8/api", "not public"),
        ("apiBaseUrl", "https://{host}/api", "is not a variable"),
        ("apiBaseUrl", "https://api.shop.example/?key=1", "leave ? and #"),
        ("apiFurther", {"uploads": "http://uploads.shop.example"}, "https"),
        ("apiFurther", {"../up": "https://uploads.shop.example"}, "no name"),
        ("apiFurther", {"uploads": ""}, "has no URL"),
        ("apiHeaders", {"Authorization": "Bearer x"}, "set by evergrant itself"),
        ("apiHeaders", {"hOST": "evil.example"}, "set by evergrant itself"),
        ("apiHeaders", {"Evergrant-User": "bob"}, "set by evergrant itself"),
        ("apiHeaders", {"X-A": "b\u00e9"}, "visible ASCII"),
        ("apiHeaders", {"X A": "b"}, "no header's"),
        ("apiHeaders", {"X-A": "1", "x-a": "2"}, "twice"),
        ("apiHeaders", {"X-A": "{token}"}, "is neither a variable"),
        ("apiForbidden", ["/admin"], "write a method and a path"),
    ],
)
def test_what_cannot_be_used_is_refused_by_its_field(backend: Backend, field: str, value: Any, problem: str) -> None:
    answer = backend.post("app/create", {**OF_AN_APP, "id": "no-such", field: value})
    assert answer.status_code == 400
    (said, *_) = answer.json()["details"]["fields"]
    assert said["field"] == field
    assert problem in said["problem"]


def test_tokens_follow_only_who_may_have_them_and_a_secret_only_who_knows_it(
    here: Installation, backend_with: MakeBackend
) -> None:
    backend, thief = here.backend, backend_with(permissions=("apps:read", "apps:write"))
    registration = here.provider.registration

    def change(who: Backend, app_id: str, **fields: Any) -> int:
        return who.post("app/update", {"app": {**backend.app(app_id), **fields}}).status_code

    quiet, loud, used = (backend.new_app(registration) for _ in range(3))
    moved = {"apiBaseUrl": "https://evil.example"}
    assert change(thief, quiet, **moved) == 200, "nothing goes there: no connections, and no secret in a header"
    shown = {"apiHeaders": {"X-Secret": "{client_secret}"}}
    assert change(thief, loud, **shown) == 400
    assert change(thief, loud, **shown, clientSecret=registration["clientSecret"]) == 200
    assert change(thief, loud, **moved) == 400
    assert change(thief, loud, apiFurther={"evil": "https://evil.example"}) == 400
    assert change(thief, loud, **moved, clientSecret=registration["clientSecret"]) == 200
    here.connected("alice", appId=used)
    for fields in (moved, {"apiFurther": {"evil": "https://evil.example"}}):
        assert change(thief, used, **fields) == 403
        assert change(backend, used, **fields) == 200
    assert change(thief, used, apiBaseUrl="", apiFurther={}) == 200, "what is emptied gets nothing any more"
