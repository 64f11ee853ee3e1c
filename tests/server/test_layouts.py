"""Ragged and padded batches through the data plane, and configurations of them that do not load."""

import asyncio

import numpy as np
import pytest
from onnx import TensorProto, helper

from tests.server.test_dataplane import add, infer, plane, run
from tuili.server.protocol.messages import InferRequest, InputTensor

RAGGED = """
max_batch_size: 8
dynamic_batching { max_queue_delay_microseconds: 20000 preferred_batch_size: [ 3 ] }
input { name: "x" data_type: TYPE_FP32 dims: [ -1 ] allow_ragged_batch: true }
output { name: "sum" data_type: TYPE_FP32 dims: [ 1 ] }
output { name: "twice" data_type: TYPE_FP32 dims: [ -1 ] }
batch_input { kind: BATCH_ACCUMULATED_ELEMENT_COUNT target_name: "ends" data_type: TYPE_INT32
              source_input: "x" }
batch_output { kind: BATCH_SCATTER_WITH_INPUT_SHAPE target_name: "twice" source_input: "x" }
"""
RAGGED_MODEL = """
import numpy as np
class Model:
    def __init__(self, parameters):
        pass

    def run(self, inputs):
        x, ends = inputs["x"], inputs["ends"]
        assert x.ndim == 1 and ends[-1] == len(x) and ends.dtype == np.int32
        parts = np.split(x, ends[:-1])
        return {"sum": np.array([[part.sum()] for part in parts], np.float32), "twice": x * 2}
"""
PADDED = """
max_batch_size: 8
dynamic_batching { max_queue_delay_microseconds: 20000 preferred_batch_size: [ 3 ] }
input { name: "x" data_type: TYPE_FP32 dims: [ -1 ] }
output { name: "sum" data_type: TYPE_FP32 dims: [ 1 ] }
parameters { key: "length_buckets" value { string_value: "4, 16" } }
parameters { key: "pad_value.x" value { string_value: "0" } }
"""
PADDED_MODEL = """
class Model:
    def __init__(self, parameters):
        pass

    def run(self, inputs):
        x = inputs["x"]
        assert x.shape[1] in (4, 16)
        return {"sum": x.sum(axis=1, keepdims=True)}
"""
BY_REQUEST = """
backend: "python"
max_batch_size: 8
dynamic_batching { max_queue_delay_microseconds: 20000 preferred_batch_size: [ 3 ] }
input { name: "x" data_type: TYPE_FP32 dims: [ -1 ] allow_ragged_batch: true }
output { name: "sum" data_type: TYPE_FP32 dims: [ 1 ] }
"""
BY_REQUEST_MODEL = """
import triton_python_backend_utils as pb

class TritonPythonModel:
    def execute(self, requests):
        inputs = [pb.get_input_tensor_by_name(each, "x").as_numpy() for each in requests]
        assert all(each.ndim == 2 and len(each) == 1 for each in inputs)
        sums = [each.sum(axis=1, keepdims=True) for each in inputs]
        return [pb.InferenceResponse([pb.Tensor("sum", each)]) for each in sums]
"""
IDENTITY = """
backend: "identity"
max_batch_size: 8
dynamic_batching { max_queue_delay_microseconds: 20000 preferred_batch_size: [ 3 ] }
input { name: "x" data_type: TYPE_FP32 dims: [ -1 ] allow_ragged_batch: true }
output { name: "same" data_type: TYPE_FP32 dims: [ -1 ] }
"""

ALIKE = """
max_batch_size: 8
dynamic_batching { max_queue_delay_microseconds: 20000 preferred_batch_size: [ 3 ] }
input { name: "x" data_type: TYPE_FP32 dims: [ -1 ] allow_ragged_batch: true }
output { name: "same" data_type: TYPE_FP32 dims: [ -1 ] }
output { name: "sizes" data_type: TYPE_FP32 dims: [ 1 ] }
batch_input { kind: BATCH_ELEMENT_COUNT target_name: "counts" data_type: TYPE_FP32
              source_input: "x" }
batch_output { kind: BATCH_SCATTER_WITH_INPUT_SHAPE target_name: "same" source_input: "x" }
"""
ROWS_FILLED = 'parameters { key: "batch_buckets" value { string_value: "4" } }'


def ask(size):
    data = np.arange(1, size + 1, dtype=np.float32)[None]
    return InferRequest("m", [InputTensor("x", "FP32", data.shape, data)])


def put(tmp_path, config, model):
    add(tmp_path, "m", 1, config=config)
    if model:
        (tmp_path / "m" / "1" / "model.py").write_text(model)
    return tmp_path


