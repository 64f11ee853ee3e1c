"""Python models that load and unload what their own requests have met: nobody waits for himself."""

import asyncio
import json

import pytest

from tests.server.test_dataplane import add as add_folder
from tests.server.test_dataplane import infer
from tests.server.test_hosts import add, until
from tests.server.test_model_calls import CONFIG, HEAD, ask, run, value

ACTS = (
    HEAD
    + """
class TritonPythonModel:
    def initialize(self, args):
        self.acts = args["model_name"] != "m"  # the steps of an ensemble have its parameters

    def execute(self, requests):
        (request,) = requests
        told = json.loads(request.parameters()).get("todo", "[]")
        todo = json.loads(told) if self.acts else []
        if todo:
            act, model, *rest = todo
            if act == "call":
                asked = pb.InferenceRequest(
                    model_name=model, inputs=[one(request, 0.0, "x")],
                    requested_output_names=["y"], parameters={"todo": json.dumps(rest)},
                )
                assert not asked.exec().has_error()
            else:
                {"load": pb.load_model, "unload": pb.unload_model}[act](model)
        return [pb.InferenceResponse([one(request, value_of(request) + 1)])]
"""
)
IN_TURN = """
platform: "ensemble"
max_batch_size: 8
input { name: "x" data_type: TYPE_FP32 dims: [ 1 ] }
output { name: "y" data_type: TYPE_FP32 dims: [ 1 ] }
ensemble_scheduling {
  step { model_name: "m" model_version: -1
         input_map { key: "x" value: "x" } output_map { key: "y" value: "first" } }
  step { model_name: "acts" model_version: -1
         input_map { key: "x" value: "first" } output_map { key: "y" value: "second" } }
  step { model_name: "m" model_version: -1
         input_map { key: "x" value: "second" } output_map { key: "y" value: "y" } }
}
"""
SEEN = {"acts": 2.0, "e": 4.0}


@pytest.mark.parametrize(
    ("asked", "todo", "gone"),
    [
        ("acts", ["unload", "acts"], "acts"),
        ("acts", ["load", "acts"], ""),
        ("acts", ["call", "other", "unload", "acts"], "acts"),
        ("e", ["unload", "m"], "m"),
        ("e", ["unload", "acts"], "acts"),
        ("e", ["call", "other", "unload", "e"], "e"),
        ("e", ["unload", "e"], "e"),
        ("e", ["load", "m"], ""),
        ("e", ["load", "e"], ""),
    ],
)
def test_a_request_whose_model_unloads_what_it_has_met_is_answered(tmp_path, asked, todo, gone):
    for name in ("acts", "other", "m"):
        add(tmp_path, name, config=CONFIG, source=ACTS)
    add_folder(tmp_path, "e", 1, config=IN_TURN)

    async def scenario(dataplane):
        answer = await infer(dataplane, ask(asked, parameters={"todo": json.dumps(todo)}))
        assert value(answer) == SEEN[asked]
        states = dataplane.repository.states_of(gone)
        await until(lambda: all(each.reason == "unloaded" for each in states.values()))
        assert dataplane.model_ready(gone or asked) == (not gone)

    run(tmp_path, scenario, model_control_mode="explicit", load_models=("*",))


def test_a_model_that_was_unloaded_by_its_own_request_can_be_loaded_again_at_once(tmp_path):
    add(tmp_path, "acts", config=CONFIG, source=ACTS)

    async def scenario(dataplane):
        todo = json.dumps(["unload", "acts"])
        await infer(dataplane, ask("acts", parameters={"todo": todo}))
        await asyncio.wait_for(dataplane.repository_load("acts"), 30)
        assert value(await infer(dataplane, ask("acts"))) == 2.0

    run(tmp_path, scenario, model_control_mode="explicit", load_models=("*",))
