"""Ensembles of identity and Python models through the data plane."""

import asyncio

import numpy as np
import pytest

from tests.server.test_dataplane import IDENTITY, add, infer, plane, run
from tuili.errors import InternalError, InvalidArgument, TuiliError
from tuili.server.execution.pending import ENDED
from tuili.server.protocol.messages import InferRequest, InputTensor, RequestedOutput

TWO_STEPS = """
platform: "ensemble"
max_batch_size: 8
input { name: "IN" data_type: TYPE_FP32 dims: [ 2 ] }
output { name: "OUT" data_type: TYPE_FP32 dims: [ 2 ] }
output { name: "MID" data_type: TYPE_FP32 dims: [ 2 ] }
ensemble_scheduling {
  step [
    { model_name: "b" model_version: -1
      input_map { key: "x" value: "MID" } output_map { key: "y" value: "OUT" } },
    { model_name: "a" model_version: 1
      input_map { key: "x" value: "IN" } output_map { key: "y" value: "MID" } }
  ]
}
"""


def ask(*, outputs=None, shape=(3, 2), id_="7"):
    data = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    wanted = None if outputs is None else [RequestedOutput(name) for name in outputs]
    return InferRequest("e", [InputTensor("IN", "FP32", shape, data)], id=id_, outputs=wanted)


@pytest.fixture
def repository(tmp_path):
    for name in "ab":
        add(tmp_path, name, 1)
    add(tmp_path, "e", 1, config=TWO_STEPS)
    return tmp_path


def test_outputs_have_the_dims_that_are_declared_not_those_of_the_steps(repository):
    folder = repository / "e"
    reshaped = "dims: [ 1, 2 ] reshape { shape: [ 2 ] }"
    (folder / "config.pbtxt").write_text(TWO_STEPS.replace("dims: [ 2 ]", reshaped))

    async def scenario(dataplane):
        answer = await infer(dataplane, ask(shape=(3, 1, 2)))
        assert [each.shape for each in answer.outputs] == [(3, 1, 2)] * 2

    run(repository, scenario)


OPTIONAL = """
max_batch_size: 4
input { name: "a" data_type: TYPE_FP32 dims: [ 1 ] optional: true }
input { name: "b" data_type: TYPE_FP32 dims: [ 1 ] optional: true }
output { name: "x" data_type: TYPE_FP32 dims: [ 1 ] }
output { name: "y" data_type: TYPE_FP32 dims: [ 1 ] }
"""
_TWICE = """
ensemble_scheduling {
  step { model_name: "part" model_version: -1
         input_map { key: "a" value: "a" } input_map { key: "b" value: "b" }
         output_map { key: "x" value: "x1" } output_map { key: "y" value: "y1" } }
  step { model_name: "part" model_version: -1
         input_map { key: "a" value: "x1" } input_map { key: "b" value: "y1" }
         output_map { key: "x" value: "x" } output_map { key: "y" value: "y" } }
}
"""


@pytest.mark.parametrize(("given", "wanted"), [("a", "x"), ("b", "y")])
def test_steps_run_without_inputs_that_their_models_can_do_without(tmp_path, given, wanted):
    add(tmp_path, "part", 1, config='backend: "identity"' + OPTIONAL)
    add(tmp_path, "whole", 1, config='platform: "ensemble"' + OPTIONAL + _TWICE)
    data = np.full((1, 1), 7, np.float32)

    async def scenario(dataplane):
        asked = InferRequest(
            "whole",
            [InputTensor(given, "FP32", (1, 1), data)],
            outputs=[RequestedOutput(wanted)],
        )
        answer = await infer(dataplane, asked)
        assert [(each.name, each.data.item()) for each in answer.outputs] == [(wanted, 7.0)]

    run(tmp_path, scenario)


def test_tensors_go_through_the_steps(repository):
    async def scenario(dataplane):
        found = await infer(dataplane, ask())
        assert [output.name for output in found.outputs] == ["OUT", "MID"]
        for output in found.outputs:
            assert output.data.tolist() == [[0, 1], [2, 3], [4, 5]]
        assert (found.model, found.version, found.id) == ("e", "1", "7")
        (stats,) = dataplane.model_statistics("e")["model_stats"]
        assert (stats["inference_count"], stats["execution_count"]) == (3, 1)
        assert dataplane.model_metadata("e")["platform"] == "ensemble"
        assert dataplane.model_config("e")["ensemble_scheduling"]["step"][0]["model_name"] == "b"

    run(repository, scenario)


