"""Where a batch runs, by measured time."""

import pytest

from tuili.server.scheduling.placement import Placement


def test_unmeasured_models_run_beside_the_loop():
    assert not Placement().inline(16)


@pytest.mark.parametrize(("seconds", "inline"), [(20e-6, True), (99e-6, True), (120e-6, False)])
def test_quick_models_run_on_the_loop(seconds, inline):
    placement = Placement()
    placement.record(16, seconds)
    assert placement.inline(16) is inline


def test_an_unseen_size_is_extrapolated_linearly():
    placement = Placement()
    placement.record(16, 20e-6)
    assert placement.inline(32)
    assert not placement.inline(16 << 10)
    assert placement.expected_s(32) == pytest.approx(40e-6)


def test_one_outlier_does_not_move_a_tiny_model_but_a_trend_does():
    placement = Placement()
    placement.record(16, 20e-6)
    placement.record(16, 10e-3)
    assert placement.inline(16)
    for _ in range(50):
        placement.record(16, 1e-3)
    assert not placement.inline(16)


def test_a_model_near_the_limit_does_not_change_sides():
    placement = Placement()
    placement.record(16, 90e-6)
    assert placement.inline(16)
    for _ in range(20):
        placement.record(16, 130e-6)
    assert placement.inline(16)
    for _ in range(20):
        placement.record(16, 200e-6)
    assert not placement.inline(16)


def test_forbidden_means_never():
    placement = Placement(allowed=False)
    placement.record(16, 1e-6)
    assert not placement.inline(16)


def test_what_looked_slow_beside_the_loop_is_tried_on_it_now_and_then():
    placement = Placement()
    placement.record(16, 400e-6, on_loop=False)
    assert [placement.inline(16) for _ in range(64)].count(True) == 2
    placement.record(16, 20e-6, on_loop=True)
    assert placement.inline(16)


def test_what_is_surely_slow_is_not_tried():
    placement = Placement()
    placement.record(16, 5e-3, on_loop=False)
    assert not any(placement.inline(16) for _ in range(100))
