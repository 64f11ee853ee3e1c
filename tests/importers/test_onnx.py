"""ONNX models become graphs: old operator sets, functions, external data, and clear refusals."""

from __future__ import annotations

import contextlib
import math
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper, parser

from tuili.errors import InvalidModel, ModelWarning, NotFound, UnsupportedOperator
from tuili.importers.onnx import import_model
from tuili.ir import verify
from tuili.ops.infer import infer
from tuili.ops.interpret import run


def model(body: str, opset: int = 23, types: str = "", functions: str = "") -> onnx.ModelProto:
    header = f'<ir_version: 8, opset_import: ["" : {opset}, "local" : 1]>'
    return parser.parse_model(
        f"{header}\nm {types or '(float[N, 4] x) => (float[N, 4] y)'} {body}\n{functions}"
    )


def answers(source, feeds):
    graph = import_model(source)
    verify(graph)
    infer(graph)
    return run(graph, feeds)


X = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
BEFORE = ((0, 0), (0, 0), (1, 0))
T3 = "(float[2, 3, 4] x) => (float y)"


@pytest.mark.parametrize(
    ("opset", "body", "expected"),
    [
        (7, "{ y = Slice<starts=[1], ends=[3], axes=[2]>(x) }", X[:, :, 1:3]),
        (7, "{ y = Softmax(x) }", None),
        (7, "{ y = Clip<min=2.0, max=5.0>(x) }", X.clip(2, 5)),
        (7, "{ y = Clip<max=5.0>(x) }", X.clip(None, 5)),
        (2, "{ y = Pad<pads=[0,0,1,0,0,0], value=3.0>(x) }", np.pad(X, BEFORE, constant_values=3)),
        (7, '{ y = Pad<pads=[0,0,1,0,0,0], mode="reflect">(x) }', np.pad(X, BEFORE, "reflect")),
        (7, "{ y = ReduceSum<axes=[1], keepdims=0>(x) }", X.sum(1)),
        (13, "{ y = ReduceMax<axes=[1], keepdims=0>(x) }", X.max(1)),
        (11, "{ u = Unsqueeze<axes=[0]>(x) y = Squeeze<axes=[0]>(u) }", X),
        (7, "{ y, z = TopK<k=2, axis=-1>(x) }", X[:, :, :1:-1]),
        (11, "{ y, z = Split<axis=2>(x) }", X[:, :, :2]),
        (11, "{ y, z = Split<axis=2, split=[1, 3]>(x) }", X[:, :, :1]),
        (7, "{ y = Upsample<scales=[1.0, 1.0, 2.0]>(x) }", X.repeat(2, 2)),
        (9, "{ s = Constant<value_floats=[1.0, 1.0, 2.0]>() y = Upsample(x, s) }", X.repeat(2, 2)),
        (10, "{ s = Constant<value_floats=[1.0, 1.0, 2.0]>() y = Resize(x, s) }", X.repeat(2, 2)),
        (7, "{ y, m = Dropout<ratio=0.3>(x) }", X),
        (1, "{ y = Reshape<shape=[6, 4]>(x) }", X.reshape(6, 4)),
        (6, "{ b = Constant<value_floats=[1.0, 2.0, 3.0]>() y = Add<broadcast=1, axis=1>(x, b) }",
         X + np.array([1, 2, 3], np.float32)[:, None]),
        (6, "{ b = Constant<value = float[3] {1.0, 2.0, 3.0}>() n = Neg(x) y = PRelu(n, b) }",
         -X * np.array([1, 2, 3], np.float32)[:, None]),
        (13, "{ y = Constant<value_floats=[1.0, 2.0]>() }", np.array([1, 2], np.float32)),
        (13, "{ y = Constant<value_float=1.5>() }", np.array(1.5, np.float32)),
        (17, "{ y = Cast<to=7>(x) }", X.astype(np.int64)),
    ],
)  # fmt: skip
def test_old_operator_sets_mean_what_they_meant(opset, body, expected) -> None:
    if expected is None:
        flat = np.exp(X.reshape(2, -1) - X.reshape(2, -1).max(1, keepdims=True))
        expected = (flat / flat.sum(1, keepdims=True)).reshape(X.shape)
    (found, *_) = answers(model(body, opset, T3), {"x": X}).values()
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_batch_norm_for_each_position_becomes_arithmetic() -> None:
    rng = np.random.default_rng(0)
    parts = [rng.random((3, 4), dtype=np.float32) + 0.5 for _ in range(4)]
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 3, 4])]
    node = helper.make_node("BatchNormalization", ["x", *"sbmv"], ["y"], spatial=0)
    graph = helper.make_graph(
        [node], "g", inputs, [helper.make_empty_tensor_value_info("y")],
        [numpy_helper.from_array(part, name) for part, name in zip(parts, "sbmv", strict=True)],
    )  # fmt: skip
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 7)])
    s, b, m, v = parts
    expected = (X - m) / np.sqrt(v + 1e-5) * s + b
    np.testing.assert_allclose(answers(proto, {"x": X})["y"], expected, rtol=1e-5)


