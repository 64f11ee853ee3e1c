"""In which order jobs run that an earlier server left; time is the test's."""

from tuili.server.scheduling.replay import Replay, ReplayLimits

LIMITS = ReplayLimits(wide=2, suspect=2, hopeless=5, longest_delay_s=4.0, patience_s=100.0)


def replay(*left, now=0.0):
    return Replay(left, now, LIMITS)


def test_the_oldest_run_first_and_not_too_many_at_a_time():
    jobs = replay(("a", 1), ("b", 0), ("c", 1))
    assert jobs.due(0.0) == ["a", "b"]
    assert jobs.due(0.0) == []
    jobs.ended("b")
    assert jobs.due(0.0) == ["c"]
    jobs.ended("a")
    assert not jobs.over
    jobs.ended("c")
    assert jobs.over


def test_a_job_under_which_servers_ended_runs_alone_and_last():
    jobs = replay(("worst", 3), ("suspect", 2), ("a", 1))
    assert jobs.due(0.0) == ["a"]
    jobs.ended("a")
    assert jobs.due(0.0) == ["suspect"]
    assert jobs.due(0.0) == []
    jobs.ended("suspect")
    assert jobs.due(0.0) == ["worst"]


def test_a_job_that_always_ends_the_server_is_given_up():
    jobs = replay(("poison", 5), ("a", 1))
    assert jobs.hopeless == ["poison"]
    assert jobs.due(0.0) == ["a"]


def test_only_the_job_that_ends_the_server_is_lost_to_it():
    starts = dict.fromkeys("abcxdefg", 1)
    crashes = -1
    while crashes < 10:
        crashes += 1
        jobs = Replay(list(starts.items()), 0.0, LIMITS)
        for id_ in jobs.hopeless:
            del starts[id_]
        while due := jobs.due(0.0):
            starts |= {id_: starts[id_] + 1 for id_ in due}
            if "x" in due:
                break
            for id_ in due:
                del starts[id_]
                jobs.ended(id_)
        if jobs.over:
            break
    assert jobs.hopeless == ["x"]
    assert crashes == 4


def test_a_job_that_finds_no_room_waits_longer_each_time():
    jobs = replay(("a", 1))
    now, waits = 0.0, []
    for _ in range(5):
        assert jobs.due(now) == ["a"]
        assert jobs.refused("a", now)
        at = jobs.next_at(now)
        waits.append(at - now)
        assert jobs.due(at - 0.01) == []
        now = at
    assert waits == [0.5, 1.0, 2.0, 4.0, 4.0]


def test_patience_ends():
    jobs = replay(("a", 1))
    jobs.due(0.0)
    assert jobs.refused("a", 99.0)
    jobs.due(100.0)
    assert not jobs.refused("a", 100.0)
    assert jobs.over


def test_one_that_waits_for_room_does_not_hold_up_others():
    jobs = replay(("a", 1), ("b", 1), ("c", 1))
    jobs.due(0.0)
    jobs.refused("a", 0.0)
    assert jobs.due(0.0) == ["c"]
    assert jobs.next_at(0.0) == 0.5
