"""Products with weights of a few bits against their meaning, on every target."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest

from tests.codegen.compiled import RUNNABLE, Case, Cases, Const, Library, one_per
from tuili.codegen.kernels.gemm.code_dots import CODE_DOTS
from tuili.codegen.kernels.gemm.code_panels import CodePanels
from tuili.codegen.targets import Target, find_target
from tuili.codegen.translate import translate
from tuili.ir import Graph, TensorType
from tuili.ops.infer import infer
from tuili.ops.interpret import run
from tuili.passes.fuse_epilogue import fuse_epilogues
from tuili.tensors import Array, DType, Sym

HERE = one_per(lambda target: CODE_DOTS.get(target.name), RUNNABLE)

RNG = np.random.default_rng(3)
OP = "com.microsoft::MatMulNBits"


def normal(*shape: int) -> Array:
    return RNG.standard_normal(shape).astype(np.float32)


def whole(*shape: int) -> Array:
    """Numbers that are 8-bit codes already, with a largest one in every chunk of 16."""
    codes = RNG.integers(-127, 128, shape).astype(np.float32)
    codes[..., ::16] = 127
    return codes / 64


def weights(
    depth: int, width: int, block: int = 16, bits: int = 4, zeros: str = "", level: int = 0
) -> tuple[list[Any], dict[str, Any]]:
    """Drawn codes, scales and zero points (`codes` or `floats`), and the attributes."""
    blocks = -(-depth // block)
    codes = RNG.integers(0, 256, (width, blocks, -(-block * bits // 8))).astype(np.uint8)
    scales = (RNG.uniform(0.5, 1.5, (width, blocks)) / 2**bits).astype(np.float32)
    points = {
        "": None,
        "codes": Const(RNG.integers(0, 256, (width, -(-blocks * bits // 8))).astype(np.uint8)),
        "floats": Const((RNG.uniform(0, 1, (width, blocks)) * 2**bits).astype(np.float32)),
    }
    attrs = {"K": depth, "N": width, "block_size": block, "bits": bits}
    attrs |= {"accuracy_level": level} if level else {}
    return [Const(codes), Const(scales), points[zeros], None, None], attrs


def case(x: Array, weights: tuple[list[Any], dict[str, Any]], bias: Any = None, **more: Any):
    inputs, attrs = weights
    return Case(OP, [x, *inputs[:4], bias], attrs, tolerance=5e-5, **more)


FORMS = [
    *[(4, 32, zeros, rows) for zeros in ("", "codes", "floats") for rows in (1, 9)],
    (1, 16, "", 3),
    (2, 32, "codes", 1),
    (2, 16, "", 9),
    (3, 64, "floats", 3),
    (4, 48, "codes", 3),
    (6, 32, "codes", 2),
    (8, 32, "", 1),
    (8, 16, "codes", 9),
]  # bits, block, zero points, rows
CASES = {
    **{
        f"{bits} bits, blocks of {block}, {zeros or 'no'} zero points, {rows} rows, level {level}":
        case(x(rows, 70), weights(70, 43, block, bits, zeros, level))
        for bits, block, zeros, rows in FORMS
        for level, x in ((0, normal), (4, whole))
    },
    "many rows": case(normal(500, 40), weights(40, 96)),
    "deep": case(normal(20, 1100), weights(1100, 70, 128)),
    "deep, blocks across pieces": case(normal(20, 1100), weights(1100, 33, 1024, 4, "codes")),
    "deep, one row": case(normal(1, 1100), weights(1100, 70, 256)),
    "open rows": case(normal(37, 600), weights(600, 40, 32), dims={0: ["M", 600]}),
    "open rows, few": case(normal(2, 600), weights(600, 40, 32), dims={0: ["M", 600]}),
    "open batch": case(normal(2, 9, 24), weights(24, 64), dims={0: ["B", "S", 24]}),
    "a block of many rows and one of one": case(normal(2577, 40), weights(40, 9)),
    "known bias": case(normal(5, 32), weights(32, 70), Const(normal(70))),
    "bias": case(normal(5, 32), weights(32, 70), normal(70)),
    "bias, one row": case(normal(1, 32), weights(32, 128), normal(128)),
    "one vector": case(normal(32), weights(32, 5)),
    "no rows": case(normal(0, 32), weights(32, 5)),
    "level 4, open rows": case(
        whole(37, 600), weights(600, 40, 128, level=4), dims={0: ["M", 600]}
    ),
    "level 4, bias": case(whole(5, 32), weights(32, 70, level=4), normal(70)),
    "level 4, many rows": case(whole(300, 64), weights(64, 70, 32, level=4), Const(normal(70))),
    "level 4, odd blocks": case(whole(5, 60), weights(60, 20, 20, level=4)),
    "level 4, no rows": case(whole(0, 32), weights(32, 5, level=4)),
}  # fmt: skip


@cache
def compiled(target: Target, threads: int) -> Cases:
    return Cases(CASES, target) if threads == 1 else compiled(target, 1).on(threads)


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("target", HERE, ids=lambda target: target.name)
@pytest.mark.parametrize("name", CASES)
def test_products_with_codes_equal_their_meaning(name: str, target: Target, threads: int) -> None:
    cases = compiled(target, threads)
    assert not cases.library.program.host
    cases.check(name)


@pytest.mark.parametrize("target", HERE, ids=lambda target: target.name)
def test_threads_change_no_bit(target: Target) -> None:
    one, three = compiled(target, 1), compiled(target, 3)
    for name, array in one.got.items():
        np.testing.assert_array_equal(array, three.got[name])


def _product(x: Any, graph: Graph, depth: int, width: int, level: int = 0) -> Any:
    inputs, attrs = weights(depth, width, 32, 4, "codes", level)
    values = [None if each is None else graph.add_constant(each.array) for each in inputs]
    return graph.add(OP, [x, *values], attrs).output


@pytest.mark.parametrize("level", [0, 4])
@pytest.mark.parametrize("target", HERE, ids=lambda target: target.name)
def test_a_row_has_the_same_bits_whatever_rows_are_beside_it(target: Target, level: int) -> None:
    graph = Graph("rows")
    x = graph.add_input("x", TensorType(DType.F32, (Sym("N"), 700)))
    graph.set_outputs([_product(x, graph, 700, 70, level)])
    library = Library(translate(graph, infer(graph), target), target)
    rows, name = normal(33, 700), graph.outputs[0].name
    alone = np.concatenate([library.run({"x": rows[i : i + 1]})[name] for i in range(33)])
    for count in (2, 3, 5, 7, 14, 15, 33):
        together = library.run({"x": rows[:count]})[name]
        np.testing.assert_array_equal(together, alone[:count])


def _rounded(x: Array) -> Array:
    """What is left of rows in 8 bits, a scale for every 32 numbers."""
    padded = np.pad(x, ((0, 0), (0, -x.shape[1] % 32))).reshape(len(x), -1, 32)
    top = np.abs(padded).max(-1, keepdims=True)
    codes = np.rint(padded * (np.float32(127) / np.where(top > 0, top, 1)))
    return (codes * (top / 127)).reshape(len(x), -1)[:, : x.shape[1]].astype(np.float32)


@pytest.mark.parametrize("target", HERE, ids=lambda target: target.name)
def test_level_4_rounds_rows_to_8_bits_unless_exact(target: Target) -> None:
    graph = Graph("level")
    x = graph.add_input("x", TensorType(DType.F32, (6, 200)))
    graph.set_outputs([_product(x, graph, 200, 37, level=4)])
    rows, contents, name = normal(6, 200), infer(graph), graph.outputs[0].name
    rows[2] = 0
    rows[3] *= 1e-20
    for exact in (False, True):
        program = translate(graph, contents, target, exact=exact)
        rounds = target.name in CODE_DOTS and not exact
        expected = run(graph, {"x": _rounded(rows) if rounds else rows})[name]
        found = Library(program, target).run({"x": rows})[name]
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("odd", [np.nan, np.inf])
@pytest.mark.parametrize("target", HERE, ids=lambda target: target.name)
def test_what_is_no_number_stays_in_its_row(target: Target, odd: float) -> None:
    graph = Graph("odd")
    x = graph.add_input("x", TensorType(DType.F32, (3, 64)))
    graph.set_outputs([_product(x, graph, 64, 20, level=4)])
    rows = normal(3, 64)
    rows[1, 40] = odd
    found = Library(translate(graph, infer(graph), target), target).run({"x": rows})
    (y,) = found.values()
    assert not np.isfinite(y[1]).any()
    assert np.isfinite(y[::2]).all()


@pytest.mark.parametrize("rows", [1, 13])
@pytest.mark.parametrize("target", HERE, ids=lambda target: target.name)
def test_what_follows_a_product_is_applied_in_its_store(target: Target, rows: int) -> None:
    graph = Graph("gate")
    feeds = {"x": normal(rows, 64), "up": normal(rows, 37)}
    x, up = (graph.add_input(name, TensorType(DType.F32, a.shape)) for name, a in feeds.items())
    biased = graph.add(
        "Add", [_product(x, graph, 64, 37), graph.add_constant(normal(37), "b")]
    ).output
    gate = graph.add("Mul", [biased, graph.add("Sigmoid", [biased]).output]).output
    graph.set_outputs([graph.add("Mul", [gate, up], outputs=["z"]).output])
    infer(graph)
    expected = run(graph, feeds)["z"]
    assert fuse_epilogues(graph)
    assert [node.op for node in graph.nodes] == [OP]
    library = Library(translate(graph, infer(graph), target), target)
    assert not library.program.host
    np.testing.assert_allclose(library.run(feeds)["z"], expected, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_panels_take_as_many_bits_as_codes_have(bits: int) -> None:
    lanes = find_target("x86-64-avx2").lanes
    panels = CodePanels(bits, lanes, 32, has_zeros=False, depth=50)
    codes = RNG.integers(0, 2**bits, (2 * panels.columns, 50)).astype(np.uint8)
    packed = panels.pack(codes)
    assert packed.shape == (2, 50, panels.columns * bits // 8)
    assert packed.nbytes == codes.size * bits // 8
