"""The request queue, told the time."""

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuili.errors import Overloaded
from tuili.server.scheduling.policy import BatchPolicy, LevelPolicy
from tuili.server.scheduling.queue import Left, RequestQueue


@dataclass(eq=False)
class Item:
    rows: int = 1
    lane: object = None
    level: int = 0
    arrived: float = 0.0
    expires: float = 0.0
    queued: bool = False


def filled(policy: BatchPolicy, *rows: int) -> tuple[RequestQueue[Item], list[Item]]:
    queue: RequestQueue[Item] = RequestQueue(policy)
    items = [Item(rows=number, arrived=float(at)) for at, number in enumerate(rows)]
    for item in items:
        queue.push(item)
    return queue, items


def rows_of(batch: list[Item]) -> list[int]:
    return [item.rows for item in batch]


def test_without_merging_every_request_leaves_alone():
    queue, items = filled(BatchPolicy(max_rows=8), 1, 1)
    assert queue.take(0.0) == items[:1]
    assert queue.left is Left.ALONE
    assert queue.take(0.0) == items[1:]
    assert queue.take(0.0) == []


@pytest.mark.parametrize(
    ("rows", "policy", "now", "taken", "left"),
    [
        ([1, 2, 3], BatchPolicy(8, merge=True), 2.0, [1, 2, 3], Left.IDLE),
        ([5, 4, 1], BatchPolicy(8, merge=True), 2.0, [5], Left.FULL),
        ([9], BatchPolicy(8, merge=True), 0.0, [9], Left.FULL),
        ([1, 1, 1], BatchPolicy(8, merge=True, preferred_rows=(2,)), 2.0, [1, 1], Left.PREFERRED),
        ([1], BatchPolicy(8, merge=True, preferred_rows=(2,)), 0.0, [1], Left.IDLE),
        ([1, 1], BatchPolicy(8, merge=True, max_delay_s=10), 5.0, [], Left.IDLE),
        ([1, 1], BatchPolicy(8, merge=True, max_delay_s=10), 10.0, [1, 1], Left.TIMEOUT),
        ([4, 4], BatchPolicy(8, merge=True, max_delay_s=10), 1.0, [4, 4], Left.FULL),
        ([4, 5], BatchPolicy(8, merge=True, max_delay_s=10), 1.0, [4], Left.FULL),
        ([1, 1, 1], BatchPolicy(8, merge=True, preferred_rows=(2, 4), max_delay_s=10), 2.0, [1, 1],
         Left.PREFERRED),
        ([7], BatchPolicy(8, merge=True, preferred_rows=(2, 6), max_delay_s=10), 1.0, [7],
         Left.FULL),
        ([3, 4], BatchPolicy(8, merge=True, preferred_rows=(2, 6), max_delay_s=10), 1.0, [3],
         Left.FULL),
        ([3, 4, 1], BatchPolicy(8, merge=True, preferred_rows=(2, 6), max_delay_s=10), 10.0,
         [3, 4, 1], Left.FULL),
        ([1, 1, 1], BatchPolicy(8, merge=True, preferred_rows=(4,), max_delay_s=10), 10.0,
         [1, 1, 1], Left.TIMEOUT),
    ],
)  # fmt: skip
def test_which_requests_leave_and_why(rows, policy, now, taken, left):
    queue, _ = filled(policy, *rows)
    assert rows_of(queue.take(now)) == taken
    assert queue.left is left


def test_only_requests_of_one_shape_go_together_oldest_first():
    queue: RequestQueue[Item] = RequestQueue(BatchPolicy(8, merge=True))
    items = [Item(lane=lane, arrived=at) for at, lane in enumerate("abab")]
    for item in items:
        queue.push(item)
    assert queue.take(9.0) == [items[0], items[2]]
    assert queue.take(9.0) == [items[1], items[3]]


def test_a_batch_does_not_wait_while_others_wait_that_cannot_join_it():
    queue: RequestQueue[Item] = RequestQueue(BatchPolicy(4, merge=True, max_delay_s=10))
    old, *young = [Item(lane="old"), Item(lane="young", arrived=1), Item(lane="young", arrived=2)]
    queue.push(old)
    assert queue.take(0.5) == []
    for item in young:
        queue.push(item)
    assert queue.take(3.0) == [old]
    assert queue.take(3.0) == []
    assert queue.take(11.0) == young


def test_urgent_levels_leave_first_and_take_others_along():
    queue: RequestQueue[Item] = RequestQueue(
        BatchPolicy(2, merge=True, priority_levels=2, default_level=2)
    )
    low, low2, high = Item(level=2), Item(level=2, arrived=1), Item(level=1, arrived=2)
    for item in (low, low2, high):
        queue.push(item)
    assert queue.take(3.0) == [high, low]
    assert queue.take(3.0) == [low2]


