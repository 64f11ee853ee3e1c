"""Convolutions as products of panels agree with the operators' meaning: weights that come late."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest

from tests.codegen.compiled import HERE, Case, Cases, Const
from tests.codegen.kernels.conv_cases import check, scalar_body, weights_of, window_node
from tuili.codegen.targets import Target
from tuili.tensors import Array

# One worker compiles all cases.
pytestmark = pytest.mark.xdist_group("conv_columns")

RNG = np.random.default_rng(3)


def normal(*shape: int) -> Array:
    return RNG.standard_normal(shape).astype(np.float32)


def late(op: str, *shapes: tuple[int, ...], **attrs: Any) -> Case:
    """A node all of whose inputs come from the run."""
    return Case(op, [normal(*shape) for shape in shapes], attrs, tolerance=1e-4)


def double(case: Case) -> Case:
    inputs = [array.astype(np.float64) for array in case.inputs]
    return Case(case.op, inputs, case.attrs, tolerance=1e-12)


IMAGE, WEIGHTS = (2, 6, 9, 23), (8, 6, 3, 3)
AROUND = {"pads": [1, 1, 1, 1]}
CONV = {
    "padded": late("Conv", IMAGE, WEIGHTS, (8,), **AROUND),
    "strided and dilated": late("Conv", IMAGE, WEIGHTS, strides=[2, 3], dilations=[1, 2]),
    "uneven pads": late("Conv", IMAGE, WEIGHTS, pads=[0, 2, 1, 0]),
    "same": late("Conv", IMAGE, WEIGHTS, auto_pad="SAME_LOWER", strides=[2, 2]),
    "1x1": late("Conv", (2, 6, 9, 23), (33, 6, 1, 1)),
    "groups": late("Conv", IMAGE, (10, 3, 3, 3), (10,), group=2, **AROUND),
    "line": late("Conv", (1, 5, 70), (40, 5, 4), pads=[3, 0]),
    "volume": late("Conv", (1, 4, 5, 6, 7), (6, 4, 2, 3, 3), pads=[1] * 6, strides=[1, 2, 1]),
    "many channels, in chunks": late("Conv", (1, 700, 4, 5), (5, 700, 3, 3), **AROUND),
    "one pixel": late("Conv", (3, 6, 3, 3), WEIGHTS),
    "open": Case(
        "Conv",
        [normal(2, 6, 9, 23), normal(8, 6, 3, 3)],
        {"pads": [1, 2, 1, 0]},
        {0: ["N", 6, "H", "W"]},
        tolerance=1e-4,
    ),
}
TRANSPOSED = {
    "apart": late("ConvTranspose", (2, 6, 5, 7), (6, 8, 2, 2), (8,), strides=[2, 2]),
    "overlapping": late("ConvTranspose", (1, 6, 5, 7), (6, 8, 4, 3), strides=[2, 2], **AROUND),
    "gaps": late("ConvTranspose", (1, 6, 4, 5), (6, 8, 1, 2), strides=[2, 3]),
    "cut": late("ConvTranspose", (1, 6, 6, 6), (6, 8, 2, 2), strides=[2, 2], pads=[2, 1, 1, 2]),
    "groups": late(
        "ConvTranspose", (1, 8, 5, 6), (8, 5, 3, 3), (10,),
        group=2, strides=[2, 1], dilations=[1, 2],
    ),
    "more": late(
        "ConvTranspose", (1, 6, 5, 6), (6, 8, 3, 3), strides=[3, 2], output_padding=[2, 1], **AROUND
    ),
    "volume": late(
        "ConvTranspose", (1, 4, 3, 4, 5), (4, 5, 3, 3, 3), strides=[2] * 3, pads=[1] * 6
    ),
    "line": late("ConvTranspose", (2, 4, 9), (4, 6, 16), strides=[8], pads=[4, 4]),
    "known weights": Case(
        "ConvTranspose",
        [normal(1, 8, 5, 6), Const(normal(8, 6, 4, 4)), Const(normal(12))],
        {"group": 2, "strides": [2, 2], "pads": [1, 1, 1, 1]},
        tolerance=1e-4,
    ),
    "open": Case(
        "ConvTranspose",
        [normal(2, 6, 4, 7), normal(6, 8, 3, 3)],
        {"strides": [2, 2], "pads": [1, 0, 0, 1]},
        {0: ["N", 6, "H", "W"]},
        tolerance=1e-4,
    ),
}  # fmt: skip
MOVED = {
    "plain": late("DeformConv", (2, 6, 7, 9), (8, 6, 3, 3), (2, 18, 7, 9), pads=[1] * 4),
    "bias, mask": late(
        "DeformConv", (1, 4, 8, 8), (5, 4, 2, 3), (1, 12, 4, 6), (5,), (1, 6, 4, 6),
        strides=[2, 1], pads=[1, 0, 0, 0],
    ),
    "groups": late(
        "DeformConv", (1, 12, 9, 9), (6, 6, 3, 3), (1, 54, 5, 5), (6,), (1, 27, 5, 5),
        group=2, offset_group=3, dilations=[2, 2],
    ),
    "many channels, in chunks": late(
        "DeformConv", (1, 700, 5, 5), (6, 700, 3, 3), (1, 36, 3, 3), offset_group=2
    ),
    "far away": Case(
        "DeformConv",
        [normal(1, 4, 5, 6), normal(4, 4, 1, 1), normal(1, 2, 5, 6) * 40],
        tolerance=1e-4,
    ),
    "open": Case(
        "DeformConv",
        [normal(2, 6, 7, 9), normal(8, 6, 3, 3), normal(2, 18, 7, 9)],
        {"pads": [1, 1, 1, 1]},
        {0: ["N", 6, "H", "W"], 2: ["N", 18, "H", "W"]},
        tolerance=1e-4,
    ),
}  # fmt: skip


def folded(x: Array, image: list[int], block: list[int], **attrs: Any) -> Case:
    return Case("Col2Im", [x, Const(np.array(image)), Const(np.array(block))], attrs)


FOLDED = {
    "plain": folded(normal(2, 12, 20), [6, 5], [2, 2]),
    "strided, dilated, padded": folded(
        normal(2, 18, 6), [7, 8], [3, 3], strides=[2, 3], pads=[1, 0, 0, 1], dilations=[2, 1]
    ),
    "line": folded(normal(2, 6, 40), [42], [3]),
    "volume, f64": folded(RNG.standard_normal((1, 16, 12)), [3, 4, 3], [2, 2, 2]),
}
DOUBLES = {
    f"{name}, f64": double(case)
    for name, case in {**CONV, **TRANSPOSED}.items()
    if name in ("padded", "groups", "overlapping", "volume", "many channels, in chunks")
}
CASES = {
    **{f"conv {name}": case for name, case in CONV.items()},
    **{f"folded {name}": case for name, case in FOLDED.items()},
    **{f"moved {name}": case for name, case in MOVED.items()},
    **{f"transposed {name}": case for name, case in TRANSPOSED.items()},
    **DOUBLES,
}


@cache
def compiled(target: Target, threads: int) -> Cases:
    return Cases(CASES, target) if threads == 1 else compiled(target, 1).on(threads)


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("target", HERE, ids=lambda target: target.name)
@pytest.mark.parametrize("name", CASES)
def test_agrees_with_the_meaning(name: str, target: Target, threads: int) -> None:
    compiled(target, threads).check(name)


@pytest.mark.parametrize("op", ["Conv", "ConvTranspose"])
def test_epilogue(op: str) -> None:
    shape = (10, 6, 3, 3) if op == "Conv" else (6, 10, 3, 3)
    node, values = window_node(
        op, HERE[0], (2, 6, 8, 9), {"strides": [2, 2]}, weights=weights_of(*shape),
        bias=normal(10), layout="", epilogue=scalar_body("Relu", extra=1), residual=True,
    )  # fmt: skip
    check(node, HERE[0], values, family="conv_columns")


@pytest.mark.parametrize("target", HERE, ids=lambda target: target.name)
def test_epilogue_in_vectors_of_pixels(target: Target) -> None:
    """Whole panels of three groups: an operand of the output's shape, one number for a channel."""
    node, values = window_node(
        "Conv", target, (2, 6, 13, 17), {"group": 3}, weights=weights_of(15, 2, 1, 1),
        bias=normal(15), layout="", epilogue=scalar_body("Relu", extra=2), residual=True,
    )  # fmt: skip
    each_channel = node.graph.add_constant(normal(15, 1, 1), "c")
    node.set_inputs([*node.inputs, each_channel])
    check(node, target, values, family="conv_columns")
