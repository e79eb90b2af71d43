"""Secrets planted everywhere; then every byte of output, and of every answer that should carry none, is searched."""

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import parse_qs, quote, urlsplit

import httpx2
import pytest

from evergrant.broker.runtime.broker import open_broker
from evergrant.broker.runtime.places import slot_in
from evergrant.crypto.kms.local import new_master_key
from evergrant.crypto.sealed import Sealed
from evergrant.practice.faults import half_a_body, html, instead
from evergrant.settings import Settings
from tests.infra.collector import Collector, Span
from tests.infra.console import Operator
from tests.infra.installation import APP_ID, Backend, Browser, Provider, new_project, practice_provider
from tests.infra.receiver import Received, Receiver
from tests.infra.rows import dump, execute, rows
from tests.infra.scripted import Request, ScriptedProvider, serving
from tests.infra.scripted import answer as written_answer
from tests.infra.serving import ServerProcess, environment_of, free_port
from tests.infra.settings import settings_on
from tests.infra.waiting import PATIENCE, wait_until

CLIENT_SECRET = "planted-client-secret-7f3a"
DATABASE_PASSWORD = "planted-database-password-7f3a"
METRICS_TOKEN = "planted-metrics-token-7f3a"
BAD = "planted-in-a-bad-request-7f3a"
HOOK_PATH = "planted-in-a-webhooks-url-7f3a"
API_TOKEN = "planted-token-of-an-api-7f3a"
ECHO = "echo"
TOLD = {
    "approval.requested",
    "grant.created",
    "grant.reauthorization_required",
    "app.unhealthy",
    "app.recovered",
    "webhook.test",
}


@dataclass
class Evidence:
    """What was planted or issued, and everything that came out."""

    secrets: dict[str, set[str]] = field(default_factory=dict)
    answers: list[httpx2.Response] = field(default_factory=list)
    returned: list[str] = field(default_factory=list)
    """Where browsers were sent back to."""
    log: str = ""
    written: str = ""
    """What the call log, the audit log and the approvals hold, as they are in the database."""
    told: list[Received] = field(default_factory=list)
    """What webhooks were sent."""
    spans: list[Span] = field(default_factory=list)

    def plant(self, what: str, *values: str) -> None:
        assert all(len(value) > 12 for value in values), what
        self.secrets.setdefault(what, set()).update(values)

    def found_in(self, text: str) -> list[str]:
        """Name the secrets that `text` holds, as they are or encoded for a URL."""
        return [
            what
            for what, values in self.secrets.items()
            if any(form in text for value in values for form in {value, quote(value, safe="")})
        ]


