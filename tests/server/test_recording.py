"""Requests that are recorded, and the loads that they warm up."""

import contextlib
import logging
import re

import numpy as np
import pytest

from tests.server.test_dataplane import IDENTITY, add, infer, run
from tests.server.test_layouts import RAGGED, RAGGED_MODEL
from tests.server.test_lending import ENSEMBLE
from tuili.errors import TuiliError
from tuili.server.protocol.messages import InferRequest, InputTensor
from tuili.server.protocol.recorded import dump, parse
from tuili.server.repository.layout import fingerprint

CONFIG = """
input { name: "x" data_type: TYPE_FP32 dims: [ -1 ] }
output { name: "y" data_type: TYPE_FP32 dims: [ -1 ] }
instance_group { count: 2 }
parameters { key: "log" value { string_value: "LOG" } }
"""
# It tells of each run on a line: how many numbers it was given.
TELLING = """
import os

class Model:
    def __init__(self, parameters):
        self.log = parameters["log"]

    def run(self, inputs):
        x = inputs["x"]
        with open(self.log, "a") as log:
            print(os.getpid(), x.size, file=log)
        if x.size == 13:
            raise ValueError("thirteen")
        return {"y": x}
"""
DECOUPLED = TELLING.replace('return {"y": x}', 'yield {"y": x}')


def ask(*numbers, model="m", **more):
    x = np.array(numbers, np.float32)
    return InferRequest(model, [InputTensor("x", "FP32", x.shape, x)], **more)


def add_telling(root, source=TELLING, extra=""):
    add(root, "m", 1, config=CONFIG.replace("LOG", str(root.parent / "log")) + extra)
    (root / "m" / "1" / "model.py").write_text(source)


def recorded(root, model="m"):
    files = sorted((root / model / "recorded").glob("*.request"))
    return sorted([parse(each.read_bytes(), "m").inputs[0].data.tolist() for each in files])


def add_recorded(root, *requests, model="m"):
    (root / model / "recorded").mkdir()
    for at, each in enumerate(requests):
        data = each if isinstance(each, bytes) else dump(each)
        (root / model / "recorded" / f"{at}.request").write_bytes(data)


def told(root):
    """The process and the size of each run."""
    return [tuple(map(int, line.split())) for line in (root.parent / "log").open()]


@pytest.fixture
def root(tmp_path):
    (tmp_path / "repository").mkdir()
    return tmp_path / "repository"


def asking(*requests):
    async def scenario(dataplane):
        for each in requests:
            with contextlib.suppress(TuiliError):
                await infer(dataplane, each)

    return scenario


async def nothing(dataplane):
    """Load and end."""


def test_the_first_requests_of_each_shape_that_are_answered_are_kept_as_they_were(root):
    add(root, "m", 1, config=IDENTITY.replace("dims: [ 2 ]", "dims: [ -1 ]"))
    add(root, "other", 1)
    before = fingerprint(root / "m")
    sizes = [[[1, 2]], [[3, 4]], [[5]], [[1, 2], [3, 4]], [[6, 7, 8]]]
    requests = [ask(*each) for each in sizes]
    bad = InferRequest("m", [InputTensor("x", "INT8", (1, 1), np.zeros((1, 1), np.int8))])
    other = ask([1, 2], model="other")
    run(root, asking(bad, other, *requests), record=(("m", 3),))
    assert recorded(root) == [[[1, 2]], [[1, 2], [3, 4]], [[5]]]
    assert recorded(root, "other") == []
    # It is no change of the model: nothing is loaded again for it.
    assert fingerprint(root / "m") == before


def test_what_an_earlier_server_kept_counts(root):
    add(root, "m", 1, config=IDENTITY.replace("dims: [ 2 ]", "dims: [ -1 ]"))
    run(root, asking(ask([1, 2])), record=(("m", 2),))
    run(root, asking(ask([3, 4]), ask([5]), ask([6, 7, 8])), record=(("m", 2),))
    assert recorded(root) == [[[1, 2]], [[5]]]


