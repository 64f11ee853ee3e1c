"""The vector functions of the prelude: stated errors over dense samples, twins, edges, tails."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.codegen.compiled import HERE
from tuili.codegen.half_vectors import half_vectors
from tuili.codegen.prelude import prelude
from tuili.codegen.toolchain import Toolchain, Unit
from tuili.ops.unary import erf

# function: (its meaning in f64, the largest error in units of the last place)
# Where a function dies away (silu, gelu far left) the error is of the size of the input.
FUNCTIONS: dict[str, tuple[Callable[[np.ndarray], np.ndarray], float]] = {
    "exp": (np.exp, 1.0),
    "expm1": (np.expm1, 1.5),
    "log": (np.log, 1.0),
    "tanh": (np.tanh, 1.5),
    "erf": (erf, 2.0),
    "sigmoid": (lambda x: 1 / (1 + np.exp(-x)), 2.5),
    "softplus": (lambda x: np.logaddexp(x, 0), 2.0),
    "sin": (np.sin, 2.0),
    "cos": (np.cos, 2.0),
    "tan": (np.tan, 4.0),
    "asin": (np.arcsin, 2.0),
    "acos": (np.arccos, 2.0),
    "atan": (np.arctan, 3.0),
    "sqrt": (np.sqrt, 0.5),
    "floor": (np.floor, 0),
    "ceil": (np.ceil, 0),
    "round": (np.rint, 0),
    "sign": (np.sign, 0),
}
FADING: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "silu": lambda x: x / (1 + np.exp(-x)),
    "gelu": lambda x: 0.5 * x * (1 + erf(x / math.sqrt(2))),
    "gelu_tanh": lambda x: 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),
    "mish": lambda x: x * np.tanh(np.logaddexp(x, 0)),
}

SPECIAL = np.array([0.0, -0.0, np.inf, -np.inf, np.nan, 1e-45, -1e-45, 3e38], np.float32)


def sample() -> np.ndarray:
    every_exponent = np.arange(0, 2**32, 8191, dtype=np.uint64).astype(np.uint32).view(np.float32)
    near = np.linspace(-110, 100, 100_001, dtype=np.float32)
    nearer = np.linspace(-5, 5, 100_001, dtype=np.float32)
    all_of_them = np.concatenate([every_exponent, near, nearer, SPECIAL])
    return all_of_them[: len(all_of_them) // 16 * 16].copy()


def _vectors(name: str) -> str:
    return (
        f"void vector_{name}(const float *x, float *y, int64_t n)\n{{\n"
        f"    for (int64_t i = 0; i < n; i += V)\n"
        f"        v_store(y + i, v_{name}(v_load(x + i)));\n}}\n"
    )


def _loops(name: str) -> str:
    return _vectors(name) + (
        f"void scalar_{name}(const float *x, float *y, int64_t n)\n{{\n"
        f"    for (int64_t i = 0; i < n; i++)\n        y[i] = s_{name}(x[i]);\n}}\n"
    )


@pytest.fixture(scope="module", params=HERE, ids=lambda target: target.name)
def library(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory):
    target = request.param
    text = [prelude(target)]
    text += [_loops(name) for name in (*FUNCTIONS, *FADING)]
    text.append(_vectors("exp_below"))
    text.append(
        "void tails(const float *x, float *y)\n{\n"
        "    for (int64_t n = 1; n < V; n++)\n"
        "        v_storen(y + n * V, v_loadn(x, n) + v_set1(1.0f), n);\n}\n"
        "void reductions(const float *x, float *y)\n{\n"
        "    y[0] = v_sum(v_load(x)), y[1] = v_hmax(v_load(x)), y[2] = v_hmin(v_load(x));\n}\n"
        "void transpose(const float *x, float *y) { tl_transpose(x, 40, y, 50); }\n"
        "int64_t lanes(void) { return V; }\n"
    )
    path = Path(tmp_path_factory.mktemp(target.name)) / "prelude.so"
    flags = ("-O3", "-fvisibility=default", *target.flags)
    Toolchain.find().build([Unit("prelude", "\n".join(text), flags)], path)
    loaded = ctypes.CDLL(str(path))
    loaded.lanes.restype = ctypes.c_int64
    return loaded


def call(function: object, *arrays: np.ndarray, count: int | None = None) -> None:
    pointers = [array.ctypes.data_as(ctypes.c_void_p) for array in arrays]
    function(*pointers, *([] if count is None else [ctypes.c_int64(count)]))


def both_forms(library: ctypes.CDLL, name: str, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    vector, scalar = np.empty_like(x), np.empty_like(x)
    call(library[f"vector_{name}"], x, vector, count=len(x))
    call(library[f"scalar_{name}"], x, scalar, count=len(x))
    return vector, scalar


@np.errstate(all="ignore")
@pytest.mark.parametrize("name", FUNCTIONS)
def test_error_stays_below_the_stated_one(library: ctypes.CDLL, name: str) -> None:
    meaning, most = FUNCTIONS[name]
    x = sample()
    got, _ = both_forms(library, name, x)
    want = np.asarray(meaning(x.astype(np.float64)), np.float64)
    nearest = want.astype(np.float32)
    finite = np.isfinite(nearest)
    np.testing.assert_array_equal(got[~finite], nearest[~finite])
    # Below the smallest normal number a unit is that of the smallest normal number.
    unit = np.spacing(np.maximum(np.abs(nearest[finite]), np.float32(1.2e-38))).astype(np.float64)
    error = np.abs(got[finite] - want[finite]) / unit
    if name == "sigmoid":
        error = error[x[finite] > -87]  # further left e^-x overflows and the result is 0
    assert error.max() <= most


@np.errstate(all="ignore")
def test_powers_below_one_are_those_of_exp_down_to_where_they_are_nothing(
    library: ctypes.CDLL,
) -> None:
    x = sample()
    x = np.where(x <= 0, x, np.float32(np.nan))
    got, (want, _) = np.empty_like(x), both_forms(library, "exp", x)
    call(library.vector_exp_below, x, got, count=len(x))
    want[x < -87.6] = got[x < -87.6]
    np.testing.assert_allclose(got, want, rtol=2e-7)
    assert got[x < -87.6].max() < 1e-37
    assert not got[x < -87.8].any()


@np.errstate(all="ignore")
@pytest.mark.parametrize("name", FADING)
def test_fading_functions_stay_close(library: ctypes.CDLL, name: str) -> None:
    x = sample()
    x = x[np.isfinite(x) & (np.abs(x) < 1e18)]
    x = x[: len(x) // 16 * 16].copy()
    got, _ = both_forms(library, name, x)
    want = FADING[name](x.astype(np.float64))
    error = np.abs(got - want) / np.maximum(np.abs(x), 1e-30)
    assert error.max() <= 3e-7


@pytest.mark.parametrize("name", [*FUNCTIONS, *FADING])
def test_scalar_twin_gives_the_same_number(library: ctypes.CDLL, name: str) -> None:
    vector, scalar = both_forms(library, name, sample())
    np.testing.assert_array_equal(vector, scalar)


def test_tails_touch_no_memory_beyond(library: ctypes.CDLL) -> None:
    lanes = library.lanes()
    x = np.arange(1, lanes + 1, dtype=np.float32)
    y = np.full((lanes, lanes), -7, np.float32)
    call(library.tails, x, y)
    for count in range(1, lanes):
        np.testing.assert_array_equal(y[count, :count], x[:count] + 1)
        assert (y[count, count:] == -7).all()


def test_horizontal_reductions(library: ctypes.CDLL) -> None:
    x = np.random.default_rng(1).permutation(library.lanes()).astype(np.float32)
    y = np.empty(3, np.float32)
    call(library.reductions, x, y)
    assert y.tolist() == [x.sum(), x.max(), x.min()]


def test_transpose_of_a_square(library: ctypes.CDLL) -> None:
    lanes = library.lanes()
    x = np.random.default_rng(1).random((lanes, 40), np.float32)
    y = np.zeros((lanes, 50), np.float32)
    call(library.transpose, x, y)
    np.testing.assert_array_equal(y[:, :lanes], x[:, :lanes].T)
    assert not y[:, lanes:].any()


@pytest.mark.parametrize(
    "flags", [(), ("-U__FLT16_MANT_DIG__", "-DTL_PORTABLE")], ids=["its own", "none"]
)
def test_halves_of_compilers_that_have_none_are_those_of_others(
    flags: tuple[str, ...], tmp_path: Path
) -> None:
    """gcc 11 and clang 14 have no _Float16 on x86: every half, and floats on all borders."""
    text = (
        f"{prelude(HERE[0])}{half_vectors(HERE[0])}\n"
        "void widen(const _Float16 *x, float *y, int64_t n)\n"
        "{ for (int64_t i = 0; i < n; i++) y[i] = tl_from_f16(x[i]); }\n"
        "void narrow(const float *x, _Float16 *y, int64_t n)\n"
        "{ for (int64_t i = 0; i < n; i++) y[i] = tl_to_f16(x[i]); }\n"
    )
    unit = Unit("halves", text, ("-O2", "-fvisibility=default", *HERE[0].flags, *flags))
    code = ctypes.CDLL(str(Toolchain.find().build([unit], tmp_path / "halves.so")))

    def call(name: str, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        pointers = (array.ctypes.data_as(ctypes.c_void_p) for array in (x, y))
        getattr(code, name)(*pointers, ctypes.c_int64(x.size))
        return y

    halves = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
    wide = call("widen", halves, np.empty(halves.size, np.float32))
    np.testing.assert_array_equal(wide, halves.astype(np.float32))
    np.testing.assert_array_equal(np.signbit(wide), np.signbit(halves))
    bits = np.arange(1 << 16, dtype=np.uint32) << 16
    border = np.arange(1 << 16, dtype=np.uint32) << 13
    near = [border + np.uint32(each & 0xFFFFFFFF) for each in (-1, 0, 1, 0xFFF, 0x1000, 0x1001)]
    floats = np.concatenate([bits, *near, *(each ^ np.uint32(1 << 31) for each in near)]).view(
        np.float32
    )
    narrow = call("narrow", floats, np.empty(floats.size, np.float16))
    with np.errstate(over="ignore", invalid="ignore"):
        np.testing.assert_array_equal(narrow, floats.astype(np.float16))
