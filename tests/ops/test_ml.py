"""ai.onnx.ml operators against onnxruntime: single nodes, and models that scikit-learn trains."""

# ruff: noqa: E501 - the cases are a table

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper
from skl2onnx import to_onnx
from sklearn import datasets, ensemble, linear_model, naive_bayes, neighbors, neural_network, svm
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import Normalizer, StandardScaler

from tests.ops.from_onnx import graph_of
from tuili.ir import TensorType
from tuili.ops.infer import infer
from tuili.ops.interpret import run
from tuili.tensors import Array

RNG = np.random.default_rng(11)


def f32(*shape: int) -> Array:
    return RNG.standard_normal(shape).astype(np.float32)


def words(*items: str) -> Array:
    return np.array(items, object)


def floats(count: int) -> list[float]:
    return [float(item) for item in f32(count)]


STUMPS: dict[str, Any] = {
    "nodes_treeids": [0, 0, 0, 1, 1, 1, 1, 1],
    "nodes_nodeids": [0, 1, 2, 0, 1, 2, 3, 4],
    "nodes_featureids": [0, 0, 0, 1, 2, 0, 0, 0],
    "nodes_values": [0.1, 0.0, 0.0, -0.2, 0.3, 0.0, 0.0, 0.0],
    "nodes_modes": ["BRANCH_LEQ", "LEAF", "LEAF", "BRANCH_GT", "BRANCH_LT", "LEAF", "LEAF", "LEAF"],
    "nodes_truenodeids": [1, 0, 0, 1, 2, 0, 0, 0],
    "nodes_falsenodeids": [2, 0, 0, 4, 3, 0, 0, 0],
    "nodes_missing_value_tracks_true": [1, 0, 0, 0, 0, 0, 0, 0],
}
LEAVES = {"treeids": [0, 0, 1, 1, 1], "nodeids": [1, 2, 2, 3, 4]}


def trees(prefix: str, ids: list[int], weights: list[float], **attrs: Any) -> dict[str, Any]:
    leaves = {f"{prefix}_{name}": values for name, values in LEAVES.items()}
    return {**STUMPS, **leaves, f"{prefix}_ids": ids, f"{prefix}_weights": weights, **attrs}


GAPS = f32(6, 3)
GAPS[1, 0] = GAPS[2, 1] = np.nan

TREES = [
    ("TreeEnsembleRegressor", GAPS, trees("target", [0, 1, 0, 1, 1], floats(5), n_targets=2, aggregate_function=how))
    for how in ("SUM", "AVERAGE", "MIN", "MAX")
] + [
    ("TreeEnsembleClassifier", GAPS, trees("class", [0, 1, 2, 1, 0], floats(5), classlabels_int64s=[7, 8, 9], post_transform=post))
    for post in ("NONE", "SOFTMAX", "LOGISTIC", "SOFTMAX_ZERO")
] + [
    ("TreeEnsembleClassifier", GAPS, trees("class", [0] * 5, floats(5), classlabels_strings=["no", "yes"], post_transform="LOGISTIC")),
    ("TreeEnsembleClassifier", GAPS, trees("class", [0] * 5, [0.1, 0.4, 0.2, 0.3, 0.6], classlabels_int64s=[0, 1])),
    ("TreeEnsembleRegressor", GAPS, trees("target", [0] * 5, floats(5), n_targets=1, base_values=[1.5])),
    # Of one target a leaf's first weight counts: skl2onnx repeats it for every class (decision_leaf).
    ("TreeEnsembleRegressor", GAPS, trees("target", [0] * 7, [1.0, 1.0, 2.0, 2.0, 3.0, 4.0, 4.5], n_targets=1,
     target_treeids=[0, 0, 0, 1, 1, 1, 0], target_nodeids=[1, 1, 2, 2, 3, 4, 2])),
]  # fmt: skip

