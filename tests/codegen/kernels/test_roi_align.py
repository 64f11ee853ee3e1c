"""RoiAlign: modes, samples, regions beyond the edge, and pictures that are not there."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from tests.codegen.compiled import BEST, Case, Cases

RNG = np.random.default_rng(5)
CORNERS = np.array(
    [[1, 2, 17, 15], [-4, -3, 5, 6], [18, 16, 40, 35], [7, 7, 7, 7], [0.3, 0.6, 2.2, 9.7]],
    np.float32,
)
PICTURES = np.array([0, 1, 1, 0, 1])


def case(channels: int, dims: dict[int, list[int | str]] | None = None, **attrs: object) -> Case:
    x = RNG.standard_normal((2, channels, 11, 10)).astype(np.float32)
    sizes = {"output_height": 3, "output_width": 2, "spatial_scale": 0.5}
    return Case("RoiAlign", [x, CORNERS, PICTURES], {**sizes, **attrs}, dims or {}, tolerance=2e-5)


CASES = {
    f"{mode}, {coordinates}, {ratio}": case(
        3, mode=mode, coordinate_transformation_mode=coordinates, sampling_ratio=ratio
    )
    for mode, coordinates, ratio in product(
        ("avg", "max"), ("half_pixel", "output_half_pixel"), (0, 1, 2)
    )
}
CASES["several blocks of channels"] = case(70)
CASES["bins of more samples than a piece"] = case(3, sampling_ratio=17)
CASES["pieces end inside bins"] = case(3, sampling_ratio=7, mode="max")
CASES["open dims"] = case(5, {0: ["N", "C", "H", "W"], 1: ["R", 4], 2: ["R"]})


@pytest.fixture(scope="module", params=[1, 3], ids=["one thread", "three threads"])
def cases(request: pytest.FixtureRequest) -> Cases:
    return Cases(CASES, BEST, threads=request.param)


@pytest.mark.parametrize("name", CASES)
def test_it_equals_its_meaning(cases: Cases, name: str) -> None:
    cases.check(name)


@pytest.mark.parametrize("picture", [-1, 2])
def test_a_region_of_no_picture_fails_the_run(picture: int) -> None:
    good = case(3)
    library = Cases({"one": good}).library
    feeds = dict(zip(("c0_0", "c0_1", "c0_2"), good.inputs, strict=True))
    with pytest.raises(RuntimeError, match="index of a region's picture is out of range"):
        library.run({**feeds, "c0_2": np.full(5, picture)})
