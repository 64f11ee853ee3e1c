"""Direct convolution agrees with the operator's meaning on every shape, stride and border."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.codegen.kernels.conv_cases import (
    check,
    scalar_body,
    targets_here,
    weights_of,
    window_node,
)
from tuili.codegen.kernels.conv.plan import plan_direct
from tuili.codegen.kernels.conv.register_tile import (
    Steps,
    Tile,
    cut_row,
    print_accumulate,
    rank_tiles,
)
from tuili.codegen.kernels.conv.rows import even_tiles, full_tiles
from tuili.codegen.kernels.conv.shape import Axis, ConvShape
from tuili.codegen.targets import TARGETS, Target
from tuili.tensors import Dim, evaluate, parse_shape

targets = pytest.mark.parametrize("target", targets_here(), ids=lambda t: t.name)

# input shape, (outputs, taps), attributes
CASES = {
    "3x3": ((1, 32, 20, 17), (48, 3, 3), {"pads": [1, 1, 1, 1]}),
    "3x3 no padding, odd channels": ((2, 19, 9, 31), (21, 3, 3), {}),
    "3x3 stride 2": ((1, 16, 15, 29), (32, 3, 3), {"strides": [2, 2], "pads": [1, 1, 1, 1]}),
    "asymmetric": ((1, 20, 7, 8), (16, 3, 2), {"strides": [1, 2], "pads": [2, 0, 1, 3]}),
    "dilated": ((1, 16, 13, 13), (16, 3, 3), {"dilations": [2, 3], "pads": [2, 3, 2, 3]}),
    "wide padding": ((1, 16, 3, 3), (16, 5, 5), {"pads": [4, 4, 4, 4]}),
    "same": ((1, 8, 9, 10), (9, 4, 4), {"auto_pad": "SAME_LOWER", "strides": [2, 3]}),
    "1x1": ((2, 40, 7, 7), (72, 1, 1), {}),
    "1x1 stride 2": ((1, 32, 9, 9), (64, 1, 1), {"strides": [2, 2]}),
    "1x1 strided": ((2, 40, 9, 11), (136, 1, 1), {"strides": [2, 3]}),
    "1x1 strided groups": ((1, 64, 6, 7), (128, 1, 1), {"group": 2, "strides": [2, 2]}),
    "1x1 padded": ((1, 16, 4, 5), (16, 1, 1), {"pads": [1, 2, 0, 1]}),
    "one pixel": ((3, 100, 1, 1), (24, 1, 1), {}),
    "one row": ((1, 24, 1, 40), (24, 1, 5), {"pads": [0, 2, 0, 2]}),
    "one output": ((1, 24, 6, 6), (1, 3, 3), {}),
    "1-D": ((2, 20, 33), (17, 3), {"pads": [1, 1], "strides": [2]}),
    "whole groups": ((1, 64, 6, 6), (96, 3, 3), {"group": 2, "pads": [1, 1, 1, 1]}),
    "small groups": ((1, 24, 6, 7), (36, 3, 3), {"group": 6, "pads": [1, 1, 1, 1]}),
}  # fmt: skip


def _weights(shape: tuple[int, ...], outputs: tuple[int, ...], group: int):
    return weights_of(outputs[0], shape[1] // group, *outputs[1:])


@targets
@pytest.mark.parametrize("case", CASES)
def test_known_shapes(case: str, target: Target) -> None:
    shape, outputs, attrs = CASES[case]
    weights = _weights(shape, outputs, attrs.get("group", 1))
    node, values = window_node(
        "Conv", target, shape, attrs, weights=weights, bias=weights_of(outputs[0], 1)[:, 0]
    )
    check(node, target, values, exact=True)


@pytest.mark.parametrize("case", CASES)
def test_symbolic_sizes(case: str) -> None:
    target = targets_here()[0]
    shape, outputs, attrs = CASES[case]
    weights = _weights(shape, outputs, attrs.get("group", 1))
    axes = "NW" if len(shape) == 3 else "NHW"
    node, values = window_node("Conv", target, shape, attrs, weights=weights, axes=axes)
    check(node, target, values, exact=True)


@pytest.mark.parametrize("axes", ["H", "W", "N"])
def test_one_symbolic_axis(axes: str) -> None:
    target = targets_here()[0]
    node, values = window_node(
        "Conv", target, (2, 18, 11, 37), {"pads": [1, 1, 1, 1]}, weights=weights_of(20, 18, 3, 3),
        axes=axes,
    )  # fmt: skip
    check(node, target, values, exact=True)


@targets
@pytest.mark.parametrize("axes", ["", "HW"])
@pytest.mark.parametrize("channels", [1, 3])
def test_plain_input(channels: int, axes: str, target: Target) -> None:
    node, values = window_node(
        "Conv", target, (2, channels, 19, 34), {"pads": [3, 3, 3, 3], "strides": [2, 2]},
        weights=weights_of(24, channels, 7, 7), layout="", out_layout=target.layout, axes=axes,
    )  # fmt: skip
    check(node, target, values)


@targets
@pytest.mark.parametrize(
    "body", [scalar_body("Relu"), scalar_body("Sigmoid", "Tanh", "Abs", "Neg")]
)
def test_epilogue_with_residual(body, target: Target) -> None:
    body = (
        scalar_body("Relu", extra=1)
        if len(body.nodes) == 1
        else scalar_body("Sigmoid", "Tanh", "Abs", "Neg", extra=1)
    )
    node, values = window_node(
        "Conv", target, (1, 20, 9, 10), {"pads": [1, 1, 1, 1]}, weights=weights_of(40, 20, 3, 3),
        bias=weights_of(40, 1)[:, 0], epilogue=body, residual=True,
    )  # fmt: skip
    check(node, target, values, exact=True)


def test_sums_go_on_over_chunks_of_channels() -> None:
    target = targets_here()[0]
    node, values = window_node(
        "Conv", target, (1, 1088, 5, 5), {"pads": [1, 1, 1, 1]},
        weights=weights_of(48, 1088, 3, 3), epilogue=scalar_body("Relu"),
    )  # fmt: skip
    assert "block == 0" in check(node, target, values, exact=True).source


@pytest.mark.parametrize("blocked", [True, False])
def test_long_windows_are_loops(blocked: bool) -> None:
    """More taps take no more code, beyond the digits of their number."""
    target = targets_here()[0]

    def size(taps: int) -> int:
        node, values = window_node(
            "Conv", target, (1, 2, 500), {"pads": [taps // 2, taps // 2 - 1], "strides": [3]},
            weights=weights_of(20, 2, taps),
            layout=None if blocked else "", out_layout=target.layout,
        )  # fmt: skip
        return len(check(node, target, values, exact=True).source)

    assert size(260) < size(200) + 500


@given(st.integers(1, 300), st.integers(1, 16))
def test_even_tiles_cover_a_row_with_as_few_as_full_ones(width: int, pixels: int) -> None:
    widths = even_tiles(width, pixels)
    assert sum(widths) == width
    assert len(widths) == len(full_tiles(width, pixels))
    assert max(widths) - min(widths) <= 1


@pytest.mark.parametrize(
    ("width", "widths"),
    [
        (49, [6, 6, 6, 6, 5, 5, 5, 5, 5]),  # a last tile of one pixel would cost four
        (196, [6] * 32 + [4]),
    ],
)
def test_a_row_is_cut_evenly_where_its_rest_is_small(width: int, widths: list[int]) -> None:
    assert cut_row(Tile(6, 2), width) == widths


@pytest.mark.parametrize(("near_bytes", "tile"), [(16 << 10, Tile(4, 3)), (0, Tile(6, 2))])
def test_where_weights_are_near_the_tile_of_fewest_instructions_wins(
    near_bytes: int, tile: Tile
) -> None:
    target = replace(TARGETS["x86-64-avx2"], near_bytes=near_bytes)
    assert rank_tiles(target, 196, 96)[0] == tile


@pytest.mark.parametrize(("taps", "times"), [(1, 8), (3, 4)])
def test_the_channels_of_one_tap_are_unrolled_whole(taps: int, times: int) -> None:
    text = print_accumulate(Tile(4, 3), 4, Steps(pixel=8, tap=8, lanes=8), taps)
    assert [line.split()[-1] for line in text if "unroll" in line] == [str(times)]


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize(("size", "is_once"), [(7, True), (14, False)])
def test_large_weights_are_read_once_where_the_image_stays_in_the_cache(
    size: int, is_once: bool, known: bool
) -> None:
    side: Dim = size if known else parse_shape(["S"])[0]
    axis = Axis(side, side, 1)
    shape = ConvShape(1, 1536, 1536, axis, axis).flat()
    plan = plan_direct(shape, 1, 8, TARGETS["x86-64-avx2"], Tile(6, 2))
    assert (evaluate(plan.groups, {"S": size}) == 1) == is_once
