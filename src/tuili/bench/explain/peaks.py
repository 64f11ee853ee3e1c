"""What one core of this machine attains at most: multiply-adds and bytes per second, measured.

Arithmetic: twelve independent chains of multiply-adds, which hides their latency on every CPU we
know. Bytes: sums over arrays of three sizes, as data in a near cache, in a far one and in memory
come at different rates. All are the best of many short runs, and are kept per CPU model and target
in the cache folder.
"""

from __future__ import annotations

import contextlib
import ctypes
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from tuili.codegen.cache import cache_folder
from tuili.codegen.targets import Target
from tuili.codegen.toolchain import Toolchain, Unit
from tuili.codegen.whole import put
from tuili.runtime.cpu import cpu_model

_ROUNDS = 40
_CHAINS = 12
_STEPS = 400_000
_SWEEPS = (128 << 10, 4 << 20, 64 << 20)  # bytes

_SOURCE = """
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
typedef float vf __attribute__((vector_size(%(bytes)d), aligned(4)));
__attribute__((visibility("default"))) double spin(int64_t n, float f)
{
    vf x = f - (vf){0}, y = x * 1e-9f;
    vf a0 = x, a1 = x + 1, a2 = x + 2, a3 = x + 3, a4 = x + 4, a5 = x + 5;
    vf a6 = x + 6, a7 = x + 7, a8 = x + 8, a9 = x + 9, a10 = x + 10, a11 = x + 11;
#define F(r) r = r * x + y; __asm__ volatile("" : "+%(register)s"(r));
    for (int64_t i = 0; i < n; i++) {
        F(a0) F(a1) F(a2) F(a3) F(a4) F(a5) F(a6) F(a7) F(a8) F(a9) F(a10) F(a11)
    }
    a0 += a1 + a2 + a3 + a4 + a5 + a6 + a7 + a8 + a9 + a10 + a11;
    return a0[0];
}
__attribute__((visibility("default"))) double sweep(const float *data, int64_t n)
{
    const int lanes = sizeof(vf) / sizeof(float);
    vf s0 = {0}, s1 = {0}, s2 = {0}, s3 = {0};
    for (int64_t i = 0; i + 4 * lanes <= n; i += 4 * lanes) {
        s0 += *(const vf *)(data + i);
        s1 += *(const vf *)(data + i + lanes);
        s2 += *(const vf *)(data + i + 2 * lanes);
        s3 += *(const vf *)(data + i + 3 * lanes);
    }
    s0 += s1 + s2 + s3;
    return s0[0];
}
"""


@dataclass(frozen=True, slots=True)
class Peaks:
    """Of one core: GFLOP/s (a multiply-add counts as two) and GB/s by the bytes that are read."""

    gflops: float
    gbytes_near: float
    gbytes_far: float
    gbytes: float  # from memory

    def rate(self, size: float) -> float:
        """GB/s for a call that touches `size` bytes."""
        rates = (self.gbytes_near, self.gbytes_far, self.gbytes)
        return next((r for most, r in zip(_SWEEPS, rates, strict=True) if size <= most), rates[-1])

    def attainable(self, flops: float, size: float, threads: int = 1) -> float:
        """The least nanoseconds for `flops` and `size` bytes: the roofline (Williams et al. 2009).

        Memory is shared by the threads, arithmetic is not.
        """
        return max(flops / (self.gflops * threads), size / self.rate(size))


_decode: Final = msgspec.json.Decoder(dict[str, Peaks]).decode


def peaks(target: Target) -> Peaks:
    """The peaks of this machine, measured at the first call."""
    path = cache_folder() / "peaks.json"
    known = _read(path)
    key = f"{cpu_model()} {target.name}"
    if key not in known:
        known[key] = _measured(target)
        with contextlib.suppress(OSError):  # then the next call measures again
            path.parent.mkdir(parents=True, exist_ok=True)
            put(path, msgspec.json.format(msgspec.json.encode(known), indent=1))
    return known[key]


def _read(path: Path) -> dict[str, Peaks]:
    try:
        return _decode(path.read_bytes())
    except (OSError, msgspec.DecodeError):
        return {}


def _measured(target: Target) -> Peaks:
    register = {16: "v"}.get(target.lanes, "w" if target.machine == "aarch64" else "x")
    text = _SOURCE % {"bytes": 4 * target.lanes, "register": register}
    flags = ("-ffp-contract=fast", *target.flags)
    with tempfile.TemporaryDirectory() as folder:
        library = Toolchain.find(target.machine).build(
            [Unit("peaks", text, flags)], Path(folder) / "peaks.so"
        )
        code = ctypes.CDLL(str(library))
        code.spin.restype = code.sweep.restype = ctypes.c_double
        steps, factor = ctypes.c_int64(_STEPS), ctypes.c_float(0.9)
        spin_ns = _best_ns(lambda: code.spin(steps, factor))
        data = (ctypes.c_float * (_SWEEPS[-1] // 4))()
        rates = [
            size / _best_ns(lambda size=size: code.sweep(data, ctypes.c_int64(size // 4)))
            for size in _SWEEPS
        ]
    return Peaks(_STEPS * _CHAINS * 2 * target.lanes / spin_ns, *rates)


def _best_ns(function: Callable[[], object]) -> int:
    best = 1 << 62
    for _ in range(_ROUNDS):
        start = time.perf_counter_ns()
        function()
        best = min(best, time.perf_counter_ns() - start)
    return best
