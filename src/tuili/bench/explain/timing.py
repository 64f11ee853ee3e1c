"""Times every kernel call of a model, by a clock that is compiled into its run function."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tuili.bench.clocked import ClockedModel, Span
from tuili.bench.feeds import random_feeds
from tuili.compiler import Compiled, Options, generate
from tuili.errors import InvalidArgument
from tuili.importers.onnx import import_model
from tuili.lower.program import Call, counted_calls
from tuili.tensors import Array, Dim, evaluate

BUDGET_S = 2.0
_LEAST_RUNS = 3
Feeds = Mapping[str, Array]


@dataclass(frozen=True, slots=True)
class CallTime:
    """One kernel call, all its rounds: the best of all runs; flops and bytes at these sizes."""

    call: Call
    best_ns: int
    flops: int
    bytes: int


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
    inputs = dict(feeds) if feeds is not None else random_feeds(compiled.program.inputs)
    model = ClockedModel(compiled, options, inputs, threads)
    best, run_ns = _measured(model, budget_s)
    sizes = _sizes(compiled, inputs)
    times = [
        CallTime(call, int(ns), _known(each * call.flops, sizes), _known(each * call.bytes, sizes))
        for (call, each), ns in zip(counted_calls(compiled.program.steps), best, strict=True)
    ]
    return Timed(compiled, times, run_ns, model.spans(), inputs)


def _measured(model: ClockedModel, budget_s: float) -> tuple[Array, int]:
    """The best time of each call, and of a whole run."""
    best = np.full(len(model.times), np.iinfo(np.int64).max)
    run_ns, runs = 1 << 62, 0
    end = time.perf_counter() + budget_s
    while runs < _LEAST_RUNS or time.perf_counter() < end:
        run_ns = min(run_ns, model.run())
        np.minimum(best, model.times, out=best)
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
