"""A model with a clock in its run function: the time of every kernel call of a run."""

from __future__ import annotations

import ctypes
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tuili.codegen.run_function import SPAN_THREADS
from tuili.compiler import Compiled, Options, package
from tuili.host import HostSteps
from tuili.lower.program import Call, calls_of
from tuili.runtime import load
from tuili.tensors import Array


@dataclass(frozen=True, slots=True)
class Span:
    """A call on one thread in the last run: nanoseconds since the first call's start."""

    call: Call
    thread: int
    start_ns: int
    end_ns: int


class ClockedModel:
    """What `generate(..., timed=True)` made, built and loaded with its inputs."""

    def __init__(
        self, compiled: Compiled, options: Options, feeds: Mapping[str, Array], threads: int = 1
    ) -> None:
        self.compiled = compiled
        self.calls = list(calls_of(compiled.program.steps))
        self._feeds = dict(feeds)
        with tempfile.TemporaryDirectory(prefix="tuili-clock-") as folder:
            artifact = package(compiled, options, Path(folder) / "model.tuili")
            self._model = load(artifact.path, threads=threads, host=HostSteps)
            # The library that the model has loaded: the same code, so the same memory.
            code = ctypes.CDLL(str(next(artifact.path.rglob("*.so"))))
        code.tuili_times.restype = code.tuili_spans.restype = ctypes.POINTER(ctypes.c_int64)
        count = len(self.calls)
        self.times = np.ctypeslib.as_array(code.tuili_times(), (count + 1,))[:count]
        self._spans = np.ctypeslib.as_array(code.tuili_spans(), (count + 1, SPAN_THREADS, 2))

    def run(self) -> int:
        """Run once; returns nanoseconds, and leaves those of each call in `times`.

        What a run does not reach is zero.
        """
        self.times[:] = 0
        self._spans[:] = 0
        start = time.perf_counter_ns()
        self._model.run(self._feeds)
        return time.perf_counter_ns() - start

    def spans(self) -> list[Span]:
        """What every thread did in the last run, in order of time."""
        spans = self._spans
        started = spans[..., 0][spans[..., 0] > 0]
        zero = int(started.min()) if started.size else 0
        found = [
            Span(call, thread, int(start) - zero, int(end) - zero)
            for at, call in enumerate(self.calls)
            for thread, (start, end) in enumerate(spans[at])
            if start
        ]
        return sorted(found, key=lambda span: (span.start_ns, span.thread))
