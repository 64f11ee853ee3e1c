"""Arrivals, windows and the search for the largest rate are arithmetic."""

import numpy as np
import pytest

from tuili.bench.load.arrivals import Constant, Poisson
from tuili.bench.load.exchange import Log, Verdict
from tuili.bench.load.search import Promise, largest_rate
from tuili.bench.load.windows import PERCENTILES, Window, agree, summarize
from tuili.errors import InvalidArgument


def test_poisson_arrivals_have_exponential_gaps():
    arrivals = Poisson(1000.0, seed=3)
    gaps = np.diff([arrivals.next() for _ in range(20_001)])
    assert gaps.mean() == pytest.approx(1e-3, rel=0.03)
    assert gaps.std() == pytest.approx(1e-3, rel=0.05)  # of an exponential: its mean
    assert (gaps > 0).all()


def test_constant_arrivals_do_not_drift():
    arrivals = Constant(3.0)
    assert [arrivals.next() for _ in range(30_000)][-1] == 10_000.0


def test_a_window_counts_by_answer_or_by_due_moment():
    log = Log()
    log.add(0.0, 0.5, Verdict.GOOD, "")
    log.add(0.9, 1.9, Verdict.GOOD, "")  # due inside, answered after
    log.add(0.95, 0.99, Verdict.WRONG, "")
    log.add(2.0, 2.5, Verdict.GOOD, "")
    answered, due = summarize(log, 0.0, 1.0), summarize(log, 0.0, 1.0, by_due=True)
    assert (answered.answers, answered.wrong, answered.max_ms) == (1, 1, 500.0)
    assert (due.answers, due.wrong, round(due.max_ms)) == (2, 1, 1000)
    assert not due.clean


def test_percentiles_are_those_of_the_good_answers():
    log = Log()
    for at in range(1000):
        log.add(at / 1000, at / 1000 + (at + 1) / 1e6, Verdict.GOOD, "")
    window = summarize(log, 0.0, 2.0)
    assert window.percentile(50.0) == pytest.approx(0.5, rel=0.01)
    assert window.percentile(99.9) == pytest.approx(0.999, rel=0.01)


@pytest.mark.parametrize(
    ("rates", "stable"),
    [
        ([100, 100], False),
        ([1, 100, 104, 96], True),
        ([100, 100, 130], False),
        ([0, 0, 0], False),
    ],
)
def test_three_windows_agree_within_a_tenth(rates, stable):
    assert agree(rates, 0.1) is stable


def server_with_limit(limit):
    """A server whose latency explodes above `limit`."""

    def measure(rate):
        served = min(rate, limit)
        latency = 1.0 if rate <= limit else 1000.0
        return Window(1.0, int(served), served, latency, dict.fromkeys(PERCENTILES, latency), 0.0)

    return measure


@pytest.mark.parametrize("limit", [7.0, 150.0, 4321.0])
@pytest.mark.parametrize("first", [1.0, 100.0, 100_000.0])
def test_the_search_ends_just_below_what_the_server_can_do(limit, first):
    rate, tried = largest_rate(server_with_limit(limit), Promise(99.0, 10.0), first)
    assert limit / 1.06 <= rate <= limit
    assert all(window.percentile(99.0) > 10 for r, window in tried if r > limit)


def test_a_promise_that_nothing_keeps_ends_the_search():
    assert largest_rate(server_with_limit(0.1), Promise(99.0, 10.0), 64.0)[0] == 0.0


def test_wrong_answers_break_a_promise():
    window = Window(1.0, 10, 10.0, 1.0, dict.fromkeys(PERCENTILES, 1.0), 1.0, wrong=1)
    assert not Promise(99.0, 10.0).kept(10.0, window)


def test_numbers_on_the_command_line_must_be_positive():
    from tuili.cli.bench_server import numbers

    assert numbers("--concurrency", "1,8") == [1.0, 8.0]
    for text in ("0", "a", "1,,2", "-3"):
        with pytest.raises(InvalidArgument, match="--rate"):
            numbers("--rate", text)
