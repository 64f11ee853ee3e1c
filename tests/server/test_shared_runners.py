"""A model that nobody configured: one copy of it, all cores, and several runs at once if long."""

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from tests.server.test_servable import MERGE, Answers, Doubler, ask, check, servable
from tuili.server.loading.instances import instances_of, threads_of
from tuili.server.options import ServerOptions
from tuili.server.repository.config import ModelConfig
from tuili.server.scheduling.overlap import Overlap

PLAIN = ModelConfig("m")
OPTIONS = ServerOptions((Path("models"),))
CORES = 6


class Native(Doubler):
    """A model whose runs may take several threads."""

    threads = CORES

    def run_on(self, inputs, threads):
        return self.run(inputs)


@pytest.fixture(autouse=True)
def six_cores(monkeypatch):
    monkeypatch.setattr("tuili.server.loading.instances.available_threads", lambda: CORES)


def with_parameters(**parameters):
    return replace(PLAIN, parameters=parameters)


@pytest.mark.parametrize(
    ("config", "options", "threads"),
    [
        (PLAIN, OPTIONS, CORES),
        (PLAIN, replace(OPTIONS, threads=2), 2),
        (PLAIN, replace(OPTIONS, frontends=4), 1),
        (with_parameters(threads="3"), replace(OPTIONS, threads=2), 3),
        (with_parameters(threads="0"), replace(OPTIONS, threads=2), CORES),
    ],
)
def test_a_run_takes_what_is_asked_for_or_its_process_s_share_of_the_cores(
    config, options, threads
):
    assert threads_of(config, options) == threads


@pytest.mark.parametrize(
    ("config", "options", "model", "runners"),
    [
        (PLAIN, OPTIONS, Native, CORES),
        (PLAIN, OPTIONS, Doubler, 1),
        (PLAIN, replace(OPTIONS, threads=1), Native, 1),
        (PLAIN, replace(OPTIONS, frontends=2), Native, CORES // 2),
        (PLAIN, replace(OPTIONS, rate_limit="execution_count"), Native, 1),
        (with_parameters(threads="4"), OPTIONS, Native, 1),
        (with_parameters(cpu_cores="0"), OPTIONS, Native, 1),
        (with_parameters(max_instances="4"), OPTIONS, Native, 1),
        (replace(PLAIN, raw={"instance_group": [{"count": 1}]}), OPTIONS, Native, 1),
        (replace(PLAIN, raw={"dynamic_batching": {}}), OPTIONS, Native, 1),
        (replace(PLAIN, raw={"sequence_batching": {}}), OPTIONS, Native, 1),
    ],
)
def test_only_a_model_that_nobody_configured_has_a_runner_per_core(config, options, model, runners):
    found = instances_of(config, [model()], "m-1", options)
    assert len(found) == runners
    assert len({id(each.model) for each in found}) == 1


def test_more_cores_than_runs_that_are_worth_their_memory(monkeypatch):
    monkeypatch.setattr("tuili.server.loading.instances.available_threads", lambda: 64)
    assert threads_of(PLAIN, OPTIONS) == 64
    assert len(instances_of(PLAIN, [Native()], "m-1", OPTIONS)) == 8


@pytest.mark.parametrize(("at_once", "entered"), [(2, [1, 2]), (1, [2])])
def test_as_many_runs_of_one_model_are_under_way_as_is_better(monkeypatch, at_once, entered):
    monkeypatch.setattr(Overlap, "at_once", at_once)

    class Noted(Doubler):
        def __init__(self):
            super().__init__()
            self.entered = []

        def run(self, inputs):
            self.entered.append(len(inputs["x"]))
            return super().run(inputs)

    async def scenario():
        model, answers = Noted(), Answers()
        model.gate.clear()
        served = servable([model, model], replace(MERGE, max_rows=2), inline=False)
        for at in range(3):
            served.submit(ask(at), answers.take(at))
        async with asyncio.timeout(10):
            while len(model.entered) < len(entered):  # noqa: ASYNC110 - the loop is what is tested
                await asyncio.sleep(0)
        assert sorted(model.entered) == entered
        assert served.pending() == 3 - sum(entered)
        model.gate.set()
        await answers.wait(3)
        for at in range(3):
            check(answers.found[at], at)
        await served.close()

    asyncio.run(scenario())


def test_what_runs_on_the_loop_keeps_to_its_thread():
    class Wide(Doubler):
        def run(self, inputs):
            raise AssertionError("took other threads")

        def run_on(self, inputs, threads):
            assert threads == 1
            return super().run(inputs)

    async def scenario():
        answers = Answers()
        served = servable(Wide())
        served.submit(ask(1), answers.take(0))
        await answers.wait(1)
        check(answers.found[0], 1)

    asyncio.run(scenario())
