"""Scaler and forecast against simulated days."""

import math
import random

import pytest

from tuili.server.scheduling.forecast import Forecast
from tuili.server.scheduling.scaling import Elasticity, Scaler

DAY = 86_400.0
RUN_S = 0.1


def rate_at(moment):
    """A day: quiet nights, a steep rise at nine, a second peak in the evening."""
    hour = (moment % DAY) / 3600
    steep = 60 / (1 + math.exp(-(hour - 9) * 60)) - 50 / (1 + math.exp(-(hour - 17) * 3))
    return 5 + steep + 30 * math.exp(-(((hour - 20) / 1.2) ** 2))


def simulate(scaler, days, start_s=600.0, step_s=10.0, seed=1):
    """Fluid queue of the last day: (share of requests that waited over a second, instance hours).

    A new instance (a large model on a cold machine) answers `start_s` after it was asked for.
    """
    generator = random.Random(seed)
    backlog, running, starting = 0.0, 1, []
    late, total, hours = 0.0, 0.0, 0.0
    for at in range(int(days * DAY / step_s)):
        now = at * step_s
        rate = rate_at(now)
        noisy = max(generator.gauss(rate * step_s, math.sqrt(rate * step_s)), 0.0)
        running += sum(1 for moment in starting if moment <= now)
        starting = [moment for moment in starting if moment > now]
        done = min(backlog + noisy, running / RUN_S * step_s)
        backlog += noisy - done
        scaler.tick(round(noisy), done * RUN_S, round(done), now, now)
        wanted = scaler.wanted(round(backlog), now, now)
        starting += [now + start_s] * (wanted - running - len(starting))
        running = min(running, max(wanted, 1))
        if now >= (days - 1) * DAY:
            total += noisy
            hours += (running + len(starting)) * step_s / 3600
            if backlog / (running / RUN_S) > 1.0:
                late += noisy
    return late / total, hours


ELASTIC = Elasticity(least=1, most=12, busy=0.7, lead_s=900.0, patience_s=600.0)


def test_what_a_former_day_taught_is_ready_before_the_rise():
    live_late, _ = simulate(Scaler(ELASTIC), 3)
    late, hours = simulate(Scaler(ELASTIC, Forecast()), 3)
    always = ELASTIC.most * 24
    assert live_late > 0.002
    assert late < live_late / 4
    assert hours < 0.6 * always


def test_fewer_go_only_after_patience():
    scaler = Scaler(Elasticity(1, 8, patience_s=30.0))
    for second in range(20):
        scaler.tick(40, 4.0, 40, second, second)
    busy = scaler.wanted(0, 19.0, 19.0)
    assert busy == pytest.approx(40 * RUN_S / 0.7, abs=1)
    wanted = []
    for second in range(20, 100):
        scaler.tick(0, 0.0, 0, second, second)
        wanted.append(scaler.wanted(0, second, second))
    assert wanted[25] >= busy - 1
    assert wanted[-1] == 1


def test_a_backlog_counts_as_load():
    scaler = Scaler(Elasticity(1, 8, lead_s=10.0))
    scaler.tick(1, RUN_S, 1, 0.0, 0.0)
    assert scaler.wanted(0, 0.0, 0.0) == 1
    assert scaler.wanted(200, 0.0, 0.0) == 3


def seconds_until_done(start_s, told):
    """How long the backlog of a load that begins at once lasts, looked at every second."""
    scaler = Scaler(Elasticity(1, 32))
    running, starting, backlog, ready = 1, [], 0.0, None
    for second in range(300):
        ready, starting = (
            [at for at in starting if at <= second],
            [a for a in starting if a > second],
        )
        running += len(ready)
        if ready and told:
            scaler.started(start_s)
        done = min(backlog + 80, running / RUN_S)
        backlog += 80 - done
        scaler.tick(80, done * RUN_S, round(done), second, second)
        if second > 1 and not backlog:
            return second
        there = running + len(starting)
        wanted = min(scaler.wanted(round(backlog), second, second), 2 * there)
        starting += [second + start_s] * (wanted - there)
    return math.inf


@pytest.mark.parametrize("start_s", [0.3, 5.0])
def test_a_backlog_is_done_in_about_the_time_that_an_instance_takes_to_start(start_s):
    assert seconds_until_done(start_s, told=True) < 0.7 * seconds_until_done(start_s, told=False)


def test_what_waits_for_a_moment_only_is_no_reason_for_more_instances():
    scaler = Scaler(Elasticity(1, 8))
    scaler.started(0.1)
    scaler.tick(1, RUN_S, 1, 0.0, 0.0)
    assert [scaler.wanted(waiting, 0.0, 0.0) for waiting in (0, 20, 0, 20)] == [1] * 4
    assert scaler.wanted(20, 0.0, 0.0) == 2


def test_a_forecast_is_the_usual_day_times_how_today_compares():
    forecast = Forecast(season_s=24.0, bins=24)
    for moment in range(48):
        forecast.arrived(moment + 0.5, 10 if moment % 24 < 12 else 2)
    for moment in range(48, 54):
        forecast.arrived(moment + 0.5, 20)
    now = 54.1
    assert 15 < forecast.expected(58.5, now) <= 22
    assert 3 < forecast.expected(68.5, now) <= 4.5
    assert forecast.peak(70.0, now) == pytest.approx(forecast.expected(58.5, now), rel=0.35)


def test_nothing_known_is_nothing_expected_and_what_is_known_can_be_kept():
    forecast = Forecast(season_s=10.0, bins=10)
    assert forecast.expected(5.0, 0.0) is None
    for moment in range(20):
        forecast.arrived(moment, moment % 10)
    again = Forecast.load(forecast.dump())
    assert again.dump() == forecast.dump()
    assert again.expected(25.0, 21.0) == forecast.expected(25.0, 21.0)
