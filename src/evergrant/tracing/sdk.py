"""Spans by OpenTelemetry's SDK: the one module that imports it, and only when traces are on.

The provider is our own and is not made the process's: libraries that look for the process's would write what they like
into spans, arguments of tools for example.
"""

import time
from collections.abc import Iterable
from types import TracebackType
from typing import Self

from opentelemetry import trace
from opentelemetry.context import Context, attach, detach
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, OTELResourceDetector, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import SpanKind, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from evergrant import __version__
from evergrant.tracing import Attributes

_PARENT = TraceContextTextMapPropagator()


class OpenSpan:
    """A span under way; it is the current one within its `with` block."""

    __slots__ = ("_span", "_token")

    def __init__(self, span: trace.Span) -> None:
        self._span = span

    def note(self, name: str, value: str | int) -> None:
        """Add an attribute."""
        self._span.set_attribute(name, value)

    def rename(self, name: str) -> None:
        """Give it another name: a request has its route's, which is known when it has been routed."""
        self._span.update_name(name)

    def fail(self, why: str) -> None:
        """Mark it as failed; `why` is a status or the name of a class, never a message."""
        self._span.set_attribute("error.type", why)
        self._span.set_status(StatusCode.ERROR)

    def __enter__(self) -> Self:
        self._token = attach(trace.set_span_in_context(self._span))
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if kind is not None:
            self.fail(kind.__name__)
        detach(self._token)
        self._span.end()


class Tracer:
    """Makes spans and sends them, in a thread of its own, to where `OTEL_*` say."""

    def __init__(self) -> None:
        own = Resource({SERVICE_NAME: "evergrant", SERVICE_VERSION: __version__})
        # Nothing else of this process: a detector of processes would tell its command line.
        resource = own.merge(OTELResourceDetector().detect())
        self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        self._processor = BatchSpanProcessor(OTLPSpanExporter())
        self._provider.add_span_processor(self._processor)
        self._tracer = self._provider.get_tracer("evergrant", __version__)

    def span(self, name: str, attributes: Attributes, *, calls_out: bool = False) -> OpenSpan:
        """Return a span that is a child of the current one."""
        kind = SpanKind.CLIENT if calls_out else SpanKind.INTERNAL
        return OpenSpan(self._tracer.start_span(name, kind=kind, attributes=attributes))

    def answering(self, name: str, attributes: Attributes, headers: Iterable[tuple[bytes, bytes]]) -> OpenSpan:
        """Return the span of a request: a child of the caller's, where its `traceparent` names one (W3C)."""
        said = {key.decode(): value.decode("latin-1") for key, value in headers if key == b"traceparent"}
        parent = _PARENT.extract(said, Context()) if said else Context()
        return OpenSpan(self._tracer.start_span(name, context=parent, kind=SpanKind.SERVER, attributes=attributes))

    def record(self, name: str, attributes: Attributes, *, seconds: float) -> None:
        """Record a span that ends now and began so many seconds ago."""
        end = time.time_ns()
        began = end - int(seconds * 1e9)
        self._tracer.start_span(name, attributes=attributes, start_time=began).end(end)

    def trace_id(self) -> str:
        """Return the id of the current trace, 32 hexadecimal digits; empty outside of any."""
        context = trace.get_current_span().get_span_context()
        return format(context.trace_id, "032x") if context.is_valid else ""

    def close(self, seconds: float) -> None:
        """Send what is left and stop. Blocks, for so long at most."""
        self._processor._batch_processor.shutdown(timeout_millis=int(seconds * 1000))
