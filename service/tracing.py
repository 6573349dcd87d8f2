"""Sends spans of sampled batches to an OpenTelemetry collector over OTLP/HTTP; without an endpoint it is not even imported.

A trace follows one batch: the listener draws it, its context travels as a W3C `traceparent` string from hop to hop, and each hop
adds its spans with the wall-clock times that it has anyway. Spans wait in a queue of the SDK (2,048, the newest go when it is
full) and leave from a thread of its own: a collector that is slow or away costs spans, never the pipeline.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import importlib.util
import logging
import re
from typing import Any

from service import VERSION
from service.errors import OperatorError
from service.settings import ComponentSettings

TRACEPARENT = re.compile(r"00-([0-9a-f]{32})-([0-9a-f]{16})-0[0-9a-f]")
EXPORT_S = 2.0  # for one request to the collector
CLOSE_S = 2.0

Attribute = str | int | float | bool


class Span:
    """A span that has begun. `context` is what its children are given."""

    __slots__ = ("_span", "context")

    def __init__(self, span: Any) -> None:
        known = span.get_span_context()
        self._span = span
        self.context = f"00-{known.trace_id:032x}-{known.span_id:016x}-01"

    def end(self, end_ns: int, **attributes: Attribute) -> str:
        """End it at wall clock `end_ns`; return its context."""
        self._span.set_attributes(attributes)
        self._span.end(end_ns)
        return self.context


class Tracer:
    """Makes the spans of one component. Every `every`-th call of `draws` says yes, the first one too."""

    def __init__(self, component: str, endpoint: str, every: int) -> None:
        """Raises: ImportError without the `otel` extra."""
        self._api = importlib.import_module("opentelemetry.trace")
        sdk = importlib.import_module("opentelemetry.sdk.trace")
        export = importlib.import_module("opentelemetry.sdk.trace.export")
        sampling = importlib.import_module("opentelemetry.sdk.trace.sampling")
        resources = importlib.import_module("opentelemetry.sdk.resources")
        otlp = importlib.import_module("opentelemetry.exporter.otlp.proto.http.trace_exporter")
        about = {"service.name": f"tapeline-{component}", "service.version": VERSION}
        self._provider = sdk.TracerProvider(sampler=sampling.ALWAYS_ON, resource=resources.Resource.create(about))
        exporter = otlp.OTLPSpanExporter(endpoint=f"{endpoint.rstrip('/')}/v1/traces", timeout=EXPORT_S)
        self._provider.add_span_processor(export.BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("tapeline", VERSION)
        self._empty = importlib.import_module("opentelemetry.context").Context()  # never that of some caller
        self._every = every
        self._drawn = 0

    def draws(self) -> bool:
        """Return whether this one is to be traced."""
        self._drawn += 1
        return (self._drawn - 1) % self._every == 0

    def begin(self, name: str, parent: str | None, start_ns: int, **attributes: Attribute) -> Span:
        """Begin a span; without a parent, or with one that is no `traceparent`, it is the root of a trace of its own."""
        context, known = self._empty, TRACEPARENT.fullmatch(parent or "")
        if known is not None:
            flags = self._api.TraceFlags(self._api.TraceFlags.SAMPLED)
            remote = self._api.SpanContext(int(known[1], 16), int(known[2], 16), is_remote=True, trace_flags=flags)
            context = self._api.set_span_in_context(self._api.NonRecordingSpan(remote), self._empty)
        return Span(self._tracer.start_span(name, context, start_time=start_ns, attributes=attributes))

    def span(self, name: str, parent: str | None, start_ns: int, end_ns: int, **attributes: Attribute) -> str:
        """Tell of a span that is over; return its context."""
        return self.begin(name, parent, start_ns, **attributes).end(end_ns)

    async def close(self) -> None:
        """Send what waits, at most 2 s, and end the thread."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_S + 1):
                await asyncio.to_thread(self._provider.force_flush, int(CLOSE_S * 1000))
                await asyncio.to_thread(self._provider.shutdown)


def check_installed(settings: ComponentSettings) -> None:
    """Raise what `open_tracer` would, without loading anything: a parent asks before it starts workers that would all end."""
    if settings.otlp_endpoint and settings.trace_rate and not is_installed():
        raise _not_installed("opentelemetry.sdk")


def is_installed() -> bool:
    """Whether the extra `otel` is there."""
    try:
        return importlib.util.find_spec("opentelemetry.sdk") is not None
    except (ImportError, ValueError):  # not even the namespace, or one that somebody has blocked
        return False


def _not_installed(module: str) -> OperatorError:
    what = f"OTEL_EXPORTER_OTLP_ENDPOINT is set, but OpenTelemetry is not installed ({module})"
    return OperatorError(what, "Install the extra (pip install 'tapeline[otel]'), or unset the variable")


def open_tracer(component: str, settings: ComponentSettings) -> Tracer | None:
    """Return the component's tracer; None when OTEL_EXPORTER_OTLP_ENDPOINT is empty or nothing is to be sampled.

    Raises: OperatorError when the packages are not installed.
    """
    if not settings.otlp_endpoint or not settings.trace_rate:
        return None
    try:
        tracer = Tracer(component, settings.otlp_endpoint, max(1, round(1 / settings.trace_rate)))
    except ImportError as missing:
        raise _not_installed(missing.name or str(missing)) from None
    # The exporter tells each request that failed, with a traceback; that the collector is away shows there, by what it misses.
    logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)
    return tracer
