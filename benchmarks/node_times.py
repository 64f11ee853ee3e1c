"""Times every kernel call of real models: milliseconds, GFLOP/s, GB/s, percent of the FMA peak.

python -m benchmarks.node_times MODEL... [--threads N] [--target T] [--exact] [--top N]
"""

from __future__ import annotations

import argparse
import ctypes
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.kernels_conv import measure_peak
from benchmarks.models import MODELS, Feeds
from benchmarks.single_kernel import this_target
from tuili.compiler import Options, generate, package
from tuili.host import HostSteps
from tuili.importers.onnx import import_model
from tuili.lower.program import Call, calls_of
from tuili.runtime import load


@dataclass(frozen=True, slots=True)
class CallTime:
    """One kernel call: the best of all runs."""

    call: Call
    best_ns: int

    @property
    def gflops(self) -> float:
        """Arithmetic per nanosecond, 0 when the call does not say."""
        return _known(self.call.flops) / max(self.best_ns, 1)

    @property
    def gbytes(self) -> float:
        """Bytes per nanosecond."""
        return _known(self.call.bytes) / max(self.best_ns, 1)


def _known(dim: object) -> int:
    return dim if isinstance(dim, int) else 0


def time_calls(path: Path, feeds: Feeds, options: Options, threads: int = 1) -> list[CallTime]:
    """Every call of a model in order, timed by a clock that is compiled into the run."""
    compiled = generate(import_model(path), options, timed=True)
    calls = list(calls_of(compiled.program.steps))
    with tempfile.TemporaryDirectory() as folder:
        artifact = package(compiled, options, Path(folder) / "model.tuili")
        model = load(artifact.path, threads=threads, host=HostSteps)
        library = next(artifact.path.rglob("*.so"))
        clock = ctypes.CDLL(str(library)).tuili_times  # the same code: one library, one clock
        clock.restype = ctypes.POINTER(ctypes.c_int64)
        times = np.ctypeslib.as_array(clock(), (len(calls),))
        best = np.full(len(calls), np.iinfo(np.int64).max)
        end = time.perf_counter() + 2
        while time.perf_counter() < end:
            times[:] = 0
            model.run(feeds)
            np.minimum(best, times, out=best)
    return [CallTime(call, int(ns)) for call, ns in zip(calls, best, strict=True)]


def lines(timed: list[CallTime], peak: float, top: int) -> Iterator[str]:
    """The slowest calls first, each with what it attains."""
    total = sum(each.best_ns for each in timed)
    for each in sorted(timed, key=lambda t: -t.best_ns)[:top]:
        yield (
            f"{each.best_ns / 1e6:8.3f} ms {100 * each.best_ns / total:5.1f} %"
            f" {each.gflops:7.1f} GFLOP/s {100 * each.gflops / peak:5.1f} %"
            f" {each.gbytes:6.1f} GB/s  {each.call.kernel.name:36} {each.call.label[:60]}"
        )
    yield f"{total / 1e6:8.3f} ms in {len(timed)} calls"


def main() -> None:
    """Print the table of each model."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="+")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--exact", action="store_true")
    parser.add_argument("--top", type=int, default=40)
    options = parser.parse_args()
    target = this_target()
    peak = measure_peak(target) * options.threads
    print(f"{target.name}: FMA peak {peak:.1f} GFLOP/s on {options.threads} threads")
    for name in options.models:
        model = MODELS[name]
        feeds = model.inputs((options.batch, *model.sizes[0][1:]))
        shapes = {key: value.shape for key, value in feeds.items()}
        chosen = Options(shapes=shapes, exact=options.exact)
        timed = time_calls(model.path(), feeds, chosen, options.threads)
        print(name, *lines(timed, peak, options.top), sep="\n")


if __name__ == "__main__":
    main()