def test_only_the_steps_that_are_needed_run(repository):
    async def scenario(dataplane):
        await infer(dataplane, ask(outputs=["MID"]))
        counts = {
            s["name"]: s["execution_count"] for s in dataplane.model_statistics()["model_stats"]
        }
        assert counts == {"a": 1, "b": 0, "e": 1}

    run(repository, scenario)


_FAN = """
platform: "ensemble"
max_batch_size: 8
input { name: "IN" data_type: TYPE_FP32 dims: [ 2 ] }
output { name: "LEFT" data_type: TYPE_FP32 dims: [ 2 ] }
output { name: "RIGHT" data_type: TYPE_FP32 dims: [ 2 ] }
ensemble_scheduling {
  step { model_name: "b" model_version: -1
         input_map { key: "x" value: "IN" } output_map { key: "y" value: "LEFT" } }
  step { model_name: "a" model_version: -1
         input_map { key: "x" value: "IN" } output_map { key: "y" value: "RIGHT" } }
}
"""
_FAN_OF_A_MIDDLE = _FAN.replace(
    "ensemble_scheduling {",
    """ensemble_scheduling {
  step { model_name: "a" model_version: -1
         input_map { key: "x" value: "FIRST" } output_map { key: "y" value: "IN" } }""",
).replace('input { name: "IN"', 'input { name: "FIRST"')


@pytest.mark.parametrize(("config", "given"), [(_FAN, "IN"), (_FAN_OF_A_MIDDLE, "FIRST")])
def test_several_steps_read_one_tensor(repository, config, given):
    (repository / "e" / "config.pbtxt").write_text(config)
    data = np.arange(4, dtype=np.float32).reshape(2, 2)

    async def scenario(dataplane):
        asked = InferRequest("e", [InputTensor(given, "FP32", (2, 2), data)])
        found = await infer(dataplane, asked)
        assert [output.data.tolist() for output in found.outputs] == [data.tolist()] * 2

    run(repository, scenario)


def test_many_at_once(repository):
    async def scenario(dataplane):
        found = await asyncio.gather(*(infer(dataplane, ask(id_=str(at))) for at in range(20)))
        assert [each.id for each in found] == [str(at) for at in range(20)]

    run(repository, scenario)


def test_bad_requests_are_refused_before_any_step(repository):
    async def scenario(dataplane):
        with pytest.raises(InvalidArgument, match="unexpected shape for input 'IN' for model 'e'"):
            await infer(dataplane, ask(shape=(1, 3)))
        assert dataplane.model_statistics("a")["model_stats"][0]["execution_count"] == 0

    run(repository, scenario)


def test_cancelling_cancels_the_step(repository):
    (repository / "a" / "config.pbtxt").write_text(
        IDENTITY + "dynamic_batching { max_queue_delay_microseconds: 60000000 }"
    )

    async def scenario(dataplane):
        ticket = dataplane.submit(ask(), pytest.fail)
        await asyncio.sleep(0)
        counted = dataplane.metrics_text()
        assert 'pending_request_count{model="a",version="1"} 1' in counted
        assert 'pending_request_count{model="e",version="1"} 0' in counted
        ticket.cancel()
        assert dataplane._live["a"][""].pending() == 0
        assert dataplane._live["e"][""].pending() == 0

    run(repository, scenario)


def test_a_failing_step_fails_the_request(repository):
    folder = repository / "b"
    (folder / "config.pbtxt").write_text(IDENTITY.replace('backend: "identity"', ""))
    source = (
        "class Model:\n def __init__(self, p): pass\n def run(self, i): raise ValueError('b broke')"
    )
    (folder / "1" / "model.py").write_text(source)

    async def scenario(dataplane):
        with pytest.raises(InternalError, match="b broke"):
            await infer(dataplane, ask())
        assert dataplane._live["e"][""].statistics.failures["OTHER"] == 2

    run(repository, scenario)


