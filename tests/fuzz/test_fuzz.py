"""A fixed slice of the random graphs; `make fuzz-ops` runs 20,000 of them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fuzz.check import check_parts, check_seeds, seeded
from tests.fuzz.part import Discard, Part
from tests.fuzz.steps import STEPS, build
from tuili.ops.table import TABLE

pytestmark = [pytest.mark.xdist_group("fuzz"), pytest.mark.filterwarnings("ignore")]


@pytest.mark.parametrize("first", [0, 24, 48])
def test_random_graphs_agree_with_numpy_and_onnxruntime(first):
    tally = check_seeds(range(first, first + 24))
    assert not [str(finding) for finding in tally.findings]
    assert tally.graphs == 24
    assert tally.compared > 8


@pytest.mark.parametrize("group", ["quantized", "control"])
def test_residual_sums_and_mixed_bodies_agree(group: str) -> None:
    tally = check_seeds(range(8), group)
    assert not [str(finding) for finding in tally.findings]
    assert tally.compared > 4


class Drawn:
    """Choices that hypothesis makes, and makes simpler when a graph fails."""

    def __init__(self, draw: st.DrawFn) -> None:
        self._draw = draw

    def below(self, count: int) -> int:
        return self._draw(st.integers(0, count - 1))


@st.composite
def parts(draw: st.DrawFn) -> Part | None:
    try:
        with np.errstate(all="ignore"):
            return build(Drawn(draw))
    except Discard:
        return None


@given(parts())
@settings(max_examples=6)
def test_drawn_graphs_agree(part):
    if part is not None:
        with np.errstate(all="ignore"):
            tally = check_parts({"drawn": part})
        assert not [str(finding) for finding in tally.findings]


def test_a_seed_always_gives_the_same_graph():
    one, two = seeded(5), seeded(5)
    assert one is not None
    assert two is not None
    assert [node.op for node in one.graph.nodes] == [node.op for node in two.graph.nodes]
    for left, right in zip(one.arrays.values(), two.arrays.values(), strict=True):
        np.testing.assert_array_equal(left, right)


def test_the_steps_reach_most_of_the_table():
    ops = {node.op for seed in range(900) if (p := seeded(seed)) for node in p.graph.nodes}
    plain = {name for name in TABLE if "::" not in name}
    assert len(STEPS) > 150
    assert len(ops & plain) > 155
