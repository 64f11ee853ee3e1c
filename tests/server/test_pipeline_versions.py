"""A request to a pipeline keeps to the versions that its first steps met, until it ends."""

import asyncio
from types import SimpleNamespace

import numpy as np
import pytest

from tests.server.control.test_rollouts import settle
from tests.server.test_dataplane import add, plane
from tests.server.test_ensemble_streams import COUNT, COUNT_CODE, INSIDE, PLAIN, ensemble
from tuili.errors import DeadlineExceeded, InternalError, NotFound, TuiliError, Unavailable
from tuili.server.protocol.messages import InferRequest, InputTensor

# Version 1 adds one, version 2 a thousand: a sum tells which versions made it.
ADDS = """
class Model:
    def __init__(self, parameters):
        pass

    def run(self, inputs):
        return {{"y": inputs["x"] + {step}}}
"""
IN_TURN = ("m", "x", "IN", "y", "first"), ("gate", "x", "first", "y", "between")
PIPELINES = {
    "plain": ensemble("plain", *IN_TURN, ("m", "x", "between", "y", "OUT")),
    "outer": ensemble("outer", *IN_TURN, ("inner", "IN", "between", "OUT", "OUT")),
    "inner": ensemble("inner", ("m", "x", "IN", "y", "OUT")),
    "around": ensemble(
        "around",
        ("inner", "IN", "IN", "OUT", "first"),
        ("gate", "x", "first", "y", "between"),
        ("inner", "IN", "between", "OUT", "OUT"),
    ),
    "stream": ensemble(
        "stream",
        *IN_TURN,
        ("count", "n", "between", "k", "each"),
        ("m", "x", "each", "y", "OUT"),
    ),
}
# What version 1 alone makes of nought.
OF_ONE = {"plain": [2], "outer": [2], "around": [2], "stream": [1]}
ROLL_OUT = {
    "model": "m", "name": "r", "candidate": 2, "metrics": {"error_rate": {}},
    "steps": [{"shadow": 100, "min_time_s": 0, "min_samples": 10**6}], "rollback_window_s": 0,
}  # fmt: skip


@pytest.fixture
def repository(tmp_path):
    add(tmp_path, "m", 1, config=PLAIN.format("x", "y") + INSIDE)
    write(tmp_path, 1, step=1)
    add(tmp_path, "gate", 1, config='backend: "identity"' + PLAIN.format("x", "y"))
    add(tmp_path, "count", 1, config=COUNT + INSIDE)
    (tmp_path / "count" / "1" / "model.py").write_text(COUNT_CODE)
    for name, config in PIPELINES.items():
        add(tmp_path, name, 1, config=config)
    return tmp_path


def write(repository, version, *, step):
    folder = repository / "m" / str(version)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.py").write_text(ADDS.format(step=step))


class Gate:
    """Holds the requests to the model `gate` until it is opened; lets all others through."""

    def __init__(self, dataplane):
        self._through = dataplane.submit
        self._waiting = asyncio.get_running_loop().create_future()
        self.cancelled = False

    def submit(self, request, reply):
        if request.model != "gate":
            return self._through(request, reply)
        self._waiting.set_result((request, reply))
        return self

    def cancel(self):
        self.cancelled = True

    async def reached(self):
        return await asyncio.wait_for(asyncio.shield(self._waiting), 10)

    async def open(self):
        self._through(*await self.reached())

    async def fail(self, error):
        (await self.reached())[1](error)


class Asked:
    """A request for nought and all that was answered."""

    def __init__(self, dataplane, pipeline, call=None):
        self.found, self._over = [], asyncio.get_running_loop().create_future()
        tensor = InputTensor("IN", "INT32", (1,), np.zeros(1, np.int32))
        asked = InferRequest(pipeline, [tensor], call=call)
        self.ticket = dataplane.submit_stream(asked, self._reply)

    def _reply(self, answer, final):
        if isinstance(answer, TuiliError):
            self.found.append(type(answer))
        elif answer is not None:
            self.found.append(answer.outputs[0].data.item())
        if final:
            self._over.set_result(None)

    async def over(self):
        await asyncio.wait_for(self._over, 10)
        return self.found


async def replace(dataplane, repository):
    """A newer version takes the place of the one that has answered."""
    write(repository, 2, step=1000)
    await dataplane.repository.load("m")


async def reload(dataplane, repository):
    """The version's files have changed."""
    write(repository, 1, step=1000)
    await dataplane.repository.load("m")