def test_requests_of_sequences_are_not_kept(root):
    add(root, "m", 1)
    run(root, asking(ask([1, 2], parameters={"sequence_id": 7})), record=(("m", 2),))
    assert recorded(root) == []


def test_a_folder_that_cannot_be_written_costs_no_answer(root, caplog):
    add(root, "m", 1)
    (root / "m" / "recorded").write_text("a file")

    async def scenario(dataplane):
        return (await infer(dataplane, ask([1, 2]))).outputs[0].data.tolist()

    assert run(root, scenario, record=(("m", 2),)) == [[1, 2]]
    assert "model m: no more requests are recorded" in caplog.text


@pytest.mark.parametrize(
    ("source", "extra"),
    [(TELLING, ""), (DECOUPLED, "model_transaction_policy { decoupled: true }")],
    ids=["once", "decoupled"],
)
@pytest.mark.parametrize("isolation", ["process", "none"])
def test_a_load_runs_what_was_recorded_on_each_instance_and_counts_nothing(
    root, source, extra, isolation
):
    where = f'parameters {{ key: "isolation" value {{ string_value: "{isolation}" }} }}'
    add_telling(root, source, extra + where)
    add_recorded(root, ask(1, 2, 3), ask(1, 2, 3, 4, 5))

    async def scenario(dataplane):
        assert {size for _, size in told(root)} == {3, 5}
        (stats,) = dataplane.model_statistics("m")["model_stats"]
        assert stats["execution_count"] == stats["inference_count"] == 0

    run(root, scenario)
    assert len({process for process, _ in told(root)}) == (2 if isolation == "process" else 1)


def test_what_is_recorded_at_one_start_warms_up_the_next(root):
    add_telling(root)
    run(root, asking(ask(1, 2, 3), ask(*range(13))), record=(("m", 5),))
    assert recorded(root) == [[1, 2, 3]]
    (root.parent / "log").write_text("")
    run(root, nothing)
    assert {size for _, size in told(root)} == {3}


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"", "0.request does not warm up the model: it has no line of JSON"),
        (dump(ask(1, 2))[:-1], "7 bytes lie behind its first line, which tells of 8"),
        (dump(ask(*range(13))), "0.request does not warm up the model: .*thirteen"),
        (dump(ask([1, 2])), "0.request does not warm up the model: .*unexpected shape"),
    ],
    ids=["empty", "cut", "refused by the model", "of another version"],
)
def test_a_file_that_does_not_fit_is_told_and_the_load_goes_on(root, caplog, data, text):
    add_telling(root)
    add_recorded(root, data, ask(1, 2, 3))
    with caplog.at_level(logging.WARNING):
        run(root, asking(ask(1)))
    (message,) = caplog.messages
    assert re.search(text, message)
    assert {1, 3} <= {size for _, size in told(root)}


def test_a_ragged_model_gets_what_its_layout_adds(root, caplog):
    add(root, "m", 1, config=RAGGED)
    (root / "m" / "1" / "model.py").write_text(RAGGED_MODEL)
    add_recorded(root, ask([1, 2, 3]))
    run(root, nothing)
    assert caplog.messages == []


def test_an_ensemble_runs_its_steps(root):
    add(root, "m", 1)
    add(root, "e", 1, config=ENSEMBLE)
    add_recorded(root, ask([1, 2]), model="e")

    async def scenario(dataplane):
        return [
            dataplane.model_statistics(name)["model_stats"][0]["inference_count"] for name in "em"
        ]

    assert run(root, scenario) == [0, 1]


def test_a_model_of_sequences_is_passed_over(root, caplog):
    add(root, "m", 1, config=IDENTITY + "sequence_batching { }")
    add_recorded(root, ask([1, 2]))
    run(root, nothing)
    assert "answers sequences, not single requests" in caplog.text
