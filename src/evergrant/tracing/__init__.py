"""Traces: spans of what evergrant does, for who installed `evergrant[otel]` and said where they go.

They are off otherwise: then nothing of OpenTelemetry is imported, requests pass no layer, and `span` hands out one
object that does nothing. `OTEL_*` are the variables of OpenTelemetry's own specification, which its SDK reads by
itself; here it is only decided whether there are traces at all.

What a span says is its `attributes` and nothing else: ids, hosts, methods, statuses, names of error classes. Never a
path or a query, which can carry a secret, and never an error's message or traceback, which can quote one.
"""

import asyncio
import importlib.util
import logging
import os
from collections.abc import Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, Self

from evergrant import logs

if TYPE_CHECKING:
    from evergrant.tracing.sdk import Tracer

log = logging.getLogger(__name__)

Attributes = Mapping[str, str | int]
STOP_SECONDS = 5.0
"""How long a stop waits for the collector to take the last spans."""
PROTOCOL = "http/protobuf"
EXPORTER = "opentelemetry.exporter.otlp.proto.http"

_tracer: "Tracer | None" = None


class Span(Protocol):
    """A span as whoever makes one sees it: it lasts as long as the `with` block, and an exception marks it."""

    def note(self, name: str, value: str | int) -> None:
        """Add an attribute: an id, a number or a word of ours, and nothing that somebody sent."""

    def __enter__(self) -> Self:
        """Begin: spans that begin within are its children."""

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """End."""


class _NoSpan:
    def note(self, name: str, value: str | int) -> None:
        pass

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass


_NO_SPAN = _NoSpan()


def wants_traces(environment: Mapping[str, str] = os.environ) -> bool:
    """Tell whether the operator has said where traces go, or to write them."""
    if environment.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return False
    exporter = environment.get("OTEL_TRACES_EXPORTER", "").strip()
    endpoints = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
    return exporter != "none" and bool(exporter or any(environment.get(name) for name in endpoints))


def tracing_problem(environment: Mapping[str, str] = os.environ) -> str:
    """Return why there are no traces although they are wanted, and the remedy; empty where nothing is wrong."""
    if not wants_traces(environment):
        return ""
    exporter = environment.get("OTEL_TRACES_EXPORTER", "").strip() or "otlp"
    if exporter != "otlp":
        return f"OTEL_TRACES_EXPORTER: evergrant has no exporter {exporter!r}; write otlp, or none for no traces"
    for name in ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"):
        protocol = environment.get(name, "").strip()
        if protocol == PROTOCOL:
            break
        if protocol:
            return f"{name}: evergrant speaks {PROTOCOL} only; set it so, and the endpoint to the collector's port 4318"
    if not is_installed():
        return "OpenTelemetry is not installed: install evergrant[otel], or set OTEL_TRACES_EXPORTER=none"
    return ""


def is_installed() -> bool:
    """Tell whether `evergrant[otel]` is installed, without importing what it brings."""
    try:
        return importlib.util.find_spec(EXPORTER) is not None
    except ModuleNotFoundError:  # not even the packages that it would be in
        return False


def start_tracing() -> None:
    """Begin with traces, where they are wanted. A problem is logged and stops nothing: tokens matter more."""
    global _tracer  # noqa: PLW0603 - one for the process, as logging is
    if _tracer is not None or not wants_traces():
        return
    if problem := tracing_problem():
        log.warning("there are no traces", extra={"why": problem})
        return
    from evergrant.tracing.sdk import Tracer

    _tracer = Tracer()
    logs.read_trace_id = _tracer.trace_id
    log.info("traces are on")


async def stop_tracing() -> None:
    """Send what is left, for a few seconds at most, and end."""
    global _tracer
    tracer, _tracer = _tracer, None
    logs.read_trace_id = None
    if tracer is not None:
        await asyncio.to_thread(tracer.close, STOP_SECONDS)


def tracer_in_use() -> "Tracer | None":
    """Return what makes spans, or None while traces are off."""
    return _tracer


def span(name: str, attributes: Attributes, *, calls_out: bool = False) -> Span:
    """Return a span for a `with` block; one that does nothing while traces are off.

    `calls_out` says that somebody outside is called in it.
    """
    return _NO_SPAN if _tracer is None else _tracer.span(name, attributes, calls_out=calls_out)


def record_span(name: str, attributes: Attributes, *, seconds: float) -> None:
    """Record what has just ended and took so long: for what is worth a span only when something came of it."""
    if _tracer is not None:
        _tracer.record(name, attributes, seconds=seconds)
