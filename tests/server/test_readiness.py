"""Models that say themselves whether they are ready: who asks hears it, and runs do not wait."""

import asyncio

import pytest

from tests.server.test_dataplane import infer
from tests.server.test_hosts import ask, host_of, run, until
from tests.server.test_model_calls import CONFIG, HEAD, add
from tuili.backends.readiness import readiness_of
from tuili.server.execution.readying import Readying
from tuili.server.readiness import Verdict

SAYS = (
    HEAD
    + """
import os, time
class TritonPythonModel:
    def execute(self, requests):
        return [pb.InferenceResponse([one(each, value_of(each))]) for each in requests]

    def is_ready(self):
        return os.path.exists({flag!r})
"""
)
COROUTINE = SAYS.replace("def is_ready", "async def is_ready")
PLAIN = """
import os
class Model:
    def __init__(self, parameters):
        pass
    def run(self, inputs):
        return {{"y": inputs["x"]}}
    def is_ready(self):
        return os.path.exists({flag!r})
"""


async def verdict(dataplane, model="m"):
    found = dataplane.model_verdict(model)
    return found if isinstance(found, Verdict) else await found


@pytest.mark.parametrize("source", [SAYS, COROUTINE, PLAIN], ids=["triton", "coroutine", "ours"])
def test_what_a_model_says_is_asked_each_time_and_costs_no_answer(tmp_path, source):
    flag = tmp_path / "flag"
    add(tmp_path / "models", source=source.format(flag=str(flag)), config=CONFIG)

    async def scenario(dataplane):
        found = await verdict(dataplane)
        assert not found.ready
        assert found.why == "model 'm': its is_ready() says no"
        assert not (await dataplane.server_verdict()).ready
        assert (await infer(dataplane, ask(3))).outputs[0].data.tolist() == [[3]]
        flag.touch()
        assert await verdict(dataplane) == Verdict(True)
        assert (await dataplane.server_verdict()).ready

    run(tmp_path / "models", scenario)


def test_an_ensemble_is_as_ready_as_its_steps(tmp_path):
    add(tmp_path, source=SAYS.format(flag="/nowhere"), config=CONFIG)
    folder = tmp_path / "whole" / "1"
    folder.mkdir(parents=True)
    (folder.parent / "config.pbtxt").write_text(
        CONFIG.replace('backend: "python"', 'platform: "ensemble"').replace(
            "dynamic_batching { }",
            'ensemble_scheduling { step { model_name: "m" model_version: -1 '
            'input_map { key: "x" value: "x" } output_map { key: "y" value: "y" } } }',
        )
    )

    async def scenario(dataplane):
        found = await verdict(dataplane, "whole")
        assert found == Verdict(False, "model 'm': its is_ready() says no")

    run(tmp_path, scenario)


def test_a_model_is_asked_while_it_runs(tmp_path):
    source = SAYS.format(flag="/").replace(
        "        return [pb", "        time.sleep(1.5)\n        return [pb"
    )
    add(tmp_path, source=source, config=CONFIG)

    async def scenario(dataplane):
        running = asyncio.ensure_future(infer(dataplane, ask(1)))
        await until(lambda: host_of(dataplane).is_running)
        assert (await verdict(dataplane)).ready
        assert not running.done()
        await running

    run(tmp_path, scenario)


def test_a_host_that_dies_over_the_question_is_not_ready(tmp_path):
    source = SAYS.format(flag="/").replace("return os.path", "os.kill(os.getpid(), 9) or os.path")
    add(tmp_path, source=source, config=CONFIG)

    async def scenario(dataplane):
        found = await verdict(dataplane)
        assert found == Verdict(False, "model 'm': its model host has ended")

    run(tmp_path, scenario)


def test_who_asks_meanwhile_gets_the_same_answer_and_nobody_waits_for_ever():
    async def scenario():
        asked = []
        readying = Readying("m", lambda: asked.append(1))
        assert "takes more than" in await readying.reason(0.01)
        others = [asyncio.ensure_future(readying.reason()) for _ in range(3)]
        await asyncio.sleep(0)
        readying.answered("")
        assert await asyncio.gather(*others) == [""] * 3
        assert asked == [1]
        last = asyncio.ensure_future(readying.reason())
        await asyncio.sleep(0)
        readying.answered("no")
        assert await last == "no"
        assert asked == [1, 1]

    asyncio.run(scenario())


class _Says:
    def __init__(self, answer):
        self._answer = answer

    def is_ready(self):
        return self._answer()


def _fails():
    raise OSError("no database")


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (lambda: True, ""),
        (lambda: False, "its is_ready() says no"),
        (lambda: "ready", "its is_ready() must return a boolean value, got 'ready'"),
        (lambda: None, "its is_ready() must return a boolean value, got None"),
        (_fails, "its is_ready() failed: OSError: no database"),
    ],
)
def test_only_true_is_ready(answer, reason):
    assert readiness_of(_Says(answer))() == reason


def test_a_model_that_cannot_tell_is_not_asked():
    assert readiness_of(object()) is None
