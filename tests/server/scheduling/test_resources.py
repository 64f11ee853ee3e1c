"""Resources: who may run, in which order, and that nothing is ever over-committed or lost."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tuili.errors import InvalidModel
from tuili.server.scheduling.deadlock import Shortage
from tuili.server.scheduling.resources import Claim, Resources


def places(resources, *claims):
    woken = []
    turns = [
        resources.join(Claim(amounts, priority), lambda at=at: woken.append(at))
        for at, (amounts, priority) in enumerate(claims)
    ]
    return turns, woken


def test_there_is_as_much_as_the_most_demanding_instance_needs():
    resources = Resources()
    (one, four), woken = places(resources, ({"r": 1}, 1), ({"r": 4}, 1))
    assert resources.available("r") == 4
    assert four.take()
    four.use()
    assert not one.take()
    four.done()
    assert woken == [0]
    assert one.held
    resources.leave(four)
    assert resources.available("r") == 1


def test_who_needs_nothing_that_others_wait_for_does_not_wait():
    claims = {"r": 2}, {"r": 2, "s": 1}, {"s": 1}, {"t": 1}, {}
    turns, woken = places(Resources({"s": 2}), *((amounts, 1) for amounts in claims))
    assert [turn.take() for turn in turns] == [True, False, False, True, True]
    turns[0].use()
    turns[0].done()
    assert woken == [1, 2]


def test_a_turn_lacks_what_others_have_and_what_is_kept_for_those_before_it():
    resources = Resources({"r": 3, "s": 1})
    claims = {"r": 1}, {"r": 3, "s": 1}, {"r": 1}, {"s": 1}, {"t": 1}
    one, all_, more, other, apart = (resources.join(Claim(c), lambda: None, c) for c in claims)
    assert one.take()
    assert one.lacks() == []
    one.use()
    lacking = [Shortage(1, [({"r": 1}, 1)])]
    more.runs = other.runs = apart.runs = 1
    assert [turn.take() for turn in (all_, more, other, apart)] == [False, False, False, True]
    assert [turn.lacks() for turn in (all_, more, other, apart)] == [lacking] * 3 + [[]]
    one.done()
    assert [turn.held for turn in (all_, more, other)] == [True, False, False]
    assert more.lacks() == [Shortage(1, [({"r": 3, "s": 1}, 3)])]


def test_the_operator_may_fix_how_much_there_is():
    resources = Resources({"r": 2})
    turns, _ = places(resources, ({"r": 1}, 1), ({"r": 1}, 1), ({"r": 1}, 1))
    assert [turn.take() for turn in turns] == [True, True, False]
    with pytest.raises(InvalidModel, match="needs 3 of resource 'r', but there are only 2"):
        resources.join(Claim({"r": 3}), lambda: None)


def test_twice_the_priority_gets_half_the_turns():
    turns, _ = places(Resources(), *(({"r": 1}, priority) for priority in (1, 1, 2, 2)))
    for _ in range(300):
        for turn in turns:
            turn.take()
        (running,) = [turn for turn in turns if turn.held]
        running.use()
        running.done()
    often, seldom = turns[0].runs + turns[1].runs, turns[2].runs + turns[3].runs
    assert often == pytest.approx(2 * seldom, rel=0.1)


def test_priorities_hold_for_two_that_always_have_work():
    turns, _ = places(Resources(), ({"r": 1}, 1), ({"r": 1}, 2))
    for turn in turns:
        turn.take()
    for _ in range(90):
        (running,) = [turn for turn in turns if turn.held]
        running.use()
        running.done(again=True)
    assert [turn.runs for turn in turns] == [60, 30]


def test_of_equals_the_more_important_one_runs_first():
    turns, _ = places(Resources(), ({"r": 1}, 2), ({"r": 1}, 1))
    for turn in turns:
        turn.take()
    order = []
    for _ in range(6):
        (running,) = [turn for turn in turns if turn.held]
        order.append(running.claim.priority)
        running.use()
        running.done(again=True)
    assert order == [2, 1, 1, 1, 1, 2]


def test_who_waits_no_more_lets_the_next_one_through():
    (running, waiting, next_one), woken = places(
        Resources({"r": 2}), ({"r": 1}, 1), ({"r": 2}, 1), ({"r": 1}, 1)
    )
    assert running.take()
    assert not waiting.take()
    assert not next_one.take()
    waiting.drop()
    assert woken == [2]
    next_one.drop()
    running.use()
    running.done()
    assert waiting.take()


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(1, 3)), min_size=1, max_size=5),
    st.lists(st.tuples(st.integers(0, 4), st.sampled_from(["take", "done", "drop"])), max_size=60),
)
def test_nothing_is_over_committed_and_everybody_gets_a_turn(claims, acts):
    resources = Resources({"r": 3})
    turns, _ = places(resources, *(({"r": amount}, priority) for amount, priority in claims))
    running = set()
    for at, act in acts:
        turn = turns[at % len(turns)]
        if act == "take" and turn not in running and turn.take():
            turn.use()
            running.add(turn)
        elif act == "done" and turn in running:
            running.discard(turn)
            turn.done()
        elif act == "drop" and turn not in running:
            turn.drop()
        held = [turn for turn in turns if turn.held or turn in running]
        assert sum(turn.claim.amounts["r"] for turn in held) <= 3
    for turn in running:
        turn.done()
    for turn in turns:
        turn.drop()
    for turn in turns:
        assert turn.take()
        turn.use()
        turn.done()
