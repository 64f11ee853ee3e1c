"""Sequences: order, slots, controls, state, idle time."""

from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuili.errors import InvalidArgument
from tuili.server.scheduling.policy import BatchPolicy
from tuili.server.scheduling.sequences import Control, SequencePolicy, SequenceQueue, StateTensor


@dataclass(eq=False)
class Item:
    sequence: int | str
    starts: bool = False
    ends: bool = False
    arrived: float = 0.0
    rows: int = 1
    lane: object = None
    level: int = 0
    expires: float = 0.0
    queued: bool = False
    arrays: dict = field(default_factory=dict)


CONTROLS = (
    Control("START", "start", np.dtype(np.float32)),
    Control("END", "end", np.dtype(np.int32), (-1, 7)),
    Control("READY", "ready", np.dtype(np.bool_)),
    Control("ID", "id", np.dtype(np.uint64)),
)
STATE = StateTensor("in", "out", np.zeros((1, 2), np.float32))


def queue(slots=4, rows=4, **more):
    batch = BatchPolicy(max_rows=rows, merge=rows > 0)
    return SequenceQueue("m", SequencePolicy(batch, slots, **more))


def test_requests_of_a_sequence_run_one_after_the_other():
    q = queue()
    first, second = Item(1, starts=True), Item(1, ends=True)
    q.push(first)
    q.push(second)
    assert q.take(0.0) == [first]
    assert q.take(0.0) == []
    assert len(q) == 1
    q.finished(first, {}, 0.0)
    assert q.take(0.0) == [second]
    q.finished(second, {}, 0.0)
    assert len(q) == 0


def test_sequences_join_in_a_batch():
    q = queue()
    items = [Item(at, starts=True) for at in (1, 2, "three")]
    for item in items:
        q.push(item)
    assert q.take(0.0) == items


def test_controls_tell_the_model_where_it_is():
    q = queue(controls=CONTROLS)
    item = Item(42, starts=True)
    q.push(item)
    q.take(0.0)
    found = {name: (array.tolist(), array.dtype) for name, array in item.arrays.items()}
    assert found == {
        "START": ([[1.0]], np.float32),
        "END": ([[-1]], np.int32),
        "READY": ([[True]], np.bool_),
        "ID": ([[42]], np.uint64),
    }


def test_state_goes_from_answer_to_next_request_and_not_to_the_client():
    q = queue(states=(STATE,))
    first, second = Item(1, starts=True), Item(1)
    q.push(first)
    q.push(second)
    q.take(0.0)
    assert first.arrays["in"].tolist() == [[0, 0]]
    answer = q.finished(first, {"y": np.ones(1), "out": np.array([[5, 6]], np.float32)}, 0.0)
    assert set(answer) == {"y"}
    q.take(0.0)
    assert second.arrays["in"].tolist() == [[5, 6]]


def test_a_new_start_begins_with_the_initial_state():
    q = queue(states=(STATE,))
    first, again = Item(1, starts=True), Item(1, starts=True)
    q.push(first)
    q.take(0.0)
    q.push(again)
    assert q.take(0.0) == []
    q.finished(first, {"out": np.array([[9, 9]], np.float32)}, 0.0)
    assert q.take(0.0) == [again]
    assert again.arrays["in"].tolist() == [[0, 0]]


def test_sequences_without_a_slot_wait_until_one_ends():
    q = queue(slots=1)
    first, other = Item(1, starts=True, ends=True), Item(2, starts=True)
    q.push(first)
    q.push(other)
    assert q.take(0.0) == [first]
    assert q.take(0.0) == []
    q.finished(first, {}, 0.0)
    assert q.take(0.0) == [other]


