"""Answers in the order of their requests."""

from dataclasses import dataclass, field

from hypothesis import given
from hypothesis import strategies as st

from tuili.server.scheduling.ordering import Order


@dataclass(eq=False)
class Item:
    name: int
    log: list = field(repr=False)

    def __post_init__(self):
        self.reply = self.log.append


@given(st.permutations(range(6)), st.sets(st.integers(0, 5)))
def test_answers_leave_in_the_order_in_which_requests_came(done, cancelled):
    order, log = Order(), []
    items = [Item(at, log) for at in range(6)]
    for item in items:
        order.enter(item)
    for at in done:
        item = items[at]
        if at in cancelled:
            item.reply = None
            order.leave(item)
        else:
            item.reply(at)
    assert log == [at for at in range(6) if at not in cancelled]


def test_an_answer_does_not_wait_for_requests_that_came_later():
    order, log = Order(), []
    first, second = Item(0, log), Item(1, log)
    order.enter(first)
    order.enter(second)
    first.reply(0)
    assert log == [0]


def test_an_answer_that_waits_for_others_is_nobodys_once_its_request_is_cancelled():
    order, log = Order(), []
    items = [Item(at, log) for at in range(3)]
    for item in items:
        order.enter(item)
    items[1].reply(1)
    assert [order.leave(items[1]), order.leave(items[1])] == [True, False]
    items[2].reply(2)
    assert not order.leave(items[0])
    assert log == [2]