async def begin_roll_out(dataplane, repository):
    """A roll-out begins that gives its candidate nothing yet."""
    write(repository, 2, step=1000)
    await dataplane.rollouts.create(ROLL_OUT, "me")
    await settle(dataplane)


async def promote(dataplane, repository):
    """It ends with the candidate in the place of the stable version."""
    await dataplane.rollouts.act("r", "promote", "me")
    await settle(dataplane)
    assert set(dataplane.repository.live["m"]) == {"", "2"}


async def roll_out(dataplane, repository):
    """A whole roll-out."""
    await begin_roll_out(dataplane, repository)
    await promote(dataplane, repository)


async def nothing(dataplane, repository):
    """Nothing happens."""


def run(repository, pipeline, scenario, before=nothing):
    """`scenario` gets a request that waits between two steps of one model."""

    async def started():
        dataplane = plane(repository)
        gate = Gate(dataplane)
        dataplane.launcher.submit = gate.submit
        await dataplane.start()
        dataplane._conducting.cancel()  # the tests tick themselves
        await before(dataplane, repository)
        asked = Asked(dataplane, pipeline)
        try:
            await gate.reached()
            await scenario(dataplane, gate, asked)
        finally:
            asked.ticket.cancel()
            assert await dataplane.close(10)

    asyncio.run(started())


async def retired(dataplane):
    """All versions that others took the place of have gone."""
    await asyncio.wait_for(asyncio.gather(*dataplane.repository.departures.under_way()), 10)


@pytest.mark.parametrize("pipeline", OF_ONE)
@pytest.mark.parametrize(
    ("before", "change"),
    [(nothing, replace), (nothing, reload), (nothing, roll_out), (begin_roll_out, promote)],
)
def test_all_steps_meet_the_version_that_the_first_one_met(repository, pipeline, before, change):
    async def scenario(dataplane, gate, asked):
        await change(dataplane, repository)
        assert dataplane.repository.departures.under_way()
        await gate.open()
        assert await asked.over() == OF_ONE[pipeline]
        await retired(dataplane)

    run(repository, pipeline, scenario, before)


@pytest.mark.parametrize("pipeline", OF_ONE)
@pytest.mark.parametrize("end", ["answer", "error", "timeout", "cancel"])
def test_however_a_request_ends_it_lets_go_of_its_versions(repository, pipeline, end):
    ways = {
        "answer": lambda gate, asked: gate.open(),
        "error": lambda gate, asked: gate.fail(InternalError("broke")),
        "timeout": lambda gate, asked: gate.fail(DeadlineExceeded("late")),
    }
    told = {"answer": OF_ONE[pipeline], "error": [InternalError], "timeout": [DeadlineExceeded]}

    async def scenario(dataplane, gate, asked):
        await replace(dataplane, repository)
        if end == "cancel":
            asked.ticket.cancel()
            assert (gate.cancelled, asked.found) == (True, [])
        else:
            await ways[end](gate, asked)
            assert await asked.over() == told[end]
        await retired(dataplane)
        assert dataplane.repository.states_of("m")[1].reason == "unloaded"

    run(repository, pipeline, scenario)


def test_who_unloads_a_model_waits_for_pipelines_that_go_on_with_it(repository):
    async def scenario(dataplane, gate, asked):
        unloading = asyncio.ensure_future(dataplane.repository.unload("m"))
        await asyncio.wait([unloading], timeout=0)
        other = Asked(dataplane, "inner")
        assert await other.over() == [NotFound]
        assert not unloading.done()
        await gate.open()
        assert await asked.over() == [2]
        await asyncio.wait_for(unloading, 10)

    run(repository, "plain", scenario)


@pytest.mark.parametrize("pipeline", OF_ONE)
def test_what_is_half_way_when_the_server_ends_is_answered(repository, pipeline):
    """Its next steps come to models that refuse what comes from outside."""

    async def scenario(dataplane, gate, asked):
        shut(dataplane)
        await gate.open()
        assert await asked.over() == OF_ONE[pipeline]

    run(repository, pipeline, scenario)


def test_what_a_model_calls_when_the_server_ends_is_answered(repository):
    async def scenario(dataplane, gate, asked):
        shut(dataplane)
        call = SimpleNamespace(enter=lambda item: None)
        assert await Asked(dataplane, "inner", call).over() == [1]
        assert await Asked(dataplane, "inner").over() == [Unavailable]
        await gate.open()

    run(repository, "plain", scenario)


def shut(dataplane):
    """As a server that ends does: nothing comes from outside any more."""
    for versions in dataplane.repository.live.values():
        versions[""].shut()