def test_functions_of_the_model_are_expanded_with_their_attributes() -> None:
    functions = """
    <opset_import: ["" : 23, "local" : 1], domain: "local">
    scaled<by: float = 2.0>(a) => (b) {
        k = Constant<value_float: float = @by>() t = local.twice(a) b = Mul(t, k)
    }
    <opset_import: ["" : 23], domain: "local">
    twice(a) => (t) { t = Add(a, a) }
    """
    body = "{ p = local.scaled<by=3.0>(x) y = local.scaled(p) }"
    x = np.ones((1, 4), np.float32)
    found = answers(model(body, functions=functions), {"x": x})
    np.testing.assert_array_equal(found["y"], x * 24)


def test_functions_that_call_each_other_without_end_are_refused() -> None:
    functions = '<opset_import: ["local" : 1], domain: "local"> f(a) => (b) { b = local.f(a) }'
    with pytest.raises(InvalidModel, match="functions call each other without end"):
        import_model(model("{ y = local.f(x) }", functions=functions))


def test_operators_that_the_standard_defines_by_bodies_are_expanded() -> None:
    body = "{ t = Constant<value = int64[2] {1, 2}>() y = SoftmaxCrossEntropyLoss(x, t) }"
    x = np.random.default_rng(0).random((2, 4), dtype=np.float32)
    logs = x - np.log(np.exp(x).sum(1, keepdims=True))
    found = answers(model(body, types="(float[2, 4] x) => (float y)"), {"x": x})["y"]
    np.testing.assert_allclose(found, -(logs[0, 1] + logs[1, 2]) / 2, rtol=1e-5)


def test_nested_graphs_capture_values_around_them() -> None:
    body = """{
        c = ReduceMax<keepdims=0>(x)
        b = Cast<to=9>(c)
        y = If(b) <then_branch = t () => (float[N, 4] p) { p = Neg(x) },
                   else_branch = e () => (float[N, 4] q) { q = Abs(x) }>
    }"""
    x = np.ones((1, 4), np.float32)
    np.testing.assert_array_equal(answers(model(body), {"x": x})["y"], -x)


def test_a_loop_gives_its_body_the_round_as_the_list_it_declares() -> None:
    body = """{
        rounds = Constant<value_ints=[2]>()
        on = Constant<value = bool {1}>()
        y = Loop(rounds, on, x) <body = b (int64[1] i, bool c, float[2, 3, 4] s)
                => (bool d, float[a, b, e] t) {
            one = Constant<value_ints=[1]>()
            end = Add(i, one)
            part = Slice(x, i, end, one)
            t = Add(s, part)
            d = Identity(c)
        }>
    }"""
    x = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    made = model(body, 17, T3)
    (wanted,) = onnxruntime.InferenceSession(made.SerializeToString()).run(None, {"x": x})
    np.testing.assert_array_equal(answers(made, {"x": x})["y"], wanted)
    np.testing.assert_array_equal(wanted, x + x[:, :1] + x[:, 1:2])


