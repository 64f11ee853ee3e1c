"""Histograms of durations."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuili.server.telemetry.histogram import Histogram, reach


@given(st.integers(0, 1 << 50))
def test_a_bucket_is_at_most_a_quarter_wide(duration):
    histogram = Histogram()
    histogram.record(duration)
    upper = histogram.quantile_ns(1.0)
    assert duration < upper <= max(duration * 1.25 + 1, 4)


@given(st.lists(st.integers(0, 1 << 40), max_size=50))
def test_cumulative_counts_rise_to_all_and_never_exceed_what_lies_below(durations):
    histogram = Histogram()
    for duration in durations:
        histogram.record(duration)
    bounds = tuple(2**power for power in range(3, 45))
    found = histogram.cumulative(reach(bounds))
    for bound, number in zip(bounds, found, strict=True):
        assert number == sum(duration < bound for duration in durations)
    assert found[-1] == histogram.count == len(durations)
    assert histogram.sum_ns == sum(durations)


@given(st.lists(st.integers(0, 1 << 50), max_size=50))
def test_many_at_once_count_as_each_by_itself(durations):
    one_by_one, at_once = Histogram(), Histogram()
    for duration in durations:
        one_by_one.record(duration)
    at_once.record_all(np.array(durations, np.int64))
    assert at_once.sparse() == one_by_one.sparse()
    assert at_once.count == one_by_one.count


@pytest.mark.parametrize(("share", "least"), [(0.5, 50), (0.99, 99)])
def test_quantiles(share, least):
    histogram = Histogram()
    for duration in range(1, 101):
        histogram.record(duration)
    assert least <= histogram.quantile_ns(share) <= least * 1.3