@pytest.mark.parametrize(
    ("config", "model"),
    [
        (RAGGED, RAGGED_MODEL),
        (PADDED, PADDED_MODEL),
        (BY_REQUEST, BY_REQUEST_MODEL),
        (IDENTITY, ""),
    ],
    ids=["ragged", "padded", "by request", "identity"],
)
def test_requests_of_different_lengths_are_one_batch(tmp_path, config, model):
    async def scenario(dataplane):
        answers = await asyncio.gather(*(infer(dataplane, ask(size)) for size in (2, 3, 4)))
        for size, answer in zip((2, 3, 4), answers, strict=True):
            found = {output.name: output.data for output in answer.outputs}
            if "sum" in found:
                assert found["sum"].tolist() == [[size * (size + 1) / 2]]
            if "same" in found:
                assert found["same"].tolist() == [[float(at) for at in range(1, size + 1)]]
            if "twice" in found:
                assert found["twice"].tolist() == [[2.0 * at for at in range(1, size + 1)]]
        (stats,) = dataplane.model_statistics("m")["model_stats"]
        assert (stats["inference_count"], stats["execution_count"]) == (3, 1)

    run(put(tmp_path, config, model), scenario)


def test_what_tells_of_a_ragged_input_may_be_as_long_as_the_file_does_not_say(tmp_path):
    """The file names both dims alike, as Triton's own test models do."""
    nodes = [
        helper.make_node("Identity", ["x"], ["same"]),
        helper.make_node("Unsqueeze", ["counts", "axis"], ["sizes"]),
    ]
    described = {"x": ["n"], "counts": ["n"], "same": ["a"], "sizes": ["b", 1]}
    values = {
        name: helper.make_tensor_value_info(name, TensorProto.FLOAT, dims)
        for name, dims in described.items()
    }
    axis = helper.make_tensor("axis", TensorProto.INT64, [1], [1])
    graph = helper.make_graph(
        nodes, "g", [values["x"], values["counts"]], [values["same"], values["sizes"]], [axis]
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    repository = put(tmp_path, ALIKE, "")
    (repository / "m" / "1" / "model.onnx").write_bytes(model.SerializeToString())

    async def scenario(dataplane):
        answers = await asyncio.gather(*(infer(dataplane, ask(size)) for size in (2, 3, 4)))
        for size, answer in zip((2, 3, 4), answers, strict=True):
            found = {output.name: output.data.tolist() for output in answer.outputs}
            assert found == {
                "same": [[float(at) for at in range(1, size + 1)]],
                "sizes": [[float(size)]],
            }
        (stats,) = dataplane.model_statistics("m")["model_stats"]
        assert stats["execution_count"] == 1

    run(repository, scenario)


@pytest.mark.parametrize(
    ("config", "old", "new", "text"),
    [
        (RAGGED, 'source_input: "x" }', 'source_input: "z" }', "'z' of batch_input"),
        (
            RAGGED,
            "ragged_batch: true",
            "ragged_batch: true optional: true",
            "'x' of batch_input or batch_output is optional",
        ),
        (RAGGED, 'source_input: "x" }', "}", "exactly one source_input"),
        (PADDED, "4, 16", "4, none", "must be positive numbers"),
        (PADDED, '"0"', '"nothing"', "must be a number"),
        (
            PADDED,
            "dims: [ -1 ] }",
            f"dims: [ -1 ] allow_ragged_batch: true }} {ROWS_FILLED}",
            "'batch_buckets' does not go with allow_ragged_batch of input 'x'",
        ),
        (PADDED, "dims: [ -1 ]", "dims: [ 4 ]", "needs exactly one open dim"),
    ],
)
def test_layouts_that_do_not_load(tmp_path, config, old, new, text):
    model = RAGGED_MODEL if config is RAGGED else PADDED_MODEL
    repository = put(tmp_path, config.replace(old, new, 1), model)

    async def scenario():
        dataplane = plane(repository)
        await dataplane.start()
        assert text in str(dataplane.repository.failures())
        await dataplane.close(5)

    asyncio.run(scenario())


@pytest.mark.parametrize("sizes", [(2,), (2, 3, 4)])
def test_an_output_that_has_not_an_element_for_each_of_its_input_is_divided_wrongly_for_nobody(
    tmp_path, sizes
):
    lacking = RAGGED_MODEL.replace('"twice": x * 2', '"twice": x[:-1]')

    async def scenario(dataplane):
        asked = (infer(dataplane, ask(size)) for size in sizes)
        for size, error in zip(
            sizes, await asyncio.gather(*asked, return_exceptions=True), strict=True
        ):
            assert str(error) == (
                f"output 'twice' of model 'm' has {size - 1} elements, but input 'x', whose shapes "
                f"it is to take, has {size}"
            )

    run(put(tmp_path, RAGGED, lacking), scenario)
