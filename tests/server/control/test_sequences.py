"""Sequences and roll-outs: each goes on in the version that it began in, whatever is decided."""

import asyncio

import numpy as np
import pytest

from tests.server.control.test_rollouts import ENSEMBLE, begin, settle
from tests.server.control.test_rollouts import run as run_rollout
from tests.server.test_dataplane import infer
from tuili.errors import InvalidArgument, Unavailable
from tuili.server.protocol.messages import InferRequest, InputTensor

CONFIG = """
backend: "python"
max_batch_size: 4
input { name: "x" data_type: TYPE_FP32 dims: [ 2 ] }
output { name: "y" data_type: TYPE_FP32 dims: [ 2 ] }
parameters { key: "isolation" value { string_value: "none" } }
sequence_batching {
  oldest { }
  max_sequence_idle_microseconds: 600000000
  state { input_name: "s_in" output_name: "s_out" data_type: TYPE_FP32 dims: [ 2 ]
          initial_state { name: "zero" data_type: TYPE_FP32 dims: [ 2 ] zero_data: true } }
}
"""
# Version 1 counts ones, version 2 thousands: a sum tells which versions made it.
MODEL = """
class Model:
    def __init__(self, parameters): pass
    def run(self, inputs):
        total = inputs["s_in"] + {step} * inputs["x"]
        {more}
        return {{"y": total, "s_out": total}}
"""
ALL = {"steps": [{"weight": 100, "min_time_s": 0, "min_samples": 10**6}],
       "metrics": {"error_rate": {}}, "rollback_window_s": 0}  # fmt: skip


@pytest.fixture
def repository(tmp_path):
    (tmp_path / "m").mkdir()
    write(tmp_path, 1, step=1)
    (tmp_path / "m" / "config.pbtxt").write_text(CONFIG)
    return tmp_path


def write(repository, version, *, step, more=""):
    folder = repository / "m" / str(version)
    folder.mkdir(exist_ok=True)
    (folder / "model.py").write_text(MODEL.format(step=step, more=more))


def run(repository, scenario):
    """The second version comes when the first serves, as versions do."""

    async def both(dataplane):
        if not (repository / "m" / "2").exists():
            write(repository, 2, step=1000)
        await scenario(dataplane)

    run_rollout(repository, both)


async def count(dataplane, sequence, *, start=False, end=False, model="m", version="", x=1.0):
    """The sum of a sequence so far."""
    tensor = InputTensor("x", "FP32", (1, 2), np.full((1, 2), x, np.float32))
    parameters = {"sequence_id": sequence, "sequence_start": start, "sequence_end": end}
    asked = InferRequest(model, [tensor], version=version, parameters=parameters)
    return (await infer(dataplane, asked)).outputs[0].data[0, 0].item()


async def decide(dataplane, what):
    await dataplane.rollouts.act("r", what, "me")
    await settle(dataplane)


async def gone(dataplane, version):
    """Version `version` has left, now that nothing of it is open."""
    async with asyncio.timeout(20):
        while dataplane.repository.states_of("m")[version].state.value != "UNAVAILABLE":
            await asyncio.gather(settle(dataplane), *dataplane.repository.departures.under_way())


@pytest.mark.parametrize(
    ("what", "fresh"), [("promote", 1000), ("rollback", 1), ("abort", 1), ("pause", 1000)]
)
def test_a_sequence_ends_where_it_began_whatever_becomes_of_the_roll_out(repository, what, fresh):
    async def scenario(dataplane):
        assert await count(dataplane, "old", start=True) == 1
        assert await count(dataplane, "anew", start=True) == 1
        await begin(dataplane, **ALL)
        assert await count(dataplane, "new", start=True) == 1000
        assert await count(dataplane, "old") == 2
        await decide(dataplane, what)
        for at in (3, 4):
            assert await count(dataplane, "old") == at
            assert await count(dataplane, "new") == 1000 * (at - 1)
        assert await count(dataplane, "fresh", start=True) == fresh
        assert await count(dataplane, "fresh", end=True) == 2 * fresh
        assert await count(dataplane, "old", end=True) == 5
        assert await count(dataplane, "new", end=True) == 4000
        with pytest.raises(InvalidArgument, match="START"):
            await count(dataplane, "old")
        if what == "promote":
            assert await count(dataplane, "anew", start=True) == 1000  # nor is it where it was
            assert await count(dataplane, "anew", end=True) == 2000
            await gone(dataplane, 1)
        elif what != "pause":
            await gone(dataplane, 2)

    run(repository, scenario)


def test_a_version_that_is_asked_for_goes_on_though_it_is_not_served_any_more(repository):
    async def scenario(dataplane):
        await begin(dataplane, **ALL)
        assert await count(dataplane, 7, start=True, version="2") == 1000
        await decide(dataplane, "rollback")
        assert await count(dataplane, 7, version="2") == 2000
        with pytest.raises(Unavailable, match="version 2"):
            await count(dataplane, 8, start=True, version="2")
        assert await count(dataplane, 7, end=True, version="2") == 3000
        with pytest.raises(Unavailable, match="version 2"):
            await count(dataplane, 7, version="2")

    run(repository, scenario)