@pytest.mark.parametrize(("priority", "level"), [(0, 2), (1, 1), (3, 3), (4, 2), (-1, 2)])
def test_level_of_a_priority(priority, level):
    assert BatchPolicy(priority_levels=3, default_level=2).level_of(priority) == level


def test_a_full_queue_refuses_and_a_cancelled_request_frees_its_place():
    queue: RequestQueue[Item] = RequestQueue(BatchPolicy(level=LevelPolicy(max_queue_size=1)))
    first = Item()
    queue.push(first)
    with pytest.raises(Overloaded, match="Exceeds maximum queue size"):
        queue.push(Item())
    assert queue.remove(first)
    assert not queue.remove(first)
    queue.push(Item())
    assert len(queue) == 1


@pytest.mark.parametrize(
    ("limits", "asked_s", "deadline", "gone_at"),
    [
        (LevelPolicy(timeout_s=5), 1.0, 0.0, 5.0),
        (LevelPolicy(timeout_s=5, allow_timeout_override=True), 1.0, 0.0, 1.0),
        (LevelPolicy(timeout_s=5, allow_timeout_override=True), 9.0, 0.0, 5.0),
        (LevelPolicy(allow_timeout_override=True), 2.0, 0.0, 2.0),
        (LevelPolicy(timeout_s=5), 0.0, 3.0, 3.0),
        (LevelPolicy(), 0.0, 4.0, 4.0),
    ],
)
def test_requests_expire_at_the_earliest_of_their_limits(limits, asked_s, deadline, gone_at):
    queue: RequestQueue[Item] = RequestQueue(BatchPolicy(level=limits))
    item = Item(expires=deadline)
    queue.push(item, asked_s)
    assert queue.wake_at(0.0) == gone_at
    assert queue.expire(gone_at - 0.1) == []
    assert queue.expire(gone_at) == [item]
    assert len(queue) == 0


def test_a_delayed_request_goes_before_lower_levels():
    levels = {1: LevelPolicy(timeout_s=1, on_timeout="delay"), 2: LevelPolicy()}
    queue: RequestQueue[Item] = RequestQueue(BatchPolicy(levels=levels))
    low, late = Item(level=2), Item(level=1)
    queue.push(low)
    queue.push(late)
    assert queue.expire(2.0) == []
    in_time = Item(level=1, arrived=2.0)
    queue.push(in_time)
    assert queue.ahead(1) == 1
    assert queue.ahead(2) == 3
    assert [queue.take(2.0)[0] for _ in range(3)] == [in_time, late, low]


def test_a_delayed_request_goes_behind_all_others():
    policy = BatchPolicy(level=LevelPolicy(timeout_s=1, on_timeout="delay"))
    queue: RequestQueue[Item] = RequestQueue(policy)
    late, fresh = Item(), Item(arrived=1.0)
    queue.push(late)
    queue.push(fresh)
    assert queue.expire(1.5) == []
    assert [queue.take(1.5), queue.take(1.5)] == [[fresh], [late]]


@given(
    st.lists(st.tuples(st.integers(1, 6), st.sampled_from("ab"), st.integers(1, 2)), max_size=30),
    st.integers(1, 8),
    st.sets(st.integers(1, 8), max_size=2),
    st.data(),
)
def test_every_request_leaves_once_in_order_within_its_shape(pushed, most, preferred, data):
    policy = BatchPolicy(
        most,
        merge=True,
        preferred_rows=tuple(sorted(p for p in preferred if p <= most)),
        max_delay_s=data.draw(st.sampled_from([0.0, 5.0])),
        priority_levels=2,
        default_level=1,
    )
    queue: RequestQueue[Item] = RequestQueue(policy)
    items = [Item(r, lane, level, float(at)) for at, (r, lane, level) in enumerate(pushed)]
    gone: list[Item] = []
    now = 0.0
    for item in items:
        queue.push(item)
        if data.draw(st.booleans()):
            gone += check_batch(queue.take(now), most)
        if data.draw(st.integers(0, 4)) == 0 and queue.remove(item):
            gone.append(item)
    now = 1e6
    while batch := queue.take(now):
        gone += check_batch(batch, most)
    assert len(queue) == 0
    assert sorted(map(id, gone)) == sorted(map(id, items))
    assert not any(item.queued for item in items)


def check_batch(batch: list[Item], most: int) -> list[Item]:
    assert len(batch) <= 1 or sum(item.rows for item in batch) <= most
    assert len({item.lane for item in batch}) <= 1
    for level in (1, 2):
        arrived = [item.arrived for item in batch if item.level == level]
        assert arrived == sorted(arrived)
    return batch
