"""Sequences: order, slots, controls, state, idle time."""

from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuili.errors import InvalidArgument
from tuili.server.scheduling.controls import Control, StateTensor
from tuili.server.scheduling.policy import BatchPolicy
from tuili.server.scheduling.sequences import SequencePolicy, SequenceQueue


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
    is_blank: bool = False

    def blank(self):
        return Item(0, lane=self.lane, is_blank=True)


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
    assert q.wake_at(1.0) == 5.0
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


def test_a_cancelled_request_ends_its_sequence():
    q = queue()
    first, second, third, other = Item(1, starts=True), Item(1), Item(1), Item(2, starts=True)
    for item in (first, second, third, other):
        q.push(item)
    assert q.remove(second)
    assert not q.remove(second)
    assert {id(item): str(error) for item, error in q.dropped()} == {
        id(item): "the request before it in sequence 1 was cancelled" for item in (first, third)
    }
    assert q.take(0.0) == [other]
    assert len(q) == 0
    with pytest.raises(InvalidArgument, match="must specify the START flag"):
        q.push(Item(1))


def test_what_runs_while_a_later_request_is_cancelled_ends_and_frees_the_slot():
    q = queue(slots=1)
    first, second, other = Item(1, starts=True), Item(1), Item(2, starts=True)
    for item in (first, second, other):
        q.push(item)
    assert q.take(0.0) == [first]
    assert not q.remove(first)
    assert q.remove(second)
    assert q.take(0.0) == []
    q.finished(first, {}, 0.0)
    assert q.take(0.0) == [other]


def test_who_waits_for_a_slot_too_long_leaves_with_the_whole_sequence():
    q = queue(slots=1)
    late = [Item(2, starts=True, expires=1.0), Item(2)]
    for item in (Item(1, starts=True), *late):
        q.push(item)
    assert q.expire(1.0) == []
    assert [item for item, _ in q.dropped()] == late


@pytest.mark.parametrize("keeps", [False, True], ids=["the model's", "the server's"])
def test_a_state_that_died_with_its_instance_ends_the_sequences_that_had_begun(keeps):
    q = queue(states=(STATE,) if keeps else ())
    began, behind, fresh = Item(1, starts=True), Item(1), Item(2, starts=True)
    q.push(began)
    assert q.take(0.0) == [began]
    q.push(behind)
    q.push(fresh)
    q.lost(0)
    assert [item for item, _ in q.dropped()] == ([] if keeps else [behind])
    q.finished(began, None, 0.0)
    assert q.take(0.0) == ([fresh, behind] if keeps else [fresh])


# ---- direct: a slot is a row


def rows(batch):
    return [None if item.is_blank else item.sequence for item in batch]


def direct(**more):
    return queue(direct=True, controls=CONTROLS, **more)


def test_a_sequence_keeps_its_row_and_rows_between_are_blank():
    q = direct()
    for sequence in (1, 2, 3):
        q.push(Item(sequence, starts=True))
    batch = q.take(0.0)
    assert rows(batch) == [1, 2, 3]
    q.push(Item(3, arrived=1.0))
    assert q.take(1.0) == []  # the last batch still runs
    for item in batch:
        q.finished(item, {}, 1.0)
    batch = q.take(1.0)
    assert rows(batch) == [None, None, 3]
    assert [item.arrays["READY"].item() for item in batch] == [False, False, True]
    assert [item.arrays["ID"].item() for item in batch] == [0, 0, 3]


def test_without_state_of_the_models_own_no_row_is_blank():
    q = direct(states=(STATE,))
    first = [Item(sequence, starts=True) for sequence in (1, 2)]
    for item in first:
        q.push(item)
    for item in q.take(0.0):
        q.finished(item, {}, 0.0)
    q.push(Item(2))
    assert rows(q.take(0.0)) == [2]


def test_requests_of_another_shape_wait_and_their_rows_are_blank():
    q = direct()
    for sequence, lane in ((1, "a"), (2, "b"), (3, "a")):
        q.push(Item(sequence, starts=True, lane=lane))
    batch = q.take(0.0)
    assert rows(batch) == [1, None, 3]
    for item in batch:
        q.finished(item, {}, 0.0)
    assert rows(q.take(0.0)) == [None, 2]


def test_sequences_are_bound_to_instances_lowest_slots_first():
    q = direct(instances=2, slots=2)
    for sequence in (1, 2, 3):
        q.push(Item(sequence, starts=True))
    assert [rows(q.take(0.0, instance)) for instance in (0, 1)] == [[1, 3], [2]]


def test_an_id_that_is_used_again_waits_for_the_end_of_the_sequence_before_it():
    q = queue()
    first, again = Item(1, starts=True, ends=True), Item(1, starts=True)
    q.push(first)
    q.push(again)
    assert q.take(0.0) == [first]
    assert q.take(0.0) == []
    q.finished(first, {}, 0.0)
    assert q.take(0.0) == [again]


def test_a_freed_row_goes_to_the_backlog():
    q = direct(slots=2)
    for sequence in (1, 2, 3):
        q.push(Item(sequence, starts=True, ends=True))
    assert q.gathered() == (2, 1)
    for item in q.take(0.0):
        q.finished(item, {}, 0.0)
    assert rows(q.take(0.0)) == [3]


