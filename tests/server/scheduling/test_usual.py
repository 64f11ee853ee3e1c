"""Of runs that go as always, one in four is learnt from."""

from __future__ import annotations

from tuili.server.scheduling.usual import Usual

USUAL_S = 30e-6


def learnt(usual: Usual, runs: int, seconds: float, size: int = 64) -> int:
    return sum(not usual.expects(size, seconds) for _ in range(runs))


def test_the_first_runs_of_a_size_are_all_learnt_from():
    usual = Usual()
    assert learnt(usual, 33, USUAL_S) == 33
    assert learnt(usual, 33, USUAL_S, size=1024) == 33


def test_later_ones_are_learnt_from_one_in_four():
    usual = Usual()
    learnt(usual, 33, USUAL_S)
    assert learnt(usual, 400, USUAL_S) == 100


def test_a_run_that_took_much_longer_is_news_and_so_are_those_after_it():
    usual = Usual()
    learnt(usual, 400, USUAL_S)
    assert learnt(usual, 33, 3 * USUAL_S) == 33


def test_a_slow_first_run_is_forgotten():
    usual = Usual()
    learnt(usual, 1, 5e-3)
    learnt(usual, 400, USUAL_S)
    assert learnt(usual, 1, 3 * USUAL_S) == 1
