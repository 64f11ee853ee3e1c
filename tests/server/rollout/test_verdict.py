"""Verdicts: each outcome from numbers that call for it, in words that say why."""

import math

import numpy as np
import pytest

from tuili.errors import InvalidArgument
from tuili.server.rollout import buckets
from tuili.server.rollout.controller import next_event, verdicts
from tuili.server.rollout.dispersion import Dispersion
from tuili.server.rollout.history import Rollout
from tuili.server.rollout.metrics import Pair, metric_of
from tuili.server.rollout.plan import Guards, Plan, Step, Target, parse
from tuili.server.rollout.slices import Slices
from tuili.server.rollout.states import State
from tuili.server.rollout.tally import Tally
from tuili.server.rollout.verdict import Outcome, Seen, judge

STEPS = (Step(weight=10, min_time_s=30, min_samples=100), Step(weight=50, min_time_s=30))


def tally(n, errors=0, scale=1.0, seed=0, units=None, nans=0):
    found = Tally(units=n if units is None else units, checked=n, nans=nans)
    for ns in np.random.default_rng(seed).lognormal(np.log(1e7 * scale), 0.2, n - errors):
        found.answered(int(ns))
    for _ in range(errors):
        found.failed("boom")
    found.recent = 0
    return found


def seen(stable, candidate, *, elapsed=60.0, slices=60, quiet=0.0, shares=None, factors=None):
    return Seen({"stable": stable, "candidate": candidate}, {"candidate": factors or {}}, slices,
                elapsed, {"candidate": quiet}, shares or {})  # fmt: skip


def plan(**fields):
    return Plan(model="m", candidates={"candidate": 2}, steps=STEPS, **fields)


@pytest.mark.parametrize(
    ("step", "what", "outcome", "text"),
    [
        (0, seen(tally(5000), tally(5000, scale=1.3)), Outcome.ROLLBACK, "latency_p50: .* surely"),
        (0, seen(tally(5000), tally(5000, errors=200)), Outcome.ROLLBACK, "error_rate: 4 % again"),
        (0, seen(tally(5000), tally(500)), Outcome.CONTINUE, "nothing is surely worse after 500"),
        (0, seen(tally(5000), tally(50)), Outcome.CONTINUE, "step 0 waits for 50 of 100 samples"),
        (0, seen(tally(5000), tally(500), elapsed=10), Outcome.CONTINUE, "10 of 30 s"),
        (1, seen(tally(9000), tally(9000)), Outcome.PROMOTE, "surely within the margin of 10 %"),
        (1, seen(tally(300), tally(300)), Outcome.CONTINUE, "proof that error_rate is within 0.5"),
        (1, seen(tally(300), tally(300), elapsed=4000), Outcome.HOLD, "no answer within 3600 s"),
        (0, seen(tally(5000), tally(500), quiet=300), Outcome.HOLD, "answered nothing for 300 s"),
        (0, seen(tally(9000), tally(3000), shares={"stable": 0.9, "candidate": 0.1}),
         Outcome.HOLD, r"the split is not what was asked for"),
        (0, seen(tally(5000), tally(900, nans=3)), Outcome.ROLLBACK, "3 of 900 answers .* NaN"),
    ],
)  # fmt: skip
def test_numbers_lead_to_their_outcome(step, what, outcome, text):
    verdict = judge(plan(), step, "candidate", what)
    assert verdict.outcome is outcome, verdict.text()
    with pytest.raises(AssertionError, match=text):
        raise AssertionError(verdict.text())


def test_a_step_that_is_done_leads_to_the_next():
    found = judge(plan(), 0, "candidate", seen(tally(5000), tally(500)))
    assert found.step_done


def test_a_good_candidate_that_is_faster_is_promoted_too():
    verdict = judge(plan(), 1, "candidate", seen(tally(9000), tally(9000, scale=0.5)))
    assert verdict.outcome is Outcome.PROMOTE
    assert verdict.numbers["latency_p50"]["upper"] < -0.4


def test_intervals_hold_the_truth():
    numbers = judge(plan(), 1, "candidate", seen(tally(9000), tally(9000, seed=1))).numbers
    for name in ("error_rate", "latency_p50", "latency_p99"):
        assert numbers[name]["lower"] <= 0 <= numbers[name]["upper"]


@pytest.mark.parametrize("scale", [0.01, 0.19, 0.9, 1.1, 5.0, 100.0])
def test_an_interval_holds_what_was_seen_however_far_off(scale):
    pair = Pair(tally(2000), tally(2000, scale=scale))
    found = metric_of("latency_p50").interval(pair, 6.0)
    assert found.lower <= found.effect <= found.upper
    assert found.lower <= scale - 1 <= found.upper


