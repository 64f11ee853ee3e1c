"""Kernels for ARM agree with their meaning on an emulated processor; `make qemu` has all tests."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

from benchmarks.foreign import EMULATORS, missing
from tests.codegen.compiled import Case, Cases, Const
from tests.codegen.kernels.quantized_cases import Product, QuantizedCases
from tuili.codegen.targets import find_target

RNG = np.random.default_rng(4)
ARM = [name for name in EMULATORS if name.startswith("aarch64")]
PRODUCTS = {
    "3x3": Product((1, 16, 9, 8), (8, 16, 3, 3), {"pads": [1, 1, 1, 1]}, extreme=True),
    "matmul": Product((5, 19), (19, 21), codes=np.int8, zero=5),
}


def _drawn(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float32)


_CODES = (Const(RNG.integers(0, 256, (21, 3, 8)).astype(np.uint8)), Const(_drawn(21, 3)))
REAL = {
    "softmax": Case("Softmax", [_drawn(3, 37)], {"axis": -1}),
    "matmul": Case("MatMul", [_drawn(7, 33), Const(_drawn(33, 21))], tolerance=2e-5),
    "gelu": Case("Gelu", [_drawn(3, 21)]),
    **{
        f"codes, {rows} rows, level {level}": Case(
            "com.microsoft::MatMulNBits",
            [np.sign(_drawn(rows, 40)) if level else _drawn(rows, 40), *_CODES],
            {"K": 40, "N": 21, "block_size": 16, "bits": 4, "accuracy_level": level},
            tolerance=1e-4,
        )
        for rows in (1, 9)
        for level in (0, 4)
    },
}


@cache
def _skipped(name: str) -> str:
    return missing(find_target(name))


@pytest.fixture(params=ARM)
def target(request: pytest.FixtureRequest) -> str:
    if reason := _skipped(request.param):
        pytest.skip(reason)
    return request.param


def test_products_of_codes_are_exact(target: str) -> None:
    cases = QuantizedCases(PRODUCTS, find_target(target))
    for name in PRODUCTS:
        cases.check(name)


def test_real_numbers_stay_within_their_tolerance(target: str) -> None:
    cases = Cases(REAL, find_target(target))
    for name in REAL:
        cases.check(name)


def test_threads_share_the_work_of_an_emulated_run(target: str) -> None:
    alone, together = (Cases(REAL, find_target(target), threads=n).got for n in (1, 2))
    assert all(np.array_equal(alone[name], together[name]) for name in alone)
