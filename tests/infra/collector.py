"""A collector of traces: it takes what OpenTelemetry's exporter sends over HTTP."""

from dataclasses import dataclass, field
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.infra.scripted import Answer, Request, ScriptedProvider, answer


@dataclass(frozen=True)
class Span:
    """One span, as it was sent."""

    name: str
    trace: str
    id: str
    parent: str
    attributes: dict[str, Any]
    failure: str
    """The name of an error's class, or a status; empty where nothing failed."""
    whole: str
    """All of it, with its events and what describes the process."""


@dataclass
class Collector(ScriptedProvider):
    """It accepts everything."""

    spans: list[Span] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.answers(self._receive)

    def named(self, name: str) -> list[Span]:
        """The spans of a name."""
        return [span for span in self.spans if span.name == name]

    async def _receive(self, request: Request) -> Answer:
        for resource in ExportTraceServiceRequest.FromString(request.body).resource_spans:
            for span in (span for scope in resource.scope_spans for span in scope.spans):
                attributes = {
                    one.key: getattr(one.value, str(one.value.WhichOneof("value"))) for one in span.attributes
                }
                self.spans.append(
                    Span(
                        span.name,
                        span.trace_id.hex(),
                        span.span_id.hex(),
                        span.parent_span_id.hex(),
                        attributes,
                        attributes.get("error.type", ""),
                        f"{resource.resource} {span}",
                    )
                )
        return answer(200, b"", content_type="application/x-protobuf")