def test_overdispersed_counts_say_less():
    what = (tally(5000), tally(5000, scale=1.09))
    assert judge(plan(), 0, "candidate", seen(*what)).outcome is Outcome.ROLLBACK
    cautious = seen(*what, factors={"latency_p50": 30.0, "latency_p99": 30.0})
    assert judge(plan(), 0, "candidate", cautious).outcome is Outcome.CONTINUE


def test_statistics_wait_until_overdispersion_is_known_and_guards_do_not():
    slow = seen(tally(5000), tally(5000, scale=1.5), slices=3)
    assert judge(plan(), 0, "candidate", slow).outcome is not Outcome.ROLLBACK
    crashed = tally(10)
    crashed.crashes, crashed.note = 1, "killed by signal 11"
    verdict = judge(plan(), 0, "candidate", seen(tally(50), crashed, slices=1))
    assert verdict.outcome is Outcome.ROLLBACK
    assert verdict.text() == "the candidate's process died 1 time(s): killed by signal 11"


def test_a_burst_of_errors_acts_at_once_unless_the_stable_variant_fails_as_often():
    burst = tally(30)
    for _ in range(8):
        burst.failed("boom")
    assert (
        "8 of the candidate's last 20"
        in judge(plan(), 0, "candidate", seen(tally(1000), burst, slices=1)).text()
    )
    both = seen(tally(1000, errors=400), burst, slices=1)
    assert judge(plan(), 0, "candidate", both).outcome is not Outcome.ROLLBACK


def test_shadow_steps_are_judged_by_agreement():
    shadow = Plan(model="m", candidates={"candidate": 2},
                  steps=(Step(shadow=50, min_samples=200), Step(weight=50)))  # fmt: skip
    good, bad = Tally(compared=2000), Tally(compared=2000, differing=60)
    assert judge(shadow, 0, "candidate", seen(tally(10), good)).step_done
    verdict = judge(shadow, 0, "candidate", seen(tally(10), bad))
    assert verdict.outcome is Outcome.ROLLBACK
    assert verdict.text().startswith("disagreement: 3 % of 2000 shadowed answers")


def test_feedback_counts_for_the_variant_that_clients_like_better():
    liked = plan(metrics={"feedback:click": Target()})
    stable, candidate = Tally(), Tally()
    stable.feedback["click"], candidate.feedback["click"] = (600.0, 2000), (300.0, 2000)
    verdict = judge(liked, 0, "candidate", seen(stable, candidate))
    assert verdict.outcome is Outcome.ROLLBACK
    candidate.feedback["click"] = (800.0, 2000)
    candidate.requests = 2000
    assert judge(liked, 1, "candidate", seen(stable, candidate)).outcome is Outcome.PROMOTE


def rollout(state=State.RUNNING, candidates=None, step=0):
    made = Plan(model="m", candidates=candidates or {"candidate": 2}, steps=STEPS, kind="ab")
    return Rollout("r", made, state, 1, "me", 0.0, step)


@pytest.mark.parametrize(
    ("state", "event"),
    [(State.RUNNING, "rolling_back"), (State.PAUSED, "rolling_back"),
     (State.HOLDING, "rolling_back"), (State.PROMOTING, None)],
)  # fmt: skip
def test_clients_are_protected_in_every_state_in_which_a_candidate_answers(state, event):
    what = seen(tally(5000), tally(5000, scale=1.5))
    at = rollout(state)
    do = next_event(at, verdicts(at, what), what)
    assert (do.event if do else None) == event


@pytest.mark.parametrize("state", [State.PAUSED, State.HOLDING])
def test_nothing_goes_forward_while_a_roll_out_stands_still(state):
    what = seen(tally(9000), tally(9000))
    at = rollout(state, step=1)
    assert next_event(at, verdicts(at, what), what) is None


def test_of_several_candidates_the_bad_one_is_dropped_and_the_best_wins():
    tallies = {"stable": tally(9000), "a": tally(9000, scale=1.4), "b": tally(9000, scale=0.9),
               "c": tally(9000, scale=0.8)}  # fmt: skip
    what = Seen(tallies, {}, 60, 60.0, {}, {})
    at = rollout(candidates={"a": 2, "b": 3, "c": 4}, step=1)
    do = next_event(at, verdicts(at, what), what)
    assert (do.event, do.numbers["candidate"]) == ("dropped", "a")
    at.dropped["a"] = "slow"
    do = next_event(at, verdicts(at, what), what)
    assert (do.event, do.numbers["candidate"]) == ("promoting", "c")


