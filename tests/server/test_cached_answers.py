"""What a cached answer depends on: all that its model is told, and all versions that made it."""

import pytest

from tests.server.control.test_rollouts import settle
from tests.server.test_dataplane import add as add_folder
from tests.server.test_dataplane import infer
from tests.server.test_hosts import add
from tests.server.test_model_calls import CONFIG, HEAD, ask, run, value
from tuili.server.protocol.messages import RequestedOutput

CACHE = "response_cache { enable: true }\n"
TWO_OUTPUTS = CONFIG + 'output { name: "z" data_type: TYPE_FP32 dims: [ 1 ] }\n' + CACHE
# Answers the outputs that are asked, with the number of the run.
COUNTS = (
    HEAD
    + """
class TritonPythonModel:
    def initialize(self, args):
        self.runs = 0

    def execute(self, requests):
        self.runs += len(requests)
        answers = []
        for request in requests:
            made = [one(request, self.runs, name) for name in request.requested_output_names()]
            told = {"runs": self.runs} if value_of(request) < 0 else None
            answers.append(pb.InferenceResponse(made, parameters=told))
        return answers
"""
)


def numbers(answer):
    return {output.name: output.data.item() for output in answer.outputs}


def wanting(*names):
    return [RequestedOutput(name) for name in names]


@pytest.mark.parametrize(
    ("first", "second", "found"),
    [
        ({}, {}, {"y": 1, "z": 1}),
        ({"id": "a"}, {"id": "b"}, {"y": 1, "z": 1}),
        ({}, {"outputs": wanting("z", "y")}, {"z": 1, "y": 1}),
        ({"outputs": wanting("y")}, {}, {"y": 2, "z": 2}),
        ({"outputs": wanting("y")}, {"outputs": wanting("z")}, {"z": 2}),
        ({"parameters": {"a": 1}}, {"parameters": {"a": 2}}, {"y": 2, "z": 2}),
        ({"parameters": {"a": 1}}, {"parameters": {"a": "1"}}, {"y": 2, "z": 2}),
        ({"parameters": {"a": 1, "b": 2}}, {"parameters": {"b": 2, "a": 1}}, {"y": 1, "z": 1}),
        ({"parameters": {"priority": 1}}, {"parameters": {"timeout": 10**9}}, {"y": 1, "z": 1}),
        ({"value": -1.0}, {"value": -1.0}, {"y": 2, "z": 2}),  # it tells something beside
    ],
)
def test_only_what_says_the_same_gets_the_same_answer(tmp_path, first, second, found):
    add(tmp_path, "m", config=TWO_OUTPUTS, source=COUNTS)

    async def scenario(dataplane):
        await infer(dataplane, ask("m", **first))
        assert numbers(await infer(dataplane, ask("m", **second))) == found

    run(tmp_path, scenario)


def ensemble(model, cache=CACHE):
    return f"""
platform: "ensemble"
max_batch_size: 8
input {{ name: "x" data_type: TYPE_FP32 dims: [ 1 ] }}
output {{ name: "y" data_type: TYPE_FP32 dims: [ 1 ] }}
ensemble_scheduling {{ step {{ model_name: "{model}" model_version: -1
  input_map {{ key: "x" value: "x" }} output_map {{ key: "y" value: "y" }} }} }}
{cache}"""


@pytest.fixture
def repository(tmp_path):
    """`e` is of `m`, `f` of `e`, and `g` keeps nothing itself but is of `e`."""
    add(tmp_path, "m", config=CONFIG, source=COUNTS)
    add_folder(tmp_path, "e", 1, config=ensemble("m"))
    add_folder(tmp_path, "f", 1, config=ensemble("e"))
    add_folder(tmp_path, "g", 1, config=ensemble("e", cache=""))
    return tmp_path


async def runs(dataplane, model, **more):
    """How many runs of `m` there were when this answer was made."""
    return value(await infer(dataplane, ask(model, **more)))


def caches(dataplane, model):
    (stats,) = dataplane.model_statistics(model)["model_stats"]
    found = stats["inference_stats"]
    return found["cache_hit"]["count"], found["cache_miss"]["count"], found["success"]["count"]


@pytest.mark.parametrize("model", ["e", "f"])
def test_an_ensemble_answers_again_without_its_steps(repository, model):
    async def scenario(dataplane):
        assert [await runs(dataplane, model) for _ in range(3)] == [1, 1, 1]
        assert await runs(dataplane, model, value=2.0) == 2
        assert await runs(dataplane, model, parameters={"a": 1}) == 3
        assert caches(dataplane, model) == (2, 3, 5)
        assert caches(dataplane, "m")[2] == 3

    run(repository, scenario)


def test_a_step_of_an_ensemble_keeps_to_the_versions_of_the_request_around_it(repository):
    async def scenario(dataplane):
        assert await runs(dataplane, "e") == 1
        assert await runs(dataplane, "g") == 2
        assert caches(dataplane, "e") == (0, 1, 2)

    run(repository, scenario)


EXPLICIT = {"model_control_mode": "explicit", "load_models": ("*",)}


@pytest.mark.parametrize("model", ["e", "f"])
@pytest.mark.parametrize("changed", ["m", "e"])
def test_nothing_that_another_version_made_is_answered_again(repository, model, changed):
    async def scenario(dataplane):
        for _ in range(2):
            await runs(dataplane, model, value=5.0)
        hits, misses, _ = caches(dataplane, model)
        await dataplane.repository_load(changed)
        await runs(dataplane, model, value=5.0)
        assert caches(dataplane, model)[:2] == (hits, misses + 1)
        assert await runs(dataplane, model, value=5.0) == await runs(dataplane, model, value=5.0)

    run(repository, scenario, **EXPLICIT)


def test_an_answer_half_of_which_a_former_version_made_is_not_kept(repository):
    """The step is asked before its model is replaced, and its answer is there after that."""

    async def scenario(dataplane):
        submit = dataplane._live["e"]["1"]._submit
        held = []

        def hold(request, reply):
            return submit(request, lambda answer: held.append((reply, answer)))

        dataplane._live["e"]["1"]._submit = hold
        found = []
        dataplane.submit(ask("e"), found.append)
        while not held:
            await runs(dataplane, "m")
        await dataplane.repository_load("m")
        dataplane._live["e"]["1"]._submit = submit
        reply, answer = held[0]
        reply(answer)
        assert len(found) == 1
        await runs(dataplane, "e")
        assert caches(dataplane, "e")[0] == 0

    run(repository, scenario, **EXPLICIT)


ROLL_OUT = {
    "model": "m", "name": "r", "candidate": 2, "metrics": {"error_rate": {}},
    "steps": [{"weight": 50, "min_time_s": 0, "min_samples": 10**6}], "rollback_window_s": 0,
}  # fmt: skip


def test_while_a_roll_out_of_a_step_runs_every_request_is_its_business(repository):
    async def scenario(dataplane):
        (repository / "m" / "2").mkdir()
        (repository / "m" / "2" / "model.py").write_text(COUNTS)
        await dataplane.rollouts.create(ROLL_OUT, "me")
        await settle(dataplane)
        for model in ("e", "f"):
            for _ in range(3):
                await runs(dataplane, model)
            assert caches(dataplane, model)[:2] == (0, 0)

    run(repository, scenario)