@pytest.mark.parametrize(("utilization", "leaves_at"), [(0.0, 0.0), (0.5, 0.0), (1.0, 2.0)])
def test_a_direct_batch_waits_for_its_slots_as_long_as_the_delay_allows(utilization, leaves_at):
    batch = BatchPolicy(max_rows=4, merge=True, max_delay_s=2.0)
    policy = SequencePolicy(batch, slots=4, direct=True, utilization=utilization)
    q = SequenceQueue("m", policy)
    for sequence in (1, 2):
        q.push(Item(sequence, starts=True))
    if leaves_at:
        assert q.take(0.0) == []
        assert q.wake_at(0.0) == min(leaves_at, 1.0)  # whichever is first: the idle time is 1 s
    assert rows(q.take(leaves_at)) == [1, 2]


@pytest.mark.parametrize("direct", [True, False])
def test_no_batch_waits_for_sequences_of_a_version_that_leaves(direct):
    batch = BatchPolicy(max_rows=4, merge=True, max_delay_s=1e9)
    q = SequenceQueue("m", SequencePolicy(batch, slots=4, direct=direct, utilization=1.0))
    q.push(Item(1, starts=True))
    assert q.take(0.0) == []
    q.close("it leaves")
    assert rows(q.take(0.0)) == [1]


def test_a_request_expires_without_stopping_its_sequence_unless_it_is_the_first():
    q = queue()
    first, late, second = Item(1, starts=True), Item(1, expires=1.0), Item(1)
    for item in (first, late, second):
        q.push(item)
    assert q.take(0.0) == [first]
    assert q.expire(1.0) == [late]
    q.finished(first, {}, 1.0)
    assert q.take(1.0) == [second]
    first, behind = Item(2, starts=True, expires=2.0), Item(2)
    q.push(first)
    q.push(behind)
    assert q.expire(2.0) == [first]
    assert [item for item, _ in q.dropped()] == [behind]


def test_drain_takes_everything_out():
    q = queue(slots=1)
    items = [Item(1, starts=True), Item(1), Item(2, starts=True)]
    for item in items:
        q.push(item)
    assert set(map(id, q.drain())) == set(map(id, items))
    assert len(q) == 0
    assert q.take(0.0) == []


@given(st.lists(st.tuples(st.integers(1, 4), st.integers(0, 3)), max_size=40), st.integers(1, 3))
@pytest.mark.parametrize("direct", [False, True])
def test_every_request_runs_once_and_sequences_keep_their_order(direct, acts, slots):
    q = queue(slots=slots, rows=2 if not direct else slots, idle_s=1e9, direct=direct)
    last, pushed, ran, running, lives = {}, [], [], [], []
    for at, (sequence, act) in enumerate(acts):
        if act < 3:
            starts = sequence not in last
            item = Item(sequence, starts=starts, ends=act == 2, arrived=float(at))
            q.push(item)
            pushed.append(item)
            lives += [[]] if starts else []
            last.setdefault(sequence, lives[-1]).append(item)
            if item.ends:
                del last[sequence]
        else:
            batch = [item for item in q.take(float(at)) if not item.is_blank]
            running += batch
    now = 1e3
    for sequence in list(last):
        end = Item(sequence, ends=True, arrived=now)
        q.push(end)
        pushed.append(end)
        last[sequence].append(end)
    while True:
        running += [item for item in q.take(now) if not item.is_blank]
        if not running:
            break
        item = running.pop(0)
        q.finished(item, {}, now)
        ran.append(item)
    assert len(q) == 0
    assert sorted(map(id, ran)) == sorted(map(id, pushed))
    for life in lives:
        assert [item for item in ran if any(item is each for each in life)] == life


@pytest.mark.parametrize(
    ("dtype", "sequence", "expects"), [(np.int32, "a", "INT32"), (object, 7, "BYTES")]
)
def test_an_id_of_another_kind_than_the_model_wants_is_refused(dtype, sequence, expects):
    # Nothing could be told of it that no other sequence has.
    q = queue(controls=(Control("ID", "id", np.dtype(dtype)),))
    with pytest.raises(InvalidArgument, match=f"'ID' data-type is .* 'm' expects '{expects}'"):
        q.push(Item(sequence, starts=True))


@pytest.mark.parametrize("gone", [1, 2])
def test_a_sequence_that_ends_before_its_turn_takes_no_slot_with_it(gone):
    q = queue(slots=1)
    lives = [Item(7, starts=True, ends=True) for _ in range(4)]
    for item in lives:
        q.push(item)
    assert q.take(0.0) == [lives[0]]
    assert q.remove(lives[gone])
    left = [item for item in lives[1:] if item is not lives[gone]]
    running = lives[0]
    for item in left:
        assert q.take(0.0) == []
        q.finished(running, {}, 0.0)
        assert q.take(0.0) == [item]
        running = item
    q.finished(running, {}, 0.0)
    other = Item(8, starts=True, ends=True)
    q.push(other)
    assert q.take(0.0) == [other]


def test_who_comes_after_a_sequence_that_was_given_up_waits_for_the_one_before():
    q = queue(slots=2)
    running, given_up, later = (Item(7, starts=True, ends=True) for _ in range(3))
    q.push(running)
    assert q.take(0.0) == [running]
    q.push(given_up)
    q.remove(given_up)
    q.push(later)
    assert q.take(0.0) == []
    q.finished(running, {}, 0.0)
    assert q.take(0.0) == [later]