# -- names, dims, metadata -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("dims", "expected"),
    [
        (["p2o.DynamicDimension.0", 4], "f32[p2o_DynamicDimension_0, 4]"),
        (["a.b", "a b"], "f32[a_b, a_b_1]"),
        (["N", "N"], "f32[N, N]"),
        ([0, -1], "f32[d0, d1]"),
        (["?", "?"], "f32[d0, d1]"),
        ([None, "d0"], "f32[d0, d0_1]"),
        (["3x", "class"], "f32[d3x, class_]"),
        (["u0", "v1"], "f32[u0_, v1_]"),
    ],
)
def test_dims_get_names_that_are_identifiers_and_unique(dims, expected) -> None:
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, dims)]
    node = helper.make_node("Relu", ["x"], ["y"])
    outputs = [helper.make_empty_tensor_value_info("y")]
    graph = import_model(helper.make_model(helper.make_graph([node], "g", inputs, outputs)))
    assert str(graph.inputs[0].type) == expected


def test_initializers_among_the_inputs_are_no_inputs() -> None:
    proto = model("<float[4] w = {1,2,3,4}> { y = Add(x, w) }")
    proto.graph.input.append(helper.make_tensor_value_info("w", TensorProto.FLOAT, [4]))
    assert [value.name for value in import_model(proto).inputs] == ["x"]


def test_outputs_keep_their_names_when_functions_and_inputs_meet() -> None:
    functions = '<opset_import: ["" : 23], domain: "local"> same(a) => (b) { b = Identity(a) }'
    types = "(float[N, 4] x) => (float[N, 4] y, float[N, 4] x, float[N, 4] z)"
    graph = import_model(
        model("{ y = local.same(x) z = Neg(y) }", types=types, functions=functions)
    )
    assert [value.name for value in graph.outputs] == ["y", "x", "z"]
    verify(graph)


def test_an_output_keeps_its_name_where_a_body_has_a_value_of_that_name_too() -> None:
    """The body is read first; onnxruntime lets it shadow what the loop itself returns."""
    text = """<ir_version: 8, opset_import: ["": 18]>
    net (float[N] x, int64 n) => (float[N] last, float[M, N] seen) {
        last, seen = Loop (n, , x) <body = round (int64 i, bool on, float[K] v)
            => (bool still, float[K] next, float[K] seen) {
            still = Identity (on)
            next = Neg (v)
            seen = Abs (next)
        }>
    }"""
    graph = import_model(onnx.parser.parse_model(text))
    assert [value.name for value in graph.outputs] == ["last", "seen"]
    verify(graph)


def test_metadata_is_kept() -> None:
    proto = model("{ y = Relu(x) }")
    helper.set_model_props(proto, {"character": "a\nb", "symbol.u0": "x"})
    assert import_model(proto).metadata == {"character": "a\nb", "model.symbol.u0": "x"}


def test_nodes_in_any_order_are_sorted() -> None:
    proto = model("{ t = Relu(x) y = Neg(t) }")
    proto.graph.node.reverse()
    assert [node.op for node in import_model(proto).nodes] == ["Relu", "Neg"]


# -- external data -------------------------------------------------------------------------


def external(tmp_path: Path, location: str = "w.bin", **fields: int) -> Path:
    proto = model("<float[4] w = {1,2,3,4}> { y = Add(x, w) }")
    tensor = proto.graph.initializer[0]
    tensor.ClearField("float_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in {"location": location, **fields}.items():
        tensor.external_data.add(key=key, value=str(value))
    path = tmp_path / "model.onnx"
    path.write_bytes(proto.SerializeToString())
    return path


def test_external_data_is_mapped(tmp_path: Path) -> None:
    (tmp_path / "w.bin").write_bytes(np.arange(8, dtype=np.float32).tobytes())
    path = external(tmp_path, offset=8, length=16)
    x = np.zeros((1, 4), np.float32)
    np.testing.assert_array_equal(answers(path, {"x": x})["y"], [[2, 3, 4, 5]])
    base = import_model(path).constants["w"].constant
    while not isinstance(base, np.memmap):
        base = base.base
    assert isinstance(base, np.memmap)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"location": "../w.bin"}, r"'w' points to '../w.bin', outside the model's folder"),
        ({"location": "/etc/passwd"}, "points to '/etc/passwd', outside"),
        ({"location": "link"}, "points to 'link', outside"),
        ({"location": "gone.bin"}, "needs the data file 'gone.bin', which is not beside"),
        ({"offset": 24}, "needs bytes 24 to 40 of 'w.bin', which has 32; the file is truncated"),
        ({"length": 12}, r"declares 12 external bytes; f32\[4\] needs 16"),
        ({"offset": -4}, "external offset is '-4'; expected a number"),
    ],
)
def test_bad_external_data_is_refused(tmp_path: Path, fields, message) -> None:
    (tmp_path / "w.bin").write_bytes(bytes(32))
    (tmp_path / "link").symlink_to("/etc/hostname")
    with pytest.raises(InvalidModel, match=message):
        import_model(external(tmp_path, **fields))


