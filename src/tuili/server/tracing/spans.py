"""Spans: finished traces to an OpenTelemetry collector over OTLP/HTTP (extra `opentelemetry`).

A request is a span "InferRequest", below it a span for each model, and one "compute" below that;
what the request's own `traceparent` names (W3C Trace Context) is above all.
"""

from __future__ import annotations

import time
from typing import Any, Final, Protocol

from tuili.errors import Unsupported
from tuili.server.tracing.config import TraceConfig
from tuili.server.tracing.trace import Trace

_BATCHING: Final = {
    "bsp_max_queue_size": "max_queue_size",
    "bsp_schedule_delay": "schedule_delay_millis",
    "bsp_max_export_batch_size": "max_export_batch_size",
}
_SERVICE: Final = "service.name"


class Provider(Protocol):
    """What is used of the SDK's tracer provider."""

    def get_tracer(self, name: str, /) -> Any: ...
    def shutdown(self) -> None: ...


class Spans:
    """Where traces go in the mode `opentelemetry`; sent in batches, by a thread of the SDK's."""

    def __init__(self, provider: Provider) -> None:
        self._provider = provider
        self._tracer = provider.get_tracer("tuili")
        self._offset_ns = 0

    def record(self, trace: Trace, fields: dict[str, str]) -> None:
        """Hand over a finished trace; `fields` are its request's `traceparent` and `tracestate`."""
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        # Spans have the time of day, which may be set at any time; traces a clock that never jumps.
        self._offset_ns = time.time_ns() - time.monotonic_ns()
        above = TraceContextTextMapPropagator().extract(fields)
        outer = {name: ns for name, ns in trace.stamps.items() if name[:4] in ("HTTP", "GRPC")}
        root = self._span("InferRequest", outer or trace.stamps, above, trace)
        self._model(trace, root)
        self._end(root, outer or trace.stamps)

    def close(self) -> None:
        """Send what is left."""
        self._provider.shutdown()

    def _model(self, trace: Trace, above: Any) -> None:
        own = {name: ns for name, ns in trace.stamps.items() if name[:4] not in ("HTTP", "GRPC")}
        compute = {name: ns for name, ns in own.items() if name.startswith("COMPUTE")}
        if not own:
            return
        rest = {name: ns for name, ns in own.items() if name not in compute}
        span = self._span(trace.model, rest, _below(above), trace)
        if compute:
            inner = self._span("compute", compute, _below(span), trace)
            self._end(inner, compute)
        for child in trace.children:
            self._model(child, span)
        self._end(span, rest)

    def _span(self, name: str, stamps: dict[str, int], above: Any, trace: Trace) -> Any:
        attributes: dict[str, Any] = {"triton.model_name": trace.model}
        attributes["triton.model_version"] = int(trace.version) if trace.version.isdigit() else -1
        if trace.request_id:
            attributes["triton.request_id"] = trace.request_id
        if trace.parent:
            attributes["triton.trace_parent_id"] = trace.parent
        start_ns = min(stamps.values()) + self._offset_ns
        span = self._tracer.start_span(name, above, attributes=attributes, start_time=start_ns)
        for event, ns in stamps.items():
            span.add_event(event, timestamp=ns + self._offset_ns)
        return span

    def _end(self, span: Any, stamps: dict[str, int]) -> None:
        span.end(max(stamps.values()) + self._offset_ns)


def _below(span: Any) -> Any:
    from opentelemetry.trace import set_span_in_context

    return set_span_in_context(span)


def spans_of(config: TraceConfig) -> Spans:
    """The spans of a server; Unsupported without the extra."""
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
        from opentelemetry.sdk.trace.sampling import ALWAYS_ON
    except ImportError as error:
        raise Unsupported(
            f"{error}; trace mode opentelemetry needs `pip install 'tuili[opentelemetry]'`"
        ) from error
    url = config.url if "://" in config.url else f"http://{config.url}"
    resource = Resource.create({_SERVICE: "tuili", **config.resource})
    provider = TracerProvider(sampler=ALWAYS_ON, resource=resource, shutdown_on_exit=False)
    batching: dict[str, Any] = {_BATCHING[name]: value for name, value in config.batching.items()}
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(url), **batching))
    return Spans(provider)
