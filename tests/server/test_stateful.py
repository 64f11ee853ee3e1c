"""Stateful models through the data plane: a Python model that adds up, its state in the server."""

import asyncio

import numpy as np
import pytest

from tests.server.test_dataplane import add, infer, plane, run
from tuili.errors import InternalError, InvalidArgument
from tuili.server.protocol.messages import InferRequest, InputTensor

CONFIG = """
max_batch_size: 4
input { name: "x" data_type: TYPE_FP32 dims: [ 1 ] }
output { name: "sum" data_type: TYPE_FP32 dims: [ 1 ] }
sequence_batching {
  oldest { max_candidate_sequences: 64 }
  control_input { name: "START"
                  control { kind: CONTROL_SEQUENCE_START int32_false_true: [ 0, 1 ] } }
  control_input { name: "ID" control { kind: CONTROL_SEQUENCE_CORRID data_type: TYPE_UINT64 } }
  state { input_name: "s_in" output_name: "s_out" data_type: TYPE_FP32 dims: [ 1 ]
          initial_state { name: "zero" data_type: TYPE_FP32 dims: [ 1 ] zero_data: true } }
}
"""
MODEL = """
class Model:
    def __init__(self, parameters):
        pass

    def run(self, inputs):
        assert inputs["START"].shape == inputs["ID"].shape == inputs["x"].shape
        total = inputs["s_in"] + inputs["x"]
        return {"sum": total, "s_out": total}
"""


@pytest.fixture
def repository(tmp_path):
    add(tmp_path, "m", 1, config=CONFIG)
    (tmp_path / "m" / "1" / "model.py").write_text(MODEL)
    return tmp_path


def ask(value, sequence, *, start=False, end=False):
    data = np.array([[value]], np.float32)
    parameters = {"sequence_id": sequence, "sequence_start": start, "sequence_end": end}
    return InferRequest("m", [InputTensor("x", "FP32", (1, 1), data)], parameters=parameters)


async def total(dataplane, *args, **kwargs):
    return (await infer(dataplane, ask(*args, **kwargs))).outputs[0].data.item()


def test_a_hundred_interleaved_streams_each_have_their_sum(repository):
    async def stream(dataplane, sequence):
        found = []
        for step in range(5):
            ends = {"start": step == 0, "end": step == 4}
            found.append(await total(dataplane, sequence + step, sequence, **ends))
        return found

    async def scenario(dataplane):
        ids = [*range(1, 51), *(f"s{at}" for at in range(0))]
        sums = await asyncio.gather(*(stream(dataplane, at) for at in ids))
        for at, found in zip(ids, sums, strict=True):
            assert found == np.cumsum([at + step for step in range(5)]).tolist()
        (stats,) = dataplane.model_statistics("m")["model_stats"]
        assert stats["inference_count"] == 250
        assert stats["execution_count"] < 250
        assert dataplane.model_metadata("m")["inputs"] == [
            {"name": "x", "datatype": "FP32", "shape": [-1, 1]}
        ]
        assert [o["name"] for o in dataplane.model_metadata("m")["outputs"]] == ["sum"]

    run(repository, scenario)


def test_pipelined_requests_of_one_sequence_keep_their_order(repository):
    async def scenario(dataplane):
        asked = [total(dataplane, 1, 9, start=at == 0, end=at == 9) for at in range(10)]
        assert await asyncio.gather(*asked) == list(range(1, 11))

    run(repository, scenario)


def test_a_killed_host_does_not_lose_the_state(repository):
    async def scenario(dataplane):
        assert await total(dataplane, 1, 5, start=True) == 1
        dataplane._live["m"][""].hosts[0].kill()
        assert await total(dataplane, 2, 5) == 3
        assert await total(dataplane, 3, 5, end=True) == 6

    run(repository, scenario)


@pytest.mark.parametrize("sequence", [0, 7])
def test_requests_without_a_sequence_are_refused(repository, sequence):
    async def scenario(dataplane):
        with pytest.raises(InvalidArgument, match="correlation ID|START flag"):
            await infer(dataplane, ask(1, sequence))

    run(repository, scenario)


@pytest.mark.parametrize(
    ("old", "new", "text"),
    [
        ("int32_false_true: [ 0, 1 ]", "", "control 'START' needs int32_false_true"),
        ("[ 0, 1 ]", "[ 0 ]", "needs two values"),
        ("zero_data: true", 'data_file: "f"', "initial_state/f is missing"),
    ],
)
def test_policies_that_do_not_load(repository, old, new, text):
    (repository / "m" / "config.pbtxt").write_text(CONFIG.replace(old, new))

    async def scenario():
        dataplane = plane(repository)
        await dataplane.start()
        assert text in str(dataplane.repository.failures())
        await dataplane.close(5)

    asyncio.run(scenario())


