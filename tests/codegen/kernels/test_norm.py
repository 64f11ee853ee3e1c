"""Layer, RMS, instance and group normalisation."""

from __future__ import annotations

import numpy as np
import pytest

from tests.codegen.compiled import HERE, Case, Cases

RANDOM = np.random.default_rng(0)


def floats(*shape: int) -> np.ndarray:
    return RANDOM.standard_normal(shape).astype(np.float32)


CASES: dict[str, Case] = {}
CASES["ln"] = Case(
    "LayerNormalization", [floats(3, 5, 384), floats(384), floats(384)], outputs=3, tolerance=1e-5
)
CASES["ln1"] = Case(
    "LayerNormalization", [floats(3, 5, 37), floats(37)], tolerance=1e-5, dims={0: ["A", "B", 37]}
)
CASES["ln2"] = Case(
    "LayerNormalization", [floats(3, 5, 7), floats(5, 7)], {"axis": 1}, tolerance=1e-5
)
CASES["rms"] = Case("RMSNormalization", [floats(3, 5, 70), floats(70)], tolerance=1e-5)
CASES["in"] = Case(
    "InstanceNormalization", [floats(3, 5, 7, 9), floats(5), floats(5)], tolerance=1e-5
)
CASES["gn"] = Case(
    "GroupNormalization",
    [floats(3, 6, 7, 9), floats(6), floats(6)],
    {"num_groups": 2},
    tolerance=1e-5,
)


@pytest.fixture(scope="module", params=HERE, ids=lambda target: target.name)
def cases(request: pytest.FixtureRequest) -> Cases:
    return Cases(CASES, request.param)


@pytest.mark.parametrize("name", CASES)
def test_kernel_gives_what_the_operator_means(cases: Cases, name: str) -> None:
    cases.check(name)
