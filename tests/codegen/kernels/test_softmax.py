"""Softmax along any axis, for every length of a tail."""

from __future__ import annotations

import numpy as np
import pytest

from tests.codegen.compiled import HERE, Case, Cases

RANDOM = np.random.default_rng(0)


def floats(*shape: int) -> np.ndarray:
    return RANDOM.standard_normal(shape).astype(np.float32)


CASES: dict[str, Case] = {}
for L in (1, 5, 16, 37, 128, 300):
    CASES[f"softmax{L}"] = Case("Softmax", [floats(4, L) * 5])
    CASES[f"log{L}"] = Case("LogSoftmax", [floats(4, L) * 5])
CASES["softmaxdyn"] = Case("Softmax", [floats(4, 37)], dims={0: ["N", "M"]})
CASES["softmax1"] = Case("Softmax", [floats(4, 7, 37)], {"axis": 1})
CASES["logsoftmax1"] = Case("LogSoftmax", [floats(4, 7, 5)], {"axis": 1})
CASES["softmax64"] = Case("Softmax", [floats(4, 7, 5).astype(np.float64)], {"axis": 1})
CASES["softmax16"] = Case("LogSoftmax", [floats(4, 7, 5).astype(np.float16)], tolerance=2e-3)


@pytest.fixture(scope="module", params=HERE, ids=lambda target: target.name)
def cases(request: pytest.FixtureRequest) -> Cases:
    return Cases(CASES, request.param)


@pytest.mark.parametrize("name", CASES)
def test_kernel_gives_what_the_operator_means(cases: Cases, name: str) -> None:
    cases.check(name)