@pytest.mark.parametrize(
    ("old", "new", "text"),
    [
        ('model_name: "b"', 'model_name: "z"', "depends on 'z', which is not loaded"),
        ('model_name: "b"', 'model_name: "e"', "ensembles form a cycle: e -> e"),
        ('key: "x" value: "MID"', 'key: "q" value: "MID"', "model 'b' has no tensor 'q'"),
        ('value: "MID"', 'value: "MD"', "'MD', which nothing makes. Did you mean 'MID'"),
        ('name: "OUT" data_type: TYPE_FP32', 'name: "OUT" data_type: TYPE_INT8',
         "output 'OUT' is declared INT8, but its step makes FP32"),
        ('name: "IN" data_type: TYPE_FP32', 'name: "IN" data_type: TYPE_INT8',
         "tensor 'IN' is INT8, but input 'x' of model 'a' expects FP32"),
    ],
)  # fmt: skip
def test_ensembles_that_do_not_load(repository, old, new, text):
    (repository / "e" / "config.pbtxt").write_text(TWO_STEPS.replace(old, new, 1))

    async def scenario():
        dataplane = plane(repository)
        await dataplane.start()
        reason = dataplane.repository.failures()["e"]
        assert dataplane.model_ready("a")
        await dataplane.close(5)
        raise TuiliError(reason)

    with pytest.raises(TuiliError, match=text):
        asyncio.run(asyncio.wait_for(scenario(), 20))


def test_loading_an_ensemble_loads_its_steps_and_unloading_a_step_breaks_it(repository):
    async def scenario(dataplane):
        await dataplane.repository_load("e")
        assert dataplane.model_ready("a")
        await dataplane.repository_unload("a")
        assert not dataplane.model_ready("e")
        with pytest.raises(TuiliError, match="'a' version 1 is not at ready state"):
            await infer(dataplane, ask())
        await dataplane.repository_load("a")
        assert dataplane.model_ready("e")
        await dataplane.repository_unload("e", unload_dependents=True)
        assert not dataplane.model_ready("b")

    run(repository, scenario, model_control_mode="explicit")


def test_two_ensembles_that_contain_each_other(tmp_path):
    add(tmp_path, "a", 1)
    for name, other in (("e", "f"), ("f", "e")):
        text = TWO_STEPS.replace('model_name: "b"', f'model_name: "{other}"')
        add(tmp_path, name, 1, config=text)

    async def scenario():
        dataplane = plane(tmp_path)
        await asyncio.wait_for(dataplane.start(), 10)
        assert "ensembles form a cycle" in dataplane.repository.failures()["e"]
        await dataplane.close(5)

    asyncio.run(scenario())


def test_requests_over_the_limit_of_a_step_wait(repository):
    text = TWO_STEPS.replace(
        "ensemble_scheduling {", "ensemble_scheduling { max_inflight_requests: 1"
    )
    (repository / "e" / "config.pbtxt").write_text(text)

    async def scenario(dataplane):
        found = await asyncio.gather(*(infer(dataplane, ask(id_=str(at))) for at in range(9)))
        assert [each.id for each in found] == [str(at) for at in range(9)]

    run(repository, scenario)


@pytest.mark.parametrize(
    ("batches", "shape", "refused"),
    [
        ({"a": 8}, (2,), ""),
        ({"b": 8}, (2,), ""),
        ({"a": 8, "b": 8}, (2,), ""),
        ({"e": 8}, (1, 2), ""),
        ({"e": 8, "b": 8}, (1, 2), ""),
        ({"e": 8}, (3, 2), "expected"),
    ],
)
def test_models_with_and_without_batches_fit_together_as_in_triton(
    tmp_path, batches, shape, refused
):
    def sized(text, name):
        return text.replace("max_batch_size: 8", f"max_batch_size: {batches.get(name, 0)}")

    for name in "ab":
        add(tmp_path, name, 1, config=sized(IDENTITY, name))
    add(tmp_path, "e", 1, config=sized(TWO_STEPS, "e"))

    async def scenario(dataplane):
        if refused:
            with pytest.raises(InvalidArgument, match=refused):
                await infer(dataplane, ask(shape=shape))
            return
        answer = await infer(dataplane, ask(shape=shape))
        assert [output.shape for output in answer.outputs] == [shape, shape]

    run(tmp_path, scenario)


def test_a_rehearsal_that_is_given_up_leaves_nothing_that_its_end_waits_for(repository):
    """As when the server ends while a step waits for who asked for the load."""

    async def scenario(dataplane):
        ensemble = dataplane._live["e"]["1"]
        asked = asyncio.Event()

        def never(request, reply):
            asked.set()
            return ENDED

        ensemble._submit = never
        rehearsing = asyncio.ensure_future(ensemble.rehearse(ask()))
        await asyncio.wait_for(asked.wait(), 10)
        rehearsing.cancel()
        await asyncio.wait([rehearsing], timeout=10)
        assert (rehearsing.cancelled(), ensemble.pending()) == (True, 0)

    run(repository, scenario)
