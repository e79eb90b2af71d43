"""evergrant-agents against answers that are written here: what evergrant says is raised, what a provider says comes."""

import json
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import httpx2
import pytest

import evergrant_agents as agents

EVERGRANT = "https://evergrant.example.com"
KEY = "evs_P1_one"
ROOT = Path(__file__).parents[2]


class Answers(httpx2.MockTransport):
    """evergrant, as far as one test needs it; it keeps what came."""

    def __init__(self, answer: httpx2.Response | Exception) -> None:
        self.seen: list[httpx2.Request] = []

        def handle(request: httpx2.Request) -> httpx2.Response:
            request.read()
            self.seen.append(request)
            if isinstance(answer, Exception):
                raise answer
            return httpx2.Response(answer.status_code, headers=answer.headers, content=answer.content)

        super().__init__(handle)


def ours(
    status: int, code: str, details: dict[str, Any] | None = None, retry_after: str | None = None
) -> httpx2.Response:
    headers = {"Retry-After": retry_after} if retry_after else {}
    body = {"errorCode": code, "errorMessage": "What is wrong, and what to do.", "details": details or {}}
    return httpx2.Response(status, json=body, headers={"Evergrant-Source": "evergrant", **headers})


def provider(status: int, body: Any) -> httpx2.Response:
    return httpx2.Response(status, json=body, headers={"Evergrant-Source": "provider"})


RAISED = [
    (ours(424, "E111504", {"connectUrl": "https://e/1"}), agents.ConnectionRequired, {"url": "https://e/1"}),
    (
        ours(428, "E111513", {"approvalUrl": "https://e/2", "approvalId": "A1", "expiresAt": "60"}),
        agents.ApprovalRequired,
        {"url": "https://e/2", "approval_id": "A1"},
    ),
    (ours(409, "E111511", {"accounts": [{"externalIdentifier": "work"}]}), agents.SeveralConnections, {}),
    (ours(403, "E011006", {"rule": "session"}), agents.NotAllowed, {"rule": "session"}),
    (ours(403, "E111514"), agents.ApprovalRefused, {}),
    (ours(403, "E111512"), agents.CallsUsedUp, {}),
    (ours(429, "E130429", retry_after="3"), agents.RateLimited, {"retry_after": 3.0}),
    (ours(503, "E111505", retry_after="7"), agents.Unavailable, {"retry_after": 7.0}),
    (ours(504, "E111515"), agents.InDoubt, {}),
    (ours(502, "E111506"), agents.UnusableAnswer, {}),
    (ours(401, "E011002"), agents.CredentialRefused, {}),
    (httpx2.Response(502, text="<h1>a proxy between</h1>"), agents.EvergrantError, {"status": 502, "code": ""}),
    (httpx2.ConnectError("no"), agents.Unavailable, {"status": 0}),
    (httpx2.ReadTimeout("late"), agents.InDoubt, {"status": 0}),
]


@pytest.mark.parametrize(("answer", "kind", "told"), RAISED, ids=[kind.__name__ for _, kind, _ in RAISED])
async def test_what_evergrant_says_is_raised_with_all_that_it_tells(
    answer: httpx2.Response | Exception, kind: type[agents.EvergrantError], told: dict[str, Any]
) -> None:
    with agents.Client(EVERGRANT, KEY, transport=Answers(answer)) as client, pytest.raises(kind) as raised:
        client.request("github", "GET", "/user")
    assert type(raised.value) is kind
    assert {name: getattr(raised.value, name) for name in told} == told
    async with agents.AsyncClient(EVERGRANT, KEY, transport=Answers(answer)) as later:
        with pytest.raises(kind):
            await later.request("github", "GET", "/user")


@pytest.mark.parametrize("status", [200, 404, 424, 503])
async def test_what_a_provider_says_is_an_answer_whatever_its_status(status: int) -> None:
    with agents.Client(EVERGRANT, KEY, transport=Answers(provider(status, {"message": "theirs"}))) as client:
        answer = client.request("github", "GET", "/user")
    assert (answer.status_code, answer.json()) == (status, {"message": "theirs"})
    async with agents.AsyncClient(EVERGRANT, KEY, transport=Answers(provider(status, {}))) as later:
        assert (await later.request("github", "GET", "/user")).status_code == status


def test_a_call_names_the_app_the_path_and_the_connection_and_no_host() -> None:
    answers = Answers(provider(200, {}))
    with agents.Client(EVERGRANT, "P1:evg_key", user_id="alice", transport=answers) as client:
        client.request(
            "git/hub",
            "POST",
            "/repos/a%2Fb/issues",
            params={"page": 2},
            json={"title": "x"},
            account="work",
            scopes=["repo", "gist"],
            base="uploads",
            approval_id="A1",
            retries=2,
        )
    (request,) = answers.seen
    assert str(request.url) == f"{EVERGRANT}/v1/proxy/git%2Fhub/repos/a%2Fb/issues?page=2"
    assert json.loads(request.content) == {"title": "x"}
    assert {name: value for name, value in request.headers.items() if name.startswith("evergrant-")} == {
        "evergrant-user": "alice",
        "evergrant-connect": "1",
        "evergrant-external-identifier": "work",
        "evergrant-scopes": "repo gist",
        "evergrant-base": "uploads",
        "evergrant-approval": "A1",
        "evergrant-retry": "2",
        "evergrant-max-wait": "20",
    }
    assert request.headers["authorization"] == "Bearer P1:evg_key"


