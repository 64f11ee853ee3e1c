"""Winograd convolution agrees with the operator's meaning, and is exact where it is asked to be."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from benchmarks.single_kernel import SingleKernel
from tests.codegen.kernels.conv_cases import (
    check,
    scalar_body,
    targets_here,
    weights_of,
    window_node,
)
from tuili.codegen.kernels.conv.shape import LIKELY_FOUND, conv_shape
from tuili.codegen.kernels.conv.winograd_blocks import likely_pixels
from tuili.codegen.kernels.conv.winograd_lines import line_transform
from tuili.codegen.kernels.conv.winograd_plan import rank_winograd
from tuili.codegen.kernels.conv.winograd_transforms import F2, F4, S2, S4, Winograd
from tuili.codegen.targets import Target
from tuili.tensors import Sym

CASES: dict[str, tuple[tuple[int, ...], int, dict[str, Any]]] = {
    "many blocks": ((1, 32, 60, 61), 48, {"pads": [1, 1, 1, 1]}),
    "few blocks": ((2, 40, 11, 13), 40, {"pads": [1, 1, 1, 1]}),
    "large weights": ((1, 101, 13, 14), 136, {"pads": [1, 1, 1, 1]}),
    "no padding": ((1, 32, 21, 24), 64, {}),
    "odd channels": ((1, 37, 30, 31), 33, {"pads": [0, 1, 2, 0]}),
    "many blocks, 1-D": ((1, 32, 3001), 48, {"pads": [1, 1]}),
    "few blocks, 1-D": ((2, 40, 113), 40, {"pads": [0, 2]}),
    "large weights, 1-D": ((1, 401, 33), 336, {}),
    "groups": ((1, 96, 21, 24), 192, {"pads": [1, 1, 1, 1], "group": 3}),
    "groups that share vectors": ((1, 60, 40, 31), 36, {"pads": [1, 1, 1, 1], "group": 3}),
    "groups of large weights": ((1, 202, 13, 14), 272, {"pads": [1, 1, 1, 1], "group": 2}),
}
ALL = {"F2": F2, "F4": F4, "S2": S2, "S4": S4}


@pytest.mark.parametrize("target", targets_here(), ids=lambda t: t.name)
@pytest.mark.parametrize("is_open", [False, True], ids=["", "open"])
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("winograd", ALL.values(), ids=ALL)
def test_agrees(
    winograd: Winograd, case: str, is_open: bool, target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tuili.codegen.kernels.conv.choice.rank_winograd", lambda *_: [winograd])
    shape, outputs, attrs = CASES[case]
    taps = (3,) * (len(shape) - 2)
    strides: dict[str, Any] = {"strides": [winograd.stride] * len(taps)}
    attrs = attrs | strides
    axes = ("NHW" if len(taps) == 2 else "NW") if is_open else ""
    weights = weights_of(outputs, shape[1] // attrs.get("group", 1), *taps)
    node, values = window_node(
        "Conv", target, shape, attrs, weights=weights, axes=axes,
        bias=weights_of(outputs, 1)[:, 0], epilogue=scalar_body("Relu", extra=1), residual=True,
    )  # fmt: skip
    check(node, target, values, family="winograd", tolerance=1e-5)


LINES: dict[str, tuple[tuple[int, ...], int, int, dict[str, Any]]] = {
    "3 taps": ((1, 32, 3001), 48, 3, {"pads": [1, 1]}),
    "4 taps, few blocks": ((2, 40, 113), 40, 4, {"pads": [0, 2]}),
    "5 taps, dilated": ((1, 40, 613), 40, 5, {"pads": [6, 6], "dilations": [3]}),
    "7 taps": ((1, 32, 1501), 48, 7, {"pads": [3, 3]}),
    "7 taps, dilated, odd channels": ((2, 37, 157), 35, 7, {"pads": [9, 8], "dilations": [3]}),
    "11 taps, odd channels": ((1, 37, 1301), 33, 11, {"pads": [5, 5]}),
    "11 taps, dilated": ((2, 32, 83), 64, 11, {"pads": [25, 25], "dilations": [5]}),
    "11 taps, large weights": ((1, 401, 33), 136, 11, {"pads": [5, 5]}),
    "5 taps in groups": ((1, 96, 613), 96, 5, {"pads": [2, 2], "group": 3}),
    "wider than the line": ((1, 32, 9), 32, 16, {"pads": [8, 8]}),
}


@pytest.mark.parametrize("target", targets_here(), ids=lambda t: t.name)
@pytest.mark.parametrize("is_open", [False, True], ids=["", "open"])
@pytest.mark.parametrize("case", LINES)
@pytest.mark.parametrize("products", [8, 10])
def test_lines_agree(
    products: int, case: str, is_open: bool, target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    shape, outputs, taps, attrs = LINES[case]
    way = line_transform(products - 3, 4) if taps > 5 else line_transform(products + 1 - taps, taps)
    monkeypatch.setattr("tuili.codegen.kernels.conv.choice.rank_winograd", lambda *_: [way])
    node, values = window_node(
        "Conv", target, shape, attrs, axes="NW" if is_open else "",
        weights=weights_of(outputs, shape[1] // attrs.get("group", 1), taps),
        bias=weights_of(outputs, 1)[:, 0], epilogue=scalar_body("Relu", extra=1), residual=True,
    )  # fmt: skip
    check(node, target, values, family="winograd", tolerance=3e-5)


MADE = {f"F({m}, {r})": line_transform(m, r) for m, r in ((6, 3), (5, 4), (7, 4), (4, 7), (2, 9))}


@pytest.mark.parametrize("winograd", [*ALL.values(), *MADE.values()], ids=[*ALL, *MADE])
def test_matrices_make_a_convolution(winograd: Winograd) -> None:
    rng = np.random.default_rng(0)
    data, taps = rng.standard_normal(winograd.size), rng.standard_normal(winograd.taps)
    scope = {name: [0.0] * 10 for name in "tr"}
    text = winograd.input_text.replace("const vf ", "").replace("f,", ",").replace("f;", ";")
    exec(_python(text), {"d": data}, scope)
    scope["m"] = list(winograd.filter_matrix() @ taps * np.array(scope["t"][: winograd.size]))
    exec(_python(winograd.output_text), {}, scope)
    np.testing.assert_allclose(
        scope["r"][: winograd.outputs],
        np.correlate(data, taps, "valid")[:: winograd.stride],
        rtol=1e-6,
    )


def _python(text: str) -> str:
    import re

    return re.sub(r"(\d)f\b", r"\1", text.replace("const vf ", "").replace("],", "];")).replace(
        ", ", "; "
    )


def test_exact_convolution_is_direct() -> None:
    target = targets_here()[0]
    node, _ = window_node(
        "Conv", target, (1, 64, 56, 56), {"pads": [1] * 4}, weights=weights_of(64, 64, 3, 3)
    )
    assert SingleKernel(node, target, level="-O0").family == "winograd"
    assert SingleKernel(node, target, level="-O0", exact=True).family == "conv_direct"


@pytest.mark.parametrize(
    ("channels", "size", "chosen"), [(64, 56, F4), (128, 28, F4), (512, 4, None), (2, 56, None)]
)
def test_choice(channels: int, size: int, chosen: Winograd | None) -> None:
    target = targets_here()[0]
    node, _ = window_node(
        "Conv", target, (1, channels, size, size), {"pads": [1] * 4},
        weights=weights_of(channels, channels, 3, 3),
    )  # fmt: skip
    assert rank_winograd(conv_shape(node, (3, 3)), 1, target)[0] is chosen


@pytest.mark.parametrize(("origin", "expected"), [("found", LIKELY_FOUND), ("asked", 1)])
def test_regions_that_data_decide_are_planned_as_many(origin: str, expected: int) -> None:
    target, n = targets_here()[0], Sym("n")
    node, _ = window_node(
        "Conv", target, (n, 64, 7, 7), {"pads": [1] * 4}, weights=weights_of(64, 64, 3, 3)
    )
    graph = node.graph
    assert graph is not None
    if origin == "found":
        graph.metadata["symbol.n"] = "regions#0"
    shape = conv_shape(node, (3, 3))
    assert shape.likely_batch == expected
    assert likely_pixels(shape) == expected * 7 * 7
