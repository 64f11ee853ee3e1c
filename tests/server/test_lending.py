"""Requests that hold shared memory of clients, in a data plane."""

import asyncio
import os
from pathlib import Path

import numpy as np
import pytest

from tests.server.test_dataplane import IDENTITY, add, infer, run
from tuili.errors import Unsupported
from tuili.server.protocol.messages import InferRequest, InputTensor, RequestedOutput

# Nothing leaves its queue by itself within a test.
WAITING = IDENTITY + "dynamic_batching { max_queue_delay_microseconds: 30000000 }"
ENSEMBLE = """
platform: "ensemble"
max_batch_size: 8
input { name: "x" data_type: TYPE_FP32 dims: [ 2 ] }
output { name: "y" data_type: TYPE_FP32 dims: [ 2 ] }
ensemble_scheduling { step {
  model_name: "m" model_version: -1
  input_map { key: "x" value: "x" } output_map { key: "y" value: "y" }
} }
"""


@pytest.fixture
def memory():
    path = Path(f"/dev/shm/tuili-lent-{os.getpid()}")
    path.write_bytes(np.array([1, 2, 0, 0], np.float32).tobytes())
    yield path
    path.unlink(missing_ok=True)


def at(offset):
    return {
        "shared_memory_region": "r", "shared_memory_offset": offset, "shared_memory_byte_size": 8,
    }  # fmt: skip


def shared(model="m"):
    """A request whose input is the first half of the region and whose output is the second."""
    inputs = [InputTensor("x", "FP32", (1, 2), None, at(0))]
    return InferRequest(model, inputs, outputs=[RequestedOutput("y", at(8))])


def register(dataplane, memory):
    dataplane.shared_memory_register("system", "r", {"key": memory.name, "byte_size": 16})


def written(memory):
    return np.frombuffer(memory.read_bytes(), np.float32)[2:].tolist()


def test_a_request_that_is_cancelled_holds_nothing_any_more(tmp_path, memory):
    add(tmp_path, "m", 1, config=WAITING)

    async def scenario(dataplane):
        register(dataplane, memory)
        ticket = dataplane.submit(shared(), pytest.fail)
        dataplane.shared_memory_unregister("system", "r")
        held = dataplane.shared_memory_status("system")
        ticket.cancel()
        ticket.cancel()
        return held, dataplane.shared_memory_status("system")

    held, after = run(tmp_path, scenario, allow_client_shm=True)
    assert (len(held), len(after)) == (1, 0)
    assert written(memory) == [0, 0]


@pytest.mark.parametrize("model", ["m", "e"])
def test_the_memory_is_let_go_before_the_answer_is_told(tmp_path, memory, model):
    add(tmp_path, "m", 1)
    add(tmp_path, "e", 1, config=ENSEMBLE)

    async def scenario(dataplane):
        register(dataplane, memory)
        answer = asyncio.get_running_loop().create_future()
        dataplane.submit(
            shared(model), lambda _: answer.set_result(dataplane.shared_memory_status("system"))
        )
        dataplane.shared_memory_unregister("system")
        return await asyncio.wait_for(answer, 10)

    assert run(tmp_path, scenario, allow_client_shm=True) == []
    assert written(memory) == [1, 2]


def test_a_request_that_waits_for_the_load_of_its_model_holds_the_memory(tmp_path, memory):
    add(tmp_path, "m", 1)

    async def scenario(dataplane):
        register(dataplane, memory)
        asked = asyncio.ensure_future(infer(dataplane, shared()))
        await asyncio.sleep(0)
        dataplane.shared_memory_unregister("system", "r")
        memory.rename(f"{memory}-kept")
        await asked
        return dataplane.shared_memory_status("system")

    options = {"allow_client_shm": True, "model_control_mode": "demand"}
    kept = Path(f"{memory}-kept")
    try:
        assert run(tmp_path, scenario, **options) == []
        assert written(kept) == [1, 2]
    finally:
        kept.unlink()


@pytest.mark.parametrize("part", ["input", "output"])
def test_where_it_is_off_a_request_that_names_shared_memory_is_refused(tmp_path, part):
    add(tmp_path, "m", 1)
    asked = shared()
    if part == "input":
        asked.outputs = None
    else:
        asked.inputs = [InputTensor("x", "FP32", (1, 2), np.ones((1, 2), np.float32))]

    async def scenario(dataplane):
        with pytest.raises(Unsupported, match="Client shared memory is disabled"):
            await infer(dataplane, asked)

    run(tmp_path, scenario)
