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


def grown(cost_of, sizes):
    placement = Placement()
    for size in sizes:
        placement.record(size, cost_of(size))
    return placement


def test_a_model_whose_time_is_the_call_is_worth_any_batch():
    placement = grown(lambda size: 20e-6, [16 << at for at in range(8)])
    assert placement.rows_worth(16, 128) == 128


def test_a_model_whose_time_is_its_size_is_run_request_by_request():
    placement = grown(lambda size: size * 1e-6, [1024 << at for at in range(6)])
    assert [placement.rows_worth(1024, 128) for _ in range(10)] == [1] * 10


def test_batches_grow_as_far_as_it_pays():
    def seconds(size):
        return max(1e-3, size * 10e-6)

    placement = grown(seconds, [16 << at for at in range(8)])
    assert 6 <= placement.rows_worth(16, 128) <= 31


def test_rows_that_take_less_than_their_requests_are_not_divided():
    placement = grown(lambda size: size * 0.1e-6, [16 << at for at in range(8)])
    assert placement.rows_worth(16, 128) == 128


def test_unseen_sizes_are_tried_step_by_step():
    placement = grown(lambda size: size * 1e-6, [1000])
    assert placement.rows_worth(1000, 128) == 2
    assert Placement().rows_worth(1000, 128) == 1


def test_a_verdict_is_questioned_now_and_then():
    placement = grown(lambda size: size * 1e-6, [1024 << at for at in range(6)])
    asked = [placement.rows_worth(1024, 128) for _ in range(10_000)]
    assert set(asked) == {1, 3, 7}
    assert asked[:400].count(1) > 380
    assert asked[-5000:].count(1) > 4980


def test_a_small_size_that_was_slow_at_first_is_found_out():
    placement = grown(lambda size: size * 1e-6, [1024 << at for at in range(6)])
    for _ in range(3):
        placement.record(1024, 1.0)
    for _ in range(600):
        rows = placement.rows_worth(1024, 128)
        placement.record(1024 * rows, 1024 * rows * 1e-6)
    assert placement.rows_worth(1024, 128) == 1


def test_a_step_that_gains_nothing_does_not_hide_a_larger_one_that_does():
    times = {1: 5e-3, 2: 10e-3, 4: 20e-3, 8: 24e-3, 16: 48e-3}
    placement = grown(lambda size: times[size // 1024], [1024 * rows for rows in times])
    assert placement.rows_worth(1024, 128) == 15


@pytest.mark.parametrize(("row_size", "most"), [(0, 8), (5, 1), (1 << 40, 4)])
def test_rows_stay_within_their_bounds(row_size, most):
    assert 1 <= Placement().rows_worth(row_size, most) <= most
