"""Which models go for another: the least recently used, and nothing that is in use."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuili.server.scheduling.residency import Resident, fits, victims

A, B, C = (Resident(name, 10, at) for at, name in enumerate("abc"))
PINNED = Resident("a", 10, 0, pinned=True)


@pytest.mark.parametrize(
    ("residents", "budget", "needed", "gone"),
    [
        ([], 10, 10, []),
        ([C, A, B], 40, 10, []),
        ([C, A, B], 30, 10, ["a"]),
        ([C, A, B], 30, 11, ["a", "b"]),
        ([PINNED, B, C], 30, 10, ["b"]),
        ([PINNED, B, C], 5, 10, ["b", "c"]),
        ([Resident("ensemble", 0, 0), B, C], 20, 5, ["b"]),
    ],
)
def test_the_least_recently_used_go_first(residents, budget, needed, gone):
    assert victims(residents, budget, needed) == gone


RESIDENTS = st.lists(
    st.builds(Resident, st.uuids().map(str), st.integers(0, 100), st.floats(0, 9), st.booleans())
)


@given(RESIDENTS, st.integers(0, 500), st.integers(0, 500))
def test_what_fits_does_so_after_the_victims_went_and_without_a_needless_one(
    residents, budget, needed
):
    gone = victims(residents, budget, needed)
    sizes = {each.name: each.size_bytes for each in residents}
    left = sum(sizes.values()) - sum(sizes[name] for name in gone)
    assert not {each.name for each in residents if each.pinned} & set(gone)
    assert (left + needed <= budget) == fits(residents, budget, needed)
    if gone:
        assert left + sizes[gone[-1]] + needed > budget
