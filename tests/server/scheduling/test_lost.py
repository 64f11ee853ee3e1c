"""Lost sequences: what is told of them, and how much is remembered."""

import pytest

from tests.server.scheduling.test_sequences import Item, direct, queue
from tuili.errors import InvalidArgument
from tuili.server.scheduling.lost import Lost


def begun(q):
    item = Item(1, starts=True)
    q.push(item)
    assert item in q.take(0.0)
    return item


def cancelled(q):
    begun(q)
    waits = Item(1)
    q.push(waits)
    q.remove(waits)


def died(q):
    begun(q)
    q.lost(0)


def idle(q):
    q.finished(begun(q), {}, 0.0)
    q.expire(5.0)


def closed(q):
    begun(q)
    q.close("version 3 of the model was unloaded or reloaded")


def late(q):
    q.push(Item(1, starts=True, expires=1.0))
    q.expire(1.0)


@pytest.mark.parametrize(
    ("loses", "why"),
    [
        (cancelled, "the request before it in sequence 1 was cancelled"),
        (died, "the instance that kept the state of sequence 1 died; start anew"),
        (idle, r"it was idle for more than 5 s"),
        (closed, "version 3 of the model was unloaded or reloaded"),
        (late, "the first request of sequence 1 was not run in time"),
    ],
)
def test_who_goes_on_with_a_lost_sequence_hears_why_he_cannot(loses, why):
    q = queue(idle_s=5.0)
    loses(q)
    asks = "must specify the START flag on the first request of the sequence; this one was lost: "
    with pytest.raises(InvalidArgument, match=asks + why):
        q.push(Item(1))


def test_an_id_that_its_client_ended_or_uses_anew_is_not_lost():
    q = queue(idle_s=5.0)
    idle(q)
    q.push(Item(1, starts=True, ends=True))
    q.close("it was unloaded")
    with pytest.raises(InvalidArgument, match="first request of the sequence$"):
        q.push(Item(1))


def test_the_latest_are_remembered_of_each_model():
    lost = Lost(most=2)
    lost.note("a", 1, "old")
    lost.note("b", 1, "of another")
    lost.note("a", 1, "new")
    lost.note("a", "one", "text")
    assert (lost.why("a", 1), lost.why("a", "one"), lost.why("b", 1)) == ("new", "text", "")
    assert len(lost) == 2


@pytest.mark.parametrize("kind", [queue, direct])
def test_a_model_that_closes_runs_all_that_waits_though_no_client_ends_his_sequence(kind):
    q = kind(slots=1)
    runs = begun(q)
    behind, backlog, next_one = Item(1), Item(2, starts=True), Item(2)
    for item in (behind, backlog, next_one):
        q.push(item)
    q.close("it was unloaded")
    for item, then in zip((runs, behind, backlog), (behind, backlog, next_one), strict=True):
        q.finished(item, {}, 1.0)
        assert q.take(1.0) == [then]
    q.finished(next_one, {}, 1.0)
    assert len(q) == 0
    assert q.dropped() == []
    assert q.wake_at(1.0) is None
