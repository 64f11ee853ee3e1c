"""Weights that 16 bits can hold, in products and look-ups: the same answers, half of the memory."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import ml_dtypes
import numpy as np
import pytest

from tests.codegen.compiled import BEST, HERE, Case, Cases, Const, Library
from tuili.codegen.kernels.gemm.half_panels import half_type
from tuili.codegen.targets import TARGETS, Target
from tuili.codegen.translate import translate
from tuili.ir import Graph, TensorType
from tuili.ops.infer import infer
from tuili.ops.interpret import run
from tuili.tensors import Array, DType, Sym

RNG = np.random.default_rng(5)
F16, BF16 = np.dtype(np.float16), np.dtype(ml_dtypes.bfloat16)


def normal(*shape: int) -> Array:
    return RNG.standard_normal(shape).astype(np.float32)


def halves(dtype: np.dtype, depth: int, width: int) -> Array:
    """Numbers of every size that the type has, subnormal ones too, as f32."""
    scale = np.exp2(RNG.integers(-24, 2, (depth, width)))
    return (normal(depth, width) * scale).astype(dtype).astype(np.float32)


def case(rows: tuple[int, ...], dtype: np.dtype, width: int = 300, bias: object = None, **more):
    depth = rows[-1]
    return Case(
        "MatMul", [normal(*rows), Const(halves(dtype, depth, width)), bias], tolerance=5e-5, **more
    )


TABLE = Const(halves(F16, 257, 301))

CASES = {
    "one row": case((1, 256), F16),
    "one row of bf16": case((1, 256), BF16),
    "few rows": case((3, 256), BF16, bias=normal(300)),
    "rows": case((37, 256), F16, bias=Const(normal(300))),
    "rows of bf16": case((37, 256), BF16),
    "many rows, tails everywhere": case((500, 221), F16, width=301),
    "deep": case((20, 1100), F16, width=70),
    "open rows": case((37, 600), F16, dims={0: ["M", 600]}),
    "open rows, few": case((2, 600), BF16, dims={0: ["M", 600]}),
    "open batch": case((2, 9, 256), F16, dims={0: ["B", "S", 256]}),
    "no rows": case((0, 256), F16),
    "look-up": Case("Gather", [TABLE, np.array([[3, -1], [0, 256]])], {"axis": 0}),
    "look-up along the columns": Case("Gather", [TABLE, np.array([5, -301])], {"axis": 1}),
    "look-up, open": Case("Gather", [TABLE, np.array([5, 6])], {"axis": 0}, dims={1: ["N"]}),
}


@cache
def compiled(target: Target, threads: int = 1) -> Cases:
    return Cases(CASES, target) if threads == 1 else compiled(target, 1).on(threads)


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("target", HERE, ids=lambda target: target.name)
@pytest.mark.parametrize("name", CASES)
def test_halves_equal_their_meaning(name: str, target: Target, threads: int) -> None:
    compiled(target, threads).check(name)


@pytest.mark.parametrize("target", HERE, ids=lambda target: target.name)
def test_halves_take_half_of_the_file(target: Target) -> None:
    weights = [
        weight.array
        for weight in compiled(target).library.program.weights
        if weight.buffer.name.endswith((".w", ".x"))
    ]
    assert len(weights) == len(CASES) - 2  # look-ups share a table
    assert {array.dtype for array in weights} == {np.dtype(np.uint16)}


@pytest.mark.parametrize("lanes", sorted({target.lanes for target in TARGETS.values()}))
def test_halves_are_widened_without_instructions_for_it(lanes: int) -> None:
    other = next(target for target in TARGETS.values() if target.lanes == lanes)
    flags = ("-DTL_PORTABLE", "-O1", *BEST.flags)
    portable = replace(other, machine=BEST.machine, flags=flags)
    names = ("one row", "rows of bf16")
    cases = Cases({name: CASES[name] for name in names}, portable)
    for name in names:
        cases.check(name)


@pytest.mark.parametrize("target", HERE, ids=lambda target: target.name)
def test_answers_are_those_of_the_same_weights_in_f32(target: Target) -> None:
    graph = Graph("widened")
    x = graph.add_input("x", TensorType(DType.F32, (Sym("N"), 256)))
    weights = halves(F16, 256, 256)
    graph.set_outputs([graph.add("MatMul", [x, graph.add_constant(weights), None]).output])
    library = Library(translate(graph, infer(graph), target), target)
    unit = np.eye(256, dtype=np.float32)  # each answer is one weight
    (found,) = library.run({"x": unit}).values()
    (expected,) = run(graph, {"x": unit}).values()
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(found, weights)


@pytest.mark.parametrize(
    ("weights", "dtype"),
    [
        (halves(F16, 9, 9), DType.F16),
        (halves(BF16, 9, 9), DType.BF16),
        (normal(9, 9), None),
        (np.append(np.zeros(4096), 0.1).astype(np.float32), None),  # beyond the sample
        (np.full((9, 9), np.inf, np.float32), None),
        (np.full((9, 9), np.nan, np.float32), None),
        (np.full((9, 9), 70000, np.float32), None),
    ],
)
def test_the_type_that_holds_weights_exactly(weights: Array, dtype: DType | None) -> None:
    assert half_type(weights) is dtype
