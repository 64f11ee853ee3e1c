"""When a dead host is started again."""

from tuili.server.scheduling.restarts import RestartLimits, RestartPolicy

LIMITS = RestartLimits(
    first_delay_s=1, max_delay_s=3, window_s=60, deaths_in_window=4, cool_down_s=30
)


def test_delays_double_up_to_a_limit_then_the_breaker_opens():
    policy = RestartPolicy(LIMITS)
    assert [policy.died(float(now)) for now in range(3)] == [1, 2, 3]
    assert not policy.open
    assert policy.died(4.0) == 30
    assert policy.open
    assert policy.deaths == 4


def test_old_deaths_are_forgotten():
    policy = RestartPolicy(LIMITS)
    for now in (0.0, 1.0, 2.0):
        policy.died(now)
    assert policy.died(70.0) == 1


def test_an_open_breaker_closes_with_the_first_answer():
    policy = RestartPolicy(LIMITS)
    for now in range(4):
        policy.died(float(now))
    assert policy.died(40.0) == 30
    policy.served(50.0)
    assert not policy.open
    assert policy.died(51.0) == 1
