"""Movement kernels: transposes, slices, joins, repeats, in row-major and blocked layouts."""

from __future__ import annotations

import numpy as np
import pytest

from tests.codegen.compiled import HERE, Case, Cases, Const

RANDOM = np.random.default_rng(0)


def floats(*shape: int) -> np.ndarray:
    return RANDOM.standard_normal(shape).astype(np.float32)


def whole(*numbers: int) -> Const:
    return Const(np.array(numbers, np.int64))


CASES: dict[str, Case] = {
    "t2": Case("Transpose", [floats(37, 53)]),
    "t0213": Case("Transpose", [floats(2, 5, 4, 32)], {"perm": (0, 2, 1, 3)}),
    "t0231": Case("Transpose", [floats(2, 40, 5, 7)], {"perm": (0, 2, 3, 1)}),
    "t0312": Case("Transpose", [floats(2, 50, 70, 3)], {"perm": (0, 3, 1, 2)}),
    "t0312b": Case("Transpose", [floats(2, 3, 50, 70)], {"perm": (0, 2, 3, 1)}),
    "t3": Case("Transpose", [floats(20, 30, 40)]),
    "tdyn": Case("Transpose", [floats(20, 30, 40)], dims={0: ["A", "B", "C"]}),
    "ti64": Case("Transpose", [np.arange(600).reshape(20, 30)]),
    "tu8": Case("Transpose", [np.arange(600).reshape(20, 30).astype(np.uint8)]),
    # Tiles of squares: whole and cut, of every size of elements.
    "tcrowded": Case("Transpose", [floats(256, 83)]),
    "tf16": Case("Transpose", [floats(2, 70, 300).astype(np.float16)], {"perm": (0, 2, 1)}),
    "tf16dyn": Case(
        "Transpose", [floats(20, 30, 40).astype(np.float16)], dims={0: ["A", "B", "C"]}
    ),
    "tf64": Case("Transpose", [floats(75, 67).astype(np.float64)]),
    "tu8tiles": Case("Transpose", [np.arange(150 * 149).reshape(150, 149).astype(np.uint8)]),
    "tc128": Case(
        "Transpose",
        [(floats(4, 5) + 1j * floats(4, 5)).astype(np.complex128)],
    ),
    "expand": Case("Expand", [floats(3, 1, 5), whole(2, 3, 4, 5)]),
    "tile": Case("Tile", [floats(3, 2, 5), whole(2, 3, 4)]),
    "slice": Case(
        "Slice", [floats(10, 20), whole(1, -5), whole(8, 10**12), whole(0, 1), whole(2, 1)]
    ),
    "sliceneg": Case(
        "Slice", [floats(10, 20), whole(-1, 10**9), whole(-(10**12), 2), whole(0, 1), whole(-1, -3)]
    ),
    "slicedyn": Case(
        "Slice",
        [floats(10, 20), whole(1, -5), whole(8, 10**12), whole(0, 1), whole(2, 1)],
        dims={0: ["N", "M"]},
    ),
    "concat": Case("Concat", [floats(3, 4, 5), floats(3, 2, 5)], {"axis": 1}),
    "concatdyn": Case(
        "Concat",
        [floats(3, 4, 5), floats(3, 2, 5)],
        {"axis": -2},
        dims={0: ["A", "B", 5], 1: ["A", "C", 5]},
    ),
    "split": Case("Split", [floats(3, 6, 5), whole(1, 2, 3)], {"axis": 1}, outputs=3),
    "d2s": Case("DepthToSpace", [floats(2, 12, 3, 5)], {"blocksize": 2, "mode": "DCR"}),
    "d2s2": Case("DepthToSpace", [floats(2, 12, 3, 5)], {"blocksize": 2, "mode": "CRD"}),
    "s2d": Case("SpaceToDepth", [floats(2, 3, 4, 6)], {"blocksize": 2}),
    "reshape": Case("Reshape", [floats(3, 4, 5), whole(-1, 10)]),
    "shape": Case("Shape", [floats(3, 4, 5)], dims={0: ["A", "B", 5]}),
    "identity": Case("Identity", [floats(3, 4)]),
    "empty": Case("Concat", [floats(0, 4), floats(0, 3)], {"axis": 1}),
    "empty2": Case("Transpose", [floats(0, 4)], dims={0: ["A", "B"]}),
    "bconcat": Case(
        "Concat",
        [floats(2, 32, 3, 5), floats(2, 20, 3, 5)],
        {"axis": 1},
        layouts=[0, 1],
        blocked=True,
    ),
    "bsplit": Case(
        "Split",
        [floats(2, 36, 3, 5), whole(16, 20)],
        {"axis": 1},
        layouts=[0],
        blocked=True,
        outputs=2,
    ),
    "bslice": Case(
        "Slice",
        [floats(2, 36, 9, 5), whole(16, 1), whole(10**9, 7), whole(1, 2), whole(1, 2)],
        layouts=[0],
        blocked=True,
    ),
    "bconcat3": Case(
        "Concat",
        [floats(2, 20, 3, 5), floats(2, 20, 4, 5)],
        {"axis": 2},
        layouts=[0, 1],
        blocked=True,
    ),
}


@pytest.fixture(scope="module", params=HERE, ids=lambda target: target.name)
def cases(request: pytest.FixtureRequest) -> Cases:
    return Cases(CASES, request.param)


@pytest.mark.parametrize("name", CASES)
def test_kernel_gives_what_the_operator_means(cases: Cases, name: str) -> None:
    cases.check(name)
