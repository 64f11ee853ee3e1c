"""What waits for many receivers: one bound for all, an equal part of it for each."""

from hypothesis import given
from hypothesis import strategies as st

from tuili.server.scheduling.shares import Shares

MOST = 60


def test_one_takes_all_until_another_comes():
    shares = Shares(10)
    assert [shares.add("a", n, 2) for n in range(5)] == [[]] * 5
    assert shares.add("a", 5, 1) is None
    assert shares.add("b", 6, 3) == [4, 3]
    assert (shares.size_of("a"), shares.size_of("b")) == (6, 3)
    assert shares.add("b", 7, 3) is None, "more than an equal share takes nobody's place"
    shares.remove("a", 0)
    assert shares.add("b", 8, 3) == []


def test_what_is_larger_than_all_pushes_nobody_out():
    shares = Shares(10)
    shares.add("a", 1, 10)
    assert shares.add("b", 2, 11) is None
    assert shares.size == 10


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, MOST + 5), st.booleans())))
def test_the_bound_holds_and_who_has_no_more_than_a_share_loses_nothing(steps):
    shares, held = Shares(MOST), {name: {} for name in "abc"}
    for at, (name, size, leaves) in enumerate(steps):
        if leaves and held[name]:
            item = next(iter(held[name]))
            shares.remove(name, item)
            del held[name][item]
            continue
        before = {each: sum(items.values()) for each, items in held.items()}
        share = MOST // len({each for each, items in held.items() if items} | {name})
        going = shares.add(name, at, size)
        if before[name] + size <= share:
            assert going is not None
        for gone in going or ():
            (loser,) = (each for each, items in held.items() if gone in items)
            assert before[loser] > share, "only who has more than a share gives way"
            del held[loser][gone]
        if going is not None:
            held[name][at] = size
        assert shares.size == sum(sum(items.values()) for items in held.values()) <= MOST
