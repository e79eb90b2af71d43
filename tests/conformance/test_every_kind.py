"""Every entry whose credentials are uploaded: keys, clients, service accounts, signed tokens and logins.

Its provider takes exactly what the entry says, and its API a call that carries exactly what the entry says.
"""

import contextlib
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.infra.conformance import conformance_site
from tests.infra.databases import fresh_sqlite_database
from tests.infra.entries import as_toml, entries_of_other_kinds, moved
from tests.infra.installation import Installation, came_back, installation
from tests.infra.people import someone
from tests.infra.rows import expire
from tests.infra.serving import free_port
from tests.infra.settings import settings_on
from tests.infra.strict_source import StrictSource

ENTRIES = entries_of_other_kinds()
KEYS = [key for key, entry in ENTRIES.items() if entry["app_type"] == "apikey"]
INSTALLED = [key for key, entry in ENTRIES.items() if entry["app_type"] == "installation"]
OBTAINED = [key for key in ENTRIES if key not in KEYS + INSTALLED]


@dataclass
class Sources:
    """An installation, and the providers by the id of their entry."""

    here: Installation
    providers: dict[str, StrictSource]


@pytest.fixture(scope="module")
def sources(migrated_sqlite_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sources]:
    """All of them in one installation."""
    data_dir = tmp_path_factory.mktemp("sources")
    folder, site, own = data_dir / "entries", free_port(), f"http://127.0.0.1:{free_port()}"
    folder.mkdir()
    providers: dict[str, StrictSource] = {}
    for entry_id, entry in ENTRIES.items():
        base = f"http://127.0.0.1:{site}/{entry_id}"
        there = moved(entry, base)
        (folder / f"{entry_id}.toml").write_text(as_toml(there), encoding="utf-8")
        providers[entry_id] = StrictSource(there, base)
    database = fresh_sqlite_database(migrated_sqlite_file, data_dir)
    settings = settings_on(database, data_dir, public_url=own, catalog_dir=folder, refresher=False, log_level="warning")
    with contextlib.ExitStack() as stack:
        stack.enter_context(conformance_site(*providers.values(), port=site))
        yield Sources(stack.enter_context(installation(settings)), providers)


def created(sources: Sources, entry_id: str) -> tuple[StrictSource, str]:
    """Make an app of an entry, with what its operator has for it, and return the provider and the app's id."""
    provider, app_id = sources.providers[entry_id], f"app-{uuid.uuid4().hex[:12]}"
    here = sources.here.backend
    wanted: dict[str, Any] = {"templateId": entry_id, "id": app_id, "variables": provider.of_source("app")}
    wanted["overrides"] = {"name": app_id}
    if provider.kind != "apikey" and "client_id" not in provider.fields:
        wanted |= {"clientId": provider.client_id}
        if provider.entry.get("token_endpoint_auth_methods_supported", [""])[0] != "none":
            wanted |= {"clientSecret": provider.client_secret}
    if "{signing_key}" in provider.assertion.get("key", "{signing_key}" if provider.assertion else ""):
        wanted |= {"signingKey": provider.signing_key}
    made = here.post("app/create/bytemplate", wanted)
    assert made.status_code == 200, made.text
    provider.callback = made.json()["app"]["callbackUrl"]
    return provider, app_id


def uploaded(sources: Sources, entry_id: str) -> tuple[StrictSource, str, str]:
    """Make an app of an entry, upload what a user has for it, and return the provider, the app's id and the user's."""
    (provider, app_id), user, here = created(sources, entry_id), someone(), sources.here.backend
    fields = provider.entered
    if provider.kind == "apikey" and not fields:
        fields = provider.fields = provider.entered = {"token": "k-0123456789abcdef"}
    body = {"appId": app_id, "userId": user, "fields": fields, "details": provider.of_source("user")}
    answer = here.post("app/user/credentials/upload", body)
    assert (answer.status_code, provider.complaints) == (200, []), answer.text
    return provider, app_id, user


def fetched(sources: Sources, app_id: str, user: str, **options: Any) -> dict[str, Any]:
    answer = sources.here.backend.post("app/user/token/latest", {"appId": app_id, "userId": user, "options": options})
    assert answer.status_code == 200, answer.text
    token: dict[str, Any] = answer.json()["token"]
    return token


@pytest.mark.parametrize("entry_id", KEYS)
def test_a_key_comes_back_as_calls_carry_it_and_was_tried_where_that_can_be(sources: Sources, entry_id: str) -> None:
    provider, app_id, user = uploaded(sources, entry_id)
    assert provider.calls == (["api"] if provider.entry.get("api", {}).get("check") else [])
    token = fetched(sources, app_id, user)
    if not provider.entry.get("fields"):
        assert (token["accessToken"], token["accessTokenType"]) == (provider.fields["token"], "apikey")
        return
    headers, query = provider.carried("")
    assert {name.lower(): value for name, value in token["headers"].items()} == headers
    assert token.get("query", {}) == query
    assert token["details"] == {**provider.of_source("user"), **provider.fields}


@pytest.mark.parametrize("entry_id", OBTAINED)
def test_tokens_are_obtained_and_renewed_by_exactly_what_the_entry_says(sources: Sources, entry_id: str) -> None:
    provider, app_id, user = uploaded(sources, entry_id)
    first = fetched(sources, app_id, user, withRefreshToken=True)
    assert not first.get("refreshToken")
    assert not {*provider.entered.values()} & {*first.get("details", {}).values()}
    learnt = provider.of_source("token")
    assert {name: first["details"].get(name) for name in learnt} == learnt
    asked = len(provider.calls)
    expire(sources.here.settings, user, ", last_refresh_time = '{past}', refresh_not_before = NULL")
    second = fetched(sources, app_id, user)
    assert provider.complaints == []
    if provider.kind == "signed_jwt":
        assert list(provider.about_assertion(second["accessToken"])) == []
        assert provider.calls in ([], ["api"])
        return
    assert first["accessToken"] != second["accessToken"] == provider.token
    assert len(provider.calls) == asked + max(1, len(provider.entry.get("login", [])))


@pytest.mark.parametrize("entry_id", INSTALLED)
def test_an_installation_is_seen_to_be_its_installers_and_its_tokens_are_renewed(
    sources: Sources, entry_id: str
) -> None:
    (provider, app_id), user = created(sources, entry_id), someone()
    browser = sources.here.browser()
    there = browser.open(browser.agree(sources.here.backend.connect_url(user, appId=app_id)))
    back = came_back(browser.open(there.headers["location"]))
    assert (back["outboundStatus"], provider.complaints) == ("connected", []), back
    assert provider.calls == ["code", "check", "login 0"]
    token = fetched(sources, app_id, user)
    assert (token["accessToken"], token["details"]) == (provider.token, provider.of_source("callback"))
    expire(sources.here.settings, user, ", last_refresh_time = '{past}', refresh_not_before = NULL")
    assert fetched(sources, app_id, user)["accessToken"] == provider.token != token["accessToken"]
    assert (provider.calls[3:], provider.complaints) == (["login 0"], [])
