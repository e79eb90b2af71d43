"""The OpenAPI document is complete, and the page that shows it loads nothing from elsewhere."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from openapi_spec_validator import validate

from evergrant.settings import Settings
from evergrant.web.api.tokens import PATHS as TOKEN_CALLS
from evergrant.web.app import create_app
from evergrant.web.cors import CALLED_FROM_BROWSERS
from tests.infra.installation import APP_ID, Installation

DOCUMENT: dict[str, Any] = create_app(Settings(data_dir=Path("unused"))).openapi()
OPERATIONS = {
    operation["operationId"]: (method.upper(), path, operation)
    for path, item in DOCUMENT["paths"].items()
    for method, operation in item.items()
}


def resolved(schema: dict[str, Any]) -> dict[str, Any]:
    return DOCUMENT["components"]["schemas"][schema["$ref"].rpartition("/")[2]] if "$ref" in schema else schema


def example(part: dict[str, Any]) -> Any:
    (media,) = part["content"].values()
    return media["example"] if "example" in media else resolved(media["schema"])["examples"][0]


def test_the_document_is_valid() -> None:
    validate(DOCUMENT)


def test_models_have_names_that_are_unique_and_say_nothing_of_modules() -> None:
    assert [name for name in DOCUMENT["components"]["schemas"] if not name.isalnum()] == []


def test_operations_have_the_names_that_code_generators_shall_use() -> None:
    assert sorted(OPERATIONS) == [
        "beginTestConnection",
        "changeBranding",
        "confirmConnect",
        "countConnections",
        "countDeliveries",
        "createAgentSession",
        "createApp",
        "createAppByDcrPreset",
        "createAppByTemplate",
        "createEvent",
        "createKey",
        "createPolicy",
        "createTrustedIssuer",
        "createWebhook",
        "decideApproval",
        "deleteApp",
        "deleteKeys",
        "deletePolicy",
        "deleteProject",
        "deleteToken",
        "deleteTrustedIssuer",
        "deleteUserTokens",
        "deleteWebhook",
        "exchangeToken",
        "exportCalls",
        "exportRecords",
        "exportTokens",
        "fetchLatestTenantToken",
        "fetchLatestUserToken",
        "fetchTenantToken",
        "fetchUserToken",
        "getApproval",
        "getApprovals",
        "healthz",
        "listAgentSessions",
        "listAppsWithUserToken",
        "listCalls",
        "listDeliveries",
        "listRecords",
        "listTemplates",
        "listTokenEvents",
        "listTokens",
        "loadActivity",
        "loadAllApps",
        "loadApp",
        "loadAttention",
        "loadBranding",
        "loadFirstSteps",
        "loadKey",
        "loadPolicies",
        "loadProject",
        "loadRateLimitTier",
        "loadTemplate",
        "loadTestConnection",
        "loadToken",
        "loadTrustedIssuers",
        "loadWebhook",
        "loadWebhooks",
        "metrics",
        "openAccounts",
        "proxyDelete",
        "proxyGet",
        "proxyHead",
        "proxyOptions",
        "proxyPatch",
        "proxyPost",
        "proxyPut",
        "putFirstStepsAway",
        "readyz",
        "refreshToken",
        "replayDeliveries",
        "revokeAgentSessions",
        "revokeToken",
        "revokeTokens",
        "rotateWebhookSecret",
        "search",
        "searchKeys",
        "seeDeletion",
        "startConnect",
        "startConnectInBrowser",
        "storeAppLogo",
        "storeProjectLogo",
        "testApp",
        "tryToken",
        "tryWebhook",
        "updateApp",
        "updateKey",
        "updateProject",
        "updateWebhook",
        "uploadTenantApiKey",
        "uploadTenantCredentials",
        "uploadTenantTokens",
        "uploadTenantTokensBatch",
        "uploadUserApiKey",
        "uploadUserCredentials",
        "uploadUserTokens",
        "uploadUserTokensBatch",
        "verifyRecords",
    ]


@pytest.mark.parametrize("name", OPERATIONS)
def test_every_call_says_what_it_does_with_an_example(name: str) -> None:
    _, _, operation = OPERATIONS[name]
    assert operation["summary"]
    assert operation["description"]
    assert example(operation["responses"]["200"]) is not None
    if "requestBody" in operation:
        assert example(operation["requestBody"])
    for parameter in operation.get("parameters", []):
        assert parameter["schema"].get("examples") or parameter.get("example")


@pytest.mark.parametrize("name", [name for name, (_, path, _) in OPERATIONS.items() if path.startswith("/v1/")])
def test_every_call_has_its_errors(name: str) -> None:
    _, path, operation = OPERATIONS[name]
    documented = set(operation["responses"]) - {"200"}
    expected = {"401", "403", "429", "503"}
    if "requestBody" in operation:
        expected |= {"400", "413"}
    if "{" in path:
        expected |= {"400", "404"}
    if path in TOKEN_CALLS:
        expected |= {"404", "502"}
    if name in ("createApp", "updateApp", "createTrustedIssuer"):
        expected |= {"409"}
    assert expected <= documented
    for status in documented:
        assert set(example(operation["responses"][status])) >= {"errorCode", "errorMessage", "message", "requestId"}


@pytest.mark.parametrize("name", [name for name, (_, path, _) in OPERATIONS.items() if path.startswith("/v1/")])
def test_every_call_says_who_can_make_it(name: str) -> None:
    _, path, operation = OPERATIONS[name]
    by_users = path in TOKEN_CALLS or path in CALLED_FROM_BROWSERS or path.startswith("/v1/proxy/")
    assert operation["security"] == [{"managementKey": []}, *([{"userToken": []}] if by_users else [])]


def test_nothing_of_the_frameworks_own_errors_is_left() -> None:
    assert "422" not in {status for _, _, operation in OPERATIONS.values() for status in operation["responses"]}
    assert "ValidationError" not in json.dumps(DOCUMENT)


def test_the_examples_are_requests_that_are_understood(here: Installation) -> None:
    for name, (method, path, operation) in OPERATIONS.items():
        # Creating would ask the provider of the example, and a form has a test of its own. A project is deleted by its
        # own key alone.
        if method == "POST" and not name.startswith(("create", "exchange", "deleteProject", "proxy")):
            body = {"json": example(operation["requestBody"])} if "requestBody" in operation else {}
            answer = here.backend.http.post(path, **body)
            assert answer.status_code in (200, 404), (path, answer.text)


def test_a_real_answer_has_exactly_the_documented_fields(here: Installation) -> None:
    here.connected("documented")
    token = here.backend.token("documented", options={"withRefreshToken": True})
    documented = DOCUMENT["components"]["schemas"]["TokenBody"]["properties"]
    assert token.keys() <= documented.keys()
    app = here.backend.get(f"app/{APP_ID}").json()["app"]
    assert app.keys() == DOCUMENT["components"]["schemas"]["AppBody"]["properties"].keys()


def test_the_page_shows_every_call_without_a_script(here: Installation) -> None:
    browser = here.browser()
    index = browser.open(f"{here.url}/docs")
    pages = {"": index}
    for name, (_, path, operation) in OPERATIONS.items():
        tag = operation["tags"][0].replace(" ", "-")
        if tag not in pages:
            pages[tag] = browser.open(f"{here.url}/docs/{tag}")
        assert f'href="/docs/{tag}#{name}"' in index.text
        assert f'id="{name}"' in pages[tag].text
        for page in (index, pages[tag]):
            assert path in page.text.replace("<wbr>", "")
    assert "options.minimumSeconds" in pages["tokens"].text.replace("<wbr>", "")
    for page in pages.values():
        assert page.status_code == 200
        assert len(page.content) < 80_000, "it reads slowly on a phone"
        assert "<script" not in page.text
        loaded = re.findall(r'<(?:link|img|script)[^>]+(?:href|src)="([^"]+)"', page.text)
        assert loaded
        assert [address for address in loaded if not address.startswith("/static/")] == []
        assert "script-src" not in page.headers["content-security-policy"]
        assert "default-src 'none'" in page.headers["content-security-policy"]
    assert browser.open(f"{here.url}/docs/nothing").status_code == 404