@pytest.mark.parametrize(
    ("document", "text"),
    [
        ({"model": "m"}, "missing required field `candidates`"),
        ({"model": "m", "candidate": 2, "stepz": []}, "unknown field `stepz`"),
        ({"model": "m", "candidate": "2"}, "Expected `int`, got `str`"),
        ({"model": "m", "candidate": 0}, "versions are positive"),
        ({"model": "m", "candidates": {"a": 2, "b": 3}}, "has one candidate, got 2; use kind ab"),
        ({"model": "m", "candidates": {"a": 2, "b": 2}, "kind": "ab"}, "of the same version"),
        ({"model": "m", "candidates": {"stable": 2}}, "no candidate may be called 'stable'"),
        ({"model": "m", "candidate": 2, "steps": []}, "has no steps"),
        ({"model": "m", "candidate": 2, "steps": [{}]}, "neither weight nor shadow"),
        ({"model": "m", "candidate": 2, "steps": [{"weight": 50}, {"weight": 5}]}, "must not fall"),
        ({"model": "m", "candidate": 2, "steps": [{"weight": 101}]}, "add up to 0 to 100"),
        ({"model": "m", "candidate": 2, "metrics": {"p99": {}}}, "unknown metric 'p99'; known"),
        ({"model": "m", "candidate": 2, "metrics": {}}, "nothing could be decided"),
        ({"model": "m", "candidate": 2, "alpha": 0.7}, "alpha must be between 0 and 0.5"),
        ({"model": "m", "candidate": 2,
          "metrics": {"error_rate": {"margin": 0.01, "tolerance": 0.02}}}, "must be above"),
        ({"model": "m", "candidate": 2, "kind": "blue_green", "steps": [{"weight": 5}]},
         "blue/green steps have weight 100"),
        ({"model": "m", "candidate": 2, "start_at": "at noon"}, "start_at 'at noon': Invalid iso"),
        ({"model": "m", "candidate": 2, "routing": {"rules": [{"variant": "x"}]}}, "variant 'x'"),
    ],
)  # fmt: skip
def test_plans_that_mean_nothing_are_refused(document, text):
    with pytest.raises(InvalidArgument, match=text):
        parse(document)


def test_tallies_add_up_over_servers_and_survive_their_json():
    one, two = tally(300, errors=3), tally(200, errors=1, seed=9)
    one.rate_feedback("x", 0.5)
    total = Tally.from_json(one.json())
    total.add(Tally.from_json(two.json()))
    assert (total.requests, total.errors, total.feedback) == (500, 4, {"x": (0.5, 1)})
    assert sum(total.durations["latency"]) == 496


def test_buckets_tell_one_percent_apart():
    assert buckets.bucket_of(10_000_000) < buckets.bucket_of(10_200_000)
    assert buckets.ratio_of(buckets.shift_of(1.1)) >= 1.1
    for ns in (1, 10**3, 10**6, 10**9, 10**12):
        at = buckets.bucket_of(ns)
        if 0 < at < buckets.SIZE - 1:
            assert abs(math.log(buckets.seconds_of(at) * 1e9 / ns)) < 0.012


@pytest.mark.parametrize(("cluster", "low", "high"), [(1, 1.0, 1.9), (8, 5.0, 16.0)])
def test_requests_that_share_a_fate_are_seen_to(cluster, low, high):
    rng = np.random.default_rng(2)
    found = Dispersion()
    for _ in range(60):
        events = cluster * rng.binomial((800 // cluster, 200 // cluster), 0.1)
        found.slice_ended((int(events[0]), int(events[1])), (800, 200))
    assert low <= found.factor() <= high


def test_what_hits_both_variants_is_no_overdispersion():
    rng = np.random.default_rng(3)
    found = Dispersion()
    for second in range(60):
        events = rng.binomial((800, 200), 0.6 if second % 7 == 0 else 0.05)
        found.slice_ended((int(events[0]), int(events[1])), (800, 200))
    assert found.factor() < 2


def test_slices_watch_errors_and_slow_answers():
    slices, stable, candidate = Slices(), Tally(), Tally()
    rng = np.random.default_rng(1)
    for _ in range(12):
        for each in (stable, candidate):
            for ns in rng.lognormal(16, 0.2, 100):
                each.answered(int(ns))
            each.failed("x")
        slices.end(stable, candidate)
    assert slices.dispersion["error_rate"].slices == 12
    assert slices.dispersion["latency_p50"].slices == 11
    assert Guards().crashes == 1
