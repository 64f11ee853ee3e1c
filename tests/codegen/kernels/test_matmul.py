"""MatMul kernels against the NumPy meaning: packed, batched and plain, on every target."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.codegen.compiled import HERE, Case, Cases, Const, Library
from tuili.codegen.kernels.gemm.matmul import pack_columns
from tuili.codegen.kernels.gemm.rows import cut_rows
from tuili.codegen.kernels.gemm.tile import Tile, rank_tiles, split_rows
from tuili.codegen.targets import Target, find_target
from tuili.codegen.translate import translate
from tuili.ir import Graph, TensorType
from tuili.ops.infer import infer
from tuili.ops.interpret import run
from tuili.passes.fuse_epilogue import fuse_epilogues
from tuili.tensors import Array, DType, Sym

RNG = np.random.default_rng(1)


def normal(*shape: int) -> Array:
    return RNG.standard_normal(shape).astype(np.float32)


def whole(dtype: type, *shape: int) -> Array:
    return RNG.integers(-9, 9, shape).astype(dtype)


def double(*shape: int) -> Array:
    return RNG.standard_normal(shape)


CASES = {
    "vector of rows": Case("MatMul", [normal(1, 64), Const(normal(64, 10))]),
    "tails everywhere": Case("MatMul", [normal(30, 33), Const(normal(33, 70))]),
    "three dims": Case("MatMul", [normal(3, 5, 17), Const(normal(17, 32))]),
    "open rows": Case("MatMul", [normal(37, 24), Const(normal(24, 40))], dims={0: ["M", 24]}),
    "open batch": Case(
        "MatMul", [normal(2, 9, 24), Const(normal(24, 64))], dims={0: ["B", "S", 24]}
    ),
    "many row blocks": Case("MatMul", [normal(500, 8), Const(normal(8, 96))]),
    "deep": Case(
        "MatMul", [normal(40, 700), Const(normal(700, 40)), Const(normal(40))], tolerance=5e-5
    ),
    "deep, open rows": Case(
        "MatMul",
        [normal(150, 601), Const(normal(601, 16))],
        dims={0: ["M", 601]},
        tolerance=5e-5,
    ),
    "no rows": Case("MatMul", [normal(0, 7), Const(normal(7, 3))]),
    "no depth": Case("MatMul", [normal(4, 0), Const(normal(0, 3))]),
    "bias": Case("MatMul", [normal(5, 9), Const(normal(9, 33)), Const(normal(33))]),
    "one vector": Case("MatMul", [normal(7), Const(normal(7, 5))]),
    "batched": Case("MatMul", [normal(4, 12, 8), normal(4, 8, 20)]),
    "far rows, copied": Case("MatMul", [normal(2, 60, 30), normal(2, 30, 300)]),
    "far rows, open": Case(
        "MatMul",
        [normal(60, 30), normal(30, 300)],
        dims={0: ["M", "K"], 1: ["K", "N"]},
    ),
    "batch broadcasts": Case("MatMul", [normal(2, 3, 50, 20), normal(3, 20, 70)]),
    "batch broadcasts both ways": Case("MatMul", [normal(2, 1, 9, 4), normal(5, 4, 16)]),
    "all dims open": Case(
        "MatMul",
        [normal(2, 37, 19), normal(2, 19, 21)],
        dims={0: ["B", "M", "K"], 1: ["B", "K", "N"]},
    ),
    "vector times matrix": Case("MatMul", [normal(7), normal(7, 5)]),
    "matrix times vector": Case("MatMul", [normal(3, 7), normal(7)]),
    "vector times vector": Case("MatMul", [normal(7), normal(7)]),
    "i32": Case("MatMul", [whole(np.int32, 3, 4), whole(np.int32, 4, 5)]),
    "i64 batched": Case("MatMul", [whole(np.int64, 2, 3, 4), whole(np.int64, 4, 5)]),
    "f64": Case("MatMul", [double(3, 4), double(4, 5)], tolerance=1e-13),
    "f64 far rows": Case("MatMul", [double(60, 30), double(30, 301)], tolerance=1e-12),
    "f64 weights": Case("MatMul", [double(2, 33, 64), Const(double(64, 32))], tolerance=1e-12),
    "f64 all dims open": Case(
        "MatMul",
        [double(2, 37, 19), double(2, 19, 21)],
        dims={0: ["B", "M", "K"], 1: ["B", "K", "N"]},
        tolerance=1e-13,
    ),
}


@cache
def compiled(target: Target, threads: int) -> Cases:
    return Cases(CASES, target) if threads == 1 else compiled(target, 1).on(threads)


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("target", HERE, ids=lambda target: target.name)
@pytest.mark.parametrize("name", CASES)
def test_matmul_equals_its_meaning(name: str, target: Target, threads: int) -> None:
    compiled(target, threads).check(name)


@pytest.mark.parametrize("target", HERE, ids=lambda target: target.name)
def test_bias_residual_and_activation_are_applied_in_the_store(target: Target) -> None:
    graph = Graph("epilogue")
    feeds = {"x": normal(13, 20), "r": normal(13, 37)}
    x, r = (graph.add_input(name, TensorType(DType.F32, a.shape)) for name, a in feeds.items())
    y = graph.add("MatMul", [x, graph.add_constant(normal(20, 37), "w"), None]).output
    biased = graph.add("Add", [y, graph.add_constant(normal(37), "b")]).output
    total = graph.add("Add", [r, biased]).output
    graph.set_outputs([graph.add("Sigmoid", [total], outputs=["z"]).output])
    infer(graph)
    expected = run(graph, feeds)["z"]
    assert fuse_epilogues(graph)
    assert [node.op for node in graph.nodes] == ["MatMul"]
    library = Library(translate(graph, infer(graph), target), target)
    np.testing.assert_allclose(library.run(feeds)["z"], expected, rtol=2e-6, atol=1e-6)


@pytest.mark.parametrize("target", HERE, ids=lambda target: target.name)
def test_a_row_has_the_same_bits_whatever_rows_are_beside_it(target: Target) -> None:
    graph = Graph("rows")
    x = graph.add_input("x", TensorType(DType.F32, (Sym("N"), 50)))
    w = graph.add_constant(normal(50, 70), "w")
    graph.set_outputs([graph.add("MatMul", [x, w, None], outputs=["y"]).output])
    library = Library(translate(graph, infer(graph), target), target)
    rows = normal(33, 50)
    alone = np.concatenate([library.run({"x": rows[i : i + 1]})["y"] for i in range(33)])
    for count in (2, 3, 5, 14, 15, 33):
        together = library.run({"x": rows[:count]})["y"]
        np.testing.assert_array_equal(together, alone[:count])


@given(st.integers(1, 400), st.integers(1, 14))
def test_rows_are_split_into_few_tiles_of_nearly_equal_height(total: int, most: int) -> None:
    heights = split_rows(total, most)
    assert sum(heights) == total
    assert len(heights) == -(-total // most)
    assert max(heights) - min(heights) <= 1


@given(st.integers(1, 9), st.integers(1, 40), st.sampled_from([8, 16, 32]))
def test_packed_panels_hold_the_matrix_and_zeros(depth: int, width: int, columns: int) -> None:
    matrix = np.arange(depth * width, dtype=np.float32).reshape(depth, width)
    panels = pack_columns(matrix, columns)
    flat = panels.transpose(1, 0, 2).reshape(depth, -1)
    np.testing.assert_array_equal(flat[:, :width], matrix)
    assert not flat[:, width:].any()


@pytest.mark.parametrize(
    ("rows", "columns", "best"),
    [
        (128, 384, "6x2"),
        (1, 64, "2x4"),  # two chains would leave the multipliers idle
        (1, 214, "1x7"),
        (40, 120, "4x3"),  # fifteen vectors: pairs leave one empty
        (3, 2, "6x2"),
    ],
)
def test_the_tile_fits_rows_and_columns(rows: int, columns: int, best: str) -> None:
    target = find_target("x86-64-avx2")
    tiles = rank_tiles(target, stride_bytes=4 * 96, columns=columns, rows=rows)
    assert str(tiles[0]) == best
    assert len(set(tiles)) == len(tiles) <= 3


@pytest.mark.parametrize(("rows", "block"), [(0, 1), (40, 40), (128, 128), (197, 99), (1500, 137)])
def test_blocks_of_rows_are_nearly_equal(rows: int, block: int) -> None:
    cut = cut_rows(rows, Tile(14, 2), 112)
    assert cut.block == block
    assert set(split_rows(block, 14)) <= set(cut.heights) or not rows


@pytest.mark.parametrize(("depth", "best"), [(768, "14x2"), (1024, "6x4"), (1536, "6x4")])
def test_rows_that_share_few_sets_of_the_cache_are_few(depth: int, best: str) -> None:
    target = find_target("x86-64-avx512")
    assert str(rank_tiles(target, stride_bytes=4 * depth, columns=768, rows=128)[0]) == best