def test_a_session_is_asked_for_with_what_narrows_it() -> None:
    told = {
        "session": {
            "id": "S1",
            "expiresAt": "1800000000",
            "mcpUrl": f"{EVERGRANT}/mcp/P1",
            "proxyUrls": {"github": "u"},
        },
        "key": KEY,
    }
    answers = Answers(httpx2.Response(200, json=told))
    session = agents.create_session(
        EVERGRANT,
        "P1:evg_key",
        user_id="alice",
        apps=["slack", agents.App("github", access="write", approve="writes", paths=["/repos/**"])],
        agent="triage",
        connect=True,
        max_calls=50,
        transport=answers,
    )
    assert (session.id, session.key, session.proxy_urls) == ("S1", KEY, {"github": "u"})
    assert session.expires_at is not None
    assert session.expires_at.year == 2027
    assert KEY not in repr(session)
    (request,) = answers.seen
    assert request.url.path == "/v1/mgmt/outbound/session/create"
    assert json.loads(request.content) == {
        "userId": "alice",
        "apps": [
            {"appId": "slack", "access": "read", "approve": "never"},
            {"appId": "github", "access": "write", "paths": ["/repos/**"], "approve": "writes"},
        ],
        "agent": {"id": "triage", "name": "triage"},
        "ttlSeconds": 900,
        "connect": True,
        "maxCalls": 50,
    }


BASES: dict[str, str | tuple[str, str]] = {
    "https://api.github.com": "github",
    "https://uploads.github.com": ("github", "uploads"),
    "https://shop.example.com/admin/api": "shop",
}


@pytest.mark.parametrize(
    ("asked", "sent", "base"),
    [
        ("https://api.github.com/repos/a%2Fb?q=x%20y", "/v1/proxy/github/repos/a%2Fb?q=x%20y", None),
        ("https://api.github.com?q=1", "/v1/proxy/github/?q=1", None),
        ("https://uploads.github.com/file", "/v1/proxy/github/file", "uploads"),
        ("https://shop.example.com/admin/api/orders", "/v1/proxy/shop/orders", None),
    ],
)
def test_the_transport_sends_a_providers_urls_to_evergrant(asked: str, sent: str, base: str | None) -> None:
    answers = Answers(provider(200, {"from": "the provider"}))
    transport = agents.ProxyTransport(EVERGRANT, KEY, BASES, through=answers)
    with httpx2.Client(transport=transport, headers={"Authorization": "token placeholder"}) as http:
        assert http.post(asked, content=b"body").json() == {"from": "the provider"}
    (request,) = answers.seen
    assert request.url.raw_path.decode() == sent
    assert request.headers["host"] == "evergrant.example.com"
    assert request.headers["authorization"] == f"Bearer {KEY}"
    assert request.headers.get("evergrant-base") == base
    assert request.content == b"body"


@pytest.mark.parametrize(
    "asked",
    [
        "https://api.github.com.evil.example/user",
        "http://api.github.com/user",
        "https://api.github.com:8443/user",
        "https://shop.example.com/admin/apiary",
        "https://shop.example.com/",
    ],
)
async def test_the_transport_refuses_what_is_no_apps(asked: str) -> None:
    answers = Answers(provider(200, {}))
    with (
        httpx2.Client(transport=agents.ProxyTransport(EVERGRANT, KEY, BASES, through=answers)) as http,
        pytest.raises(httpx2.UnsupportedProtocol, match="is no app's API"),
    ):
        http.get(asked)
    later = agents.AsyncProxyTransport(EVERGRANT, KEY, BASES, through=answers)
    async with httpx2.AsyncClient(transport=later) as http_later:
        with pytest.raises(httpx2.UnsupportedProtocol, match="is no app's API"):
            await http_later.get(asked)
    assert answers.seen == []


async def test_a_missing_connection_passes_through_the_transport_as_itself() -> None:
    answer = ours(424, "E111504", {"connectUrl": "https://e/1"})
    transport = agents.ProxyTransport(EVERGRANT, KEY, BASES, through=Answers(answer))
    with httpx2.Client(transport=transport) as http, pytest.raises(agents.ConnectionRequired) as raised:
        http.get("https://api.github.com/user")
    assert raised.value.url == "https://e/1"
    later = agents.AsyncProxyTransport(EVERGRANT, KEY, BASES, through=Answers(answer))
    async with httpx2.AsyncClient(transport=later) as http_later:
        with pytest.raises(agents.ConnectionRequired):
            await http_later.get("https://api.github.com/user")


def test_the_package_builds_and_needs_httpx2_alone(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(build, cwd=ROOT / "clients/python", check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as packed:
        names = packed.namelist()
        (described,) = [name for name in names if name.endswith("METADATA")]
        needs = [line for line in packed.read(described).decode().splitlines() if line.startswith("Requires-Dist")]
    assert {name for name in names if not name.startswith("evergrant_agents-")} == {
        "evergrant_agents/__init__.py",
        "evergrant_agents/py.typed",
    }
    assert needs == ["Requires-Dist: httpx2>=2.0"]
