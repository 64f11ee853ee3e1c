"""The life of a roll-out, and the world that a journal makes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuili.errors import InvalidArgument, NotFound
from tuili.server.rollout.history import Entry, World
from tuili.server.rollout.states import FINAL, NEXT, State, after

EVENTS = sorted({event for _, event in NEXT})
PLAN = {"model": "m", "candidates": {"candidate": 2}, "steps": [{"weight": 5}, {"weight": 50}]}


def journal(*events, model="m", rollout="r"):
    """A world after these events; an event may come with its numbers."""
    world = World()
    for event in events:
        name, numbers = event if isinstance(event, tuple) else (event, {})
        if name == "created":
            numbers = {"plan": PLAN, "stable": 1}
        entry = Entry(model, name, "me", f"why {name}", rollout, numbers, seq=world.seq + 1)
        world.apply(entry)
    return world


def test_every_state_is_reached_and_every_final_one_is_final():
    reached = {State.SCHEDULED, *NEXT.values()}
    assert reached == set(State)
    assert FINAL.isdisjoint(state for state, _ in NEXT)


def test_every_roll_out_that_began_can_still_end():
    for state in set(State) - FINAL:
        todo, seen = {state}, set()
        while todo:
            at = todo.pop()
            seen.add(at)
            todo |= {to for (frm, _), to in NEXT.items() if frm is at} - seen
        assert seen & FINAL


def test_what_cannot_happen_says_what_can():
    with pytest.raises(InvalidArgument, match="'r' is PAUSED: 'step' cannot happen now, only abor"):
        after(State.PAUSED, "step", "r")


@pytest.mark.parametrize(
    ("events", "state", "pointer"),
    [
        (("created",), State.SCHEDULED, 1),
        (("created", "started", "rolled_back"), State.ROLLED_BACK, 1),
        (("created", "started", "loaded", ("step", {"step": 1})), State.RUNNING, 1),
        (("created", "started", "loaded", ("promoting", {"candidate": "candidate"})),
         State.PROMOTING, 1),
        (("created", "started", "loaded", ("promoting", {"candidate": "candidate"}),
          ("pointer", {"version": 2})), State.PROMOTED, 2),
        (("created", "started", "loaded", "rolling_back", "rolled_back"), State.ROLLED_BACK, 1),
        (("created", "started", "loaded", "paused", "resumed", "aborted"), State.ABORTED, 1),
    ],
)  # fmt: skip
def test_the_pointer_moves_with_its_entry_and_at_no_other(events, state, pointer):
    world = journal(*events)
    assert world.rollout("r").state is state
    assert world.model("m").pointer == pointer
    assert world.model("m").labels["stable"] == pointer


@given(st.lists(st.sampled_from(["created", *EVENTS]), max_size=30))
def test_whatever_the_journal_holds_there_is_one_pointer(events):
    world = journal(*((event, {"version": 2, "step": 1, "candidate": "candidate"})
                      for event in events))  # fmt: skip
    model = world.model("m")
    assert model.pointer in (None, 1, 2)
    if world.rollouts:
        promoted = world.rollout("r").state is State.PROMOTED
        assert model.pointer == (2 if promoted else 1)


def test_a_new_round_begins_with_every_step_and_resume():
    world = journal("created", "started", "loaded", ("step", {"step": 1}), "paused", "resumed")
    rollout = world.rollout("r")
    assert (rollout.step, rollout.round, rollout.weights()) == (1, 2, {"candidate": 50})


def test_one_roll_out_of_a_model_at_a_time():
    world = journal("created")
    second = Entry("m", "created", "you", rollout="s", numbers={"plan": PLAN, "stable": 1})
    with pytest.raises(InvalidArgument, match=r"has roll-out 'r' \(SCHEDULED, by me\)"):
        world.check(second)
    with pytest.raises(NotFound, match="roll-out 'x' is not known; known: r"):
        world.check(Entry("m", "paused", "you", rollout="x"))


def test_labels_and_rollbacks_need_no_roll_out():
    world = World()
    world.apply(Entry("m", "label", "me", numbers={"label": "beta", "version": 3}, seq=1))
    world.apply(Entry("m", "pointer", "me", numbers={"version": 3}, seq=2))
    world.apply(Entry("m", "pointer", "me", numbers={"version": 2}, seq=3))
    model = world.model("m")
    assert (model.pointer, model.previous) == (2, 3)
    assert model.labels == {"beta": 3, "stable": 2}
    world.apply(Entry("m", "unlabel", "me", numbers={"label": "beta"}, seq=4))
    assert "beta" not in model.labels
