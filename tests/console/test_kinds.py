"""Apps at which nobody consents: what each kind asks for, credentials added at the console, a library of hundreds."""

import contextlib
import re
from collections.abc import Iterator
from itertools import cycle

import pytest

from evergrant.catalog.loader import load_catalogue
from tests.infra.console import Operator, words_of
from tests.infra.databases import settings_for
from tests.infra.installation import Installation, installation
from tests.infra.page_forms import Fields, form_of
from tests.infra.people import someone
from tests.infra.scripted import ScriptedProvider, serving

MOST = 500
FACTS = """
name = "{id}"
category = "erp"
documentation_url = "https://example.com/docs"
verification = "unconfirmed"
"""
ENTRIES = {
    "machine": """
app_type = "client_credentials"
token_endpoint = "{url}/token"
[fields.client_id]
title = "Client ID"
secret = false
pattern = "id-[0-9]+"
example = "id-123"
[fields.client_secret]
title = "Client secret"
[variables.site]
title = "Site"
source = "user"
pattern = "[a-z]+"
example = "acme"
[api]
base_url = "{url}/{{site}}"
""",
    "signer": """
app_type = "signed_jwt"
[assertion]
alg = "HS256"
claims = {{ iss = "{{client_id}}", aud = "store" }}
""",
    "pair": """
app_type = "apikey"
[fields.api_key]
title = "API key"
[fields.other_key]
title = "Other key"
multiline = true
[api]
credential = {{ name = "X-KEY", value = "{{api_key}}" }}
headers = {{ "X-OTHER" = "{{other_key}}" }}
""",
}
TOKEN = {"access_token": "at-1", "token_type": "Bearer", "expires_in": 3600}
SECRET = "planted-secret"


@pytest.fixture(scope="module")
def provider() -> Iterator[ScriptedProvider]:
    with serving(ScriptedProvider()) as running:
        yield running


@pytest.fixture(scope="module")
def here(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, provider: ScriptedProvider
) -> Iterator[Installation]:
    """An installation with these entries, and with so many others that there are five hundred."""
    request.param = "sqlite"
    folder = tmp_path_factory.mktemp("entries")
    for name, text in ENTRIES.items():
        (folder / f"{name}.toml").write_text(FACTS.format(id=name) + text.format(url=provider.url))
    known = load_catalogue()
    for number, name in zip(range(MOST - len(known) - len(ENTRIES)), cycle(known), strict=False):
        entry = f'extends = "{name}"\nid = "{name}-{number}"\nname = "{known[name].name} number {number}"\n'
        (folder / f"{name}-{number}.toml").write_text(entry)
    with contextlib.ExitStack() as stack:
        settings = stack.enter_context(settings_for(request, tmp_path_factory, catalog_dir=folder))
        yield stack.enter_context(installation(settings))


def form_at(operator: Operator, path: str) -> Fields:
    """Return what the form of a page sends that is sent to the page's own address."""
    page = operator.get(path)
    assert page.status_code == 200, page.text
    return form_of(page.text, f"/console/{operator.project_id}/{path}")


def made_of(operator: Operator, template: str, **fields: str) -> str:
    """Make an app of a template, by its page, and return the app's id."""
    path = f"apps/new/{template}"
    form = {**form_at(operator, path), "id": [someone()], **{name: [text] for name, text in fields.items()}}
    answer = operator.post(path, form)
    assert answer.status_code == 303, answer.text
    return form["id"][0]


def test_a_library_of_five_hundred_is_small_and_narrowed_down_by_kind(operator: Operator) -> None:
    everything = operator.get("apps/new")
    assert len(everything.content) < 100_000
    assert len(re.findall(r'<li><a href="new/', everything.text)) >= MOST - 20
    keys = operator.get("apps/new?kind=apikey&q=pair")
    assert re.findall(r'<li><a href="new/([^"]+)"', keys.text) == ["pair"]
    assert "pair API key" in words_of(keys)
    assert "No provider is like that" in words_of(operator.get("apps/new?kind=login&category=banking"))


@pytest.mark.parametrize(
    ("kind", "asked"),
    [
        ("machine", {"variables.site"}),
        ("signer", {"clientId", "signingKey"}),
        ("pair", set()),
        ("client-credentials", {"tokenUrl", "clientId", "clientSecret", "scopeLines"}),
    ],
)
def test_a_new_app_asks_for_what_its_kind_needs(kind: str, asked: set[str], operator: Operator) -> None:
    form = form_at(operator, f"apps/new/{kind}")
    assert form.keys() - {"proposal", "name", "id"} == asked
    assert 'id="callback"' not in operator.get(f"apps/new/{kind}").text


