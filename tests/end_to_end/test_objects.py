"""Text, sequences, optionals, maps and tensors of unknown rank go through compiled models."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import tuili
from tuili.artifact import open_artifact
from tuili.errors import InvalidArgument
from tuili.importers.onnx import import_model
from tuili.ops import interpret
from tuili.server.repository.compiling import compiled

HEAD = '<ir_version: 10, opset_import: ["": 20, "ai.onnx.ml": 3]>'
Make = Callable[[str], tuili.Model]

SPLIT_AND_JOIN = """net (float[n, 6] x) => (float[n, m] y) {
    parts = SplitToSequence<axis=1>(x)
    third = Constant<value_int=2>()
    one = SequenceAt(parts, third)
    doubled = Add(one, one)
    grown = SequenceInsert(parts, doubled)
    y = ConcatFromSequence<axis=1>(grown)
}"""
LABELS = """net (string[n, m] x) => (int64[n, m] y, string[n, m] same) {
    y = ai.onnx.ml.LabelEncoder<keys_strings=["cat", "dog"], values_int64s=[1, 2],
        default_int64=-1>(x)
    same = Identity(x)
}"""
JOIN_TEXT = """net (string[n] x, int64[k] at) => (string[k] y) {
    tail = Constant<value_strings=["!"]>()
    loud = StringConcat(x, tail)
    y = Gather(loud, at)
}"""
UNKNOWN_RANK = """net (float[n, k] x, int64[r] shape) => (float s) {
    reshaped = Reshape(x, shape)
    squared = Mul(reshaped, reshaped)
    s = ReduceSum<keepdims=0>(squared)
}"""


@pytest.fixture(scope="module")
def make(tmp_path_factory: pytest.TempPathFactory) -> Make:
    folder = tmp_path_factory.mktemp("objects")
    made: dict[str, tuili.Model] = {}

    def load(text: str) -> tuili.Model:
        if text not in made:
            model = onnx.parser.parse_model(f"{HEAD} {text}")
            artifact = tuili.compile(model, folder / f"m{len(made)}.tuili", check=True)
            made[text] = tuili.load(artifact.path)
        return made[text]

    return load


def test_parts_of_a_split_tensor_are_joined_again(make: Make) -> None:
    x = np.arange(12, dtype=np.float32).reshape(2, 6)
    y = make(SPLIT_AND_JOIN).run({"x": x})["y"]
    np.testing.assert_array_equal(y, np.concatenate([x, 2 * x[:, 2:3]], axis=1))


@pytest.mark.parametrize(
    "given",
    [
        [["cat", "cow"]],
        np.array([["cat", "cow"]]),
        np.array([[b"cat", b"cow"]], object),
        np.array([["cat", "cow"]], object),
    ],
    ids=["list", "fixed width", "bytes", "objects"],
)
def test_text_goes_in_and_out_in_every_spelling(make: Make, given: Any) -> None:
    found = make(LABELS).run({"x": given})
    assert found["y"].tolist() == [[1, -1]]
    assert found["same"].tolist() == [["cat", "cow"]]


def test_text_that_is_no_utf8_comes_back_as_it_was(make: Make) -> None:
    same = make(LABELS).run({"x": [[b"\xff\x00"]]})["same"]
    assert same[0, 0].encode(errors="surrogateescape") == b"\xff\x00"


def test_constants_of_text_are_part_of_the_artifact(make: Make) -> None:
    y = make(JOIN_TEXT).run({"x": ["a", "b"], "at": np.array([1, 1, 0])})["y"]
    assert y.tolist() == ["b!", "b!", "a!"]


@pytest.mark.parametrize("shape", [[12], [3, 4], [2, 3, 2]])
def test_a_rank_that_only_a_run_knows_is_no_hindrance(make: Make, shape: list[int]) -> None:
    x = np.arange(12, dtype=np.float32).reshape(3, 4)
    s = make(UNKNOWN_RANK).run({"x": x, "shape": np.array(shape)})["s"]
    assert s == np.square(x).sum()


def test_runs_at_the_same_time_keep_their_objects_apart(make: Make) -> None:
    model = make(SPLIT_AND_JOIN)

    def last_column(value: int) -> float:
        return model.run({"x": np.full((1, 6), value, np.float32)})["y"][0, -1]

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(last_column, range(200))) == [2 * value for value in range(200)]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            np.zeros((1, 2)),
            r"input 'x': found an array of float64, expected text for x: str\[n, m\]",
        ),
        ([["a", 3]], "input 'x': found int, expected text"),
        (["a"], r"input 'x' has shape \[1\] of rank 1, expected \[n, m\] of rank 2"),
    ],
)
def test_what_is_no_text_is_refused(make: Make, given: Any, message: str) -> None:
    with pytest.raises(InvalidArgument, match=message):
        make(LABELS).run({"x": given})


def test_memory_for_text_cannot_be_given(make: Make) -> None:
    given = {"same": np.empty((1, 1), object)}
    with pytest.raises(InvalidArgument, match="'same' cannot be given"):
        make(LABELS).run_into({"x": [["cat"]]}, given)


ZIPPED = """net (float[n, 3] x) => (out) {
    scores = ai.onnx.ml.Normalizer<norm="L1">(x)
    out = ai.onnx.ml.ZipMap<classlabels_strings=["a", "b", "c"]>(scores)
}"""


def zipped() -> onnx.ModelProto:
    model = onnx.parser.parse_model(f"{HEAD} {ZIPPED}")
    value = onnx.helper.make_tensor_type_proto(onnx.TensorProto.FLOAT, [])
    maps = onnx.helper.make_map_type_proto(onnx.TensorProto.STRING, value)
    model.graph.output[0].type.CopyFrom(onnx.helper.make_sequence_type_proto(maps))
    return model


def test_a_classifier_gives_a_dictionary_per_row(tmp_path: Path) -> None:
    loaded = tuili.load(tuili.compile(zipped(), tmp_path / "maps.tuili").path)
    assert str(loaded.outputs[0]) == "out: seq<map<str, f32[]>>"
    found = loaded.run({"x": np.array([[1, 1, 2], [4, 0, 0]], np.float32)})["out"]
    assert found == [{"a": 0.25, "b": 0.25, "c": 0.5}, {"a": 1, "b": 0, "c": 0}]


def test_or_a_tensor_whose_columns_are_the_classes(tmp_path: Path) -> None:
    artifact = tuili.compile(zipped(), tmp_path / "tensor.tuili", plain_maps=True)
    loaded = tuili.load(artifact.path)
    assert str(loaded.outputs[0]) == "out: f32[n, 3]"
    assert artifact.manifest.metadata["classes.out"] == '["a", "b", "c"]'
    found = loaded.run({"x": np.array([[1, 1, 2]], np.float32)})["out"]
    np.testing.assert_array_equal(found, [[0.25, 0.25, 0.5]])


def test_a_server_gets_the_tensor_without_being_asked(tmp_path: Path) -> None:
    source = tmp_path / "model" / "model.onnx"
    source.parent.mkdir()
    onnx.save(zipped(), source)
    artifact = open_artifact(compiled(source, tmp_path / "cache"))
    assert str(artifact.outputs[0]) == "out: f32[n, 3]"


# The squares are dead once they are split, and so is their memory.
KEPT_PARTS = """net (float[n, 3] x) => (float[n, 3] y, seq(float[1, 3]) parts) {
    squares = Mul(x, x)
    parts = SplitToSequence<axis=0>(squares)
    other = Softmax(x)
    another = Softmax(other)
    joined = ConcatFromSequence<axis=0>(parts)
    y = Sub(joined, another)
}"""


def test_parts_of_a_tensor_outlive_its_memory(make: Make) -> None:
    model = make(KEPT_PARTS)
    one, two = np.arange(6, dtype=np.float32).reshape(2, 3), np.full((2, 3), 7, np.float32)
    found = model.run({"x": one})
    again = model.run({"x": two})
    for x, answers in ((one, found), (two, again)):
        np.testing.assert_array_equal(np.concatenate(answers["parts"]), x * x)
        scores = np.exp(x - x.max(1, keepdims=True))
        scores /= scores.sum(1, keepdims=True)
        scores = np.exp(scores)
        np.testing.assert_allclose(
            answers["y"], x * x - scores / scores.sum(1, keepdims=True), rtol=1e-5, atol=1e-5
        )


# Every tensor of a list has a number of rows of its own, whatever the declaration calls it.
OPEN_ELEMENTS = """net (seq(float[n, 2]) s, int64 at, optional(float[k, 2]) o)
    => (float[a, 3] y, float[b, 2] rows, float[c, 3] z)
    <float[2, 3] w = {1, 2, 3, 4, 5, 6}> {
    one = SequenceAt(s, at)
    y = MatMul(one, w)
    rows = ConcatFromSequence<axis=0>(s)
    held = OptionalGetElement(o)
    z = MatMul(held, w)
}"""


def test_open_sizes_of_what_a_list_or_an_optional_holds_come_with_each_tensor(make: Make) -> None:
    w = np.arange(1, 7, dtype=np.float32).reshape(2, 3)
    listed = [np.full((rows, 2), rows, np.float32) for rows in (1, 4)]
    held = np.ones((3, 2), np.float32)
    found = make(OPEN_ELEMENTS).run({"s": listed, "at": np.array(1), "o": held})
    np.testing.assert_array_equal(found["y"], listed[1] @ w)
    np.testing.assert_array_equal(found["rows"], np.concatenate(listed))
    np.testing.assert_array_equal(found["z"], held @ w)


# What is made of `t`, whose rank only the run knows.
OF_UNKNOWN_RANK = {
    "Conv": "<float[2, 3, 1, 1] w = {1, 2, 3, 4, 5, 6}>{ y = Conv(t, w) }",
    "ConvInteger": "{ c = Cast<to=2>(t) w = Constant<value=uint8[1, 3, 1, 1] {1, 2, 3}>()"
    " d = ConvInteger(c, w) y = Cast<to=1>(d) }",
    "MatMulInteger": "{ c = Cast<to=2>(t) w = Constant<value=uint8[2, 1] {1, 2}>()"
    " d = MatMulInteger(c, w) y = Cast<to=1>(d) }",
    "codes": "<float s = {0.5}, uint8 z = {3}>"
    "{ q = QuantizeLinear(t, s, z) y = DequantizeLinear(q, s, z) }",
    "EyeLike": "{ s = Squeeze(t) f = Flatten<axis=1>(s) y = EyeLike(f) }",
    "ConstantOfShape": "{ s = Shape(t) y = ConstantOfShape<value=float[1] {2}>(s) }",
    "SplitToSequence": "{ p = SplitToSequence<axis=1>(t) y = ConcatFromSequence<axis=2>(p) }",
    "Scan": "{ y = Scan<num_scan_inputs=1, body=b (float[k, m, n] e) => (float[k, m, n] f)"
    " { f = Neg(e) }>(t) }",
}


@pytest.mark.parametrize("body", OF_UNKNOWN_RANK.values(), ids=OF_UNKNOWN_RANK.keys())
def test_operators_take_tensors_whose_rank_only_the_run_knows(tmp_path: Path, body: str) -> None:
    body = body.replace("{ ", "{ t = Reshape(x, shape) ", 1)
    text = f"net (float[n] x, int64[r] shape) => (y) {body}"
    model = onnx.parser.parse_model(f"{HEAD} {text}")
    model.graph.output[0].type.tensor_type.elem_type = onnx.TensorProto.FLOAT
    path = tmp_path / "model.onnx"
    onnx.save(model, path)
    given = {"x": np.arange(12, dtype=np.float32), "shape": np.array([1, 3, 2, 2])}
    want = interpret.run(import_model(path), given)["y"]
    found = tuili.load(tuili.compile(path, tmp_path / "model.tuili").path).run(given)["y"]
    np.testing.assert_array_equal(found, want)
