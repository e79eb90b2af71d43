"""The pages in docs/: what they name exists, and what exists is named."""

import dataclasses
import pydoc
import re
from pathlib import Path
from typing import Any

import pytest

from evergrant import errors
from evergrant.broker.audit.log import OWN_ACTIONS
from evergrant.broker.runtime.principal import Permission
from evergrant.broker.webhooks.outbox import EventType
from evergrant.catalog.api import Api, Credential, ExpiredAnswer, RateLimit
from evergrant.catalog.field import CredentialField
from evergrant.catalog.template import Template
from evergrant.catalog.variable import Variable
from evergrant.oauth2.source_types import Assertion, LoginStep
from evergrant.settings import PREFIX, Settings
from evergrant.web.app import create_app

ROOT = Path(__file__).parents[1]
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_a_page_links_only_to_what_is_there(page: Path) -> None:
    for target in re.findall(r"\]\((?!https?://)([^)]+)\)", page.read_text()):
        path, _, anchor = target.partition("#")
        linked = (page.parent / path) if path else page
        assert linked.is_file(), f"{page.name}: {target}"
        if anchor:
            assert anchor in {anchor_of(heading) for heading in headings(linked)}, f"{page.name}: {target}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_a_page_wraps_at_120_columns(page: Path) -> None:
    prose = re.sub(r"^ *```.*?^ *```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    too_long = [line for line in prose.splitlines() if len(line) > 120 and not line.startswith(("|", "[!["))]
    assert too_long == []


def headings(page: Path) -> list[str]:
    return re.findall(r"^#+ (.*)$", page.read_text(), flags=re.MULTILINE)


def anchor_of(heading: str) -> str:
    return re.sub(r"[^a-z0-9 -]", "", heading.lower()).replace(" ", "-")


def documented_settings() -> dict[str, str]:
    """Return the rows of docs/configuration.md: default by name of the variable."""
    rows = re.findall(
        rf"^\| `{PREFIX}([A-Z_]+)` \| ([^|]*) \|", (ROOT / "docs/configuration.md").read_text(), re.MULTILINE
    )
    return {name.lower(): default.strip().strip("`") for name, default in rows}


def test_every_setting_is_documented_with_its_default() -> None:
    def shown(default: Any) -> str:
        return {True: "true", False: "false", None: "", (): ""}.get(default, str(default))

    assert documented_settings() == {name: shown(field.default) for name, field in Settings.model_fields.items()}


def members_of(schema: dict[str, Any], name: str) -> set[str]:
    return set(schema["components"]["schemas"][name]["properties"])


@pytest.fixture(scope="module")
def openapi() -> dict[str, Any]:
    return create_app(Settings()).openapi()


def rows_of(page: str) -> set[str]:
    """Return the names in the first column of a page's tables."""
    cells = re.findall(r"^\| ([^|]*) \|", (ROOT / "docs" / page).read_text(), flags=re.MULTILINE)
    return {name for cell in cells for name in re.findall(r"`([^`]+)`", cell)}


def test_every_field_of_an_app_is_documented(openapi: dict[str, Any]) -> None:
    assert members_of(openapi, "CreateApp") - rows_of("apps.md") == set()


def test_every_field_of_a_connect_trip_is_documented(openapi: dict[str, Any]) -> None:
    names = members_of(openapi, "Connect") - {"options"}
    names |= {f"options.{name}" for name in members_of(openapi, "ConnectOptions")}
    assert names - rows_of("connect.md") == set()


def test_every_field_of_issuers_policies_and_the_exchange_is_documented(openapi: dict[str, Any]) -> None:
    form = openapi["paths"]["/oauth2/v1/token"]["post"]["requestBody"]["content"]
    parameters = set(form["application/x-www-form-urlencoded"]["schema"]["properties"])
    names = members_of(openapi, "CreateIssuer") | members_of(openapi, "CreatePolicy") | parameters
    assert names - rows_of("users.md") == set()


def test_every_field_of_a_management_key_is_documented(openapi: dict[str, Any]) -> None:
    assert members_of(openapi, "CreateKey") - rows_of("keys.md") == set()


def test_every_permission_is_documented() -> None:
    assert {str(permission) for permission in Permission} - rows_of("keys.md") == set()


def test_every_field_and_action_of_the_audit_log_is_documented(openapi: dict[str, Any]) -> None:
    assert (members_of(openapi, "Search") | members_of(openapi, "Event")) - rows_of("audit.md") == set()
    source = "\n".join(path.read_text() for path in (ROOT / "src/evergrant/broker").rglob("*.py"))
    actions = {found for found in re.findall(r'"([a-z_]+\.[a-z_]+)"', source) if found.startswith(OWN_ACTIONS)}
    actions -= set(EventType) - rows_of("audit.md")  # what is told is not all written down too
    assert len(actions) > 15
    assert actions - rows_of("audit.md") == set()


def test_every_event_and_field_of_webhooks_is_documented(openapi: dict[str, Any]) -> None:
    models = ("UpdateWebhook", "RotateSecret", "Replay", "WebhookBody", "DeliveryBody")
    names = {str(event) for event in EventType}.union(*(members_of(openapi, model) for model in models))
    assert names - rows_of("webhooks.md") == set()


def test_every_field_of_a_fetch_is_documented(openapi: dict[str, Any]) -> None:
    names = members_of(openapi, "FetchUserToken") | members_of(openapi, "FetchTenantToken")
    names = (names - {"options"}) | {f"options.{name}" for name in members_of(openapi, "FetchOptions")}
    assert names - rows_of("fetch.md") == set()


def test_every_field_of_an_upload_is_documented(openapi: dict[str, Any]) -> None:
    names = members_of(openapi, "UploadUserTokens") | members_of(openapi, "UploadTenantTokens")
    assert names - rows_of("connections.md") == set()


def test_every_field_of_the_app_library_is_documented() -> None:
    tables = (Template, Variable, Api, CredentialField)
    names = {field.alias or name for table in tables for name, field in table.model_fields.items()} - {"rate"}
    for path, table in (("credential.", Credential), ("expired[].", ExpiredAnswer), ("rate.", RateLimit)):
        names |= {path + (field.alias or name) for name, field in table.model_fields.items()}
    names |= {field.name for shape in (Assertion, LoginStep) for field in dataclasses.fields(shape)}
    assert names - rows_of("catalogue.md") == set()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_a_page_names_only_calls_that_exist(page: Path, openapi: dict[str, Any]) -> None:
    calls = {(method.upper(), path) for path, item in openapi["paths"].items() for method in item}
    for method, path in re.findall(r"`(GET|POST|PUT|PATCH|DELETE) (/?[^`\s?]+)`", page.read_text()):
        whole = path if path.startswith("/") else f"/v1/mgmt/outbound/{path}"
        assert (method, whole) in calls, f"{page.name}: {method} {path}"


def connect_error_codes() -> set[str]:
    """Return the codes of ours with which a trip can come back to the application, or end on a page."""
    source = "\n".join(path.read_text() for path in (ROOT / "src/evergrant").rglob("*.py"))
    raised = re.findall(r'ConnectFailed\(\s*"([a-z_]+)"|error, description = "([a-z_]+)"', source)
    # A trip goes on without the userinfo call's answer.
    return {either or other for either, other in raised} - {"invalid_userinfo"}


def test_every_error_code_of_a_trip_is_documented() -> None:
    assert len(connect_error_codes()) > 8
    assert connect_error_codes() - rows_of("connect.md") == set()


def test_the_fetch_page_says_what_to_do_about_each_status() -> None:
    page = (ROOT / "docs/fetch.md").read_text()
    for status in (400, 401, 403, 404, 502, 503):
        assert re.search(rf"^\| {status} ", page, flags=re.MULTILINE), status
    codes = {kind.code for kind in vars(errors).values() if isinstance(kind, type) and hasattr(kind, "code")}
    assert set(re.findall(r"E\d{6}", page)) <= codes


def code_names_of_the_glossary() -> list[str]:
    rows = re.findall(r"^\|.*\| (`.*`) \|$", (ROOT / "docs/glossary.md").read_text(), flags=re.MULTILINE)
    return [name for cell in rows for name in re.findall(r"`([^`]+)`", cell)]


def is_in_the_code(name: str) -> bool:
    return (ROOT / name).exists() if "/" in name else pydoc.locate(f"evergrant.{name}") is not None


def test_the_code_has_every_name_that_the_glossary_says_it_has() -> None:
    names = code_names_of_the_glossary()
    assert len(names) > 40
    assert [name for name in names if not is_in_the_code(name)] == []


@pytest.mark.parametrize("page", sorted((ROOT / "docs/decisions").glob("0*.md")), ids=lambda page: page.stem)
def test_a_decision_names_only_files_that_exist(page: Path) -> None:
    named = re.findall(r"`([a-z0-9_]+/[a-z0-9_/]*(?:\.py)?)`", page.read_text())
    assert named
    assert [name for name in named if not any((root / name).exists() for root in (ROOT, ROOT / "src/evergrant"))] == []


def test_a_name_that_the_code_has_not_would_be_noticed() -> None:
    assert not is_in_the_code("db.grant.Consent")
    assert not is_in_the_code("broker.trips")
    assert not is_in_the_code("tests/services")