# operator, input, attributes
CASES: list[tuple[str, Array, dict[str, Any]]] = [
    *TREES,
    ("Scaler", f32(3, 4), {"offset": floats(4), "scale": floats(4)}),
    ("Scaler", np.arange(6).reshape(2, 3), {"offset": [1.0], "scale": [0.5]}),
    ("Normalizer", np.abs(f32(3, 4)), {"norm": "MAX"}),
    ("Normalizer", f32(3, 4), {"norm": "L1"}),
    ("Normalizer", f32(3, 4), {"norm": "L2"}),
    ("Binarizer", f32(3, 4), {"threshold": 0.2}),
    ("Imputer", GAPS, {"imputed_value_floats": [1.0, 2.0, 3.0], "replaced_value_float": float("nan")}),
    ("Imputer", np.arange(6).reshape(2, 3), {"imputed_value_int64s": [9], "replaced_value_int64": 3}),
    ("OneHotEncoder", np.array([1, 3, 5]), {"cats_int64s": [1, 2, 3]}),
    ("OneHotEncoder", words("a", "z"), {"cats_strings": ["z", "y"]}),
    ("CategoryMapper", words("a", "b", "q"), {"cats_strings": ["a", "b"], "cats_int64s": [4, 5]}),
    ("CategoryMapper", np.array([4, 6]), {"cats_strings": ["a", "b"], "cats_int64s": [4, 5], "default_string": "?"}),
    ("LabelEncoder", words("a", "q"), {"keys_strings": ["a", "b"], "values_int64s": [4, 5]}),
    ("LabelEncoder", np.array([4, 9]), {"keys_int64s": [4], "values_strings": ["four"], "default_string": "?"}),
    ("LabelEncoder", np.array([3, 2, 1], np.float32), {"keys_floats": [3.0, 1.0], "values_floats": [7.0, 8.0], "default_float": -2.0}),
    ("LinearRegressor", f32(3, 4), {"coefficients": floats(8), "intercepts": floats(2), "targets": 2}),
    ("LinearClassifier", f32(5, 4), {"coefficients": floats(12), "intercepts": floats(3), "classlabels_ints": [3, 4, 5], "post_transform": "SOFTMAX"}),
    ("LinearClassifier", f32(5, 4), {"coefficients": floats(8), "intercepts": floats(2), "classlabels_strings": ["a", "b"], "post_transform": "LOGISTIC"}),
    ("LinearClassifier", f32(5, 4), {"coefficients": floats(4), "intercepts": floats(1), "classlabels_ints": [0, 1], "post_transform": "NONE"}),
    ("SVMRegressor", f32(4, 3), {"coefficients": floats(5), "support_vectors": floats(15), "n_supports": 5, "rho": [0.3], "kernel_type": "RBF", "kernel_params": [0.5, 0.0, 3.0]}),
    ("SVMRegressor", f32(4, 3), {"coefficients": floats(5), "support_vectors": floats(15), "n_supports": 5, "rho": [0.3], "kernel_type": "POLY", "kernel_params": [0.5, 1.0, 3.0]}),
    ("SVMRegressor", f32(4, 3), {"coefficients": floats(5), "support_vectors": floats(15), "n_supports": 5, "rho": [0.3], "kernel_type": "SIGMOID", "kernel_params": [0.5, 1.0, 3.0]}),
    ("SVMRegressor", f32(4, 3), {"coefficients": floats(3), "rho": [0.3], "kernel_type": "LINEAR", "kernel_params": [0.0, 0.0, 0.0]}),
    ("SVMRegressor", f32(4, 3), {"coefficients": floats(3), "rho": [0.3], "kernel_type": "LINEAR", "kernel_params": [0.0, 0.0, 0.0], "one_class": 1}),
    ("SVMClassifier", f32(6, 3), {"coefficients": floats(12), "support_vectors": floats(18), "vectors_per_class": [2, 3, 1], "rho": floats(3), "kernel_type": "RBF", "kernel_params": [0.5, 0.0, 3.0], "classlabels_ints": [0, 1, 2]}),
    ("SVMClassifier", f32(6, 3), {"coefficients": floats(12), "support_vectors": floats(18), "vectors_per_class": [2, 3, 1], "rho": floats(3), "prob_a": [-1.0, -2.0, -1.5], "prob_b": floats(3), "kernel_type": "LINEAR", "kernel_params": [0.0, 0.0, 0.0], "classlabels_strings": ["a", "b", "c"]}),
    ("ArrayFeatureExtractor", f32(3, 4), {}),
    ("FeatureVectorizer", f32(3, 4), {"inputdimensions": [4]}),
]  # fmt: skip
TWO_OUTPUTS = {"TreeEnsembleClassifier", "LinearClassifier", "SVMClassifier"}