def test_saving_an_app_changes_nothing_that_its_form_does_not_show(here: Installation, operator: Operator) -> None:
    app_id = someone()
    overrides = {"name": app_id, "resource": "https://api.example.com/"}
    wanted = {"templateId": "signer", "id": app_id, "clientId": "team-1", "signingKey": "k" * 32}
    assert here.backend.post("app/create/bytemplate", {**wanted, "overrides": overrides}).status_code == 200
    before = here.backend.get(f"app/{app_id}").json()["app"]
    assert (before["hasSigningKey"], before["resource"]) == (True, "https://api.example.com/")
    form = {**form_at(operator, f"apps/{app_id}"), "do": ["save"], "description": ["Of the team."]}
    assert operator.post(f"apps/{app_id}", form).status_code == 303
    after = here.backend.get(f"app/{app_id}").json()["app"]
    differing = {name for name in before if before[name] != after[name]}
    assert differing <= {"description", "updatedTime"}


def test_credentials_are_tried_and_stored_and_their_page_says_what_they_are(
    here: Installation, operator: Operator, provider: ScriptedProvider
) -> None:
    provider.routes["/token"] = TOKEN
    app_id, user = made_of(operator, "machine"), someone()
    path = f"apps/{app_id}/credentials"
    form = {**form_at(operator, path), "user": [user], "fields.client_id": ["id-7"], "fields.client_secret": [SECRET]}
    answer = operator.post(path, {**form, "details.site": ["acme"]})
    assert answer.headers["location"].endswith(f"/apps/{app_id}/connections?done=added"), answer.text
    assert here.backend.token(user, appId=app_id)["accessToken"] == "at-1"
    grant = here.backend.get(f"tokens?userId={user}").json()["tokens"][0]["id"]
    page = operator.get(f"connections/{grant}")
    said = words_of(page)
    for words in ("Renew now", "Replace credentials", "Kind Client credentials Stored Client ID, Client secret"):
        assert words in said
    for words in ("Refresh now", "connect link", "Refresh token", SECRET):
        assert words not in page.text
    assert "Credentials added" in said
    assert "Whose credentials are stored. Tokens themselves are never shown" in words_of(
        operator.get(f"apps/{app_id}/connections")
    )


def test_what_is_wrong_with_credentials_stands_at_their_fields_and_no_secret_comes_back(
    here: Installation, operator: Operator, provider: ScriptedProvider
) -> None:
    app_id, user = made_of(operator, "machine"), someone()
    path = f"apps/{app_id}/credentials"
    form = {**form_at(operator, path), "fields.client_id": ["nonsense"], "fields.client_secret": [SECRET]}
    nobody = operator.post(path, form)
    assert (nobody.status_code, "say whose these are" in nobody.text.lower()) == (400, True)
    form = {**form, "user": [user], "details.site": ["acme"]}
    wrong = operator.post(path, form)
    assert wrong.status_code == 400
    assert re.search(r'id="fields.client_id"[^>]*value="nonsense"[^>]* autofocus', wrong.text)
    assert "Use a value like id-123." in words_of(wrong)
    assert "Enter it again: no page repeats a secret." in words_of(wrong)
    provider.routes["/token"] = (401, {"error": "invalid_client"})
    refused = operator.post(path, {**form, "fields.client_id": ["id-7"]})
    assert refused.status_code >= 400
    assert "Nothing was stored" in words_of(refused)
    for page in (nobody, wrong, refused):
        assert SECRET not in page.text
    assert here.backend.get(f"tokens?userId={user}").json()["tokens"] == []


def test_the_calls_of_an_app_fit_its_kind(operator: Operator) -> None:
    pair = words_of(operator.get(f"apps/{made_of(operator, 'pair')}/use"))
    assert "app/user/credentials/upload" in pair
    assert "Fetch the headers" in pair
    machine = words_of(operator.get(f"apps/{made_of(operator, 'machine')}/use"))
    assert '"site": "SITE"' in machine
    assert "app/connect" not in pair + machine


def test_an_app_at_which_nobody_consents_is_tested_without_a_trip(operator: Operator) -> None:
    app_id = made_of(operator, "pair")
    assert "Add a key" in words_of(operator.get(f"apps/{app_id}"))
    tested = operator.post(f"apps/{app_id}/test")
    assert tested.status_code == 200
    assert "Definition" in words_of(tested)


def test_who_may_not_upload_adds_nothing(here: Installation, operator: Operator) -> None:
    app_id = made_of(operator, "pair")
    viewer = Operator(here.settings, operator.project_id, role="viewer")
    with viewer.http:
        assert "Add a key" not in words_of(viewer.get(f"apps/{app_id}"))
        assert viewer.get(f"apps/{app_id}/credentials").status_code == 403
        assert viewer.post(f"apps/{app_id}/credentials", {"user": "ada"}).status_code == 403
