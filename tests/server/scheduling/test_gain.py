"""Whether more instances do more: a scaler over made-up machines, by a clock of the test's own."""

import random
from itertools import pairwise

import pytest

from tuili.server.scheduling.gain import Gain
from tuili.server.scheduling.scaling import Elasticity, Scaler

RUN_S = 0.05


def counts(rates, cores, *, most=8, noise=0.0, patience_s=20.0):
    """How many instances there are after each second, and how many requests wait."""
    scaler = Scaler(Elasticity(1, most, lead_s=10.0, patience_s=patience_s))
    generator = random.Random(7)
    instances, backlog, found = 1, 0.0, []
    for now, rate in enumerate(rates):
        run_s = RUN_S * max(instances / cores, 1.0) * (1 + generator.uniform(-noise, noise))
        done = min(backlog + rate, instances / run_s)
        backlog += rate - done
        scaler.tick(rate, done * run_s, round(done), float(now), float(now), instances=instances)
        wanted = scaler.wanted(round(backlog), float(now), float(now))
        instances = min(wanted, 2 * instances) if wanted >= instances else instances - 1
        found.append((instances, backlog))
    return found


@pytest.mark.parametrize("noise", [0.0, 0.1])
@pytest.mark.parametrize("cores", [1, 2, 4])
def test_instances_that_compute_are_not_more_than_what_they_share(cores, noise):
    """At 1.2 times what all cores can do: the load that no number of instances can answer."""
    found = counts([round(1.2 * cores / RUN_S)] * 100, cores, noise=noise)
    assert found[20][0] == found[-1][0] == cores
    # Between them there are looks at whether more would bring anything.
    assert max(instances for instances, _ in found) <= 2 * cores
    assert sum(instances > cores for instances, _ in found) < 10


@pytest.mark.parametrize("noise", [0.0, 0.1])
def test_instances_that_wait_for_others_are_as_many_as_the_load_takes(noise):
    found = counts([90] * 60, cores=1000, noise=noise)
    assert {instances for instances, _ in found[40:]} == {7}  # 90 / s, 50 ms each, 70 % busy
    assert found[-1][1] == 0


def test_a_square_wave_settles_and_is_answered():
    wave = ([60] * 20 + [2] * 20) * 6
    found = counts(wave, cores=1000, patience_s=60.0)
    later = found[40:]
    assert max(backlog for _, backlog in later) == 0
    assert {instances for instances, _ in later} == {5}
    quiet = counts(wave + [2] * 100, cores=1000, patience_s=60.0)
    assert quiet[-1] == (1, 0)


def test_what_brought_nothing_is_tried_again_later_and_later():
    gain, tries = Gain(), []
    instances = 1
    for now in range(2000):
        gain.ran(instances, 20, float(instances), 1.0, float(now))  # all busy, never more than 20/s
        most = gain.most(float(now))
        if most is None and instances == 1:
            tries.append(now)
        instances = min(2, most or 2)
    gaps = [after - before for before, after in pairwise(tries)]
    assert gaps == sorted(gaps)
    assert gaps[0] == pytest.approx(120, abs=5)
    assert gaps[-1] > 450


def test_nothing_is_said_of_instances_that_were_not_busy():
    gain = Gain()
    for now in range(10):
        gain.ran(1 + now // 5, 20, 0.3, 1.0, float(now))
        assert gain.most(float(now)) is None
