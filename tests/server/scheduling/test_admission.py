"""Admission: expected waits, concurrency and rates on a clock that the test moves."""

import pytest

from tuili.errors import Overloaded
from tuili.server.scheduling.admission import Admission, Expectation, Limits, TokenBucket


def admission(**limits):
    expectation = Expectation()
    expectation.ran(1, 0.1)
    return Admission(Limits(**limits), expectation)


@pytest.mark.parametrize(
    ("limits", "ahead", "deadline", "refused"),
    [
        ({}, 1000, 0.0, False),
        ({"max_wait_s": 0.35}, 2, 0.0, False),
        ({"max_wait_s": 0.35}, 3, 0.0, True),
        ({}, 2, 10.35, False),
        ({}, 3, 10.35, True),
        ({"max_wait_s": 9.0}, 3, 10.35, True),
        # Nobody ahead: the model itself is too slow, which is no overload.
        ({"max_wait_s": 0.05}, 0, 0.0, False),
        ({}, 1, 9.0, True),
    ],
)
def test_a_request_that_would_be_late_is_refused_at_once(limits, ahead, deadline, refused):
    door = admission(**limits)
    if not refused:
        door.admit("c", ahead, deadline, 10.0)
        return
    with pytest.raises(Overloaded, match="the expected time of") as caught:
        door.admit("c", ahead, deadline, 10.0)
    assert caught.value.retry_after_s > 0


def test_more_instances_and_larger_batches_let_more_in():
    one, two = Expectation(1), Expectation(2)
    for expectation in (one, two):
        expectation.ran(1, 0.1)
    assert two.wait_s(4) == one.wait_s(4) / 2
    before = one.wait_s(4)
    for _ in range(50):
        one.ran(10, 0.2)
    assert one.wait_s(4) < before / 2


def test_concurrency_is_limited_per_model_and_per_client_and_freed_at_the_end():
    door = admission(concurrency=3, client_concurrency=2)
    door.admit("a", 0, 0.0, 0.0)
    door.admit("a", 0, 0.0, 0.0)
    with pytest.raises(Overloaded, match=r"under way per client \(2\)"):
        door.admit("a", 0, 0.0, 0.0)
    door.admit("b", 0, 0.0, 0.0)
    with pytest.raises(Overloaded, match=r"requests under way \(3\)"):
        door.admit("c", 0, 0.0, 0.0)
    door.ended("a")
    door.admit("c", 0, 0.0, 0.0)
    for client in ("a", "b", "c"):
        door.ended(client)
    assert not door._by_client


def test_rates_are_limited_and_the_wait_is_told():
    door = admission(rate=10.0, client_rate=2.0, burst_s=0.5)
    door.admit("a", 0, 0.0, 0.0)
    with pytest.raises(Overloaded, match=r"rate per client \(2 requests/s\)") as caught:
        door.admit("a", 0, 0.0, 0.1)
    assert caught.value.retry_after_s == pytest.approx(0.4)
    for client in "bcdef":
        door.admit(client, 0, 0.0, 0.1)
    with pytest.raises(Overloaded, match=r"maximum rate \(10 requests/s\)"):
        door.admit("g", 0, 0.0, 0.1)
    door.admit("a", 0, 0.0, 0.6)


def test_a_bucket_never_lets_more_than_its_rate_through():
    bucket = TokenBucket(100.0, 0.1, 0.0)
    passed = sum(bucket.wait_s(at / 1000) == 0.0 for at in range(2000))
    assert 200 <= passed <= 211


def test_memory_does_not_grow_with_the_number_of_clients():
    door = admission(client_rate=1.0)
    for number in range(11_000):
        door.admit(str(number), 0, 0.0, 0.0)
        door.ended(str(number))
    assert len(door._buckets) == 10_000
    assert not door._by_client


def test_who_is_not_known_has_no_limits_of_his_own():
    door = admission(client_concurrency=1, client_rate=1.0, concurrency=3)
    for _ in range(3):
        door.admit("", 0, 0.0, 0.0)
    with pytest.raises(Overloaded, match="under way \\(3\\)"):
        door.admit("", 0, 0.0, 0.0)
    for _ in range(3):
        door.ended("")
    door.admit("c", 0, 0.0, 0.0)
    with pytest.raises(Overloaded, match="per client"):
        door.admit("c", 0, 0.0, 0.0)
