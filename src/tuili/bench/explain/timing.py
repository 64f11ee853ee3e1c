"""Times every kernel call of a model, by a clock that is compiled into its run function."""

from __future__ import annotations

import ctypes
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tuili.bench.feeds import random_feeds
from tuili.codegen.run_function import SPAN_THREADS
from tuili.compiler import Compiled, Options, generate, package
from tuili.errors import InvalidArgument
from tuili.host import HostSteps
from tuili.importers.onnx import import_model
from tuili.lower.program import Call, calls_of
from tuili.runtime import Model, load
from tuili.tensors import Array, Dim, evaluate

BUDGET_S = 2.0
_LEAST_RUNS = 3
Feeds = Mapping[str, Array]


@dataclass(frozen=True, slots=True)
class CallTime:
    """One kernel call: the best of all runs; flops and bytes at the sizes of these inputs."""

    call: Call
    best_ns: int
    flops: int
    bytes: int


@dataclass(frozen=True, slots=True)
class Span:
    """A call on one thread in the last run: nanoseconds since the first call's start."""

    call: Call
    thread: int
    start_ns: int
    end_ns: int


@dataclass(frozen=True, slots=True)
class Timed:
    """A model with the time of each of its calls, in order, and of the whole run."""

    compiled: Compiled
    calls: list[CallTime]
    run_ns: int
    spans: list[Span]
    feeds: dict[str, Array]


def timed(
    path: Path,
    options: Options,
    threads: int = 1,
    feeds: Feeds | None = None,
    budget_s: float = BUDGET_S,
) -> Timed:
    """Compile a model with a clock in it and run it for a while; random inputs where none come."""
    compiled = generate(import_model(path), options, timed=True)
    calls = list(calls_of(compiled.program.steps))
    inputs = dict(feeds) if feeds is not None else random_feeds(compiled.program.inputs)
    with tempfile.TemporaryDirectory() as folder:
        artifact = package(compiled, options, Path(folder) / "model.tuili")
        model = load(artifact.path, threads=threads, host=HostSteps)
        clock = _Clock(next(artifact.path.rglob("*.so")), len(calls))
        best, run_ns = _measured(model, clock, inputs, budget_s)
        spans = clock.spans(calls)
    sizes = _sizes(compiled, inputs)
    times = [
        CallTime(call, int(ns), _known(call.flops, sizes), _known(call.bytes, sizes))
        for call, ns in zip(calls, best, strict=True)
    ]
    return Timed(compiled, times, run_ns, spans, inputs)


class _Clock:
    """The counters inside the loaded library: the same code, so the same memory."""

    def __init__(self, library: Path, count: int) -> None:
        code = ctypes.CDLL(str(library))
        code.tuili_times.restype = code.tuili_spans.restype = ctypes.POINTER(ctypes.c_int64)
        self.times = np.ctypeslib.as_array(code.tuili_times(), (count + 1,))[:count]
        self._spans = np.ctypeslib.as_array(code.tuili_spans(), (count + 1, SPAN_THREADS, 2))

    def clear(self) -> None:
        """Before a run: what a run does not reach stays zero."""
        self.times[:] = 0
        self._spans[:] = 0

    def spans(self, calls: list[Call]) -> list[Span]:
        """What every thread did in the last run, in order of time."""
        spans = self._spans
        started = spans[..., 0][spans[..., 0] > 0]
        zero = int(started.min()) if started.size else 0
        found = [
            Span(call, thread, int(start) - zero, int(end) - zero)
            for at, call in enumerate(calls)
            for thread, (start, end) in enumerate(spans[at])
            if start
        ]
        return sorted(found, key=lambda span: (span.start_ns, span.thread))


def _measured(
    model: Model, clock: _Clock, feeds: dict[str, Array], budget_s: float
) -> tuple[np.ndarray, int]:
    """The best time of each call, and of a whole run."""
    best = np.full(len(clock.times), np.iinfo(np.int64).max)
    run_ns, runs = 1 << 62, 0
    end = time.perf_counter() + budget_s
    while runs < _LEAST_RUNS or time.perf_counter() < end:
        clock.clear()
        start = time.perf_counter_ns()
        model.run(feeds)
        run_ns = min(run_ns, time.perf_counter_ns() - start)
        np.minimum(best, clock.times, out=best)
        runs += 1
    return best, run_ns


def _sizes(compiled: Compiled, feeds: Feeds) -> dict[str, int]:
    """The open dims at the sizes of the inputs, as far as inputs tell."""
    found: dict[str, int] = {}
    for spec in compiled.program.inputs:
        for dim, size in zip(spec.shape, feeds[spec.name].shape, strict=True):
            if not isinstance(dim, int) and dim.symbol is not None:
                found[dim.symbol] = size
    return found


def _known(dim: Dim, sizes: Mapping[str, int]) -> int:
    """The number that a dim stands for; 0 where only a run's data knows."""
    try:
        return evaluate(dim, sizes)
    except InvalidArgument:
        return 0
