"""Winograd convolution agrees with the operator's meaning, and is exact where it is asked to be."""

from __future__ import annotations

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
from tuili.codegen.kernels.conv.shape import conv_shape
from tuili.codegen.kernels.conv.winograd_plan import rank_winograd
from tuili.codegen.kernels.conv.winograd_transforms import F2, F4, S2, S4, Winograd
from tuili.codegen.targets import Target

CASES = {
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
    attrs = attrs | {"strides": [winograd.stride] * len(taps)}
    axes = ("NHW" if len(taps) == 2 else "NW") if is_open else ""
    weights = weights_of(outputs, shape[1] // attrs.get("group", 1), *taps)
    node, values = window_node(
        "Conv", target, shape, attrs, weights=weights, axes=axes,
        bias=weights_of(outputs, 1)[:, 0], epilogue=scalar_body("Relu", extra=1), residual=True,
    )  # fmt: skip
    check(node, target, values, family="winograd", tolerance=1e-5)


@pytest.mark.parametrize("winograd", ALL.values(), ids=ALL)
def test_matrices_make_a_convolution(winograd: Winograd) -> None:
    rng = np.random.default_rng(0)
    data, taps = rng.standard_normal(winograd.size), rng.standard_normal(3)
    scope = {name: [0.0] * 9 for name in "tr"}
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