def compare(model: onnx.ModelProto, feeds: dict[str, Array], tolerance: float = 1e-4) -> None:
    session = onnxruntime.InferenceSession(model.SerializeToString())
    expected = session.run(None, feeds)
    graph = graph_of(model)
    infer(graph)
    found = run(graph, feeds)
    for value, wanted in zip(graph.outputs, expected, strict=True):
        result = found[value.name]
        if isinstance(wanted, list):
            assert [list(row) for row in result] == [list(row) for row in wanted]
            for row, other in zip(result, wanted, strict=True):
                np.testing.assert_allclose(list(row.values()), list(other.values()), atol=tolerance)
            continue
        assert isinstance(value.type, TensorType)
        assert result.shape == wanted.shape
        if wanted.dtype.kind == "f":
            np.testing.assert_allclose(result, wanted, rtol=tolerance, atol=tolerance)
        else:
            np.testing.assert_array_equal(result, wanted)


@pytest.mark.parametrize(
    ("op", "x", "attrs"), CASES, ids=[f"{case[0]}-{i}" for i, case in enumerate(CASES)]
)
def test_node_agrees_with_onnxruntime(op: str, x: Array, attrs: dict[str, Any]) -> None:
    kind = (
        onnx.TensorProto.STRING if x.dtype == object else helper.np_dtype_to_tensor_dtype(x.dtype)
    )
    infos = [helper.make_tensor_value_info("x", kind, x.shape)]
    feeds = {"x": x}
    if op == "ArrayFeatureExtractor":
        infos.append(helper.make_tensor_value_info("i", onnx.TensorProto.INT64, [2]))
        feeds["i"] = np.array([2, 0])
    outputs = ["y", "z"] if op in TWO_OUTPUTS else ["y"]
    node = helper.make_node(op, list(feeds), outputs, domain="ai.onnx.ml", **attrs)
    results = [onnx.ValueInfoProto(name=name) for name in outputs]
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 3)]
    graph = helper.make_graph([node], "ml", infos, results)
    compare(helper.make_model(graph, opset_imports=opsets, ir_version=9), feeds)


FLOWERS = datasets.load_iris(return_X_y=True)
TUMOURS = datasets.load_breast_cancer(return_X_y=True)
SUGAR = datasets.load_diabetes(return_X_y=True)

MODELS: list[tuple[Any, Any]] = [
    (FLOWERS, ensemble.RandomForestClassifier(8, random_state=0)),
    (TUMOURS, ensemble.RandomForestClassifier(8, random_state=0)),
    (FLOWERS, ensemble.GradientBoostingClassifier(n_estimators=4, random_state=0)),
    (TUMOURS, ensemble.GradientBoostingClassifier(n_estimators=4, random_state=0)),
    (SUGAR, ensemble.GradientBoostingRegressor(n_estimators=4, random_state=0)),
    (TUMOURS, ensemble.HistGradientBoostingClassifier(max_iter=4, random_state=0)),
    (FLOWERS, svm.SVC()),
    (FLOWERS, svm.SVC(kernel="poly")),
    (TUMOURS, svm.LinearSVC(max_iter=20)),
    (SUGAR, svm.SVR()),
    (FLOWERS, neural_network.MLPClassifier((8,), max_iter=20, random_state=0)),
    (FLOWERS, neighbors.KNeighborsClassifier()),
    (FLOWERS, naive_bayes.GaussianNB()),
    (FLOWERS, make_pipeline(StandardScaler(), Normalizer(), linear_model.LogisticRegression())),
    (SUGAR, linear_model.LinearRegression()),
]


@pytest.mark.parametrize(
    ("data", "model"), MODELS, ids=[f"{type(m).__name__}-{i}" for i, (_, m) in enumerate(MODELS)]
)
@pytest.mark.filterwarnings("ignore")
def test_scikit_learn_model_agrees_with_onnxruntime(data: Any, model: Any) -> None:
    x, y = data[0].astype(np.float32), data[1]
    model.fit(x, y)
    exported = to_onnx(model, x[:1], target_opset={"": 20, "ai.onnx.ml": 3})
    compare(exported, {exported.graph.input[0].name: x}, 1e-3 if data is SUGAR else 1e-4)
