"""Traces, as a collector gets them from a server, and what they cost where they are off."""

import json
from contextlib import closing
from pathlib import Path

from fastapi import FastAPI

from evergrant.crypto.kms.local import new_master_key
from evergrant.tracing import span, tracing_problem, wants_traces
from evergrant.web.app import with_traces
from tests.infra.collector import Collector
from tests.infra.installation import SCOPES, Backend, Browser, practice_provider
from tests.infra.scripted import serving
from tests.infra.serving import ServerProcess
from tests.infra.waiting import wait_until

TRACE, CALLER = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
TRACEPARENT = {"traceparent": f"00-{TRACE}-{CALLER}-01"}
KEY = "the-management-key-of-a-bootstrap-project"


def test_a_callers_trace_goes_on_through_fetch_refresh_and_call_and_ends_at_the_provider(tmp_path: Path) -> None:
    environment = {
        "EVERGRANT_DATA_DIR": str(tmp_path),
        "EVERGRANT_EGRESS_ALLOW": "127.0.0.0/8",
        "EVERGRANT_MASTER_KEYS": new_master_key(),
        "EVERGRANT_BOOTSTRAP_PROJECT_ID": "Pshop",
        "EVERGRANT_BOOTSTRAP_MANAGEMENT_KEY": KEY,
        "EVERGRANT_BOOTSTRAP_REDIRECT_ORIGINS": "https://app.example.com",
    }
    with serving(Collector()) as collector:
        environment |= {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url, "OTEL_BSP_SCHEDULE_DELAY": "50"}
        server = ServerProcess(environment, log=tmp_path / "log")
        with practice_provider(server.url, access_token_seconds=5) as provider, server:
            backend, browser = Backend(server.url, "Pshop", KEY), Browser()
            token = {"appId": "practice", "userId": "alice", "scopes": SCOPES}
            with closing(browser.http), closing(backend.http) as http:
                backend.create_app(provider.registration | {"apiBaseUrl": provider.url})
                browser.connect(backend.connect_url())
                assert http.post("/v1/mgmt/outbound/app/user/token", json=token, headers=TRACEPARENT).status_code == 200
                forced = token | {"options": {"forceRefresh": True}}
                assert (
                    http.post("/v1/mgmt/outbound/app/user/token", json=forced, headers=TRACEPARENT).status_code == 200
                )
                called = http.get("/v1/proxy/practice/api/contacts", headers={**TRACEPARENT, "Evergrant-User": "alice"})
                assert called.status_code == 200, called.text
                # What nobody asked for is a trace of its own: the background takes the short-lived token up.
                wait_until(lambda: bool(collector.named("sweep")), "the background has refreshed")
        lines = [json.loads(line) for line in server.output().splitlines() if line.startswith("{")]
    ours = [span for span in collector.spans if span.trace == TRACE]
    fetches = [span for span in ours if span.name == "POST /v1/mgmt/outbound/app/user/token"]
    assert [span.parent for span in fetches] == [CALLER, CALLER]
    (call,) = (span for span in ours if span.name == "GET /v1/proxy/{appId}/{path}")
    (refresh,) = (span for span in ours if span.name == "refresh")
    assert (call.parent, refresh.parent, refresh.attributes["evergrant.refresh.why"]) == (
        CALLER,
        fetches[1].id,
        "forced",
    )
    out = {span.name: span for span in ours if "server.address" in span.attributes}
    assert out["POST 127.0.0.1"].parent == refresh.id
    assert out["call 127.0.0.1"].parent == call.id
    assert out["call 127.0.0.1"].attributes["evergrant.app"] == "practice"
    for name in ("url.scheme", "server.port"):
        assert out["call 127.0.0.1"].attributes[name] == out["POST 127.0.0.1"].attributes[name]
    assert collector.named("sweep")[0].trace != TRACE
    said = [line for line in lines if line.get("traceId") == TRACE]
    assert {line["message"] for line in said} >= {"POST /v1/mgmt/outbound/app/user/token 200"}
    assert fetches[0].attributes["evergrant.request_id"] in {line["requestId"] for line in said}


def test_there_is_no_layer_and_no_span_while_traces_are_off() -> None:
    app = FastAPI()
    assert with_traces(app) is app
    assert span("one", {}) is span("another", {"evergrant.app": "practice"})


def test_what_the_variables_ask_for_and_cannot_be_is_said_with_the_remedy() -> None:
    there = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318"}
    assert not wants_traces({})
    assert not wants_traces({**there, "OTEL_TRACES_EXPORTER": "none"})
    assert not wants_traces({**there, "OTEL_SDK_DISABLED": "true"})
    assert wants_traces(there)
    assert tracing_problem(there) == tracing_problem({}) == ""
    assert "write otlp" in tracing_problem({"OTEL_TRACES_EXPORTER": "jaeger"})
    assert "port 4318" in tracing_problem({**there, "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"})
