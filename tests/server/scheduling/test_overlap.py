"""Overlap: runs at once against every fixed number of them, on machines of some cores."""

import numpy as np
import pytest

from tests.server.scheduling.cores import Fixed, Machine, Serving
from tuili.server.scheduling.overlap import Overlap

# A run of n rows on one core, per core of the machine: by the rows, or the call. In seconds.
WORK = {"rows": lambda rows: 5e-3 * rows, "call": lambda rows: 5e-3 + 1e-4 * rows}
JOINED, ALONE = 64, 0
THINK_S = 3e-4


def served(cores, serial, work, joined, overlap, clients, seconds=2.0):
    """Answers in the second half, their rate and their 99th percentile."""
    machine = Machine(cores, serial)
    serving = Serving(
        machine,
        lambda rows: min(cores, 16) * WORK[work](rows),
        overlap,
        most_rows=joined,
        loop_s=1e-4,
    ).closed_loop(clients, THINK_S)
    serving.run(seconds / 2)
    before = len(serving.latencies)
    found = serving.run(seconds).latencies[before:]
    return 2 * len(found) / seconds, float(np.percentile(found, 99))


@pytest.mark.parametrize("cores", [2, 8, 64])
@pytest.mark.parametrize("serial", [0.01, 1.0])
@pytest.mark.parametrize(
    ("work", "joined", "clients"), [("rows", JOINED, 8), ("rows", ALONE, 32), ("call", JOINED, 32)]
)
def test_it_is_as_good_as_the_best_fixed_number_of_runs(cores, serial, work, joined, clients):
    most = min(cores, 8)
    fixed = [
        served(cores, serial, work, joined, Fixed(most, cores, level), clients)
        for level in (1, most)
    ]
    # There is time to learn.
    rate, p99 = served(cores, serial, work, joined, Overlap(most, cores), clients, 12.0)
    best_rate, best_p99 = max(fixed)
    assert rate >= 0.92 * best_rate
    assert p99 <= 1.3 * best_p99  # with the trials of the beginning


@pytest.mark.parametrize("cores", [2, 8, 64])
def test_a_single_client_has_all_cores(cores):
    alone = served(cores, 0.1, "rows", JOINED, Fixed(1, cores, 1), 1)
    assert served(cores, 0.1, "rows", JOINED, Overlap(min(cores, 8), cores), 1) == alone


@pytest.mark.parametrize("serial", [0.01, 1.0])
def test_open_arrivals_wait_no_longer_than_with_the_better_number(serial):
    means = []
    for overlap in (Fixed(8, 8, 1), Fixed(8, 8, 8), Overlap(8, 8)):
        serving = Serving(Machine(8, serial), lambda rows: 40e-3 * rows, overlap, loop_s=1e-4)
        found = serving.open_loop(12, 150.0).run(150.0).latencies
        means.append(np.mean(found[len(found) // 2 :]))
    assert means[2] <= 1.1 * min(means[:2])


def known(overlap, second_s=5e-3):
    """Runs of one to four elements, alone: what they take is known."""
    for at in range(40):
        size = 1 + at % 4
        run = overlap.started(size, 1, float(at), waiting=0)
        overlap.ended(run, at + size * second_s, waiting=0)
    return overlap


def test_a_short_request_does_not_wait_for_the_end_of_a_long_run():
    overlap = known(Overlap(2, 2))
    overlap.started(100, 1, 100.0, waiting=0)
    assert overlap.allows(1, 1, 100.0)
    assert not overlap.allows(1, 60, 100.0)  # about as long: it would only disturb
    assert not overlap.allows(1, 1, 100.495)  # the other one is nearly over


def test_many_are_not_disturbed_for_one():
    overlap = known(Overlap(2, 2))
    overlap.started(100, 100, 100.0, waiting=0)
    assert not overlap.allows(1, 1, 100.0)


def test_however_long_runs_were_an_idle_machine_takes_the_next():
    overlap = known(Overlap(8, 8), 1.0)
    assert overlap.allows(1, 1_000_000, 1000.0)
    assert overlap.allows(1, 0, 1000.0)


def test_short_runs_are_one_after_the_other():
    overlap = Overlap(2, 2)
    for at in range(1000):
        run = overlap.started(16, 1, at * 1e-3, waiting=8)
        assert not overlap.allows(8, 16, at * 1e-3)
        overlap.ended(run, at * 1e-3 + 900e-6, waiting=8)


def test_a_run_takes_its_share_of_the_cores_and_all_when_nobody_else_is_there(monkeypatch):
    monkeypatch.setattr(Overlap, "at_once", 4)
    overlap = Overlap(8, 8)
    first = overlap.started(16, 1, 0.0, waiting=0)
    second = overlap.started(16, 1, 0.0, waiting=0)
    third = overlap.started(16, 1, 0.0, waiting=9)
    assert [first.threads, second.threads, third.threads] == [8, 4, 2]


def test_runs_that_failed_teach_nothing():
    overlap = Overlap(2, 2)
    run = overlap.started(16, 1, 0.0, waiting=0)
    overlap.ended(run, 1.0, waiting=0, well=False)
    overlap.started(16, 1, 2.0, waiting=0)
    assert not overlap.allows(1, 1, 2.0)


def test_trials_become_rare():
    overlap = Overlap(8, 8)
    serving = Serving(Machine(8, 0.02), lambda rows: 20e-3 * rows, overlap, loop_s=1e-4)
    serving.closed_loop(8, THINK_S).run(15.0)
    before, on_trial = len(serving.batches), 0
    started = overlap.started

    def counted(*arguments, **more):
        nonlocal on_trial
        on_trial += overlap._trial is not None
        return started(*arguments, **more)

    overlap.started = counted
    serving.run(25.0)
    assert on_trial <= 0.03 * (len(serving.batches) - before)
