"""Ensembles with models that answer any number of times, through the data plane."""

import asyncio

import numpy as np
import pytest

from tests.server.test_dataplane import add, infer, run
from tuili.errors import InternalError, Unsupported
from tuili.server.protocol.messages import InferRequest, InferResponse, InputTensor, RequestedOutput

INSIDE = 'parameters { key: "isolation" value: { string_value: "none" } }'
PLAIN = """
input {{ name: "{0}" data_type: TYPE_INT32 dims: [ 1 ] }}
output {{ name: "{1}" data_type: TYPE_INT32 dims: [ 1 ] }}
"""
COUNT = PLAIN.format("n", "k") + "model_transaction_policy { decoupled: true }"
COUNT_CODE = """
import numpy as np

class Model:
    def __init__(self, parameters):
        pass

    def run(self, inputs):
        for at in range(int(inputs["n"][0])):
            if at == 13:
                raise ValueError("thirteen")
            yield {"k": np.array([at], np.int32)}
"""
SLOWER_FIRST = """
import time
import numpy as np

class Model:
    def __init__(self, parameters):
        pass

    def run(self, inputs):
        time.sleep(0.02 if inputs["k"][0] == 0 else 0)
        return {"v": inputs["k"] * 10}
"""
STEP = """step {{ model_name: "{0}" model_version: -1
    input_map {{ key: "{1}" value: "{2}" }} output_map {{ key: "{3}" value: "{4}" }} }}
"""


def ensemble(name, *steps, more="", outputs=("OUT",)):
    declared = 'input { name: "IN" data_type: TYPE_INT32 dims: [ 1 ] }' + "".join(
        f'output {{ name: "{each}" data_type: TYPE_INT32 dims: [ 1 ] }}' for each in outputs
    )
    scheduling = more + "".join(STEP.format(*step) for step in steps)
    return f'name: "{name}" platform: "ensemble" {declared} ensemble_scheduling {{ {scheduling} }}'


def write(repository, name, config, code):
    add(repository, name, 1, config=config)
    (repository / name / "1" / "model.py").write_text(code)


@pytest.fixture
def repository(tmp_path):
    write(tmp_path, "count", COUNT + INSIDE, COUNT_CODE)
    write(
        tmp_path,
        "tens",
        PLAIN.format("k", "v") + INSIDE + "instance_group { count: 2 }",
        SLOWER_FIRST,
    )
    return tmp_path


def ask(model, n, outputs=None):
    wanted = outputs and [RequestedOutput(name) for name in outputs]
    data = np.array([n], np.int32)
    return InferRequest(model, [InputTensor("IN", "INT32", (1,), data)], id="7", outputs=wanted)


async def stream(dataplane, asked, *, stop_after=None):
    """The values of every answer, and whatever came with the final flag."""
    found, ended = [], asyncio.get_running_loop().create_future()

    def reply(answer, final):
        assert not ended.done()
        if isinstance(answer, InferResponse):
            assert answer.id == "7"
            found.append({output.name: output.data.item() for output in answer.outputs})
        if final:
            ended.set_result(None if isinstance(answer, InferResponse) else answer)
        elif len(found) == stop_after:
            ticket.cancel()
            ended.set_result("cancelled")

    ticket = dataplane.submit_stream(asked, reply)
    return found, await asyncio.wait_for(ended, 10)


TOKENS = ensemble("e", ("count", "n", "IN", "k", "mid"), ("tens", "k", "mid", "v", "OUT"))


@pytest.mark.parametrize("n", [0, 1, 12])
def test_each_answer_goes_through_the_steps_and_they_stay_in_order(repository, n):
    add(repository, "e", 1, config=TOKENS)

    async def scenario(dataplane):
        assert await stream(dataplane, ask("e", n)) == ([{"OUT": 10 * k} for k in range(n)], None)
        assert dataplane.is_decoupled("e")
        assert dataplane.model_config("e")["model_transaction_policy"] == {"decoupled": True}
        (stats,) = dataplane.model_statistics("e")["model_stats"]
        assert stats["inference_stats"]["success"]["count"] == 1
        (tens,) = dataplane.model_statistics("tens")["model_stats"]
        assert tens["inference_count"] == n

    run(repository, scenario)


def test_answers_to_answers(repository):
    """Number k is answered k times, in an ensemble in an ensemble."""
    add(repository, "once", 1, config=ensemble("once", ("count", "n", "IN", "k", "OUT")))
    config = ensemble("e", ("once", "IN", "IN", "OUT", "mid"), ("count", "n", "mid", "k", "OUT"))
    add(repository, "e", 1, config=config)

    async def scenario(dataplane):
        found, last = await stream(dataplane, ask("e", 5))
        assert sorted(each["OUT"] for each in found) == sorted(
            j for k in range(5) for j in range(k)
        )
        assert last is None

    run(repository, scenario)


def test_an_output_from_before_the_answers_is_in_each_of_them(repository):
    steps = (("count", "n", "IN", "k", "OUT"), ("tens", "k", "IN", "v", "FIRST"))
    add(repository, "e", 1, config=ensemble("e", *steps, outputs=("OUT", "FIRST")))

    async def scenario(dataplane):
        found, _ = await stream(dataplane, ask("e", 3))
        assert found == [{"OUT": k, "FIRST": 30} for k in range(3)]
        found, _ = await stream(dataplane, ask("e", 3, ["FIRST"]))
        assert found == [{"FIRST": 30}]

    run(repository, scenario)


def test_an_error_of_a_step_ends_the_stream_after_what_came_before_it(repository):
    add(repository, "e", 1, config=TOKENS)

    async def scenario(dataplane):
        found, last = await stream(dataplane, ask("e", 20))
        assert found == [{"OUT": 10 * k} for k in range(13)]
        assert isinstance(last, InternalError)
        assert "thirteen" in str(last)
        assert (await stream(dataplane, ask("e", 2)))[0] == [{"OUT": 0}, {"OUT": 10}]

    run(repository, scenario)


def test_a_cancelled_stream_stops_and_leaves_nothing(repository):
    add(repository, "e", 1, config=TOKENS)

    async def scenario(dataplane):
        assert (await stream(dataplane, ask("e", 12), stop_after=3))[1] == "cancelled"
        assert dataplane._live["e"][""].pending() == 0
        assert len((await stream(dataplane, ask("e", 4)))[0]) == 4

    run(repository, scenario)


def test_a_single_answer_is_refused_as_for_the_model_itself(repository):
    add(repository, "e", 1, config=TOKENS)

    async def scenario(dataplane):
        with pytest.raises(Unsupported, match="decoupled transaction policy"):
            await infer(dataplane, ask("e", 1))

    run(repository, scenario)


def test_no_more_requests_of_a_step_run_at_once_than_allowed(repository):
    add(
        repository,
        "e",
        1,
        config=TOKENS.replace("scheduling {", "scheduling { max_inflight_requests: 1"),
    )

    async def scenario(dataplane):
        found = await asyncio.gather(*(stream(dataplane, ask("e", 6)) for _ in range(3)))
        assert found == [([{"OUT": 10 * k} for k in range(6)], None)] * 3

    run(repository, scenario)