@pytest.fixture(scope="module")
def evidence(
    postgres_server: object, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[Evidence]:
    """A server at its most talkative, used well and badly."""
    server_database = request.getfixturevalue("postgres_server")
    name = f"secrets_{free_port()}"
    url: str = server_database.create_database(name, template="evergrant_template")
    master_key = new_master_key()
    data_dir: Path = tmp_path_factory.mktemp("data")
    with_password = url.replace("postgres@", f"postgres:{DATABASE_PASSWORD}@")
    settings = settings_on(
        with_password, data_dir, master_keys=master_key, log_level="debug", metrics_token=METRICS_TOKEN
    )
    made = new_project(settings)
    evidence = Evidence()
    evidence.plant("master key", master_key)
    evidence.plant("database password", DATABASE_PASSWORD)
    evidence.plant("metrics token", METRICS_TOKEN)
    evidence.plant("client secret", CLIENT_SECRET)
    evidence.plant("management key", made.management_key)
    evidence.plant("what bad requests held", BAD)
    try:
        with contextlib.ExitStack() as stack:
            collector = stack.enter_context(serving(Collector()))
            environment = environment_of(settings) | {
                "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url,
                "FASTAPI_OTEL_AUTO_CONFIGURE": "true",  # the framework's spans, which have paths and queries
            }
            server = ServerProcess(environment, port=free_port(), log=data_dir / "log")
            provider = stack.enter_context(practice_provider(server.url))
            provider.state.clients["evergrant"] = CLIENT_SECRET
            stack.enter_context(server)
            backend = Backend(server.url, made.project_id, made.management_key)
            browser = Browser()
            for http in (backend.http, browser.http):
                stack.callback(http.close)
                http.event_hooks = {"response": [httpx2.Response.read, evidence.answers.append]}
            backend.create_app({**provider.registration, "clientSecret": CLIENT_SECRET})
            hooks = stack.enter_context(serving(Receiver()))
            listen(evidence, backend, hooks)
            connect(evidence, settings, backend, browser, provider)
            refuse(backend, browser)
            refresh_badly(evidence, backend, provider)
            echoing = stack.enter_context(serving(ScriptedProvider()))
            agent = stack.enter_context(httpx2.Client(base_url=server.url, timeout=PATIENCE, trust_env=False))
            agent.event_hooks = backend.http.event_hooks
            call(evidence, backend, browser, agent, echoing)
            operator = Operator(settings.model_copy(update={"public_url": server.url}), made.project_id)
            stack.callback(operator.http.close)
            operator.http.event_hooks = backend.http.event_hooks
            look(evidence, settings, backend, operator)
            break_a_row(settings, backend)
            for path in ("/docs", "/openapi.json", "/healthz", "/readyz", "/nothing-here"):
                browser.open(server.url + path)
            for token in (METRICS_TOKEN, BAD):
                browser.http.get(f"{server.url}/metrics", headers={"Authorization": f"Bearer {token}"})
            wait_until(lambda: {one.type for one in hooks.received} >= TOLD, "everything has been told")
            server.stop()
            evidence.told = hooks.received
            evidence.log = server.output()
            evidence.spans = collector.spans
            evidence.plant("access token", *provider.state.access_tokens)
            evidence.plant("refresh token", *provider.state.refresh_tokens)
            evidence.plant("code", *provider.state.codes)
            evidence.plant("cookie", *(cookie.value or "" for cookie in browser.http.cookies.jar))
        yield evidence
    finally:
        server_database.drop_database(name)


def connect(evidence: Evidence, settings: Settings, backend: Backend, browser: Browser, provider: Provider) -> None:
    for user in ("alice", "bob"):
        link = backend.connect_url(user)
        evidence.plant("ticket", link.rpartition("/")[2])
        authorize = browser.agree(link)
        evidence.plant("state", parse_qs(urlsplit(authorize).query)["state"][0])
        evidence.plant("nonce", parse_qs(urlsplit(authorize).query)["nonce"][0])
        evidence.plant("code verifier", *asyncio.run(code_verifiers(settings)))
        callback = browser.allow(authorize)
        evidence.returned.append(browser.open(callback).headers["location"])
        browser.open(callback)  # a replay
        browser.open(link)  # a used link
    denied = browser.agree(backend.connect_url("carol"))
    evidence.returned.append(browser.open(browser.allow(denied, action="deny")).headers["location"])
    failing = browser.allow(browser.agree(backend.connect_url("dave")))
    code = parse_qs(urlsplit(failing).query)["code"][0]
    echo = {"error": "invalid_request", "error_description": f"code={code} client_secret={CLIENT_SECRET}"}
    provider.state.next_token_answers.append(instead(400, echo))
    evidence.returned.append(browser.open(failing).headers["location"])


def listen(evidence: Evidence, backend: Backend, hooks: Receiver) -> None:
    """Make webhooks: one that accepts, and one that does not, at an address that is as good as a password."""
    evidence.plant("webhook address", HOOK_PATH)
    hooks.answer(f"/{HOOK_PATH}", 500)
    for path in ("good", HOOK_PATH):
        made = backend.post("webhook/create", {"url": f"{hooks.url}/{path}"}).json()
        rotated = backend.post("webhook/rotate-secret", {"id": made["webhook"]["id"]}).json()
        evidence.plant("webhook secret", made["secret"], rotated["secret"])
        assert backend.post("webhook/test", {"id": made["webhook"]["id"]}).status_code == 200
    backend.post("webhook/create", {"url": f"http://{BAD}/"})
    backend.post("webhook/create", {"url": "https://a.example", "secret": BAD})


async def code_verifiers(settings: Settings) -> list[str]:
    """Open the PKCE verifiers that are in use, as only the vault can."""
    rows = await asyncio.to_thread(dump, settings)
    async with open_broker(settings) as broker:
        return [
            (
                await broker.vault.open(
                    slot_in("authorization_requests", SimpleNamespace(**row), "code_verifier"),
                    Sealed(row["code_verifier"]),
                )
            ).get_secret_value()
            for row in rows["authorization_requests"]
            if row["code_verifier"] is not None
        ]


def refuse(backend: Backend, browser: Browser) -> None:
    """Send what is refused, with a secret in each place."""
    for body in (
        {"name": "Bad", "clientSecret": BAD, "tokenUrl": f"ftp://{BAD}"},
        {"name": "Bad", "clientSecret": [BAD]},
        {"name": "Bad", "client_secret": BAD, BAD.replace("-", "_"): BAD},
        {"name": [BAD], "clientSecret": f"{BAD}\x00"},
        {"name": "Practice contacts", "clientSecret": BAD},
    ):
        assert backend.post("app/create", body).status_code in (400, 409)
    for call in ("app/create", "app/user/token"):
        for content in (f'{{"clientSecret": "{BAD}"', f'"{BAD}"', f"clientSecret={BAD}"):
            answer = backend.http.post(f"/v1/mgmt/outbound/{call}", content=content)
            assert answer.status_code == 400
    for header in (
        f"Bearer {BAD}",
        f"Bearer {backend.project_id}:{BAD}",
        f"Basic {BAD}",
        f"Bearer x:{backend.management_key}",
    ):
        assert backend.http.get("/v1/mgmt/outbound/apps", headers={"Authorization": header}).status_code == 401
    backend.get(f"apps?access_token={BAD}")
    backend.post(
        f"app/connect?code={BAD}", {"appId": APP_ID, "userId": "x", "options": {"redirectUrl": f"https://{BAD}/"}}
    )
    backend.post("app/connect/confirm", {"confirmation": BAD, "userId": "alice"})
    browser.open(f"{backend.url}/connect/{BAD}")
    browser.open(f"{backend.url}/v1/outbound/oauth/callback?code={BAD}&state={BAD}")
    browser.open(f"{backend.url}/v1/outbound/oauth/callback?error={BAD}&error_description={BAD}&state={BAD}")
    browser.open(f"{backend.url}/connect-result?err={BAD}")
    browser.http.post(f"{backend.url}/connect/{BAD}", data={"decision": BAD})


def refresh_badly(evidence: Evidence, backend: Backend, provider: Provider) -> None:
    """Have the provider echo what it was sent in every kind of failure, the grant's death last."""
    for _ in range(2):
        token = next(t for t, row in reversed(provider.state.refresh_tokens.items()) if not row.spent)
        echo = f"refresh_token={token}&client_secret={CLIENT_SECRET}"
        faults = [
            instead(400, {"error": "unknown_trouble", "error_description": f"got {echo}"}),
            instead(400, {"error": token, "error_description": CLIENT_SECRET}),
            instead(401, {"error": "invalid_client", "error_description": f"{quote(echo, safe='')} {echo}"}),
            instead(500, f"<p>{echo}</p>", media_type="text/html"),
            instead(200, {"refresh_token": token, "note": echo}),
            instead(200, {"access_token": [token], "error": {"message": echo}}),
            html(503),
            half_a_body(lands=False),
            instead(400, {"error": "invalid_grant", "error_description": f"{token} of {CLIENT_SECRET} is revoked"}),
        ]
        for fault in faults:
            provider.state.next_token_answers.clear()
            provider.state.next_token_answers.append(fault)
            answer = backend.fetch("bob", options={"forceRefresh": True})
            assert answer.status_code in (404, 502, 503), answer.text
            backend.get(f"app/{APP_ID}")
            # an edit clears the pause after a failure, so that the next one is asked for at once
            app = backend.get(f"app/{APP_ID}").json()["app"]
            backend.post("app/update", {"app": app})
    provider.state.next_token_answers.clear()
    backend.fetch("bob")


def call(evidence: Evidence, backend: Backend, browser: Browser, agent: httpx2.Client, api: ScriptedProvider) -> None:
    """Have an agent call an API that sends back whatever it gets, well and badly, by the proxy and by MCP."""
    evidence.plant("token of an API", API_TOKEN)
    api.routes |= {"/error": echoed(500), "/refused": echoed(401), "/garbled": garbled}
    api.answers(echoed(200))
    headers = {"X-Client-Secret": "{client_secret}"}
    backend.create_app(api.registration(ECHO, clientSecret=CLIENT_SECRET, apiBaseUrl=api.url, apiHeaders=headers))
    token = {"appId": ECHO, "userId": "erin", "accessToken": API_TOKEN, "scopes": ["files"]}
    assert backend.post("app/user/oauthtoken/upload", token).status_code == 200
    for rule in ({}, {"methods": ["POST"], "effect": "approve"}):
        assert backend.post("policies", {"appId": ECHO, "action": "call", **rule}).status_code == 200
    body = {"userId": "erin", "apps": [{"appId": ECHO, "access": "write"}], "agent": {"id": "bot", "name": "Bot"}}
    key = backend.post("session/create", body).json()["key"]
    evidence.plant("session key", key)
    agent.headers["authorization"] = f"Bearer {key}"
    place = f"/v1/proxy/{ECHO}"
    said = [agent.get(f"{place}{path}").status_code for path in (f"/a?key={key}", "/error", "/refused", "/garbled")]
    assert said == [200, 500, 401, 502]
    for wrong in ({"authorization": f"Bearer {key}x"}, {"authorization": "", "x-other": key}):
        assert agent.get(f"{place}/a", headers=wrong).status_code == 401
    needed = agent.post(f"{place}/things", json={"a": 1}).json()["details"]
    evidence.plant("approval's ticket", needed["approvalUrl"].rpartition("/")[2])
    browser.open(needed["approvalUrl"])
    browser.http.post(needed["approvalUrl"], data={"decision": "approve"})
    decided = backend.post("approval/decide", {"id": needed["approvalId"], "decision": "approve"})
    assert decided.status_code == 200, decided.text
    approved = {"Evergrant-Approval": needed["approvalId"]}
    for status in (200, 403):  # and again, when it is used up
        assert agent.post(f"{place}/things", json={"a": 1}, headers=approved).status_code == status
    for path in ("/a", "/error", "/garbled"):
        answer = by_mcp(agent, backend.project_id, "api_read", {"app": ECHO, "path": path})
        assert answer.status_code == 200, answer.text
    assert len(api.requests_to("/a")) == 2, "one of each way"
    assert backend.post("session/revoke", {"userId": "erin"}).status_code == 200
    assert agent.get(f"{place}/a").status_code == 401


def echoed(status: int) -> Callable[[Request], bytes]:
    """Answer with the whole request, in the body and in headers."""

    def echo(request: Request) -> bytes:
        sent = request.headers
        return written_answer(status, request.head, x_token=sent["authorization"], x_secret=sent["x-client-secret"])

    return echo


def garbled(request: Request) -> bytes:
    return f"HTTP/1.1 200 {API_TOKEN}\r\n{API_TOKEN} {CLIENT_SECRET}\r\n\r\n".encode()


def by_mcp(agent: httpx2.Client, project_id: str, tool: str, arguments: object) -> httpx2.Response:
    """Call a tool as a client of the newest era does."""
    version = "2026-07-28"
    kept = "io.modelcontextprotocol"
    meta = {f"{kept}/protocolVersion": version, f"{kept}/clientCapabilities": {}}
    body = {"name": tool, "arguments": arguments, "_meta": meta}
    named = {"mcp-protocol-version": version, "mcp-method": "tools/call", "mcp-name": tool}
    return agent.post(
        f"/mcp/{project_id}",
        json={"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": body},
        headers={**named, "accept": "application/json, text/event-stream"},
    )


def look(evidence: Evidence, settings: Settings, backend: Backend, operator: Operator) -> None:
    """Look at what was written down about these calls: by the API, in the console, and in the database."""
    calls = "/v1/mgmt/outbound/calls"
    wait_until(
        lambda: len(backend.http.get(calls, params={"appId": ECHO, "limit": 100}).json()["calls"]) >= 10,
        "the calls are written down",
    )
    for path in (calls, f"{calls}/export", "/v1/mgmt/outbound/approvals", "/v1/mgmt/outbound/sessions?userId=erin"):
        assert backend.http.get(path).status_code == 200, path
    for page in (f"apps/{ECHO}", f"apps/{ECHO}/activity", "agents", "approvals", "policies", "audit"):
        assert operator.get(page).status_code == 200, page
    tables = ("call_records", "audit_events", "approvals", "agent_sessions")
    evidence.written = "".join(repr(rows(settings, table)) for table in tables)


def break_a_row(settings: Settings, backend: Backend) -> None:
    execute(settings, "UPDATE grants SET access_token = refresh_token WHERE user_id = 'alice'")
    assert backend.fetch("alice").status_code == 500


def test_the_log_tells_much_and_no_secret(evidence: Evidence) -> None:
    assert "POST /v1/mgmt/outbound/app/user/token" in evidence.log
    assert f"GET /v1/proxy/{ECHO}/a" in evidence.log
    assert "GET /approve/[redacted]" in evidence.log
    assert '"level": "debug"' in evidence.log
    assert "not set up correctly" in evidence.log  # with a traceback
    assert "Traceback" in evidence.log
    assert evidence.found_in(evidence.log) == []
    assert "eyJ" not in evidence.log  # no id_token


def test_no_refusal_and_no_page_holds_a_secret(evidence: Evidence) -> None:
    meant = ("app/user/token", "app/connect", "webhook/create", "webhook/rotate-secret", "session/create")
    searched = 0
    for answer in evidence.answers:
        ours = "/authorize" not in answer.url.path
        if not ours or (answer.status_code == 200 and answer.url.path.endswith(meant)):
            continue
        headers = {k: v for k, v in answer.headers.items() if k not in ("set-cookie", "location")}
        # Who needs an approval is given the link to it.
        allowed = ["approval's ticket"] if answer.status_code == 428 else []
        found = evidence.found_in(f"{answer.text} {headers}")
        assert found == allowed, (answer.url.path, answer.status_code, answer.text)
        searched += 1
    statuses = {answer.status_code for answer in evidence.answers}
    assert statuses >= {200, 303, 400, 401, 404, 409, 500, 502, 503}
    assert searched > 60


def test_what_is_written_about_calls_holds_no_secret(evidence: Evidence) -> None:
    for what in ("/things", "/garbled", "call.token_echoed", "approval.used", "session.revoked"):
        assert what in evidence.written, what
    assert evidence.found_in(evidence.written) == []


def test_the_metrics_tell_much_and_neither_a_secret_nor_who_anybody_is(evidence: Evidence) -> None:
    told, refused = [answer for answer in evidence.answers if answer.url.path == "/metrics"]
    assert (told.status_code, refused.status_code) == (200, 401)
    assert 'evergrant_fetch_seconds_count{outcome="error"} 1.0' in told.text
    assert evidence.found_in(told.text + refused.text) == []
    for person in ("alice", "bob", "carol", "dave"):
        assert person not in told.text


def test_the_way_back_to_the_application_carries_no_secret(evidence: Evidence) -> None:
    assert len(evidence.returned) == 4
    for location in evidence.returned:
        assert evidence.found_in(location) == []
        assert set(parse_qs(urlsplit(location).query)) <= {"outboundAppId", "outboundStatus", "err", "errDescription"}


def test_what_webhooks_are_sent_holds_no_secret(evidence: Evidence) -> None:
    assert {one.type for one in evidence.told} >= TOLD
    for one in evidence.told:
        allowed = ["approval's ticket"] if one.type == "approval.requested" else []
        assert evidence.found_in(f"{one.body.decode()} {one.headers}") == allowed, one.type


def test_traces_tell_much_and_no_secret(evidence: Evidence) -> None:
    names = {span.name for span in evidence.spans}
    assert names >= {"refresh", "webhook delivery", "POST 127.0.0.1", "call 127.0.0.1", "GET /connect/{ticket}"}
    assert {span.name for span in evidence.spans if span.failure} >= {"refresh", "POST 127.0.0.1"}
    assert evidence.found_in("\n".join(map(str, evidence.spans))) == []


def test_the_search_would_find_them(evidence: Evidence) -> None:
    for what, values in evidence.secrets.items():
        for value in values:
            assert what in evidence.found_in(f"x{value}x")
    assert evidence.secrets.keys() == {
        *(
            "master key",
            "database password",
            "metrics token",
            "client secret",
            "management key",
            "what bad requests held",
        ),
        *("webhook secret", "webhook address"),
        *("token of an API", "session key", "approval's ticket"),
        *("ticket", "state", "nonce", "code verifier", "access token", "refresh token", "code", "cookie"),
    }
