"""The memory plan: nothing alive overlaps, and the plan is near the least possible."""

from __future__ import annotations

import random
from itertools import combinations

from hypothesis import given
from hypothesis import strategies as st

from tuili.lower.memory import Interval, aligned, by_size, place_in_order, plan_memory

LIVES = st.lists(
    st.builds(
        lambda size, first, length: Interval(size, first, first + length),
        st.integers(0, 5000),
        st.integers(0, 20),
        st.integers(0, 8),
    ),
    max_size=25,
)


@given(LIVES)
def test_buffers_alive_together_never_overlap(lives: list[Interval]) -> None:
    plan = plan_memory(lives)
    placed = list(zip(lives, plan.offsets, strict=True))
    for (a, at), (b, bt) in combinations(placed, 2):
        together = a.first <= b.last and b.first <= a.last
        assert not together or at + a.size <= bt or bt + b.size <= at


@given(LIVES)
def test_the_plan_lies_between_the_bound_and_no_sharing_at_all(lives: list[Interval]) -> None:
    plan = plan_memory(lives)
    assert plan.lower_bound <= plan.size <= sum(aligned(life.size) for life in lives)


def test_buffers_that_follow_each_other_share_memory() -> None:
    plan = plan_memory([Interval(100, 0, 1), Interval(100, 1, 2), Interval(100, 2, 3)])
    assert (plan.size, plan.lower_bound) == (256, 256)


def test_a_plan_that_is_not_tight_is_improved() -> None:
    rng = random.Random(6)
    lives = [
        Interval(64 * rng.randrange(1, 60), first, first + rng.randrange(6)) for first in range(40)
    ]
    greedy = place_in_order(lives, by_size(lives))
    assert greedy.size > greedy.lower_bound
    assert plan_memory(lives).size < greedy.size
    assert plan_memory(lives) == plan_memory(lives)
