"""Random small graphs mean the same after all passes, whatever is returned and read twice."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from tuili.ir import Graph, TensorType, Value, verify
from tuili.ops.infer import infer
from tuili.ops.interpret import run
from tuili.passes.pipeline import optimise
from tuili.tensors import DType, Sym

SHAPE = (2, 4, 6, 6)
IMAGE = TensorType(DType.F32, (Sym("N"), *SHAPE[1:]))


class Builder:
    """A graph under construction; every step adds one value of the same shape."""

    def __init__(self, choose: Callable[[int], int]) -> None:
        self.graph = Graph()
        self.choose = choose
        self.rng = np.random.default_rng(0)
        self.values = [self.graph.add_input("x", IMAGE), self.graph.add_input("y", IMAGE)]

    def any(self) -> Value:
        # Later values are likelier, so that graphs grow deep.
        return self.values[-1 - self.choose(len(self.values)) ** 2 // len(self.values)]

    def weights(self, *shape: int) -> Value:
        array = self.rng.uniform(0.5, 1.5, shape).astype(np.float32)
        return self.graph.add_constant(array, "w")

    def ints(self, *numbers: int) -> Value:
        return self.graph.add_constant(np.array(numbers, np.int64), "i")

    def node(self, op: str, inputs: list[Value], **attrs) -> Value:
        return self.graph.add(op, inputs, attrs).output


def unary(b: Builder) -> Value:
    ops = ("Relu", "Sigmoid", "Neg", "Abs", "Tanh", "HardSigmoid", "Identity", "HardSwish")
    return b.node(ops[b.choose(len(ops))], [b.any()])


def binary(b: Builder) -> Value:
    op = ("Add", "Sub", "Mul", "Max")[b.choose(4)]
    return b.node(op, [b.any(), b.any()])


def with_constant(b: Builder) -> Value:
    shape = ((), (4, 1, 1), (1, 4, 1, 1), (6,), (4, 6, 6))[b.choose(5)]
    operands = [b.any(), b.weights(*shape)]
    return b.node(("Add", "Mul", "Sub", "Div")[b.choose(4)], operands[:: 1 - 2 * b.choose(2)])


def conv(b: Builder) -> Value:
    inputs = [b.any(), b.weights(4, 4, 3, 3), b.weights(4)][: 2 + b.choose(2)]
    return b.node("Conv", inputs, pads=(1, 1, 1, 1))


def depthwise(b: Builder) -> Value:
    return b.node("Conv", [b.any(), b.weights(4, 1, 3, 3)], pads=(1, 1, 1, 1), group=4)


def padded_conv(b: Builder) -> Value:
    padded = b.node("Pad", [b.any(), b.ints(0, 0, 2, 1, 0, 0, 2, 3)])
    return b.node("Conv", [padded, b.weights(4, 4, 5, 5)])


def batch_norm(b: Builder) -> Value:
    return b.node("BatchNormalization", [b.any(), *(b.weights(4) for _ in range(4))])


def matmul(b: Builder) -> Value:
    return b.node("MatMul", [b.any(), b.weights(6, 6)])


def views(b: Builder) -> Value:
    flat = b.node("Reshape", [b.any(), b.ints(0, -1)])
    return b.node("Reshape", [b.node("Unsqueeze", [flat, b.ints(1)]), b.ints(-1, 4, 6, 6)])


def transposes(b: Builder) -> Value:
    once = b.node("Transpose", [b.any()], perm=(0, 2, 3, 1))
    return b.node("Transpose", [once], perm=(0, 3, 1, 2))


def gate(b: Builder) -> Value:
    x = b.any()
    mean = b.node("ReduceMean", [x, b.ints(2, 3)])
    return b.node("Mul", [x, b.node("Sigmoid", [b.node("Conv", [mean, b.weights(4, 4, 1, 1)])])])


def halves(b: Builder) -> Value:
    x = b.any()
    first = b.node("Slice", [x, b.ints(0), b.ints(2), b.ints(1)])
    second = b.node("Slice", [x, b.ints(2), b.ints(4), b.ints(1)])
    return b.node("Concat", [second, first], axis=1)


def pool(b: Builder) -> Value:
    op = ("MaxPool", "AveragePool")[b.choose(2)]
    return b.node(op, [b.any()], kernel_shape=(3, 3), pads=(1, 1, 1, 1))


def softmax(b: Builder) -> Value:
    return b.node("Softmax", [b.any()], axis=-1)


STEPS = (
    unary, binary, with_constant, conv, depthwise, padded_conv, batch_norm, matmul, views,
    transposes, gate, halves, pool, softmax,
)  # fmt: skip


@st.composite
def graphs(draw: st.DrawFn) -> Graph:
    builder = Builder(lambda count: draw(st.integers(0, count - 1)))
    for step in draw(st.lists(st.sampled_from(STEPS), min_size=1, max_size=12)):
        # Values stay near 1, so that one tolerance fits all.
        builder.values.append(
            builder.node("Tanh", [step(builder)]) if step is conv else step(builder)
        )
    picked = draw(st.lists(st.sampled_from(builder.values), min_size=1, max_size=3, unique=True))
    builder.graph.set_outputs([value for value in picked if value.producer] or builder.values[-1:])
    return builder.graph


@given(graphs(), st.sampled_from([4, 16]))
@settings(max_examples=60)
def test_passes_keep_the_meaning(graph: Graph, block: int) -> None:
    infer(graph)
    rng = np.random.default_rng(1)
    feeds = {v.name: rng.uniform(-1, 1, SHAPE).astype(np.float32) for v in graph.inputs}
    before = run(graph, feeds)
    optimise(graph, block=block, on_pass=lambda name, found: verify(found, after=name))
    infer(graph)
    verify(graph)
    after = run(graph, feeds)
    assert list(after) == list(before)
    for name, array in before.items():
        scale = max(1.0, float(np.abs(array[np.isfinite(array)]).max(initial=0)))
        np.testing.assert_allclose(after[name], array, rtol=1e-3, atol=1e-4 * scale)
