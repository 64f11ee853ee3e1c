"""When a dead host is started again."""

from tuili.server.scheduling.restarts import RestartLimits, RestartPolicy

LIMITS = RestartLimits(
    first_delay_s=1,
    max_delay_s=3,
    deaths_in_a_row=4,
    window_s=60,
    deaths_in_window=10,
    cool_down_s=30,
)


def test_delays_double_up_to_a_limit_then_the_breaker_opens():
    policy = RestartPolicy(LIMITS)
    assert [policy.died(float(now)) for now in range(3)] == [1, 2, 3]
    assert not policy.open
    assert policy.died(4.0) == 30
    assert policy.open
    assert policy.deaths == 4


def test_a_host_that_answers_between_its_deaths_starts_at_once():
    policy = RestartPolicy(LIMITS)
    for now in range(0, 100, 10):
        assert policy.died(float(now)) == 1
        policy.served()
    assert not policy.open


def test_too_many_deaths_in_a_window_open_the_breaker_all_the_same():
    policy = RestartPolicy(LIMITS)
    for now in range(9):
        policy.died(float(now))
        policy.served()
    assert policy.died(9.0) == 30


def test_an_open_breaker_closes_with_the_first_answer():
    policy = RestartPolicy(LIMITS)
    for now in range(4):
        policy.died(float(now))
    assert policy.died(40.0) == 30
    policy.served()
    assert not policy.open
    assert policy.died(51.0) == 1


def test_an_idle_host_that_lived_long_is_forgiven():
    policy = RestartPolicy(LIMITS)
    for now in range(0, 300, 30):
        policy.started(float(now))
        assert policy.died(float(now) + 25) == 1
