"""Elementwise bodies: every operator and type against its NumPy meaning, and how bodies print."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest

from tests.codegen.compiled import BEST, HERE, Case, Cases, Const
from tuili.codegen.expr import is_printable, is_vectorisable, print_body
from tuili.ir import Graph, TensorType
from tuili.tensors import DType

RANDOM = np.random.default_rng(0)
SPECIAL = [0.0, -0.0, 1.0, -1.0, 0.5, -0.5, 1.5, 2.5, np.inf, -np.inf, np.nan, 1e-40, 88.0, -88.0]


def reals(kind: Any = np.float32) -> np.ndarray:
    return np.concatenate([RANDOM.standard_normal(45) * 3, SPECIAL]).astype(kind)


def tame(kind: Any = np.float32) -> np.ndarray:
    return RANDOM.uniform(0.1, 0.9, 59).astype(kind)


def whole(kind: Any) -> np.ndarray:
    limits = np.iinfo(kind)
    ends = [limits.min, limits.max, 0, 1, 2]
    drawn = RANDOM.integers(max(limits.min, -100), min(limits.max, 100), 54)
    return np.concatenate([drawn.astype(kind), np.array(ends, kind)])


UNARY = (
    "Abs", "Neg", "Sign", "Floor", "Ceil", "Round", "Reciprocal", "Sqrt", "Exp", "Log", "Erf",
    "Sin", "Cos", "Tan", "Atan", "Sinh", "Cosh", "Tanh", "Asinh", "Relu", "LeakyRelu",
    "ThresholdedRelu",
    "Elu", "Celu", "Selu", "Sigmoid", "HardSigmoid", "Softplus", "Softsign", "Swish", "Gelu",
    "Shrink", "IsNaN", "IsInf",
)  # fmt: skip
NARROW = ("Asin", "Acos", "Acosh", "Atanh", "HardSwish", "Mish")
BINARY = ("Add", "Sub", "Mul", "Div", "Max", "Min", "PRelu", "Equal", "Less", "LessOrEqual",
    "Greater", "GreaterOrEqual")  # fmt: skip
WHOLE = ("Add", "Sub", "Mul", "Div", "Mod", "Max", "Min", "Equal", "Less", "GreaterOrEqual",
    "BitwiseAnd", "BitwiseOr", "BitwiseXor")  # fmt: skip
INTEGERS = (np.int8, np.int16, np.int32, np.int64, np.uint8, np.uint16, np.uint32, np.uint64)

# Beyond types of 8, 16 and 32 bits, where low bits are kept, and beyond 64 bits, where none are.
FAR = np.array(
    [
        sign * near
        for limit in (2.0**7, 2.0**8, 2.0**15, 2.0**31, 2.0**32, 3 * 2.0**31, 2.0**40, 2.0**62)
        for near in np.nextafter(np.float32(limit), np.array([0, limit, np.inf], np.float32))
        for sign in (1, -1)
    ]
    + [0.99, -0.99, -0.0, 1e-40, 300.7, -300.7, 2.0**63, -(2.0**63), 1e30, np.inf, np.nan],
    np.float32,
)

CASES: dict[str, Case] = {}
for kind, tolerance in ((np.float32, 4e-6), (np.float64, 1e-12), (np.float16, 2e-3)):
    label = np.dtype(kind).name
    for op in UNARY:
        CASES[f"{op} {label}"] = Case(op, [reals(kind)], tolerance=tolerance)
    for op in NARROW:
        x = tame(kind) + (1 if op == "Acosh" else 0)
        CASES[f"{op} {label}"] = Case(op, [x.astype(kind)], tolerance=tolerance)
    for op in BINARY:
        CASES[f"{op} {label}"] = Case(op, [reals(kind), reals(kind)[::-1]], tolerance=tolerance)
    CASES[f"Gelu tanh {label}"] = Case(
        "Gelu", [tame(kind)], {"approximate": "tanh"}, tolerance=tolerance
    )
    CASES[f"Pow {label}"] = Case("Pow", [tame(kind), reals(kind)], tolerance=tolerance * 30)
    for power in (0, 1, 2, 3, 4, 0.5, -0.5, -1, -2):
        CASES[f"Pow {power} {label}"] = Case(
            "Pow", [tame(kind), Const(np.array(power, kind))], tolerance=tolerance
        )
    CASES[f"Pow mixed {label}"] = Case(
        "Pow", [tame(kind), whole(np.int32) % 7], tolerance=tolerance * 3
    )
    for fmod in (0, 1):
        CASES[f"Mod {fmod} {label}"] = Case(
            "Mod", [tame(kind) * 9 - 4, tame(kind)[::-1] - 0.5], {"fmod": fmod}, tolerance=tolerance
        )
    CASES[f"Clip {label}"] = Case("Clip", [reals(kind), np.array(-1, kind), np.array(2, kind)])
    CASES[f"Clip low {label}"] = Case("Clip", [reals(kind), Const(np.array(-1, kind)), None])
    CASES[f"Clip high {label}"] = Case("Clip", [reals(kind), None, Const(np.array(1, kind))])
    CASES[f"Where {label}"] = Case("Where", [reals() > 0, reals(kind), reals(kind)])
    CASES[f"SwiGLU {label}"] = Case("SwiGLU", [tame(kind), tame(kind)], tolerance=tolerance)
    CASES[f"many {label}"] = Case("Max", [reals(kind), reals(kind), reals(kind)])
    CASES[f"Sum {label}"] = Case("Sum", [tame(kind)] * 3, tolerance=tolerance)
    CASES[f"Mean {label}"] = Case("Mean", [tame(kind), tame(kind), tame(kind)], tolerance=tolerance)
ANY = RANDOM.integers(0, 2**32, (2, 40_000), np.uint64).astype(np.uint32).view(np.float32)
CASES["fmod of any floats"] = Case("Mod", [ANY[0], ANY[1]], {"fmod": 1}, tolerance=0)
CASES["fmod of near floats"] = Case(
    "Mod", [tame() * 3e4, np.resize(np.float32([0.7, -3, 1e-3, 0.25]), tame().shape)], {"fmod": 1},
    tolerance=0,
)  # fmt: skip
for kind in INTEGERS:
    label = np.dtype(kind).name
    for op in WHOLE:
        divisor = whole(kind)[::-1]
        divisor[divisor == 0] = 3  # a quotient by zero means nothing
        CASES[f"{op} {label}"] = Case(op, [whole(kind), divisor])
    CASES[f"Abs {label}"] = Case("Abs", [whole(kind)])
    CASES[f"Sign {label}"] = Case("Sign", [whole(kind)])
    CASES[f"BitwiseNot {label}"] = Case("BitwiseNot", [whole(kind)])
    CASES[f"Clip {label}"] = Case("Clip", [whole(kind), np.array(3, kind), np.array(50, kind)])
    CASES[f"Pow {label}"] = Case("Pow", [whole(kind), whole(np.uint8).astype(kind) % 5])
    CASES[f"fmod {label}"] = Case("Mod", [whole(kind), whole(kind)[::-1]], {"fmod": 1})
    for target in (DType.F32, DType.F64, DType.F16, DType.BOOL, DType.I8, DType.U32, DType.I64):
        CASES[f"Cast {label} {target.value}"] = Case("Cast", [whole(kind)], {"to": target})
    CASES[f"Cast from f32 {label}"] = Case("Cast", [tame() * 200], {"to": DType.of(kind)})
    if np.dtype(kind).itemsize <= 4:  # numbers beyond 64 bits have none of them
        CASES[f"Cast from far f32 {label}"] = Case("Cast", [FAR], {"to": DType.of(kind)})
for kind in (np.uint8, np.uint32, np.uint64):
    for direction in ("LEFT", "RIGHT"):
        CASES[f"BitShift {direction} {np.dtype(kind).name}"] = Case(
            "BitShift", [whole(kind), whole(kind) % kind(9)], {"direction": direction}
        )
for kind in (np.int8, np.int32, np.int64):
    for direction in ("LEFT", "RIGHT"):
        CASES[f"BitShift {direction} {np.dtype(kind).name}"] = Case(
            "BitShift", [whole(kind) % kind(30), whole(kind) % kind(7)], {"direction": direction}
        )
for op in ("And", "Or", "Xor", "Equal"):
    CASES[f"{op} bool"] = Case(op, [reals() > 0, reals() > 0])
CASES["Not"] = Case("Not", [reals() > 0])
CASES["Cast bool f32"] = Case("Cast", [reals() > 0], {"to": DType.F32})
CASES["Cast f32 bool"] = Case("Cast", [reals()], {"to": DType.BOOL})
CASES["Cast f32 bf16"] = Case("Cast", [reals()], {"to": DType.BF16})
for kind in (DType.F16, DType.BF16):
    CASES[f"RoundTo {kind.value} float32"] = Case("RoundTo", [reals()], {"to": kind}, tolerance=0)
CASES["Add bf16"] = Case("Add", [tame(ml_dtypes.bfloat16), tame(ml_dtypes.bfloat16)])
CASES["CastLike"] = Case("CastLike", [tame() * 9, np.zeros(3, np.int32)])


@pytest.fixture(scope="module", params=[BEST], ids=lambda target: target.name)
def cases(request: pytest.FixtureRequest) -> Cases:
    return Cases(CASES, request.param)


@pytest.mark.parametrize("name", CASES)
def test_operator_gives_what_it_means(cases: Cases, name: str) -> None:
    cases.check(name)


@pytest.fixture(scope="module", params=HERE[1:], ids=lambda target: target.name)
def f32_cases(request: pytest.FixtureRequest) -> Cases:
    return Cases({name: case for name, case in CASES.items() if "float32" in name}, request.param)


@pytest.mark.parametrize("name", [name for name in CASES if "float32" in name])
def test_vectors_of_other_targets(f32_cases: Cases, name: str) -> None:
    f32_cases.check(name)


# -- printing -------------------------------------------------------------------------------------


def body_of(op: str, dtype: DType, count: int = 1) -> Graph:
    graph = Graph("body")
    inputs = [graph.add_input("x", TensorType(dtype, ())) for _ in range(count)]
    graph.set_outputs([graph.add(op, inputs, types=[TensorType(dtype, ())]).output])
    return graph


@pytest.mark.parametrize(
    ("vector", "lines"),
    [
        (True, ["const vf t0 = v_max(v_set1(0.0f), a);"]),
        (False, ["const float t0 = s_max(0.0f, a);"]),
    ],
)
def test_both_forms_come_from_one_template(vector: bool, lines: list[str]) -> None:
    assert print_body(body_of("Relu", DType.F32), ["a"], vector=vector) == (lines, "t0")


def test_known_inputs_become_numbers() -> None:
    known = {1: np.array(2, np.float32)}
    lines, _ = print_body(body_of("Mul", DType.F32, 2), ["a", "b"], vector=True, known=known)
    assert lines == ["const vf t0 = a * v_set1(2.0f);"]


@pytest.mark.parametrize(
    ("op", "dtype", "printable", "vectorisable"),
    [
        ("Add", DType.F32, True, True),
        ("Add", DType.I64, True, False),
        ("Exp", DType.I32, False, False),
        ("Add", DType.C64, False, False),
        ("Add", DType.F16, True, True),
        ("Mod", DType.F16, True, False),
    ],
)
def test_what_has_a_form(op: str, dtype: DType, printable: bool, vectorisable: bool) -> None:
    body = body_of(op, dtype, 1 if op == "Exp" else 2)
    assert (is_printable(body), is_vectorisable(body)) == (printable, vectorisable)


def test_a_third_input_that_is_no_zero_point_may_be_infinite() -> None:
    graph = Graph("body")
    truth, real = TensorType(DType.BOOL, ()), TensorType(DType.F32, ())
    inputs = [graph.add_input("c", truth), graph.add_input("x", real)]
    lowest = graph.add_constant(np.array(-np.inf, np.float32))
    chosen = graph.add("Where", [*inputs, lowest], types=[real])
    graph.set_outputs([chosen.output])
    statements, _ = print_body(graph, ["c", "x"], vector=True)
    assert "INFINITY" in statements[0]
