"""Plug-in operators: what a package may bring, and what is refused with a reason."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tuili
from tuili.errors import AlreadyExists, InvalidArgument, InvalidModel, UnsupportedOperator
from tuili.ir import Graph, TensorType
from tuili.ops.infer import infer
from tuili.ops.interpret import run
from tuili.ops.op import Op
from tuili.ops.table import using
from tuili.tensors import DType, Sym

F32, F64 = DType.F32, DType.F64


def same(site: Any) -> list[Any]:
    return [site.shape(0)]


def meaning(x: Any, limit: float) -> Any:
    return np.where(np.abs(x) > limit, x, 0)


def make(**changes: Any) -> Op:
    parts = {
        "name": "my.company::Gate",
        "inputs": "x",
        "outputs": "y",
        "shape": same,
        "meaning": meaning,
        "attrs": {"limit": 0.5},
    }
    given = parts | changes
    names = [given.pop(key) for key in ("name", "inputs", "outputs")]
    return tuili.operator(*names, **given)


def gate(ctype: str) -> tuili.CKernel:
    source = f"""
    static void gate_{ctype}(int64_t begin, int64_t end, const {ctype} *x, {ctype} *y, double limit)
    {{
        for (int64_t i = begin; i < end; i++)
            y[i] = fabs((double)x[i]) > limit ? x[i] : 0;
    }}"""
    return tuili.CKernel(f"gate_{ctype}", source)


def kernel(head: str, **options: Any) -> tuili.CKernel:
    return tuili.CKernel("f", f"{head} {{ }}", **options)


def signature(rest: str) -> dict[str, Any]:
    return {"kernel": kernel(f"void f(int64_t begin, int64_t end, {rest})")}


BAD: list[tuple[dict[str, Any], str]] = [
    ({"name": "Gate"}, "expected a name with a domain"),
    ({"name": "ai.onnx::Gate"}, "a domain of your own"),
    ({"meaning": None}, "its meaning is None; expected a function"),
    ({"shape": "same"}, "its shape is 'same'; expected a function"),
    ({"meaning": lambda x: x}, r"called as meaning\(x, limit=...\): .*'limit'"),
    ({"inputs": "x y"}, "'y' cannot name an input"),
    ({"inputs": "begin"}, "'begin' cannot name"),
    ({"inputs": "x:f33"}, "'x' has the type 'f33'"),
    ({"inputs": "x* w"}, "only the last input"),
    ({"outputs": ""}, "it has no output"),
    ({"outputs": "y:@to"}, "'y' has the type '@to'"),
    ({"allow": "floats"}, "allow='floats'; expected one of any, float"),
    ({"kernel": tuili.CKernel("g", "void f(void) { }")}, "'g' is not defined in its source"),
    ({"kernel": tuili.CKernel("f", "/* void f(int a) { } */")}, "'f' is not defined"),
    ({"kernel": kernel("float f(int64_t begin, int64_t end)")}, "returns float; expected void"),
    ({"kernel": kernel("void f(const float *x, float *y)")}, r"expected \(int64_t begin"),
    ({"kernel": kernel("void f(int64_t begin, int64_t end)")}, "no parameter for the output 'y'"),
    ({"kernel": kernel("void f(int64_t begin, int64_t end)", items=-1)}, "has items=-1"),
    (signature("float *x, float *y"), r"`float \*x`; expected `const float \*x`"),
    (signature("const float *x, const float *y"), r"`const float \*y`; expected `float \*y`"),
    (signature("const float *z, float *y"), "has the parameter 'z'.* has x, y, x_shape"),
    (signature("const flaot *x, float *y"), "expected `const float"),
    (signature("float *y, float *y"), "names its parameter 'y' twice"),
    (signature("float y"), r"`float y`; expected `float \*y`"),
    (signature("float *y, const char *limit"), "expected `double limit` or `float limit`"),
    (signature("float *y, int64_t x_shape"), r"expected `const int64_t \*x_shape`"),
    (signature("float *y, float (*limit)(int)"), "has the parameter|is not defined"),
]


@pytest.mark.parametrize(("changes", "message"), BAD, ids=[message for _, message in BAD])
def test_a_wrong_operator_is_refused_when_it_is_made(changes, message):
    with pytest.raises(InvalidArgument, match=message):
        make(**changes)


@pytest.mark.parametrize(
    ("operators", "error", "message"),
    [
        ([make(name="com.microsoft::MatMulNBits")], AlreadyExists, "MatMulNBits' already"),
        ([make(), make()], AlreadyExists, "comes from operators= as well"),
        ([meaning], InvalidArgument, "expected operators made by `tuili.operator`"),
        (["my.company::Gate"], InvalidArgument, "found 'my.company::Gate'"),
    ],
)
def test_clashes_and_strangers_are_refused(operators, error, message):
    with pytest.raises(error, match=message), using(operators):
        pass


def graph_of(row: Op, dtype: DType = F32, **attrs: Any) -> Graph:
    graph = Graph("g")
    x = graph.add_input("x", TensorType(dtype, (Sym("N"), 3)))
    node = graph.add(row.name, [x], attrs, outputs=["y"], name="gate")
    graph.set_outputs([graph.add("Neg", [node.output], outputs=["z"]).output])
    return graph


RULES: list[tuple[Any, str]] = [
    (lambda site: site.shape(0), "expected a list with one shape per output"),
    (lambda site: [], "returned 0 shapes; the node has 1"),
    (lambda site: [("a", 3)], "expected a list"),
    (lambda site: [site.shape(0)[5:] + site.nothing], "failed with AttributeError"),
    (lambda site: site.fail("not today"), "my.company::Gate.*'gate': not today"),
]


@pytest.mark.parametrize(("rule", "message"), RULES)
def test_a_wrong_shape_rule_names_the_node(rule, message):
    row = make(shape=rule)
    with using([row]), pytest.raises(InvalidModel, match=message):
        infer(graph_of(row))


def broken(x: Any, limit: float) -> Any:
    raise RuntimeError("out of luck")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"meaning": broken}, "out of luck"),
        ({"meaning": lambda x, limit: x[:, :2]}, r"has shape \[2, 2\]; \[2, 3\] was expected"),
        ({"meaning": lambda x, limit: (x, x)}, "gave 2 outputs; expected 1"),
    ],
)
def test_a_wrong_meaning_fails_the_run_and_names_the_node(changes, message, tmp_path):
    row = make(**changes)
    tuili.compile(graph_of(row), tmp_path / "m.tuili", operators=[row])
    model = tuili.load(tmp_path / "m.tuili", operators=[row])
    with pytest.raises(InvalidArgument, match=message):
        model.run({"x": np.ones((2, 3), np.float32)})


@pytest.mark.parametrize(("dtype", "hosted"), [(F32, False), (F64, False), (DType.F16, True)])
def test_the_first_kernel_that_fits_runs_and_the_meaning_runs_the_rest(dtype, hosted, tmp_path):
    row = make(kernel=[gate("float"), gate("double")])
    artifact = tuili.compile(graph_of(row, dtype), tmp_path / "m.tuili", operators=[row])
    assert bool(artifact.manifest.host_steps) == hosted
    x = np.random.default_rng(0).standard_normal((5, 3)).astype(dtype.numpy)
    operators = [row] if hosted else []
    got = tuili.load(artifact.path, threads=2, operators=operators).run({"x": x})["z"]
    with using([row]):
        assert np.array_equal(got, run(graph_of(row, dtype), {"x": x})["z"])


EVERYTHING = """
static int everything(int64_t begin, int64_t end, const float *x, const int64_t *x_shape,
                      const float *bias, float *y, const int64_t *y_shape, double *total,
                      const int64_t *steps, int64_t steps_count, const char *mode, float factor)
{
    for (int64_t row = begin; row < end; row++) {
        total[row] = 0;
        for (int64_t j = 0; j < y_shape[1]; j++) {
            float e = x[row * x_shape[1] + j] * factor + (bias ? bias[0] : 0);
            for (int64_t s = 0; s < steps_count; s++)
                e += (float)steps[s];
            if (strcmp(mode, "a\\"b") == 0)
                e = -e;
            y[row * y_shape[1] + j] = e;
            total[row] += e;
        }
        if (total[row] > 1000)
            return 1;
    }
    return 0;
}
"""


def everything(x: Any, bias: Any, steps: Any, mode: str, factor: float) -> Any:
    y = x[:, :2] * np.float32(factor) + (0 if bias is None else bias[0]) + sum(steps)
    y = -y if mode == 'a"b' else y
    return y, y.sum(1, dtype=np.float64)


def test_a_kernel_gets_sizes_attributes_and_optional_inputs(tmp_path):
    row = tuili.operator(
        "my.company::Everything",
        "x:f32 bias?:f32",
        "y:f32 total:f64",
        shape=lambda site: [(site.shape(0)[0], 2), (site.shape(0)[0],)],
        meaning=everything,
        attrs={"steps": tuili.REQUIRED, "mode": "", "factor": 1.0},
        kernel=tuili.CKernel("everything", EVERYTHING, items=1),
    )
    graph = Graph("g")
    x = graph.add_input("x", TensorType(F32, (Sym("N"), 3)))
    bias = graph.add_input("b", TensorType(F32, (1,)))
    attrs = {"steps": (1, 2), "mode": 'a"b', "factor": 2}
    first = graph.add(row.name, [x], attrs, outputs=["y0", "t0"]).outputs
    second = graph.add(row.name, [x, bias], {"steps": ()}, outputs=["y1", "t1"]).outputs
    graph.set_outputs([*first, *second])
    feeds = {"x": np.arange(12, dtype=np.float32).reshape(4, 3), "b": np.float32([0.5])}
    with using([row]):
        infer(graph)
        wanted = run(graph, feeds)
    artifact = tuili.compile(graph, tmp_path / "m.tuili", operators=[row])
    assert not artifact.manifest.host_steps
    model = tuili.load(artifact.path, threads=2)
    got = model.run(feeds)
    assert {name: array.tolist() for name, array in got.items()} == {
        name: array.tolist() for name, array in wanted.items()
    }
    with pytest.raises(InvalidArgument, match="Everything.*its C kernel everything failed"):
        model.run({**feeds, "b": np.float32([1e6])})


def test_a_missing_operator_is_named_when_the_artifact_is_loaded(tmp_path):
    row = make()
    artifact = tuili.compile(graph_of(row), tmp_path / "m.tuili", operators=[row])
    with pytest.raises(UnsupportedOperator, match="my.company::Gate.*pass `operators`"):
        tuili.load(artifact.path)


def save_model(path: Path, *, alone: bool = False) -> Path:
    """Convolutions around a gate, or the gate alone."""
    onnx = pytest.importorskip("onnx")
    h, kind = onnx.helper, onnx.TensorProto.FLOAT
    conv = {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}
    weight = np.random.default_rng(0).standard_normal((16, 16, 3, 3)).astype(np.float32)
    ends = ["x", "y"] if alone else ["a", "b"]
    nodes = [
        h.make_node("Conv", ["x", "w"], ["a"], **conv),
        h.make_node("Gate", ends[:1], ends[1:], domain="my.company", limit=0.25, name="gate"),
        h.make_node("Conv", ["b", "w"], ["y"], **conv),
    ]
    graph = h.make_graph(
        nodes[1:2] if alone else nodes,
        "gated",
        [h.make_tensor_value_info("x", kind, ["N", 16, 8, 8])],
        [h.make_tensor_value_info("y", kind, ["N", 16, 8, 8])],
        [onnx.numpy_helper.from_array(weight, "w")],
    )
    opsets = [h.make_opsetid("", 17), h.make_opsetid("my.company", 1)]
    onnx.save(h.make_model(graph, opset_imports=opsets, ir_version=8), path)
    return path


def test_it_stands_between_operators_that_have_layouts_of_their_own(tmp_path):
    path = save_model(tmp_path / "gated.onnx")
    row = make(kernel=gate("float"))
    x = np.random.default_rng(1).standard_normal((2, 16, 8, 8)).astype(np.float32)
    got = tuili.load(path, operators=[row]).run({"x": x})["y"]
    hosted = tuili.load(path, operators=[make()]).run({"x": x})["y"]
    assert np.allclose(got, hosted, rtol=1e-4, atol=1e-4)


def test_a_changed_operator_is_compiled_again(tmp_path):
    path = save_model(tmp_path / "gated.onnx")
    x = np.ones((1, 16, 8, 8), np.float32)
    for factor in ("1", "0"):
        source = gate("float").source.replace("x[i] : 0", f"x[i] * {factor} : 0")
        row = make(kernel=tuili.CKernel("gate_float", source))
        got = tuili.load(path, operators=[row]).run({"x": x})["y"]
        assert bool(np.any(got)) == (factor == "1")


def test_an_unknown_operator_of_a_file_says_where_one_may_come_from(tmp_path):
    path = save_model(tmp_path / "gated.onnx")
    with pytest.raises(UnsupportedOperator, match=r"my.company::Gate: node 'gate'\..*'tuili.op"):
        tuili.load(path)