def test_a_control_without_a_name_is_refused(tmp_path):
    add(tmp_path, "m", 1, config=CONFIG.replace('control_input { name: "START"', "control_input {"))
    (tmp_path / "m" / "1" / "model.py").write_text(MODEL)

    async def scenario():
        dataplane = plane(tmp_path)
        await dataplane.start()
        found = dataplane.repository.failures()
        await dataplane.close(5)
        return found

    assert "a control_input of sequence_batching has no name" in asyncio.run(scenario())["m"]


OWN_ROWS = (
    CONFIG[: CONFIG.index("  state {")].replace(
        "oldest { max_candidate_sequences: 64 }", "direct { }"
    )
    + "}\n"
)
READY = """  control_input { name: "READY"
                  control { kind: CONTROL_SEQUENCE_READY int32_false_true: [ 0, 1 ] } }
"""
PICKY = """
class Model:
    def __init__(self, parameters):
        pass

    def run(self, inputs):
        if (inputs["x"] == 13).any():
            raise ValueError("thirteen")
        return {"sum": inputs["x"]}
"""


def test_a_run_that_fails_in_a_row_of_its_own_is_not_tried_for_ever(tmp_path):
    add(tmp_path, "m", 1, config=OWN_ROWS[:-2] + READY + "}\n")
    (tmp_path / "m" / "1" / "model.py").write_text(PICKY)

    async def scenario(dataplane):
        assert await total(dataplane, 1, 1, start=True) == 1
        async with asyncio.timeout(20):
            # Its row is the second one: a row of nobody goes before it.
            with pytest.raises(InternalError, match="thirteen"):
                await total(dataplane, 13, 2, start=True)
        assert await total(dataplane, 2, 1, end=True) == 2

    run(tmp_path, scenario)


def test_answers_in_order_do_not_wait_for_sequences_without_a_slot(repository):
    one_slot = "{ max_candidate_sequences: 1 preserve_ordering: true }"
    idle = "max_sequence_idle_microseconds: 600000000\n  oldest"
    config = CONFIG.replace("{ max_candidate_sequences: 64 }", one_slot).replace("oldest", idle)
    (repository / "m" / "config.pbtxt").write_text(config)

    async def scenario(dataplane):
        assert await total(dataplane, 1, 5, start=True) == 1
        other = asyncio.create_task(total(dataplane, 7, 6, start=True, end=True))
        await asyncio.sleep(0)  # it is there, and waits for the slot
        async with asyncio.timeout(20):
            assert await total(dataplane, 2, 5) == 3
            assert await total(dataplane, 3, 5, end=True) == 6
            assert await other == 7

    run(repository, scenario)


def test_who_waits_for_a_slot_of_a_model_that_goes_is_answered_at_once(repository):
    idle = "max_sequence_idle_microseconds: 600000000\n  oldest"
    config = CONFIG.replace("sequences: 64", "sequences: 1").replace("oldest", idle)
    (repository / "m" / "config.pbtxt").write_text(config)

    async def scenario(dataplane):
        assert await total(dataplane, 1, 5, start=True) == 1  # it keeps the only slot
        others = [asyncio.create_task(total(dataplane, at, at, start=True)) for at in (7, 8)]
        await asyncio.sleep(0)
        async with asyncio.timeout(20):
            await dataplane.repository.unload("m")
            await dataplane.repository.load("m")
            for sequence in (5, 7):
                with pytest.raises(InvalidArgument, match=r"lost: version 1 of the model was unlo"):
                    await total(dataplane, 2, sequence)
            assert await asyncio.gather(*others) == [7, 8]
        assert await total(dataplane, 2, 5, start=True) == 2

    run(repository, scenario)


def test_a_reload_leaves_sequences_where_they_are_and_those_before_them_in_the_slot(repository):
    idle = "max_sequence_idle_microseconds: 600000000\n  oldest"
    config = CONFIG.replace("sequences: 64", "sequences: 1").replace("oldest", idle)
    (repository / "m" / "config.pbtxt").write_text(config)

    async def scenario(dataplane):
        assert await total(dataplane, 1, 5, start=True) == 1
        waits = asyncio.create_task(total(dataplane, 7, 7, start=True))
        await asyncio.sleep(0)
        await dataplane.repository.load("m")
        assert await total(dataplane, 8, 8, start=True, end=True) == 8  # the new one has a slot too
        assert await total(dataplane, 2, 5) == 3
        assert await total(dataplane, 3, 5, end=True) == 6
        assert await waits == 7
        assert await total(dataplane, 1, 7, end=True) == 8

    run(repository, scenario)
