"""Statistics: what was noted run by run is counted before it is read."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tuili.server.telemetry import transfer
from tuili.server.telemetry.prometheus import exposition
from tuili.server.telemetry.statistics import Statistics

MOMENTS = st.integers(0, 1 << 40)
RUNS = st.lists(
    st.tuples(
        st.integers(1, 5),  # requests, of so many rows
        st.integers(1, 3),
        st.tuples(MOMENTS, MOMENTS, MOMENTS),
        st.sampled_from(["idle", "full"]),
    ),
    max_size=12,
)


def noted(runs, settle_each: bool) -> Statistics:
    """Statistics of runs whose requests arrived at 1, 2 and so on."""
    statistics = Statistics("m", "1")
    for requests, rows, (joined, ran, split), left in runs:
        arrived = list(range(1, requests + 1))
        statistics.record_successes(arrived, 10 + joined, 10 + joined + ran)
        statistics.record_batch(rows * requests, requests, (joined, ran, split), left)
        if settle_each:
            statistics.settle()
    return statistics


def durations(found: Statistics, name: str) -> tuple[int, int]:
    entry = found.json()["inference_stats"][name]
    return entry["count"], entry["ns"]


@given(RUNS)
def test_runs_counted_together_count_as_each_by_itself(runs):
    at_once, one_by_one = noted(runs, settle_each=False), noted(runs, settle_each=True)
    assert at_once.json() == one_by_one.json()
    told = [sorted(exposition([each], ready=True).split()) for each in (at_once, one_by_one)]
    assert told[0] == told[1]


@given(RUNS)
def test_a_request_is_charged_the_whole_time_of_its_run(runs):
    found = noted(runs, settle_each=False)
    for name, at in (("compute_input", 0), ("compute_infer", 1), ("compute_output", 2)):
        charged = sum(requests * times[at] for requests, _, times, _ in runs)
        assert durations(found, name) == (sum(run[0] for run in runs), charged)
    waited = sum(
        10 + times[0] - arrived
        for requests, _, times, _ in runs
        for arrived in range(1, requests + 1)
    )
    assert durations(found, "queue") == (sum(run[0] for run in runs), waited)
    assert found.inference_count == sum(requests * rows for requests, rows, _, _ in runs)
    assert found.execution_count == len(runs)


@given(RUNS)
def test_what_is_taken_for_another_process_is_all_that_was_noted(runs):
    whole, here = noted(runs, settle_each=True), noted(runs, settle_each=False)
    there = Statistics("m", "1")
    transfer.add(there, transfer.take(here, 0))
    assert there.json() == whole.json()
    assert here.json() == Statistics("m", "1").json()


def test_many_runs_are_counted_though_nobody_asks():
    statistics = Statistics("m", "1")
    for _ in range(5000):
        statistics.record_batch(1, 1, (1, 1, 1), "idle")
    assert 3976 <= statistics.execution_count <= 5000
