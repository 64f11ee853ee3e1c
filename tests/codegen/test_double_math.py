"""The prelude's functions of doubles: stated errors against extended precision, edges, vectors."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.codegen.compiled import HERE
from tuili.codegen.prelude import prelude
from tuili.codegen.toolchain import Toolchain, Unit
from tuili.tensors import Array

# function: (its meaning, the largest error in units of the last place)
FUNCTIONS: dict[str, tuple[Callable[[Array], Array], float]] = {
    "exp": (np.exp, 1.1),
    "expm1": (np.expm1, 2.5),
    "log": (np.log, 1.0),
    "log1p": (np.log1p, 1.5),
    "tanh": (np.tanh, 2.5),
    "sigmoid": (lambda x: 1 / (1 + np.exp(-x)), 2.5),
}
SPECIAL = [0.0, -0.0, np.inf, -np.inf, np.nan, 5e-324, -5e-324, 1e-310, 1.7e308, 709.79, -745.2]


def sample(name: str) -> Array:
    rng = np.random.default_rng(0)
    exponents = rng.integers(0, 2**63, 100_000, dtype=np.uint64).view(np.float64)
    pieces = [exponents, -exponents, np.linspace(-746, 710, 100_001), np.linspace(-3, 3, 100_001)]
    pieces.append(1 + np.linspace(-1e-3, 1e-3, 10_001))
    x = np.concatenate([*pieces, np.array(SPECIAL)])
    return x[(x >= 0) | np.isnan(x)] if name == "log1p" else x


@pytest.fixture(scope="module", params=HERE, ids=lambda target: target.name)
def library(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory):
    text = [prelude(request.param)]
    text += [
        f"void loop_{name}(const double *restrict x, double *restrict y, int64_t n)\n{{\n"
        f"    for (int64_t i = 0; i < n; i++)\n        y[i] = d_{name}(x[i]);\n}}\n"
        for name in FUNCTIONS
    ]
    path = Path(tmp_path_factory.mktemp(request.param.name)) / "doubles.so"
    flags = ("-O3", "-ffp-contract=fast", "-fvisibility=default", *request.param.flags)
    Toolchain.find().build([Unit("doubles", "\n".join(text), flags)], path)
    return ctypes.CDLL(str(path))


@np.errstate(all="ignore")
@pytest.mark.skipif(np.finfo(np.longdouble).nmant < 63, reason="no extended precision here")
@pytest.mark.parametrize("name", FUNCTIONS)
def test_error_stays_below_the_stated_one(library: ctypes.CDLL, name: str) -> None:
    meaning, most = FUNCTIONS[name]
    x = sample(name)
    got = np.empty_like(x)
    pointers = [array.ctypes.data_as(ctypes.c_void_p) for array in (x, got)]
    library[f"loop_{name}"](*pointers, ctypes.c_int64(len(x)))
    want = meaning(x.astype(np.longdouble))
    nearest = want.astype(np.float64)
    finite = np.isfinite(nearest) & (np.abs(nearest) < 1.79e308)
    np.testing.assert_array_equal(got[np.isnan(nearest)], nearest[np.isnan(nearest)])
    np.testing.assert_array_equal(np.isinf(got[~finite]), np.isinf(nearest[~finite]))
    # Below the smallest normal number a unit is that of the smallest normal number.
    unit = np.spacing(np.maximum(np.abs(nearest[finite]), 2.3e-308)).astype(np.longdouble)
    error = np.abs(got[finite] - want[finite]) / unit
    if name == "sigmoid":
        error = error[x[finite] > -709]  # further left e^-x overflows and the result is 0
    assert error.max() <= most


@pytest.mark.parametrize("name", ["tanh", "log"])
def test_signs_and_ends_are_kept(library: ctypes.CDLL, name: str) -> None:
    x = np.array([0.0, -0.0, np.inf, -np.inf, -1.0])
    got = np.empty_like(x)
    pointers = [array.ctypes.data_as(ctypes.c_void_p) for array in (x, got)]
    library[f"loop_{name}"](*pointers, ctypes.c_int64(len(x)))
    with np.errstate(all="ignore"):
        want = FUNCTIONS[name][0](x)
    np.testing.assert_allclose(got, want, rtol=1e-15)
    np.testing.assert_array_equal(np.signbit(got[:2]), np.signbit(want[:2]))
