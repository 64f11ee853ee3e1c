"""The store of jobs: what is kept, for how long, and what goes first when there is no room."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuili.errors import Conflict, NotFound, Overloaded
from tuili.server.scheduling.jobs import JobLimits, JobStore


def store(**limits):
    return JobStore(JobLimits(**limits))


def test_a_finished_job_is_kept_for_its_time():
    jobs = store(keep_s=10)
    job = jobs.add("a", "m", 0.0)
    assert jobs.get("a", 100.0).state == "queued"
    jobs.finish(job, 100.0, "answer", 6)
    assert jobs.get("a", 109.9).result == "answer"
    with pytest.raises(NotFound, match="there is no job 'a': answers are kept for 10 s"):
        jobs.get("a", 110.0)


def test_more_waiting_jobs_than_allowed_are_refused():
    jobs = store(max_waiting=1)
    job = jobs.add("a", "m", 0.0)
    with pytest.raises(Overloaded, match="1 jobs wait for their answers, which is the limit"):
        jobs.add("b", "m", 0.0)
    jobs.finish(job, 0.0, "", 0)
    jobs.add("b", "m", 0.0)


def test_the_oldest_answers_make_room():
    jobs = store(max_bytes=10)
    for at, name in enumerate("abc"):
        jobs.finish(jobs.add(name, "m", at), at, name, 4)
    with pytest.raises(NotFound):
        jobs.get("a", 3)
    assert [jobs.get(name, 3).result for name in "bc"] == ["b", "c"]


def test_jobs_without_answers_are_not_kept_without_end():
    jobs = store(max_finished=3)
    for at in range(100):
        job = jobs.add(str(at), "m", 0)
        if at % 2:
            jobs.cancel(job, 0)
        else:
            jobs.fail(job, 0, "refused", None)
    assert len(jobs) == 3
    assert jobs.get("99", 0).state == "cancelled"


def test_keys_take_room():
    jobs = store(max_bytes=100)
    for name in "ab":
        jobs.finish(jobs.add(name, "m", 0, name * 60), 0, "", 0)
    assert jobs.known("a" * 60, "m", 0) is None
    assert jobs.known("b" * 60, "m", 0).id == "b"


def test_an_answer_larger_than_all_the_room_is_told_as_lost():
    jobs = store(max_bytes=10)
    job = jobs.add("a", "m", 0)
    jobs.finish(job, 0, "long answer", 11)
    assert (job.state, job.result) == ("failed", None)
    assert "larger than the 10 bytes" in job.error


def test_an_answer_that_cannot_be_kept_costs_no_other_answer():
    jobs = store(max_bytes=10)
    jobs.finish(jobs.add("small", "m", 0), 0, "x", 4)
    jobs.finish(jobs.add("huge", "m", 1), 1, "y", 11)
    assert jobs.get("small", 2).result == "x"


def test_a_key_that_another_models_job_has_is_a_conflict():
    jobs = store()
    jobs.add("a", "m", 0, "key")
    with pytest.raises(Conflict, match="a job of model 'm', not of 'other'"):
        jobs.known("key", "other", 1)


def test_a_known_key_is_the_job_that_it_was():
    jobs = store(keep_s=10)
    job = jobs.add("a", "m", 0, "key")
    assert jobs.known("key", "m", 5) is job
    assert jobs.known("", "m", 5) is None
    jobs.finish(job, 5, "", 0)
    assert jobs.known("key", "m", 15) is None


def test_cancelling_stops_what_waits_and_forgets_what_is_done():
    jobs = store()
    stopped = []
    waiting = jobs.add("a", "m", 0)
    waiting.cancel = lambda: stopped.append("a")
    jobs.cancel(waiting, 1)
    assert (stopped, waiting.state) == (["a"], "cancelled")
    jobs.cancel(waiting, 2)
    with pytest.raises(NotFound):
        jobs.get("a", 2)


@given(
    st.lists(
        st.tuples(st.sampled_from(["add", "finish", "fail", "cancel"]), st.integers(0, 9)),
        max_size=60,
    )
)
def test_bounds_hold_whatever_happens(steps):
    jobs = store(max_waiting=3, max_bytes=20, keep_s=30)
    made = []
    for now, (what, size) in enumerate(steps):
        if what == "add":
            if jobs.waiting < 3:
                made.append(jobs.add(str(now), "m", now, f"k{size}"))
            continue
        waiting = [job for job in made if job.state == "queued"]
        if waiting and what == "finish":
            jobs.finish(waiting[0], now, "x", size)
        elif waiting and what == "fail":
            jobs.fail(waiting[0], now, "broke", None)
        elif waiting:
            jobs.cancel(waiting[0], now)
        assert jobs.waiting <= 3
        kept = sum(job.size for job in made if job.id in jobs._jobs)
        assert kept == jobs._bytes <= 20
