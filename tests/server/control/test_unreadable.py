"""Entries of the journal that cannot be read cost their own roll-out and nothing else."""

import json
import logging
import sqlite3

import pytest

from tests.server.control.test_rollouts import PLAN, begin, identity, infer, request, run, settle
from tuili.errors import InvalidArgument
from tuili.server.control.store import SqliteStore
from tuili.server.rollout.history import Entry

QUICK = {"weight": 50, "min_time_s": 0, "min_samples": 5, "require": "no_harm"}
QUIET = PLAN | {"steps": [{"weight": 50, "min_samples": 10**6}]}
NEWER = {"plan": QUIET | {"tide": "high"}, "stable": 1}
# What is wrong with the entry that begins roll-out `x` of model `n`, and what is said of it.
UNREADABLE = {
    "a field of a newer tuili": (json.dumps(NEWER), "the roll-out's plan: .*`tide`"),
    "no plan": ('{"stable": 1}', "KeyError: 'plan'"),
    "no JSON": ('{"plan": ', "its numbers are no JSON"),
    "another kind of JSON": ("[1]", r"its numbers are '\[1\]', expected an object"),
    "no number": ('{"stable": "one", "plan": {}}', "invalid literal for int"),
}


def write(repository, *rows):
    """Entries as any program may have written them: (model, event, roll-out, numbers)."""
    path = repository / ".tuili" / "journal.db"
    SqliteStore(path).close()
    database = sqlite3.connect(path)
    for model, event, rollout, numbers in rows:
        database.execute(
            "INSERT INTO journal (at, server, who, model, rollout, event, why, numbers, digest, "
            "chain) VALUES (0, '', 'ann', ?, ?, ?, '', ?, '', '')",
            (model, rollout, event, numbers),
        )
    database.commit()
    database.close()


def two_models(repository):
    identity(repository)
    identity(repository, model="n")


@pytest.mark.parametrize(
    ("case", "when"),
    [*((case, "before the start") for case in UNREADABLE), ("no JSON", "while it runs")],
)
def test_it_is_reported_once_and_other_roll_outs_go_on(case, when, tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("tuili"), "propagate", True)
    numbers, words = UNREADABLE[case]
    rows = [("n", "created", "x", numbers), ("n", "started", "x", "{}")]
    two_models(tmp_path)
    if when == "before the start":
        write(tmp_path, *rows)

    async def scenario(dataplane):
        await begin(dataplane, steps=[QUICK])
        if when == "while it runs":
            write(tmp_path, *rows)
        for number in range(60):
            await infer(dataplane, request(x_user_id=str(number)))
        await settle(dataplane)
        assert dataplane.conductor.world.rollout("r").state.value == "PROMOTED"
        assert dataplane.conductor.trouble == ""
        return dataplane.rollouts.list_all()["unreadable"]

    (told,) = run(tmp_path, scenario)
    reported = [r.getMessage() for r in caplog.records if r.levelno >= logging.ERROR]
    assert [told in each and "journal.db" in each for each in reported] == [True]
    with pytest.raises(AssertionError, match=words):
        raise AssertionError(told)


def test_a_lost_roll_out_keeps_others_of_its_model_away_until_it_is_aborted(tmp_path):
    two_models(tmp_path)
    write(tmp_path, ("n", "created", "x", json.dumps(NEWER)), ("n", "started", "x", "{}"))

    async def scenario(dataplane):
        assert (await infer(dataplane, request(model="n"))).version == "1"
        with pytest.raises(InvalidArgument, match=r"has roll-out 'x' \(LOADING\).*abort it first"):
            await begin(dataplane, model="n", name="y")
        with pytest.raises(InvalidArgument, match="it can only be aborted"):
            await dataplane.rollouts.act("x", "promote", "me")
        assert (await dataplane.rollouts.act("x", "abort", "me"))["state"] == "ABORTED"
        await begin(dataplane, model="n", name="y")
        assert dataplane.conductor.world.rollout("y").state.value == "RUNNING"

    run(tmp_path, scenario)


@pytest.mark.parametrize("lost", ["the plan", "a step between"])
def test_the_end_of_a_lost_roll_out_moves_the_pointer(lost, tmp_path):
    two_models(tmp_path)
    plan = NEWER if lost == "the plan" else {"plan": QUIET, "stable": 1}
    write(
        tmp_path,
        ("n", "created", "x", json.dumps(plan)),
        ("n", "started", "x", "{}"),
        ("n", "ebb" if lost != "the plan" else "loaded", "x", "{}"),
        ("n", "pointer", "x", '{"version": 2}'),
    )

    async def scenario(dataplane):
        assert len(dataplane.conductor.world.unreadable) == 1
        assert dataplane.rollouts.labels("n")["labels"] == {"stable": 2}
        return (await infer(dataplane, request(model="n"))).version

    assert run(tmp_path, scenario) == "2"


def test_an_entry_that_came_too_late_is_no_damage(tmp_path):
    """Two operators raced: the loser's entry changes nothing, and nothing is wrong with it."""
    two_models(tmp_path)

    async def scenario(dataplane):
        await begin(dataplane, **QUIET)
        world = dataplane.conductor.world
        world.apply(Entry("m", "resumed", "me", rollout="r", seq=99))
        return world.unreadable

    assert run(tmp_path, scenario) == []