def test_external_data_needs_a_path(tmp_path: Path) -> None:
    with pytest.raises(InvalidModel, match="give the model's path, not its contents"):
        import_model(external(tmp_path).read_bytes())


# -- refusals ------------------------------------------------------------------------------


def test_unknown_operators_are_listed_at_once_with_their_nodes() -> None:
    body = """{
        a = com.acme.Magic(x)
        b = Reluu(a)
        y = If(c) <then_branch = t () => (float p) { p = com.acme.Magic(b) },
                   else_branch = e () => (float q) { q = Abs(x) }>
    }"""
    with pytest.raises(UnsupportedOperator) as caught:
        import_model(model(body))
    assert caught.value.operators == (("Reluu", ["b"]), ("com.acme::Magic", ["a", "p"]))
    assert "2 operators are not supported" in str(caught.value)
    assert "Did you mean 'Relu'?" in str(caught.value)


@pytest.mark.parametrize(
    ("node", "advice"),
    [
        (
            "TensorListReserve",
            "ONNX has no TensorListReserve: tf2onnx leaves what it",
        ),
        ("org.pytorch.aten.ATen", "Export with dynamo=True"),
    ],
)
def test_what_an_exporter_left_over_is_told_with_what_to_do(node: str, advice: str) -> None:
    with pytest.raises(UnsupportedOperator, match=advice):
        import_model(model(f"{{ y = {node}(x) }}"))


def _with(change) -> onnx.ModelProto:
    proto = model("<float[4] w = {1,2,3,4}> { t = Add(x, w) y = Elu<alpha=1.0>(t) }")
    change(proto)
    return proto


def _duplicate(proto) -> None:
    proto.graph.node[1].output[0] = "t"


def _cycle(proto) -> None:
    proto.graph.node[0].input[1] = "y"


def _missing(proto) -> None:
    proto.graph.node[0].input[1] = "gone"


def _missing_output(proto) -> None:
    proto.graph.output[0].name = "gone"


def _nan(proto) -> None:
    proto.graph.node[1].attribute[0].f = math.nan


def _absurd(proto) -> None:
    proto.graph.initializer[0].dims[:] = [1 << 40, 1 << 20]


def _negative(proto) -> None:
    proto.graph.initializer[0].dims[:] = [-4]


def _short(proto) -> None:
    proto.graph.initializer[0].dims[:] = [5]


def _short_raw(proto) -> None:
    proto.graph.initializer[0].ClearField("float_data")
    proto.graph.initializer[0].raw_data = bytes(12)


def _absurd_input(proto) -> None:
    proto.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 1 << 50


def _element_type(proto) -> None:
    proto.graph.initializer[0].data_type = 99


def _new_opset(proto) -> None:
    proto.opset_import[0].version = 999


def _bytes_name(proto) -> None:
    damaged = proto.SerializeToString().replace(b"Elu", b"E\xffu")
    proto.ParseFromString(damaged)


def _shapes(proto) -> None:
    proto.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 3


def _types(proto) -> None:
    proto.graph.input[0].type.tensor_type.elem_type = TensorProto.DOUBLE