def test_an_idle_sequence_gives_its_slot_up():
    q = queue(slots=1, idle_s=5)
    first, other = Item(1, starts=True), Item(2, starts=True, arrived=1.0)
    q.push(first)
    q.take(0.0)
    q.finished(first, {}, 0.0)
    q.push(other)
    assert q.wake_at() == 5.0
    assert q.expire(4.9) == []
    assert q.take(4.9) == []
    q.expire(5.0)
    assert q.take(5.0) == [other]
    with pytest.raises(InvalidArgument, match="must specify the START flag on the first request"):
        q.push(Item(1, arrived=5.0))


@pytest.mark.parametrize(
    ("item", "text"),
    [
        (Item(0, starts=True), "must specify a non-zero or non-empty correlation ID"),
        (Item("", starts=True), "must specify a non-zero or non-empty correlation ID"),
        (Item(1), "inference request for sequence 1 to model 'm' must specify the START flag"),
        (Item(1, starts=True, rows=2), "must specify batch-size 1 due to requirements of sequence"),
    ],
)
def test_requests_that_are_refused(item, text):
    with pytest.raises(InvalidArgument, match=text):
        queue().push(item)


def test_nothing_comes_after_the_end():
    q = queue()
    q.push(Item(1, starts=True, ends=True))
    with pytest.raises(InvalidArgument, match="must specify the START flag"):
        q.push(Item(1))


def test_a_cancelled_request_lets_the_next_one_go():
    q = queue()
    first, second, third = Item(1, starts=True), Item(1), Item(1)
    for item in (first, second, third):
        q.push(item)
    assert q.remove(second)
    assert q.remove(first)
    assert not q.remove(first)
    assert q.take(0.0) == [third]
    assert not q.remove(third)


def test_a_request_expires_without_stopping_its_sequence():
    q = queue()
    first, second = Item(1, starts=True, expires=1.0), Item(1)
    q.push(first)
    q.push(second)
    assert q.expire(1.0) == [first]
    assert q.take(1.0) == [second]


def test_drain_takes_everything_out():
    q = queue(slots=1)
    items = [Item(1, starts=True), Item(1), Item(2, starts=True)]
    for item in items:
        q.push(item)
    assert set(map(id, q.drain())) == set(map(id, items))
    assert len(q) == 0
    assert q.take(0.0) == []


@given(st.lists(st.tuples(st.integers(1, 4), st.integers(0, 3)), max_size=40), st.integers(1, 3))
def test_every_request_runs_once_and_sequences_keep_their_order(acts, slots):
    q = queue(slots=slots, rows=2, idle_s=1e9)
    last, pushed, ran, running = {}, [], [], []
    for at, (sequence, act) in enumerate(acts):
        if act < 3:
            starts = sequence not in last
            item = Item(sequence, starts=starts, ends=act == 2, arrived=float(at))
            q.push(item)
            pushed.append(item)
            last[sequence] = item
            if item.ends:
                del last[sequence]
        else:
            batch = q.take(float(at))
            assert len({item.sequence for item in batch}) == len(batch) <= 2
            running += batch
    now = 1e3
    for sequence in list(last):
        end = Item(sequence, ends=True, arrived=now)
        q.push(end)
        pushed.append(end)
    while True:
        running += q.take(now)
        if not running:
            break
        item = running.pop(0)
        q.finished(item, {}, now)
        ran.append(item)
    assert len(q) == 0
    assert sorted(map(id, ran)) == sorted(map(id, pushed))
    for sequence in range(1, 5):
        mine = [item for item in ran if item.sequence == sequence]
        assert mine == [item for item in pushed if item.sequence == sequence]


def test_a_text_id_becomes_a_number_where_the_model_wants_one():
    policy = SequencePolicy(BatchPolicy(), controls=(Control("ID", "id", np.dtype(np.uint64)),))
    queue = SequenceQueue("m", policy)
    told = []
    for ident in ("a", "b", "a"):
        item = Item(ident, starts=True, ends=True)
        queue.push(item)
        assert queue.take(0.0) == [item]
        told.append(int(item.arrays["ID"][0]))
        queue.finished(item, {}, 0.0)
    assert told[0] == told[2] != told[1]
