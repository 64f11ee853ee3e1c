"""Pipelines through the data plane: models, Python steps, branches, and what is refused at load."""

import asyncio
import re

import numpy as np
import pytest

from tests.server.test_dataplane import add, infer, run
from tuili.errors import InternalError, InvalidModel, Overloaded, TuiliError
from tuili.server.protocol.messages import InferRequest, InputTensor, RequestedOutput

FUNCTIONS = """
import numpy as np

def count(image):
    return {"n": np.int64(image.size), "twice": image * 2}

def empty(image):
    return np.zeros((1, 2), np.float32)

def label(rows):
    return [f"row {at}" for at in range(len(rows))]

def fails(image):
    raise ValueError("no such picture")

def dies(image):
    import os
    os._exit(7)
"""
PIPELINE = """
inputs:
  image: FP32[-1,2]
outputs:
  rows: [read.y, nothing.rows]
  labels: label.names
steps:
  count:
    python: steps.py:count
    inputs: {image: image}
    outputs: {n: "INT64[]", twice: "FP32[-1,2]"}
  read:
    model: a
    when: count.n > 2
    inputs: {x: count.twice}
  nothing:
    python: steps.py:empty
    when: count.n <= 2
    inputs: {image: image}
    outputs: {rows: "FP32[1,2]"}
  label:
    python: steps.py:label
    inputs: {rows: [read.y, nothing.rows]}
    outputs: {names: "BYTES[-1]"}
"""


def write(repository, text=PIPELINE, functions=FUNCTIONS):
    folder = repository / "p" / "1"
    folder.mkdir(parents=True)
    (folder / "pipeline.yaml").write_text(text)
    (folder / "steps.py").write_text(functions)


def ask(rows=2, outputs=None):
    data = np.arange(rows * 2, dtype=np.float32).reshape(rows, 2)
    wanted = None if outputs is None else [RequestedOutput(name) for name in outputs]
    return InferRequest("p", [InputTensor("image", "FP32", data.shape, data)], outputs=wanted)


@pytest.fixture
def repository(tmp_path):
    add(tmp_path, "a", 1)
    return tmp_path


def test_models_and_python_steps_work_together(repository):
    write(repository)

    async def scenario(dataplane):
        found = {output.name: output for output in (await infer(dataplane, ask())).outputs}
        assert found["rows"].data.tolist() == [[0, 2], [4, 6]]
        assert found["labels"].data.tolist() == [b"row 0", b"row 1"]
        metadata = dataplane.model_metadata("p")
        assert metadata["inputs"] == [{"name": "image", "datatype": "FP32", "shape": [-1, 2]}]
        assert [each["shape"] for each in metadata["outputs"]] == [[-1, 2], [-1]]

    run(repository, scenario)


def test_the_other_branch_is_taken_when_its_condition_holds(repository):
    write(repository)

    async def scenario(dataplane):
        found = await infer(dataplane, ask(rows=1, outputs=["rows"]))
        assert found.outputs[0].data.tolist() == [[0, 0]]
        (stats,) = dataplane.model_statistics("a")["model_stats"]
        assert stats["execution_count"] == 0

    run(repository, scenario)


def with_function(name):
    return PIPELINE.replace("steps.py:count", f"steps.py:{name}")


def test_requests_over_those_in_flight_are_refused_as_those_over_a_queue_are(repository):
    write(repository, "max_inflight_requests: 2\n" + PIPELINE)

    async def scenario(dataplane):
        asked = (infer(dataplane, ask()) for _ in range(5))
        found = await asyncio.gather(*asked, return_exceptions=True)
        refused = [each for each in found if isinstance(each, Overloaded)]
        assert len(refused) == 3
        assert {each.retry_after_s for each in refused} == {1.0}
        assert "Exceeds maximum number of requests in flight" in str(refused[0])

    run(repository, scenario)


def test_a_step_that_raises_fails_its_request_alone(repository):
    write(repository, with_function("fails"))

    async def scenario(dataplane):
        with pytest.raises(InternalError, match="no such picture"):
            await infer(dataplane, ask())
        assert dataplane.model_ready("p")

    run(repository, scenario)