def _untyped(proto) -> None:
    proto.graph.input[0].ClearField("type")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_duplicate, "Elu node 't': output 't' is already an output of Add node 't'"),
        (_cycle, "has a cycle through Add node 't', Elu node 'y'"),
        (_missing, "Add node 't' reads 'gone', which nothing in graph 'm' defines"),
        (_missing_output, "graph 'm' returns 'gone', which nothing defines"),
        (_nan, "Elu node 'y': attribute 'alpha' is NaN"),
        (_absurd, "initializer 'w' declares the absurd shape"),
        (_negative, "initializer 'w' has a negative size"),
        (_short, r"initializer 'w' does not hold the \[5\] elements it declares"),
        (_short_raw, r"initializer 'w' has 12 bytes of data; f32\[4\] needs 16"),
        (_absurd_input, "graph input 'x' has the absurd shape"),
        (_element_type, "initializer 'w' has element type 99"),
        (_new_opset, "uses operator set 999; .* knows 1 to"),
        (_untyped, "graph input 'x' has no type"),
        (_bytes_name, "is no UTF-8 text; the model is damaged"),
        (_shapes, r"Add node 't': shapes \[N, 3\] and \[4\] do not broadcast"),
        (_types, r"Add node 't': input 1 \('B'\) is f32, but the inputs before it make T = f64"),
    ],
)
def test_models_that_break_their_rules_are_refused(change, message) -> None:
    with pytest.raises(InvalidModel, match=message):
        import_model(_with(change))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "the file is empty"),
        (b"hello, this is text", "not an ONNX model"),
        (b"version https://git-lfs.github.com/spec/v1\n", "a Git LFS pointer"),
        (b"<!DOCTYPE html>", "a web page"),
        (b"\x1c\x00\x00\x00TFL3....", "a LiteRT .* one; convert it"),
        (b"\x80\x04\x95....", "a pickle; convert it where it was made"),
        (b'\x40\x00\x00\x00\x00\x00\x00\x00{"w": {}}', "safetensors: weights without"),
        (b"GGUF\x03\x00\x00\x00", "a GGUF file"),
        (b'<?xml version="1.0"?><net>', "an XML file, as OpenVINO's are"),
        (b'{"learner": {}}', "JSON text"),
        (b"tree\nversion=v4", "LightGBM's text"),
        (
            model("{ y = Relu(x) }").SerializeToString()[:-9],
            "not an ONNX model, or a truncated one",
        ),
    ],
)
def test_files_that_are_no_models_are_refused(tmp_path: Path, data, message) -> None:
    path = tmp_path / "bad.onnx"
    path.write_bytes(data)
    with pytest.raises(InvalidModel, match=f"bad.onnx: .*{message}"):
        import_model(path)


def test_any_truncation_of_a_model_is_one_clear_error() -> None:
    proto = model("<float[4] w = {1,2,3,4}> { y = Add(x, w) }")
    del proto.opset_import[1]
    data = proto.SerializeToString()
    for end in range(len(data)):
        with pytest.raises(InvalidModel, match="the model: "):
            import_model(data[:end])


def test_any_changed_byte_of_a_model_is_one_clear_error_or_none() -> None:
    data = model("<float[4] w = {1,2,3,4}> { t = Add(x, w) y = Softmax(t) }").SerializeToString()
    rng = np.random.default_rng(0)
    for place in range(len(data)):
        damaged = bytearray(data)
        damaged[place] = rng.integers(256)
        with contextlib.suppress(InvalidModel):
            import_model(bytes(damaged))


def test_a_missing_file_and_a_folder_are_named(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match=r"gone.onnx' does not exist"):
        import_model(tmp_path / "gone.onnx")
    with pytest.raises(NotFound, match="is a folder; expected an .onnx file"):
        import_model(tmp_path)


def scaled(scale: float) -> onnx.ModelProto:
    """Codes of an input, and back."""
    made = model("{ c = QuantizeLinear (x, s, z)  y = DequantizeLinear (c, s, z) }")
    for name, array in (("s", np.float32(scale)), ("z", np.uint8(3))):
        made.graph.initializer.append(numpy_helper.from_array(np.array(array), name))
    return made


@pytest.mark.parametrize("scale", [math.inf, math.nan])
def test_scales_that_are_no_numbers_are_told(scale: float) -> None:
    with pytest.warns(ModelWarning, match=r"the model: scales .* infinite or NaN at 'c', 'y', and"):
        import_model(scaled(scale))


def test_scales_of_a_vector_as_a_row_are_along_it() -> None:
    """As onnxruntime's quantizer writes the biases [1, n] of scikit-learn's networks, axis 0."""
    made = model(
        "<int32[1, 4] b = {1, 2, 3, 4}, float[4] s = {1, 10, 100, 1000}>"
        "{ d = DequantizeLinear <axis = 0> (b, s)  y = Add (x, d) }"
    )
    found = answers(made, {"x": np.zeros((2, 4), np.float32)})
    assert found["y"].tolist() == [[1, 20, 300, 4000]] * 2
