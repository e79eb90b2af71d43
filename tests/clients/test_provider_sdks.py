"""Providers' own published SDKs, unmodified: their base URL is the proxy's, their credential is a session's key."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import github
import notion_client
import pytest
import slack_sdk
import stripe
from notion_client.helpers import collect_paginated_api
from slack_sdk.errors import SlackApiError

from evergrant_agents import App, Session, create_session
from tests.clients.providers import BASES, TOKENS, provider_apis
from tests.infra.installation import Installation, installation
from tests.infra.scripted import ScriptedProvider
from tests.infra.settings import settings_on

MISSING = "Nobody has connected this app"


class Sdks:
    """The SDKs, each made as its documentation says, for one session."""

    def __init__(self, session: Session) -> None:
        urls, self.key = session.proxy_urls, session.key
        auth = github.Auth.Token(self.key)
        self.github = github.Github(base_url=urls["github"], auth=auth, lazy=True, retry=None)
        self.slack = slack_sdk.WebClient(token=self.key, base_url=urls["slack"])
        self._wire = stripe.RequestsClient()
        self.stripe = stripe.StripeClient(
            self.key, base_addresses={"api": urls["stripe"]}, http_client=self._wire, max_network_retries=0
        )
        self.notion = notion_client.Client(auth=self.key, base_url=urls["notion"])

    def close(self) -> None:
        self.github.close()
        self._wire.close()  # type: ignore[no-untyped-call] # the SDK does not say that it returns nothing
        self.notion.close()


@pytest.fixture(scope="module")
def apis() -> Iterator[ScriptedProvider]:
    with provider_apis() as running:
        yield running


@pytest.fixture(scope="module")
def here(
    apis: ScriptedProvider, migrated_sqlite_file: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Installation]:
    """alice has connected every app, bob none."""
    folder = tmp_path_factory.mktemp("sdks")
    (folder / "evergrant.db").write_bytes(migrated_sqlite_file.read_bytes())
    with installation(settings_on(None, folder)) as running:
        for app_id, token in TOKENS.items():
            running.backend.create_app(apis.registration(app_id, apiBaseUrl=f"{apis.url}{BASES[app_id]}"))
            whose = {"appId": app_id, "userId": "alice", "accessToken": token, "scopes": ["files"]}
            answer = running.backend.post("app/user/oauthtoken/upload", whose)
            assert answer.status_code == 200, answer.text
        yield running


def session_of(here: Installation, user_id: str) -> Sdks:
    credential = f"{here.backend.project_id}:{here.backend.management_key}"
    apps = [App(app_id, access="write") for app_id in TOKENS]
    return Sdks(create_session(here.url, credential, user_id=user_id, apps=apps, agent="sdks"))


@pytest.fixture(scope="module")
def alice(here: Installation) -> Iterator[Sdks]:
    sdks = session_of(here, "alice")
    yield sdks
    sdks.close()


@pytest.fixture(scope="module")
def bob(here: Installation) -> Iterator[Sdks]:
    sdks = session_of(here, "bob")
    yield sdks
    sdks.close()


def test_githubs_lists_by_link_headers_writes_and_tells_errors_as_its_own(alice: Sdks, bob: Sdks) -> None:
    repository = alice.github.get_repo("acme/shop")
    assert [issue.title for issue in repository.get_issues()] == ["First", "Second"]
    assert repository.create_issue("Third").number == 3
    with pytest.raises(github.UnknownObjectException, match="Not Found"):
        _ = alice.github.get_repo("acme/gone").description
    with pytest.raises(github.GithubException, match=MISSING) as missing:
        _ = bob.github.get_repo("acme/shop").description
    assert missing.value.status == 424


def test_slacks_lists_by_cursors_writes_and_tells_errors_as_its_own(alice: Sdks, bob: Sdks) -> None:
    pages = alice.slack.conversations_list(limit=1)
    assert [channel["id"] for page in pages for channel in page["channels"]] == ["C1", "C2"]
    assert alice.slack.chat_postMessage(channel="C1", text="Hello")["message"]["text"] == "Hello"
    with pytest.raises(SlackApiError, match="channel_not_found"):
        alice.slack.chat_postMessage(channel="C9", text="Hello")
    with pytest.raises(SlackApiError, match=MISSING):
        bob.slack.conversations_list()


def test_stripes_lists_by_ids_writes_and_tells_errors_as_its_own(alice: Sdks, bob: Sdks) -> None:
    customers = alice.stripe.v1.customers
    assert [customer.id for customer in customers.list().auto_paging_iter()] == ["cus_1", "cus_2"]
    assert customers.create({"email": "ada@example.com"}).email == "ada@example.com"
    with pytest.raises(stripe.InvalidRequestError, match="No such customer"):
        customers.retrieve("cus_gone")
    with pytest.raises(stripe.APIError, match=MISSING):
        bob.stripe.v1.customers.list()


def test_notions_lists_by_cursors_writes_and_tells_errors_as_its_own(alice: Sdks, bob: Sdks) -> None:
    assert [user["id"] for user in collect_paginated_api(alice.notion.users.list)] == ["u1", "u2"]
    page: Any = alice.notion.pages.create(parent={"page_id": "p0"}, properties={"title": []})
    assert page["id"] == "p1"
    with pytest.raises(notion_client.APIResponseError) as refused:
        alice.notion.pages.retrieve("gone")
    assert refused.value.code == "object_not_found"
    with pytest.raises(notion_client.errors.HTTPResponseError) as missing:
        bob.notion.users.list()
    assert (missing.value.status, MISSING in missing.value.body) == (424, True)


def test_no_sdk_has_reached_a_provider_with_the_sessions_key(apis: ScriptedProvider, alice: Sdks) -> None:
    alice.slack.conversations_list()
    assert apis.requests
    for request in apis.requests:
        assert alice.key.encode() not in request.head + request.body
