"""Volumes as frames: every rule keeps the answer, and what has no rule gets its volume back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from tuili.ir import Graph, TensorType
from tuili.ops.infer import infer
from tuili.ops.interpret import run
from tuili.passes.fuse_epilogue import fuse_epilogues
from tuili.passes.volumes import volumes_to_frames
from tuili.tensors import DType, parse_shape

FIXED, OPEN = "2 4 6 7 5", "n 4 d h w"
Attrs = Mapping[str, Any]


class Volume:
    """A graph that is written node by node, from one input of 4 channels."""

    def __init__(self, sizes: str) -> None:
        self.graph = Graph("volume")
        self.rng = np.random.default_rng(0)
        shape = parse_shape([int(each) if each.isdigit() else each for each in sizes.split()])
        self.x = self.graph.add_input("x", TensorType(DType.F32, tuple(shape)))

    def add(self, op: str, *inputs: Any, **attrs: Any) -> Any:
        given = [self.weights(each) if isinstance(each, tuple) else each for each in inputs]
        return self.graph.add(op, given, attrs).output

    def weights(self, shape: tuple[int, ...]) -> Any:
        return self.graph.add_constant(self.rng.standard_normal(shape).astype(np.float32))

    def rewritten(self, *outputs: Any) -> Graph:
        """The graph after the pass, once its answer has been compared with that before."""
        self.graph.set_outputs(outputs)
        contents = infer(self.graph)
        x = self.rng.standard_normal((2, 4, 6, 7, 5)).astype(np.float32)
        before = list(run(self.graph, {"x": x}).values())
        assert volumes_to_frames(self.graph, contents)
        infer(self.graph)
        for old, new in zip(before, run(self.graph, {"x": x}).values(), strict=True):
            assert old.shape == new.shape
            np.testing.assert_allclose(new, old, rtol=1e-4, atol=1e-4)
        return self.graph


def ops(graph: Graph) -> list[str]:
    return [node.op for node in graph.nodes]


CONVOLUTIONS: dict[str, tuple[tuple[int, ...], Attrs]] = {
    "padded": ((3, 4, 3, 3, 3), {"pads": (1,) * 6}),
    "strided": ((3, 4, 3, 2, 3), {"pads": (0, 1, 1, 2, 0, 1), "strides": (2, 1, 2)}),
    "dilated": ((3, 4, 2, 3, 3), {"dilations": (3, 1, 2), "pads": (2, 1, 2, 1, 1, 2)}),
    "one frame": ((3, 4, 1, 3, 3), {"pads": (0, 1, 1, 0, 1, 1)}),
    "depth alone": ((3, 4, 3, 1, 1), {"strides": (2, 1, 1)}),
    "groups": ((6, 2, 3, 3, 3), {"pads": (1,) * 6, "group": 2}),
    "depthwise": ((4, 1, 3, 3, 3), {"pads": (1,) * 6, "group": 4, "strides": (2, 1, 1)}),
}


@pytest.mark.parametrize("sizes", [FIXED, OPEN])
@pytest.mark.parametrize("case", CONVOLUTIONS)
def test_a_convolution_keeps_its_answer(case: str, sizes: str):
    shape, attrs = CONVOLUTIONS[case]
    v = Volume(sizes)
    graph = v.rewritten(v.add("Conv", v.x, shape, (shape[0],), **attrs))
    assert all(len(node.required(0).shape) == 4 for node in graph.nodes if node.op == "Conv")


def test_each_channel_by_itself_is_one_operation_with_what_follows():
    v = Volume(FIXED)
    y = v.add("Conv", v.x, (4, 1, 3, 3, 3), (4,), pads=(1,) * 6, group=4)
    graph = v.rewritten(v.add("Relu", y))
    assert ops(graph).count("EachChannelOfFrames") == 1
    assert not {"Conv", "Frames"} & {*ops(graph)}
    assert fuse_epilogues(graph)
    assert "Relu" not in ops(graph)


@pytest.mark.parametrize("auto", ["SAME_UPPER", "SAME_LOWER", "VALID"])
def test_automatic_padding_of_known_sizes(auto: str):
    v = Volume(FIXED)
    v.rewritten(v.add("Conv", v.x, (3, 4, 3, 4, 2), auto_pad=auto, strides=(2, 2, 1)))


def test_automatic_padding_of_open_sizes_stays():
    v = Volume(OPEN)
    v.graph.set_outputs([v.add("Conv", v.x, (3, 4, 3, 3, 3), auto_pad="SAME_UPPER")])
    assert not volumes_to_frames(v.graph, infer(v.graph))


BEHIND: dict[str, tuple[str, Attrs]] = {
    "largest": (
        "MaxPool",
        {"kernel_shape": (3, 2, 3), "strides": (2, 2, 2), "pads": (1, 0, 1, 1, 1, 1)},
    ),
    "largest of pictures": ("MaxPool", {"kernel_shape": (1, 2, 2), "strides": (1, 2, 2)}),
    "mean": ("AveragePool", {"kernel_shape": (2, 3, 3), "pads": (0, 1, 1, 0, 1, 1)}),
    "mean with padding": (
        "AveragePool",
        {"kernel_shape": (2, 3, 3), "pads": (0, 1, 1, 0, 1, 1), "count_include_pad": 1},
    ),
    "mean of all": ("GlobalAveragePool", {}),
    "largest of all": ("GlobalMaxPool", {}),
    "elements": ("Relu", {}),
}


@pytest.mark.parametrize("sizes", [FIXED, OPEN])
@pytest.mark.parametrize("case", BEHIND)
def test_what_follows_works_on_frames(case: str, sizes: str):
    op, attrs = BEHIND[case]
    v = Volume(sizes)
    made = v.add("Conv", v.x, (4, 4, 3, 3, 3), pads=(1,) * 6)
    graph = v.rewritten(v.add(op, made, **attrs))
    assert all(len(n.required(0).shape) == 4 for n in graph.nodes if n.op == op)


@pytest.mark.parametrize("attrs", [
    {"kernel_shape": (3, 2, 2), "pads": (1, 0, 0, 1, 0, 0), "dilations": (2, 1, 1)},
    {"kernel_shape": (2, 2, 2), "strides": (2, 2, 2), "ceil_mode": 1},
])  # fmt: skip
def test_other_pools_read_the_volume(attrs: Attrs):
    v = Volume(FIXED)
    made = v.add("Conv", v.x, (4, 4, 3, 3, 3), pads=(1,) * 6)
    graph = v.rewritten(v.add("MaxPool", made, **attrs))
    assert [len(n.required(0).shape) for n in graph.nodes if n.op == "MaxPool"] == [5]


@pytest.mark.parametrize("sizes", [FIXED, OPEN])
@pytest.mark.parametrize("gate", ["batch", "constant", "one", "rank 1 to 3"])
def test_gates_and_scales_spread_over_frames(gate: str, sizes: str):
    v = Volume(sizes)
    made = v.add("Conv", v.x, (4, 4, 3, 3, 3), pads=(1,) * 6)
    shapes = {"constant": (1, 4, 1, 1, 1), "one": (1, 1, 1, 1, 1), "rank 1 to 3": (4, 1, 1, 1)}
    scale = v.add("GlobalAveragePool", made) if gate == "batch" else v.weights(shapes[gate])
    graph = v.rewritten(v.add("Add", v.add("Mul", made, scale), made))
    assert not any(len(n.output.shape) == 5 for n in graph.nodes if n.op in ("Mul", "Add"))


@pytest.mark.parametrize("sizes", [FIXED, OPEN])
def test_a_u_net_goes_up_and_joins_on_frames(sizes: str):
    v = Volume(sizes)
    beside = v.add("Conv", v.x, (4, 4, 3, 3, 3), pads=(1,) * 6)
    below = v.add("MaxPool", beside, kernel_shape=(2, 1, 1), strides=(2, 1, 1))
    above = v.add("ConvTranspose", below, (4, 5, 2, 1, 1), (5,), strides=(2, 1, 1))
    if sizes == FIXED:
        above = v.add("Concat", above, beside, axis=1)
    graph = v.rewritten(v.add("Softmax", above, axis=1))
    assert ops(graph)[-3:] == ["Reshape", "Transpose", "Softmax"]
    assert ops(graph).count("Transpose") == 2


def test_a_volume_that_is_read_twice_is_made_once():
    v = Volume(FIXED)
    made = v.add("Conv", v.x, (4, 4, 3, 3, 3), pads=(1,) * 6)
    graph = v.rewritten(made, v.add("Softmax", made, axis=2), v.add("Relu", made))
    assert ops(graph).count("Transpose") == 3  # of the input, the two outputs


def test_unknown_weights_stay():
    v = Volume(FIXED)
    w = v.graph.add_input("w", TensorType(DType.F32, (4, 4, 3, 3, 3)))
    v.graph.set_outputs([v.add("Conv", v.x, w)])
    assert not volumes_to_frames(v.graph, infer(v.graph))


@pytest.mark.parametrize("sizes", [FIXED, OPEN])
@pytest.mark.parametrize(
    ("shape", "attrs"),
    [
        ((6, 4, 3, 3, 3), {"pads": (1,) * 6}),
        ((6, 4, 2, 1, 3), {"strides": (2, 1, 1), "pads": (1, 0, 1, 0, 0, 1)}),
        ((6, 2, 3, 3, 3), {"group": 2, "pads": (1,) * 6}),
        ((4, 1, 3, 3, 3), {"group": 4, "pads": (2, 1, 1, 2, 1, 1)}),
        ((6, 4, 1, 1, 1), {}),
    ],
)
def test_sums_of_codes_stay_exact(sizes: str, shape: tuple[int, ...], attrs: Attrs):
    v = Volume(sizes)
    scale, zero = (v.graph.add_constant(each) for each in (np.float32(0.02), np.uint8(117)))
    codes = v.add("QuantizeLinear", v.x, scale, zero)
    kernel = v.graph.add_constant(v.rng.integers(-127, 128, shape).astype(np.int8))
    bias = v.graph.add_constant(v.rng.integers(-900, 900, shape[0]).astype(np.int32))
    factors = v.graph.add_constant(v.rng.uniform(1e-4, 1e-3, shape[0]).astype(np.float32))
    real = v.add("QConv", codes, kernel, zero, bias, factors, **attrs)
    graph = v.rewritten(
        v.add("DequantizeLinear", v.add("QuantizeLinear", real, scale, zero), scale, zero)
    )
    (product,) = (node for node in graph.nodes if node.op == "QConv")
    assert len(product.output.shape) == 4