def test_a_step_whose_process_dies_fails_its_request_and_comes_back(repository):
    write(repository, with_function("dies"))

    async def scenario(dataplane):
        with pytest.raises(TuiliError, match="died|ended|exit"):
            await infer(dataplane, ask())

    run(repository, scenario)


def test_an_output_that_no_step_made_is_an_error_that_says_so(repository):
    write(repository, PIPELINE.replace("[read.y, nothing.rows]\n  labels", "read.y\n  labels"))

    async def scenario(dataplane):
        with pytest.raises(InvalidModel, match="every step that makes output 'rows' was skipped"):
            await infer(dataplane, ask(rows=1))

    run(repository, scenario)


@pytest.mark.parametrize(
    ("old", "new", "text"),
    [
        ("model: a", "model: z", "depends on 'z', which is not loaded"),
        ("read.y, nothing.rows]\n", "read.z, nothing.rows]\n", "model 'a' has no output 'z'"),
        ('outputs: {rows: "FP32[1,2]"}', "outputs: {}", "step 'nothing' has no output 'rows'"),
        ("{x: count.twice}", "{z: count.twice}", "model 'a' has no input 'z'"),
        ("{x: count.twice}", "{}", "step 'read' maps no input or output"),
        ("{x: count.twice}", "{x: count.n}", r"is FP32\[-1,2\], but the tensor is INT64\[\]"),
        ("{x: count.twice}", "{x: cuont.twice}", "needs tensor 'cuont.twice', which nothing makes"),
        ("{x: count.twice}", "{x: label.names}", "these steps wait for each other"),
        ("count.n > 2", "count.n >> 2", "is no condition"),
        ("count.n > 2", "nothing.rows > 2", r"needs a tensor of one element, but 'nothing.rows'"),
        ("steps.py:count", "steps.py:cuont", "has no function 'cuont'. Did you mean 'count'"),
        ("steps.py:count", "other.py:count", r"other.py is missing"),
        ("steps.py:count", "count", "expected FILE.py:FUNCTION, found 'count'"),
        ("{image: image}\n    outputs: {n", "{picture: image}\n    outputs: {n",
         r"count\(image\) does not take the step's inputs \['picture'\]"),
        ("FP32[1,2]", "FP64[1,2]", r"'rows' may be FP32\[-1,2\] or FP64\[1,2\]"),
        ("FP32[1,2]", "FP31[1,2]", "'FP31' is no datatype. Did you mean"),
        ("model: a", "modell: a", "there is no 'modell' here. Did you mean 'model'"),
        ("model: a", "model: p", "ensembles form a cycle: p -> p"),
        ("  image: FP32[-1,2]", "  image: FP32[-1,2]\n  more: FP32[1]", "no step uses the input"),
        ("labels: label", "image: label", "output 'image' has the name of another tensor"),
    ],
)  # fmt: skip
def test_what_cannot_work_is_refused_at_load(repository, old, new, text):
    assert old in PIPELINE
    write(repository, PIPELINE.replace(old, new, 1))

    async def scenario(dataplane):
        return dataplane.repository.failures()

    failures = run(repository, scenario)
    assert list(failures) == ["p"]
    assert re.search(text, failures["p"]), failures["p"]


LISTS = """
inputs:
  sizes: INT64[-1]
outputs:
  sums: join.sums
  texts: join.texts
steps:
  cut:
    python: steps.py:cut
    inputs: {sizes: sizes}
    outputs: {rows: "list of FP32[-1,2]", words: "list of BYTES[-1]"}
  read:
    model: a
    inputs: {x: cut.rows}
  join:
    python: steps.py:join
    inputs: {rows: read.y, words: cut.words}
    outputs: {sums: "FP32[-1]", texts: "BYTES[-1]"}
"""
LIST_FUNCTIONS = """
import numpy as np

def cut(sizes):
    rows = [np.full((size, 2), size, np.float32) for size in sizes]
    return {"rows": rows, "words": [[f"{size}"] * size for size in sizes]}

def join(rows, words):
    assert isinstance(rows, list) and all(row.shape == (len(w), 2) for row, w in zip(rows, words))
    return {
        "sums": np.array([row.sum() for row in rows], np.float32),
        "texts": [b"".join(each) for each in words],
    }

def single(sizes):
    rows = [np.full(2, size, np.float32) for size in sizes]
    return {"rows": rows, "words": [[f"{size}"] for size in sizes]}

def sums(rows, words):
    return {"sums": np.array([row.sum() for row in rows if row.shape == (2,)]), "texts": []}

def uneven(sizes):
    return {"rows": [np.zeros((2, 2), np.float32)], "words": []}

def flat(sizes):
    return {"rows": [np.zeros(2, np.float32)], "words": []}

def one_array(sizes):
    return {"rows": np.zeros((2, 2), np.float32), "words": []}
"""


