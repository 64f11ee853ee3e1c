"""The most 8-bit multiply-adds a second that one core of this machine gives to the kernels."""

from __future__ import annotations

import ctypes
import tempfile
import time
from pathlib import Path

import numpy as np

from tuili.codegen.kernels.quantized.dot import dots_for
from tuili.codegen.prelude import prelude
from tuili.codegen.targets import Target
from tuili.codegen.toolchain import Toolchain, Unit

SUMS, STEPS, ROUNDS = 12, 20_000, 40


def peak_gops(target: Target) -> float:
    """Giga operations (two for a multiply-add) a second, in registers and the first cache."""
    dot = dots_for(target, np.zeros(1, np.int8))[0]
    sums = range(SUMS)
    adds = "\n".join(f"        a{i} = q_add(a{i}, x + {i * 4}, w);" for i in sums)
    text = f"""{prelude(target)}{dot.text}
__attribute__((visibility("default"))) void peak(const {dot.ctype} *x, int32_t *y, int64_t steps)
{{
    vi {", ".join(f"a{i} = {{0}}" for i in sums)}, w = *(const vi_any *)y;
    for (int64_t s = 0; s < steps; s++) {{
{adds}
    }}
    w = {" ^ ".join(f"a{i}" for i in sums)};
    *(vi_any *)y = w;
}}
"""
    with tempfile.TemporaryDirectory(prefix="tuili-peak-") as folder:
        unit = Unit("peak", text, ("-O3", *target.flags))
        library = ctypes.CDLL(str(Toolchain.find().build([unit], Path(folder) / "peak.so")))
        codes, results = np.zeros(4096, np.uint8), np.zeros(64, np.int32)
        pointers = ctypes.c_void_p(codes.ctypes.data), ctypes.c_void_p(results.ctypes.data)
        best = float("inf")
        for _ in range(ROUNDS):
            start = time.perf_counter()
            library.peak(*pointers, ctypes.c_int64(STEPS))
            best = min(best, time.perf_counter() - start)
    return 2 * SUMS * STEPS * target.lanes * dot.group / best * 1e-9
