"""The Prometheus text of all statistics: Triton's metric names, and native latency histograms."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final

from tuili.server.steps import Steps, at_once
from tuili.server.telemetry.histogram import Histogram, reach
from tuili.server.telemetry.statistics import Statistics

Value = Callable[[Statistics], int | float]

# (name, type, help, value)
_FAMILIES: Final[tuple[tuple[str, str, str, Value], ...]] = (
    ("nv_inference_request_success", "counter",
     "Number of successful inference requests, all batch sizes", lambda s: s.success.count),
    ("nv_inference_count", "counter",
     "Number of inferences performed (does not include cached requests)",
     lambda s: s.inference_count),
    ("nv_inference_exec_count", "counter",
     "Number of model executions performed (does not include cached requests)",
     lambda s: s.execution_count),
    ("nv_inference_request_duration_us", "counter",
     "Cumulative inference request duration in microseconds (includes cached requests)",
     lambda s: s.success.ns // 1000),
    ("nv_inference_queue_duration_us", "counter",
     "Cumulative inference queuing duration in microseconds (includes cached requests)",
     lambda s: s.queue.ns // 1000),
    ("nv_inference_compute_input_duration_us", "counter",
     "Cumulative compute input duration in microseconds (does not include cached requests)",
     lambda s: s.compute_input.ns // 1000),
    ("nv_inference_compute_infer_duration_us", "counter",
     "Cumulative compute inference duration in microseconds (does not include cached requests)",
     lambda s: s.compute_infer.ns // 1000),
    ("nv_inference_compute_output_duration_us", "counter",
     "Cumulative inference compute output duration in microseconds (excludes cached requests)",
     lambda s: s.compute_output.ns // 1000),
    ("tuili_requests_degraded", "counter",
     "Number of requests that a smaller model answered for want of time", lambda s: s.degraded),
    ("nv_inference_pending_request_count", "gauge",
     "Instantaneous number of pending requests awaiting execution per-model.",
     lambda s: s.pending),
)  # fmt: skip
# The names that models cannot give to metrics of their own.
FAMILIES: Final = frozenset(name for name, *_ in _FAMILIES) | {
    "nv_inference_request_failure", "nv_cache_num_hits_per_model", "nv_cache_num_misses_per_model",
}  # fmt: skip
# Of models that ask for a response cache; as in Triton others have no such lines.
_CACHE_FAMILIES: Final[tuple[tuple[str, str, str, Value], ...]] = (
    ("nv_cache_num_hits_per_model", "counter", "Number of cache hits per model",
     lambda s: s.cache_hit.count),
    ("nv_cache_num_misses_per_model", "counter", "Number of cache misses per model",
     lambda s: s.cache_miss.count),
)  # fmt: skip
_HISTOGRAMS: Final[tuple[tuple[str, str, Callable[[Statistics], Histogram]], ...]] = (
    ("tuili_request_duration_seconds", "Requests by total duration", lambda s: s.request_ns),
    ("tuili_queue_duration_seconds", "Requests by time in the queue", lambda s: s.queue_ns),
    ("tuili_infer_duration_seconds", "Runs of the model by duration", lambda s: s.infer_ns),
)
_TURN: Final = 64  # models whose histograms are written before others have their turn
_BOUNDS_NS: Final = tuple(2**power for power in range(13, 37))  # 8 us to 69 s
_BOUNDS: Final = tuple(f'le="{bound / 1e9:.9g}"' for bound in _BOUNDS_NS)
_REACH: Final = reach(_BOUNDS_NS)


def exposition(models: Sequence[Statistics], ready: bool, extra: Iterable[str] = ()) -> str:
    """The text of `/metrics`; `extra` are further complete lines."""
    return b"".join(at_once(write_exposition(models, ready, extra))).decode()


def write_exposition(
    models: Sequence[Statistics], ready: bool, extra: Iterable[str] = ()
) -> Steps[list[bytes]]:
    """The same in parts, with turns for others where there are many models."""
    parts: list[bytes] = []
    for model in models:
        model.settle()
    for lines in _each_part(models):
        parts.append(("\n".join(lines) + "\n").encode())
        if len(models) > _TURN:
            yield
    lines = _head("tuili_server_ready", "gauge", "Whether the server is ready (1) or not (0)")
    lines += [f"tuili_server_ready {int(ready)}", *extra]
    parts.append(("\n".join(lines) + "\n").encode())
    return parts


def _each_part(models: Sequence[Statistics]) -> Iterator[list[str]]:
    """The lines of the models, some at a time."""
    caching = [model for model in models if model.caches]
    for name, kind, text, value in (*_FAMILIES, *(_CACHE_FAMILIES if caching else ())):
        told = caching if name.startswith("nv_cache") else models
        lines = [f"{name}{{{_labels(model)}}} {value(model)}" for model in told]
        yield [*_head(name, kind, text), *lines]
    failure = "nv_inference_request_failure"
    lines = [
        f"{failure}{{{_labels(model, reason)}}} {number}"
        for model in models
        for reason, number in model.failures.items()
    ]
    text = "Number of failed inference requests, all batch sizes"
    yield [*_head(failure, "counter", text), *lines]
    for name, text, histogram in _HISTOGRAMS:
        yield _head(name, "histogram", text)
        for at in range(0, len(models), _TURN):
            yield [
                line
                for model in models[at : at + _TURN]
                for line in _histogram_lines(name, _labels(model), histogram(model))
            ]
    yield _batch_lines(models)


def _head(name: str, kind: str, text: str) -> list[str]:
    return [f"# HELP {name} {text}", f"# TYPE {name} {kind}"]


def _labels(model: Statistics, reason: str = "") -> str:
    # In the order of the alphabet, as Triton has them: some readers look for the text.
    cause = f'reason="{reason}",' if reason else ""
    return f'model="{escape(model.model)}",{cause}version="{escape(model.version)}"'


def escape(value: str) -> str:
    """A label value as the text format wants it."""
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def _histogram_lines(name: str, labels: str, histogram: Histogram) -> list[str]:
    start = f"{name}_bucket{{{labels},"
    lines = [
        f"{start}{bound}}} {number}"
        for bound, number in zip(_BOUNDS, histogram.cumulative(_REACH), strict=True)
    ]
    lines.append(f'{name}_bucket{{{labels},le="+Inf"}} {histogram.count}')
    lines.append(f"{name}_sum{{{labels}}} {histogram.sum_ns / 1e9:.9g}")
    lines.append(f"{name}_count{{{labels}}} {histogram.count}")
    return lines


def _batch_lines(models: Sequence[Statistics]) -> list[str]:
    lines = _head("tuili_batch_rows", "counter", "Runs of the model by number of rows")
    lines += [
        f'tuili_batch_rows{{{_labels(model)},rows="{rows}"}} {model.batches[rows].infer.count}'
        for model in models
        for rows in sorted(model.batches)
    ]
    lines += _head("tuili_batch_left", "counter", "Batches by why they left the queue")
    lines += [
        f'tuili_batch_left{{{_labels(model)},reason="{reason}"}} {number}'
        for model in models
        for reason, number in model.left.items()
    ]
    return lines
