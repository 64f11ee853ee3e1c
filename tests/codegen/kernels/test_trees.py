"""Decision trees, distances and odds of pairs: native code beside the NumPy meaning."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.codegen.compiled import Case, Cases, Const
from tuili.ops.trees import EQUAL, GREATER, LESS, UNORDERED

CHANCE = np.random.default_rng(0)
FEATURES = 5


def forest(
    trees: int, depth: int, accept: list[int], targets: int, dtype: Any, votes: str = "any"
) -> list[Const]:
    """Full binary trees of random features and splits; `votes`: what leaves give, see `given`."""
    inner, size = 2**depth - 1, 2 ** (depth + 1) - 1
    nodes = np.zeros((trees * size, 4), np.int32)
    for tree in range(trees):
        for place in range(size):
            at = tree * size + place
            below = tree * size + 2 * place + 1
            branches = [below, below + 1] if place < inner else [at, at]
            nodes[at] = [CHANCE.integers(FEATURES), CHANCE.choice(accept), *branches]
    splits = CHANCE.integers(-2, 3, trees * size).astype(dtype)
    is_leaf = nodes[:, 2] == nodes[:, 3]
    counts = {"any": CHANCE.integers(0, 3, trees * size), "each": targets}.get(votes, 1)
    starts = np.concatenate([[0], np.cumsum(np.where(is_leaf, counts, 0))]).astype(np.int32)
    count = int(starts[-1])
    given = {
        "any": CHANCE.integers(targets, size=count),
        "one": CHANCE.integers(targets, size=count),
        "one a tree": np.arange(count) * trees // count % targets,
        "each": np.arange(count) % targets,
    }[votes]
    return [
        Const(splits),
        Const(nodes),
        Const((np.arange(trees) * size).astype(np.int32)),
        Const(starts),
        Const(given.astype(np.int32)),
        Const(CHANCE.standard_normal(count).astype(dtype)),
    ]


def samples(rows: int, dtype: Any = np.float32) -> Any:
    x = CHANCE.integers(-3, 4, (rows, FEATURES)).astype(dtype)
    x[CHANCE.random(x.shape) < 0.1] = np.nan
    return x


ANY = [LESS, EQUAL, GREATER, LESS | EQUAL | UNORDERED, GREATER | EQUAL, LESS | GREATER]
CASES = {
    f"{name} {how}": Case(
        "TreeScores",
        [samples(rows, dtype), *forest(trees, depth, accept, targets, dtype)],
        {"num_targets": targets, "how": how},
        dims={0: ["N", FEATURES]} if rows > 1 else {},
        outputs=2,
    )
    for name, rows, trees, depth, accept, targets, dtype in [
        ("one row, one tree", 1, 1, 2, [LESS | EQUAL], 1, np.float32),
        ("lanes left over", 70, 11, 4, [LESS], 3, np.float32),
        ("every question", 33, 8, 5, ANY, 2, np.float32),
        ("doubles", 5, 9, 3, [GREATER | EQUAL], 2, np.float64),
        ("only leaves", 3, 2, 0, [LESS], 2, np.float32),
    ]
    for how in ("SUM", "AVERAGE", "MIN", "MAX")
}
DEFAULTS = [LESS | EQUAL, LESS | EQUAL | UNORDERED]
CASES |= {
    f"leaves give {votes}, {name}": Case(
        "TreeScores",
        [samples(rows, dtype), *forest(13, 4, accept, 3, dtype, votes)],
        {"num_targets": 3, "how": "SUM"},
        dims={0: ["N", FEATURES]},
        outputs=2,
    )
    for votes in ("any", "one", "one a tree", "each")
    for name, rows, accept, dtype in [
        ("NaN goes either way", 40, DEFAULTS, np.float32),
        ("NaN of doubles", 33, DEFAULTS, np.float64),
        ("NaN goes one way", 7, [LESS], np.float32),
    ]
}


def shared(leaves: int) -> list[Const]:
    """Two roots over the same nodes, and a node whose branches are one: no trees, and allowed."""
    nodes = np.array([[0, LESS, 2, 3], [1, LESS, 3, 2], [2, LESS, 4, 4], *[[0, 0, 0, 0]] * leaves])
    nodes[3:, 2] = nodes[3:, 3] = np.arange(3, 3 + leaves)
    starts = np.maximum(np.arange(len(nodes) + 1) - 3, 0)
    splits, weights = np.zeros(len(nodes)), CHANCE.standard_normal(leaves)
    return [
        Const(splits.astype(np.float32)),
        *(Const(each.astype(np.int32)) for each in (nodes, np.array([0, 1]), starts)),
        Const((np.arange(leaves) % 2).astype(np.int32)),
        Const(weights.astype(np.float32)),
    ]


CASES["nodes that are shared"] = Case(
    "TreeScores",
    [samples(9), *shared(2)],
    {"num_targets": 2, "how": "SUM"},
    dims={0: ["N", FEATURES]},
    outputs=2,
)
CASES |= {
    f"distance {metric} {width}": Case(
        "com.microsoft::CDist",
        [CHANCE.standard_normal((7, width)), Const(CHANCE.standard_normal((4, width)))],
        {"metric": metric},
        dims={0: ["N", width]},
    )
    for metric in ("euclidean", "sqeuclidean")
    for width in (1, 8, 29)
}
CASES |= {
    f"coupled pairs of {classes} classes": Case(
        "CoupledPairs",
        [CHANCE.uniform(0.01, 0.99, (6, classes * (classes - 1) // 2))],
        {"classes": classes},
        dims={0: ["N", classes * (classes - 1) // 2]},
    )
    for classes in (2, 3, 10)
}


@pytest.fixture(scope="module", params=[1, 2], ids=["1 thread", "2 threads"])
def cases(request: pytest.FixtureRequest) -> Cases:
    return Cases(CASES, threads=request.param)


@pytest.mark.parametrize("name", CASES)
def test_native_code_gives_what_numpy_gives(cases: Cases, name: str) -> None:
    cases.check(name)
