"""The least time that a model could take here: arithmetic at the FMA peak, bytes from memory.

Arithmetic is that of direct convolution; Winograd can go below this floor. Bytes are weights,
inputs and outputs, each moved once, and count where they do not fit the last-level cache.
"""

from __future__ import annotations

import ctypes
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.kernels_conv import measure_peak
from benchmarks.models import Feeds
from benchmarks.single_kernel import this_target
from tuili.compiler import Options, generate
from tuili.importers.onnx import import_model
from tuili.lower.program import calls_of

_READ_C = """
#include <stdint.h>
typedef float vf __attribute__((vector_size(32)));
float read_all(const float *p, int64_t n)
{
    vf a = {0}, b = {0}, c = {0}, d = {0};
    for (int64_t i = 0; i < n; i += 32) {
        const vf *v = (const vf *)(p + i);
        a += v[0], b += v[1], c += v[2], d += v[3];
    }
    a += b + (c + d);
    return a[0];
}
"""
_READ_FLOATS = 32 << 20  # 128 MB: beyond the caches


@dataclass(frozen=True, slots=True)
class Machine:
    """What one core of this machine attains."""

    target: str
    peak_gflops: float
    read_gbytes: float  # from memory
    cache_mbytes: float  # of the last level

    @staticmethod
    def measure() -> Machine:
        """Both rates, the best of some attempts."""
        target = this_target()
        reading = _measure_reading(target.flags)
        return Machine(target.name, measure_peak(target), reading, _cache_mbytes())


def _cache_mbytes() -> float:
    sizes = Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size")
    return max((int(size.read_text().strip().rstrip("K")) / 1e3 for size in sizes), default=0)


def _measure_reading(flags: tuple[str, ...]) -> float:
    data = np.zeros(_READ_FLOATS + 8, np.float32)
    data[:] = 1  # its pages are there
    start = -data.ctypes.data % 32 // 4
    with tempfile.TemporaryDirectory() as folder:
        source, library = Path(folder) / "read.c", Path(folder) / "read.so"
        source.write_text(_READ_C)
        subprocess.run(
            ["gcc", "-O2", "-fPIC", "-shared", *flags, str(source), "-o", str(library)], check=True
        )
        read = ctypes.CDLL(str(library)).read_all
        read.restype = ctypes.c_float
        best = 1e9
        for _ in range(6):
            begin = time.perf_counter()
            read(ctypes.c_void_p(data[start:].ctypes.data), ctypes.c_int64(_READ_FLOATS))
            best = min(best, time.perf_counter() - begin)
    return 4 * _READ_FLOATS / best / 1e9


@dataclass(frozen=True, slots=True)
class Floor:
    """The work of one inference, and the arena beside what must be alive at once."""

    gflop: float
    mbytes: float
    arena_bytes: int | None
    live_bytes: int | None

    def ms(self, machine: Machine, threads: int) -> float:
        """The longer of arithmetic and memory; memory is shared by the threads."""
        arithmetic = 1e3 * self.gflop / machine.peak_gflops / threads
        far = self.mbytes > machine.cache_mbytes
        return max(arithmetic, self.mbytes / machine.read_gbytes if far else 0)


def floor_of(path: Path, feeds: Feeds) -> Floor:
    """Count what the program of a model does with direct convolution."""
    shapes = {name: value.shape for name, value in feeds.items()}
    exact = generate(import_model(path), Options(shapes=shapes, exact=True)).program
    plan = generate(import_model(path), Options(shapes=shapes)).plan
    flops = sum(call.flops for call in calls_of(exact.steps) if isinstance(call.flops, int))
    moved = sum(weight.array.nbytes for weight in exact.weights)
    buffers = (*exact.input_buffers, *exact.output_buffers)
    moved += sum(buffer.size for buffer in buffers if isinstance(buffer.size, int))
    arena = (plan.size, plan.lower_bound) if plan else (None, None)
    return Floor(flops / 1e9, moved / 1e6, *arena)
