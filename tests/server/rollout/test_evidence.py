"""The e-processes: exact where a sum can be done by hand, small under their nulls, large beyond."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuili.server.rollout import evidence


@given(st.floats(1e-3, 1e6))
def test_log_gamma_is_the_mathematical_function(x):
    assert float(evidence.log_gamma(x)) == pytest.approx(math.lgamma(x), rel=1e-10, abs=1e-10)


def expectation(evidence_of, trials, rate):
    """The mean of the e-process after so many independent trials, exactly."""
    k = np.arange(trials + 1)
    log_p = evidence.log_likelihood(k, trials, rate)
    ways = np.array([math.lgamma(trials + 1) - math.lgamma(i + 1) - math.lgamma(trials - i + 1)
                     for i in k])  # fmt: skip
    return float(np.exp(log_p + ways + evidence_of(k, float(trials))).sum())


@pytest.mark.parametrize("rate", [0.001, 0.01, 0.05])
@pytest.mark.parametrize("trials", [1, 10, 300])
def test_under_its_null_the_mean_of_an_e_process_is_at_most_one(rate, trials):
    def above(k, n):
        return evidence.rate_above(k, n, 0.05)

    assert expectation(above, trials, rate) <= 1 + 1e-9

    def below(k, n):
        return evidence.rate_below(k, n, 0.001)

    assert expectation(below, trials, rate) <= 1 + 1e-9


def test_beyond_its_null_evidence_grows():
    found = evidence.rate_above([5, 50, 500], [100, 1000, 10000], 0.01)
    assert np.all(np.diff(found) > 0)
    assert found[1] > math.log(1000)


@given(
    st.tuples(st.integers(0, 50), st.integers(0, 50)),
    st.tuples(st.integers(50, 3000), st.integers(50, 3000)),
    st.floats(-0.02, 0.02),
)
def test_the_null_of_two_rates_is_searched_whole(events, trials, by):
    """No pair of rates that the null allows is likelier than the one that was found."""
    found = float(evidence.rate_higher(events, trials, by))
    first = np.linspace(1e-6, 1 - 1e-6, 4001)
    second = np.clip(np.minimum(first + by, events[1] / trials[1]), 1e-9, 1 - 1e-9)
    allowed = second <= first + by
    likelihood = evidence.log_likelihood(events[0], trials[0], first)
    likelihood = likelihood + evidence.log_likelihood(events[1], trials[1], second)
    numerator = sum(
        float(np.logaddexp(*(evidence.log_mixture(k, n, 0.5, b) for b in (0.5, 200.0))))
        - math.log(2)
        for k, n in zip(events, trials, strict=True)
    )
    assert found <= numerator - likelihood[allowed].max() + 1e-6


def test_quantiles_of_equal_streams_are_never_called_different():
    rng = np.random.default_rng(3)
    shares = rng.dirichlet(np.ones(40))
    worst = np.full(200, -np.inf)
    a, b = np.zeros((200, 40)), np.zeros((200, 40))
    for _ in range(40):
        a += rng.multinomial(100, shares, size=200)
        b += rng.multinomial(25, shares, size=200)
        worst = np.maximum(worst, evidence.quantile_higher(a, b, 0.9))
    assert np.mean(worst > math.log(20)) <= 0.05


def test_a_shift_of_a_quantile_is_found_and_bounded():
    rng = np.random.default_rng(4)
    shares = np.append(rng.dirichlet(np.full(30, 5.0)), np.zeros(10))
    a, b = rng.multinomial(30000, shares), rng.multinomial(30000, np.roll(shares, 3))
    found = [float(evidence.quantile_higher(a, b, 0.5, shift)) for shift in range(5)]
    assert found[0] > math.log(1e6)
    assert found == sorted(found, reverse=True)
    assert found[3] < math.log(20)


def test_shares_that_were_dealt_as_asked_are_not_suspicious():
    assert float(evidence.shares_differ([9510, 490], [0.95, 0.05])) < 0
    assert float(evidence.shares_differ([9300, 700], [0.95, 0.05])) > math.log(1e4)
