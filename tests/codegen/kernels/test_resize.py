"""Resize: modes, coordinates, sizes known when compiled and at run time, blocked layouts."""

from __future__ import annotations

import numpy as np
import pytest

from tests.codegen.compiled import BEST, Case, Cases, Const
from tuili.ir import Graph, TensorType
from tuili.ops.infer import infer
from tuili.ops.interpret import run
from tuili.tensors import DType, Sym, evaluate

RANDOM = np.random.default_rng(0)


def floats(*shape: int) -> np.ndarray:
    return RANDOM.standard_normal(shape).astype(np.float32)


def whole(*numbers: int) -> Const:
    return Const(np.array(numbers, np.int64))


def scales(*numbers: float) -> Const:
    return Const(np.array(numbers, np.float32))


CASES: dict[str, Case] = {}
n = 0
for mode in ("nearest", "linear", "cubic"):
    for coord in (
        "half_pixel",
        "asymmetric",
        "align_corners",
        "pytorch_half_pixel",
        "half_pixel_symmetric",
    ):
        for how in (
            (scales(1, 1, 2, 2), None),
            (scales(1, 1, 0.6, 1.7), None),
            (None, whole(2, 3, 11, 5)),
        ):
            sc, sz = how
            a = {"mode": mode, "coordinate_transformation_mode": coord}
            nm = f"resize_{mode}_{coord}_{n}"
            n += 1
            CASES[nm] = Case("Resize", [floats(2, 3, 7, 9), None, sc, sz], a, tolerance=2e-5)
            CASES[nm + "d"] = Case(
                "Resize",
                [floats(2, 3, 7, 9), None, sc, sz],
                a,
                dims={0: [2, 3, "H", "W"]},
                tolerance=2e-5,
            )
            if sz is None:
                CASES[nm + "b"] = Case(
                    "Resize",
                    [floats(2, 20, 7, 9), None, sc, sz],
                    a,
                    layouts=[0],
                    blocked=True,
                    tolerance=2e-5,
                )
# Lines long enough for whole vectors, enlarged by whole numbers: the places repeat.
for mode in ("linear", "cubic"):
    for coord in ("half_pixel", "asymmetric", "pytorch_half_pixel", "align_corners"):
        for times in (2, 3, 4, 8):
            for width in (1, 5, 45):
                outside = int(times == 2 and mode == "cubic")
                a = {
                    "mode": mode,
                    "coordinate_transformation_mode": coord,
                    "exclude_outside": outside,
                }
                nm = f"line_{mode}_{coord}_{times}_{width}"
                given = [floats(2, 3, 2, width), None, scales(1, 1, 1, times), None]
                CASES[nm] = Case("Resize", given, a, tolerance=2e-5)
                CASES[nm + "_open"] = Case(
                    "Resize", given, a, dims={0: [2, 3, "H", "W"]}, tolerance=2e-5
                )
for nm in ("round_prefer_ceil", "floor", "ceil"):
    CASES["rn" + nm] = Case(
        "Resize", [floats(2, 3, 7, 9), None, scales(1, 1, 1.3, 2)], {"nearest_mode": nm}
    )
for coord in ("asymmetric", "half_pixel", "align_corners", "half_pixel_symmetric"):
    for nm in ("round_prefer_floor", "floor"):
        for dims in ({}, {0: [1, 2, "H", "W"]}):
            a = {"coordinate_transformation_mode": coord, "nearest_mode": nm}
            given = [floats(1, 2, 20, 10), None, scales(1, 1, 0.7, 1.7)]
            CASES[f"whole_{coord}_{nm}_{len(dims)}"] = Case("Resize", given, a, dims=dims)
CASES["aa"] = Case(
    "Resize",
    [floats(2, 3, 17, 19), None, scales(1, 1, 0.5, 0.3)],
    {"mode": "linear", "antialias": 1},
    tolerance=2e-5,
)
CASES["aac"] = Case(
    "Resize",
    [floats(2, 3, 17, 19), None, scales(1, 1, 0.5, 0.3)],
    {"mode": "cubic", "antialias": 1, "exclude_outside": 1},
    tolerance=2e-5,
)
CASES["exo"] = Case(
    "Resize",
    [floats(2, 3, 17, 19), None, scales(1, 1, 1.5, 0.3)],
    {"mode": "cubic", "exclude_outside": 1},
    dims={0: [2, 3, "H", "W"]},
    tolerance=2e-5,
)
CASES["crop"] = Case(
    "Resize",
    [floats(1, 1, 7, 9), scales(0, 0, 0.2, -0.1, 1, 1, 0.8, 1.1), None, whole(1, 1, 5, 6)],
    {
        "mode": "linear",
        "coordinate_transformation_mode": "tf_crop_and_resize",
        "extrapolation_value": 3.0,
    },
    tolerance=2e-5,
)
CASES["cropn"] = Case(
    "Resize",
    [floats(1, 1, 7, 9), scales(0, 0, 0.2, -0.1, 1, 1, 0.8, 1.1), None, whole(1, 1, 5, 6)],
    {"mode": "nearest", "coordinate_transformation_mode": "tf_crop_and_resize"},
    tolerance=2e-5,
)
CASES["rsu8"] = Case(
    "Resize",
    [RANDOM.integers(0, 255, (1, 3, 5, 6)).astype(np.uint8), None, scales(1, 1, 2, 2)],
    {"mode": "linear"},
)
CASES["rs3d"] = Case("Resize", [floats(1, 2, 3, 4, 5), None, scales(1, 1, 2, 2, 2)], {})
CASES["same"] = Case(
    "Resize", [floats(1, 2, 3, 4), None, None, whole(1, 2, 3, 4)], {"mode": "linear"}
)
CASES["rsc"] = Case("Resize", [floats(1, 2, 3), None, scales(1, 2, 2)], {"mode": "nearest"})


@pytest.fixture(scope="module", params=[BEST], ids=lambda target: target.name)
def cases(request: pytest.FixtureRequest) -> Cases:
    return Cases(CASES, request.param)


@pytest.mark.parametrize("name", CASES)
def test_kernel_gives_what_the_operator_means(cases: Cases, name: str) -> None:
    cases.check(name)


@pytest.mark.parametrize(
    ("size", "scale", "length"), [(9, 13 / 9, 13), (10, 0.7, 7), (18, 13 / 9, 26)]
)
@pytest.mark.parametrize("is_open", [False, True])
def test_lengths_are_products_in_f32(size: int, scale: float, length: int, is_open: bool) -> None:
    graph = Graph()
    x = graph.add_input("x", TensorType(DType.F32, (Sym("W") if is_open else size,)))
    factor = graph.add_constant(np.array([scale], np.float32))
    graph.set_outputs(graph.add("Resize", [x, None, factor]).outputs)
    infer(graph)
    (found,) = graph.outputs[0].shape
    assert (found if isinstance(found, int) else evaluate(found, {"W": size})) == length
    (made,) = run(graph, {"x": np.zeros(size, np.float32)}).values()
    assert made.shape == (length,)