def ask_sizes(*sizes):
    data = np.array(sizes, np.int64)
    return InferRequest("p", [InputTensor("sizes", "INT64", data.shape, data)])


@pytest.mark.parametrize("sizes", [(), (3,), (1, 3, 2, 3), (1,) * 200])
def test_a_model_runs_once_for_each_item_of_a_list(repository, sizes):
    write(repository, LISTS, LIST_FUNCTIONS)

    async def scenario(dataplane):
        found = {
            each.name: each.data for each in (await infer(dataplane, ask_sizes(*sizes))).outputs
        }
        # The sums of `size` rows of two times `size`.
        assert found["sums"].tolist() == [2 * size * size for size in sizes]
        assert found["texts"].tolist() == [f"{size}".encode() * size for size in sizes]
        (stats,) = dataplane.model_statistics("a")["model_stats"]
        assert stats["inference_stats"]["success"]["count"] == len(sizes)

    run(repository, scenario)


def test_a_list_may_be_longer_than_the_queue_of_its_model(repository):
    write(repository, LISTS, LIST_FUNCTIONS)
    config = repository / "a" / "config.pbtxt"
    policy = "default_queue_policy { max_queue_size: 3 }"
    config.write_text(config.read_text() + f"dynamic_batching {{ {policy} }}")

    async def scenario(dataplane):
        found = await infer(dataplane, ask_sizes(*(1,) * 50))
        assert found.outputs[0].data.tolist() == [2] * 50

    run(repository, scenario)


def test_items_without_a_batch_dim_are_rows(repository):
    text = LISTS.replace("FP32[-1,2]", "FP32[2]").replace("cut\n", "single\n")
    write(repository, text.replace("steps.py:join", "steps.py:sums"), LIST_FUNCTIONS)

    async def scenario(dataplane):
        found = await infer(dataplane, ask_sizes(1, 5))
        assert found.outputs[0].data.tolist() == [2, 10]

    run(repository, scenario)


@pytest.mark.parametrize(
    ("function", "text"),
    [
        ("flat", r"flat\(\) gave 'rows\[0\]' of shape \[2\]; each is declared \[-1, 2\]"),
        ("one_array", r"one_array\(\) gave 'rows' as ndarray; it is declared a list"),
    ],
)
def test_what_is_no_list_of_such_items_fails_its_request(repository, function, text):
    write(repository, LISTS.replace("steps.py:cut", f"steps.py:{function}"), LIST_FUNCTIONS)

    async def scenario(dataplane):
        with pytest.raises(TuiliError, match=text):
            await infer(dataplane, ask_sizes(2))

    run(repository, scenario)


@pytest.mark.parametrize(
    ("old", "new", "text"),
    [
        ("sizes: INT64[-1]", 'sizes: "list of INT64[]"', "a request brings no lists"),
        ("sums: join.sums", "sums: read.y", "output 'sums' would be a list; join it"),
        ("FP32[-1,2]", "FP32[-1,3]", r"is FP32\[-1,2\], but the tensor is list of FP32\[-1,3\]"),
        ("list of FP32", "lists of FP32", r"expected a type as FP32\[-1,3\]"),
        ("model: a\n", "model: a\n    when: cut.rows > 2\n", "needs a tensor of one element"),
    ],
)
def test_lists_that_cannot_work_are_refused_at_load(repository, old, new, text):
    write(repository, LISTS.replace(old, new), LIST_FUNCTIONS)

    async def scenario(dataplane):
        return dataplane.repository.failures()

    failures = run(repository, scenario)
    assert re.search(text, failures["p"]), failures["p"]
