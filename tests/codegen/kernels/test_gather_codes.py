"""Look-ups in tables of codes against their meaning; what no kernel reads runs on the host."""

from __future__ import annotations

from functools import cache
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from tests.codegen.compiled import BEST, Case, Cases, Const, Library
from tuili.codegen.translate import translate
from tuili.ir import Graph, TensorType
from tuili.ops.infer import infer
from tuili.tensors import DType

RNG = np.random.default_rng(4)
OP = "com.microsoft::GatherBlockQuantized"
SOME = np.array([[3, -1], [0, 5]])


def codes(*shape: int) -> np.ndarray:
    return RNG.integers(0, 256, shape).astype(np.uint8)


def nibbles(kind: Any, *shape: int) -> Const:
    low = -8 if kind is ml_dtypes.int4 else 0
    return Const(RNG.integers(low, low + 16, shape).astype(kind))


def floats(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float32)


def attrs(bits: int = 4, axis: int = 0, block: int = 16) -> dict[str, int]:
    return {"bits": bits, "block_size": block, "gather_axis": axis, "quantize_axis": -1}


CASES = {
    **{
        f"{bits} bits, {'zero points' if zeros else 'no zero points'}": Case(
            OP,
            [Const(codes(6, 5 * bits)), SOME, Const(floats(6, 3)), *zeros],
            attrs(bits),
        )
        for bits in (2, 4, 8)
        for zeros in ((), (Const(codes(6, -(-3 * bits // 8))),))
    },
    "i32 indices": Case(
        OP, [Const(codes(6, 16)), np.array([2, 1], np.int32), Const(floats(6, 2))], attrs()
    ),
    "open indices": Case(
        OP, [Const(codes(6, 16)), SOME, Const(floats(6, 1))], attrs(block=32), dims={1: ["B", "S"]}
    ),
    "a table that is not known": Case(OP, [codes(6, 16), SOME, floats(6, 2)], attrs()),
    "lines in rows": Case(
        OP,
        [Const(codes(2, 6, 3, 16)), SOME, Const(floats(2, 6, 3, 2)), Const(codes(2, 6, 3, 1))],
        attrs(axis=1),
    ),
    "u4": Case(OP, [nibbles(ml_dtypes.uint4, 6, 48), SOME, Const(floats(6, 3))], attrs()),
    "u4, zero points": Case(
        OP,
        [
            nibbles(ml_dtypes.uint4, 6, 48), SOME, Const(floats(6, 3)),
            nibbles(ml_dtypes.uint4, 6, 3),
        ],
        attrs(),
    ),
    "i4": Case(OP, [nibbles(ml_dtypes.int4, 6, 48), SOME, Const(floats(6, 3))], attrs()),
    "i4, zero points": Case(
        OP,
        [nibbles(ml_dtypes.int4, 6, 48), SOME, Const(floats(6, 3)), nibbles(ml_dtypes.int4, 6, 3)],
        attrs(),
    ),
}  # fmt: skip


@cache
def compiled() -> Cases:
    return Cases(CASES, BEST, 3)


@pytest.mark.parametrize("name", CASES)
def test_look_ups_equal_their_meaning(name: str) -> None:
    assert not compiled().library.program.host
    compiled().check(name)


def test_an_index_out_of_range_fails_the_run() -> None:
    graph = Graph("range")
    at = graph.add_input("at", TensorType(DType.I64, (2,)))
    table = [graph.add_constant(codes(6, 16)), at, graph.add_constant(floats(6, 2))]
    graph.set_outputs([graph.add(OP, table, attrs(), outputs=["y"]).output])
    library = Library(translate(graph, infer(graph), BEST), BEST)
    with pytest.raises(RuntimeError, match="out of range"):
        library.run({"at": np.array([0, 6])})


@pytest.mark.parametrize(("axis", "along"), [(1, -1), (0, 0)])
def test_blocks_along_another_axis_run_on_the_host(axis: int, along: int) -> None:
    graph = Graph("host")
    at = graph.add_input("at", TensorType(DType.I64, (2,)))
    shape = (6, 2) if along == -1 else (1, 32)
    values = [graph.add_constant(codes(6, 32)), at, graph.add_constant(floats(*shape))]
    more = attrs(8, axis) | {"quantize_axis": along}
    graph.set_outputs([graph.add(OP, values, more, outputs=["y"]).output])
    assert translate(graph, infer(graph), BEST).host
