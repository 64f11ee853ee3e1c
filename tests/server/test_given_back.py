"""Whatever goes wrong where, places are given back: nothing counts a request that is over."""

import asyncio

import numpy as np
import pytest

from tests.server.test_dataplane import IDENTITY, add, infer, run
from tests.server.test_ensemble import TWO_STEPS, ask
from tuili.errors import InternalError
from tuili.server.protocol.messages import InferRequest, InputTensor
from tuili.server.scheduling.layout import Layout

DOOR = 'parameters { key: "max_concurrency" value: { string_value: "1" } }\n'


def break_once(thing, name):
    """Let a method fail, once, as nobody expects."""
    before = getattr(thing, name)

    def broken(*given, **named):
        setattr(thing, name, before)
        raise RuntimeError("a bug")

    setattr(thing, name, broken)


def front(dataplane, model):
    return dataplane.repository.live[model][""]


@pytest.mark.parametrize("step", ["a", "b"])
def test_a_step_that_cannot_be_asked_ends_the_request(tmp_path, step):
    for name in "ab":
        add(tmp_path, name, 1)
    add(tmp_path, "e", 1, config=TWO_STEPS)

    async def scenario(dataplane):
        whole = front(dataplane, "e")
        break_once(front(dataplane, step), "submit")
        with pytest.raises(InternalError, match="RuntimeError: a bug"):
            await infer(dataplane, ask())
        assert whole.pending() == 0
        break_once(whole, "respond")
        with pytest.raises(InternalError, match="RuntimeError: a bug"):
            await infer(dataplane, ask())
        assert whole.pending() == 0
        assert len((await infer(dataplane, ask())).outputs) == 2
        assert await whole.drain(1)

    run(tmp_path, scenario)


def test_a_request_that_cannot_be_queued_gives_its_place_back(tmp_path):
    ordered = "dynamic_batching { preserve_ordering: true }\n"
    add(tmp_path, "m", 1, config=IDENTITY + ordered + DOOR)
    one = InferRequest("m", [InputTensor("x", "FP32", (1, 2), np.ones((1, 2), np.float32))])

    async def scenario(dataplane):
        break_once(front(dataplane, "m")._queue, "push")
        with pytest.raises(InternalError, match="RuntimeError: a bug"):
            await infer(dataplane, one)
        async with asyncio.timeout(5):
            assert (await infer(dataplane, one)).outputs[0].data.tolist() == [[1, 1]]

    run(tmp_path, scenario)


LAID = """
backend: "python"
max_batch_size: 4
dynamic_batching { }
input { name: "x" data_type: TYPE_FP32 dims: [ -1 ] allow_ragged_batch: true }
input { name: "z" data_type: TYPE_FP32 dims: [ 1 ] }
output { name: "y" data_type: TYPE_FP32 dims: [ 1 ] }
batch_input { kind: BATCH_ELEMENT_COUNT target_name: "n" data_type: TYPE_FP32 source_input: "x" }
instance_group { count: 1 kind: KIND_CPU }
"""
MODEL = """
class Model:
    def __init__(self, parameters):
        pass
    def run(self, inputs):
        return {"y": inputs["z"]}
"""


def test_a_batch_that_cannot_be_laid_out_costs_no_instance(tmp_path):
    folder = tmp_path / "m" / "1"
    folder.mkdir(parents=True)
    (folder / "model.py").write_text(MODEL)
    (folder.parent / "config.pbtxt").write_text(LAID)
    z, x = np.full((1, 1), 5, np.float32), np.ones((1, 3), np.float32)
    inputs = [InputTensor("x", "FP32", (1, 3), x), InputTensor("z", "FP32", (1, 1), z)]
    whole = InferRequest("m", inputs)

    async def scenario(dataplane):
        async with asyncio.timeout(20):
            for _ in range(3):
                break_once(Layout, "prepare")
                with pytest.raises(InternalError, match="could not be laid out"):
                    await infer(dataplane, whole)
            assert (await infer(dataplane, whole)).outputs[0].data.tolist() == [[5]]

    run(tmp_path, scenario)
