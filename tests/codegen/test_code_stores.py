"""Real numbers become codes as NumPy makes them, at the limits too."""

from __future__ import annotations

import ctypes
from pathlib import Path

import numpy as np
import pytest

from tests.codegen.compiled import HERE
from tuili.codegen.prelude import prelude
from tuili.codegen.targets import Target
from tuili.codegen.toolchain import Toolchain, Unit
from tuili.tensors import Array

CODES = {"u8": ("uint8_t", np.uint8, (0, 3, 255)), "i8": ("int8_t", np.int8, (-128, -5, 0, 127))}
LIMITS = [
    np.nan, np.inf, -np.inf, 1e30, -1e30, 2.2e9, -2.2e9, 32767, 32768, -32769, 127.5, 128.5,
    0.5, -0.5, 255.5, -128.5,
]  # fmt: skip


def _stores(code: str, ctype: str) -> str:
    four = ", ".join(f"v_load(x + i + {part} * V)" for part in range(4))
    return (
        f"void four_{code}(const float *x, {ctype} *y, int64_t n, int32_t zero, int small)\n{{\n"
        f"    for (int64_t i = 0; i < n; i += 4 * V)\n"
        f"        v_quantize4_{code}(y + i, {four}, zero, small);\n}}\n"
        f"void one_{code}(const float *x, {ctype} *y, int64_t n, int32_t zero, int small)\n{{\n"
        f"    for (int64_t i = 0; i < n; i += V)\n"
        f"        v_quantize_{code}(y + i, v_load(x + i), zero, small);\n}}\n"
    )


@pytest.fixture(scope="module", params=HERE, ids=lambda target: target.name)
def library(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory):
    target: Target = request.param
    text = prelude(target)
    text += "".join(_stores(code, ctype) for code, (ctype, _, _) in CODES.items())
    unit = Unit("codes", text, ("-O3", "-fvisibility=default", *target.flags))
    folder: Path = tmp_path_factory.mktemp("codes")
    return ctypes.CDLL(str(Toolchain.find().build([unit], folder / "codes.so")))


def _pointer(array: Array) -> ctypes.c_void_p:
    return ctypes.c_void_p(array.ctypes.data)


@pytest.mark.parametrize("small", [0, 1])
@pytest.mark.parametrize("count", ["one", "four"])
@pytest.mark.parametrize("code", CODES)
def test_numbers_become_the_nearest_codes(
    library: ctypes.CDLL, code: str, count: str, small: int
) -> None:
    _, dtype, zeros = CODES[code]
    given = [x for x in LIMITS if abs(x) < 1e9] if small else LIMITS
    more = np.random.default_rng(0).uniform(-400, 400, 64)
    x = np.array([*np.resize(given, 64), *more], np.float32)
    limits, whole = np.iinfo(dtype), np.nan_to_num(np.rint(x), nan=-np.inf)
    for zero in zeros:
        got = np.empty(len(x), dtype)
        size = ctypes.c_int64(len(x))
        library[f"{count}_{code}"](_pointer(x), _pointer(got), size, ctypes.c_int32(zero), small)
        np.testing.assert_array_equal(got, np.clip(whole + zero, limits.min, limits.max), str(zero))