def test_what_a_candidate_cannot_begin_goes_on_where_it_began_then(repository):
    fails = "if inputs['x'][0, 0] == 5: raise RuntimeError('five')"

    async def scenario(dataplane):
        write(repository, 2, step=1000, more=fails)
        await begin(dataplane, **ALL, guards={"error_burst": 0})
        assert await count(dataplane, 7, start=True, x=5) == 5
        assert [await count(dataplane, 7) for _ in range(2)] == [6, 7]
        assert await count(dataplane, 8, start=True) == 1000
        with pytest.raises(Exception, match="five"):
            await count(dataplane, 8, x=5)  # in the middle nobody else can answer
        assert await count(dataplane, 8) == 2000

    run(repository, scenario)


def test_a_candidate_that_is_away_is_named_to_who_goes_on_with_its_sequences(repository):
    async def scenario(dataplane):
        await begin(dataplane, **ALL)
        assert await count(dataplane, 7, start=True) == 1000
        del dataplane.repository.live["m"]["2"]
        text = "sequence 7 of 'm' is with candidate, version 2, and it is not loaded; start it anew"
        with pytest.raises(Unavailable, match=text):
            await count(dataplane, 7)
        assert [await count(dataplane, 7, start=at == 0) for at in range(3)] == [1, 2, 3]

    run(repository, scenario)


def test_a_sequence_of_a_label_stays_where_it_was_when_the_label_moves(repository):
    async def scenario(dataplane):
        await dataplane.repository.add_version("m", 2)
        await dataplane.rollouts.label("m", "prod", 1, "me")
        await dataplane.rollouts.label("m", "next", 2, "me")
        assert await count(dataplane, 7, start=True, version="prod") == 1
        await dataplane.rollouts.label("m", "prod", 2, "me")
        assert await count(dataplane, 7, version="prod") == 2
        assert await count(dataplane, 8, start=True, version="prod") == 1000
        assert await count(dataplane, 7, start=True, version="prod") == 1000
        assert await count(dataplane, 7, end=True, version="prod") == 2000

    run(repository, scenario)


def test_only_so_many_versions_wait_for_their_sequences(repository):
    async def scenario(dataplane):
        (repository / "m" / "2").rename(repository / "2")
        for sequence in range(1, 5):
            assert await count(dataplane, sequence, start=True) == 1
            await dataplane.repository.load("m")
        with pytest.raises(InvalidArgument, match="lost: version 1 of the model was unloaded or r"):
            await count(dataplane, 1)
        with pytest.raises(InvalidArgument, match="lost: version 1 of the model was unloaded or r"):
            await count(dataplane, 2)
        assert [await count(dataplane, sequence) for sequence in (3, 4)] == [2, 2]
        await dataplane.repository.unload("m")
        await dataplane.repository.load("m")
        with pytest.raises(InvalidArgument, match="lost: version 1 of the model was unloaded or r"):
            await count(dataplane, 3)

    run(repository, scenario)


def test_a_sequence_of_an_ensemble_stays_in_the_version_that_it_began_in(repository):
    """Of its second version the second step counts from what is there, not from nought."""
    twice = ENSEMBLE + "version_policy { specific { versions: 1 } }"
    (repository / "e" / "1").mkdir(parents=True)
    (repository / "e" / "2").mkdir()
    (repository / "e" / "config.pbtxt").write_text(twice)

    async def scenario(dataplane):
        async def answered(sequence, **more):
            tensor = InputTensor("x", "FP32", (1, 2), np.ones((1, 2), np.float32))
            parameters = {"sequence_id": sequence, **more}
            asked = InferRequest("e", [tensor], parameters=parameters)
            return (await infer(dataplane, asked)).version

        assert await answered("old", sequence_start=True) == "1"
        await begin(dataplane, **ALL, model="e")
        assert await answered("new", sequence_start=True) == "2"
        assert await answered("old") == "1"
        await decide(dataplane, "promote")
        assert [await answered("old"), await answered("new")] == ["1", "2"]
        assert await answered("old", sequence_start=True) == "2"

    run(repository, scenario)


def test_what_runs_on_a_version_that_goes_at_once_is_answered(repository):
    """A promotion that keeps nothing: the stable version leaves before its last answers come."""
    model = "import time\n" + MODEL.format(step=1, more="time.sleep(0.3)")
    (repository / "m" / "1" / "model.py").write_text(model)
    shadow = ALL | {"steps": [{"shadow": 100, "min_time_s": 0, "min_samples": 10**6}]}

    async def scenario(dataplane):
        await begin(dataplane, **shadow)
        running = asyncio.create_task(count(dataplane, 7, start=True, end=True))
        await asyncio.sleep(0)
        await decide(dataplane, "promote")
        assert "1" not in dataplane.repository.live["m"]
        assert not running.done()
        assert await running == 1

    run(repository, scenario)
