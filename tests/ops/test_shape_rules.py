"""Shape rules: symbolic shapes, evaluated, are the shapes that the meanings return."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tuili.ir import Graph, TensorType
from tuili.ops.infer import infer
from tuili.ops.interpret import run
from tuili.tensors import Array, Dim, DType, Sym, evaluate
from tuili.tensors.dims import symbols_of

SIZES = st.integers(1, 9)


def shapes(rank: int, sizes: st.SearchStrategy[int] = SIZES) -> st.SearchStrategy[list[int]]:
    return st.lists(sizes, min_size=rank, max_size=rank)


class Builder:
    """A graph of one operator whose data inputs have symbolic shapes."""

    def __init__(self, draw: st.DrawFn) -> None:
        self.draw = draw
        self.graph = Graph()
        self.feeds: dict[str, Array] = {}
        self.sizes: dict[str, int] = {}

    def data(self, shape: list[int], dtype: Any = np.float32) -> Any:
        """An input; each of its dims is a symbol or a number."""
        name = f"x{len(self.feeds)}"
        dims: list[Dim] = []
        for axis, size in enumerate(shape):
            if self.draw(st.booleans()):
                symbol = f"{name}_{axis}"
                self.sizes[symbol] = size
                dims.append(Sym(symbol))
            else:
                dims.append(size)
        kind = DType.of(dtype)
        self.feeds[name] = np.arange(np.prod(shape)).reshape(shape).astype(dtype)
        return self.graph.add_input(name, TensorType(kind, tuple(dims)))

    def ints(self, values: Any) -> Any:
        return self.graph.add_constant(np.array(values, np.int64))

    def check(self, op: str, inputs: list[Any], attrs: dict[str, Any], outputs: int = 1) -> None:
        node = self.graph.add(op, inputs, attrs, outputs=[f"y{k}" for k in range(outputs)])
        self.graph.set_outputs(node.outputs)
        infer(self.graph)
        found = run(self.graph, self.feeds)
        for value in node.outputs:
            array = found[value.name]
            assert value.dtype is DType.of(array.dtype)
            assert len(value.shape) == array.ndim
            for dim, size in zip(value.shape, array.shape, strict=True):
                if symbols_of(dim) <= set(self.sizes):
                    assert evaluate(dim, self.sizes) == size, (str(value.type), array.shape)


Case = Callable[[Builder, st.DrawFn], None]


def broadcasting(b: Builder, draw: st.DrawFn) -> None:
    full = draw(shapes(draw(st.integers(0, 4))))
    parts: list[list[int]] = []
    for _ in range(2):
        kept = [size if draw(st.booleans()) else 1 for size in full]
        parts.append(kept[draw(st.integers(0, len(kept))) :])
    b.check(draw(st.sampled_from(["Add", "Mul", "Max"])), [b.data(p) for p in parts], {})


def matmul(b: Builder, draw: st.DrawFn) -> None:
    batch = draw(shapes(draw(st.integers(0, 2))))
    m, k, n = draw(shapes(3))
    left = [*batch, m, k] if draw(st.booleans()) else [k]
    right = [*batch[draw(st.integers(0, len(batch))) :], k, n] if draw(st.booleans()) else [k]
    b.check("MatMul", [b.data(left), b.data(right)], {})


def windows(draw: st.DrawFn, rank: int) -> dict[str, Any]:
    attrs: dict[str, Any] = {"strides": tuple(draw(shapes(rank, st.integers(1, 3))))}
    if draw(st.booleans()):
        attrs["auto_pad"] = draw(st.sampled_from(["SAME_UPPER", "SAME_LOWER", "VALID"]))
    else:
        attrs["pads"] = tuple(draw(shapes(2 * rank, st.integers(0, 1))))
        attrs["dilations"] = tuple(draw(shapes(rank, st.integers(1, 2))))
    return attrs


def convolution(b: Builder, draw: st.DrawFn) -> None:
    rank = draw(st.integers(1, 2))
    group = draw(st.integers(1, 2))
    x = [draw(SIZES), 2 * group, *draw(shapes(rank, st.integers(6, 12)))]
    kernel = draw(shapes(rank, st.integers(1, 3)))
    weights = b.graph.add_constant(np.ones([3 * group, 2, *kernel], np.float32))
    b.check("Conv", [b.data(x), weights], {**windows(draw, rank), "group": group})


def transposed(b: Builder, draw: st.DrawFn) -> None:
    rank = draw(st.integers(1, 2))
    x = [draw(SIZES), 2, *draw(shapes(rank, st.integers(3, 8)))]
    weights = np.ones([2, 3, *draw(shapes(rank, st.integers(2, 4)))], np.float32)
    attrs = windows(draw, rank)
    b.check("ConvTranspose", [b.data(x), b.graph.add_constant(weights)], attrs)


def pool(b: Builder, draw: st.DrawFn) -> None:
    rank = draw(st.integers(1, 2))
    x = [draw(SIZES), 2, *draw(shapes(rank, st.integers(6, 12)))]
    attrs = windows(draw, rank)
    attrs["kernel_shape"] = tuple(draw(shapes(rank, st.integers(2, 3))))
    attrs["ceil_mode"] = draw(st.integers(0, 1)) if "auto_pad" not in attrs else 0
    b.check(draw(st.sampled_from(["MaxPool", "AveragePool"])), [b.data(x)], attrs)


def reshape(b: Builder, draw: st.DrawFn) -> None:
    n, c, h, w = draw(shapes(4))
    target = draw(
        st.sampled_from(
            [[0, -1], [0, 0, -1], [-1, c, h, w], [n, c, h * w], [0, c, -1, w], [-1], [0, -1, 0, 0]]
        )
    )
    b.check("Reshape", [b.data([n, c, h, w]), b.ints(target)], {})


def slices(b: Builder, draw: st.DrawFn) -> None:
    shape = draw(shapes(3))
    axes = draw(st.permutations(range(3)))[: draw(st.integers(1, 3))]
    bound = st.one_of(st.integers(-12, 12), st.sampled_from([2**31 - 1, -(2**63), 2**63 - 1]))
    starts, ends = (draw(shapes(len(axes), bound)) for _ in range(2))
    steps = draw(shapes(len(axes), st.sampled_from([1, 2, 3, -1, -2])))
    b.check("Slice", [b.data(shape), *map(b.ints, (starts, ends, axes, steps))], {})


def pads(b: Builder, draw: st.DrawFn) -> None:
    shape = draw(shapes(2, st.integers(3, 8)))
    amounts = draw(shapes(4, st.integers(-1, 2)))
    b.check("Pad", [b.data(shape), b.ints(amounts)], {})


def concat(b: Builder, draw: st.DrawFn) -> None:
    shape = draw(shapes(3))
    axis = draw(st.integers(-3, 2))
    parts = []
    for _ in range(draw(st.integers(1, 3))):
        part = list(shape)
        part[axis] = draw(SIZES)
        parts.append(b.data(part))
    b.check("Concat", parts, {"axis": axis})


def split(b: Builder, draw: st.DrawFn) -> None:
    shape = draw(shapes(2, st.integers(4, 9)))
    count = draw(st.integers(1, 3))
    attrs = {"axis": draw(st.integers(-2, 1)), "num_outputs": count}
    b.check("Split", [b.data(shape), None], attrs, count)


def gather(b: Builder, draw: st.DrawFn) -> None:
    axis = draw(st.integers(-3, 2))
    indices = np.zeros(draw(shapes(draw(st.integers(0, 2)))), np.int64)
    b.check("Gather", [b.data(draw(shapes(3))), b.ints(indices)], {"axis": axis})


def reduction(b: Builder, draw: st.DrawFn) -> None:
    axes = draw(st.permutations(range(3)))[: draw(st.integers(0, 3))]
    attrs = {"keepdims": draw(st.integers(0, 1)), "noop_with_empty_axes": draw(st.integers(0, 1))}
    op = draw(st.sampled_from(["ReduceSum", "ReduceMax", "ReduceMean", "ReduceL2"]))
    b.check(op, [b.data(draw(shapes(3))), b.ints(axes)], attrs)


def resize(b: Builder, draw: st.DrawFn) -> None:
    scales = draw(shapes(2, st.sampled_from([0.5, 1.0, 1.5, 2.0, 2.4, 3.3])))
    constant = b.graph.add_constant(np.array(scales, np.float32))
    b.check("Resize", [b.data(draw(shapes(2))), None, constant], {"mode": "nearest"})


def expand(b: Builder, draw: st.DrawFn) -> None:
    full = draw(shapes(3))
    source = [size if draw(st.booleans()) else 1 for size in full][draw(st.integers(0, 3)) :]
    b.check("Expand", [b.data(source), b.ints(full)], {})


def blocks(b: Builder, draw: st.DrawFn) -> None:
    n, c, h, w = draw(shapes(4, st.integers(1, 3)))
    b.check("SpaceToDepth", [b.data([n, c, 2 * h, 2 * w])], {"blocksize": 2})


def others(b: Builder, draw: st.DrawFn) -> None:
    x = b.data(draw(shapes(3)))
    op, inputs, attrs = draw(
        st.sampled_from(
            [
                ("Transpose", [], {"perm": (2, 0, 1)}),
                ("Transpose", [], {}),
                ("Flatten", [], {"axis": -1}),
                ("Flatten", [], {"axis": 0}),
                ("Unsqueeze", [b.ints([0, -1])], {}),
                ("Tile", [b.ints([1, 2, 3])], {}),
                ("ArgMax", [], {"axis": -2, "keepdims": 0}),
                ("Softmax", [], {"axis": 1}),
                ("TopK", [b.ints([1])], {"axis": 0}),
                ("Shape", [], {"start": 1}),
                ("Size", [], {}),
                ("NonZero", [], {}),
                ("CumSum", [b.ints(1)], {}),
                ("Einsum", [], {"equation": "abc->cb"}),
                ("GlobalAveragePool", [], {}),
                ("LayerNormalization", [b.graph.add_constant(np.ones(1, np.float32))], {}),
            ]
        )
    )
    b.check(op, [x, *inputs], attrs, 2 if op == "TopK" else 1)


CASES: list[Case] = [
    broadcasting, matmul, convolution, transposed, pool, reshape, slices, pads, concat, split,
    gather, reduction, resize, expand, blocks, others,
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_symbolic_shape_is_the_real_one(case: Case, data: st.DataObject) -> None:
    case(Builder(data.draw), data.draw)
