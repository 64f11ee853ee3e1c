"""Classical models say in core operators what their NumPy meaning says; nothing runs in Python."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tuili.errors import InvalidModel
from tuili.ir import Graph, TensorType
from tuili.ops.infer import infer
from tuili.ops.interpret import run
from tuili.passes.ml.to_core import ml_to_core
from tuili.tensors import Array, DType, parse_shape

CHANCE = np.random.default_rng(0)
ROWS, WIDTH = 9, 4
# One tree of three nodes and one of five; class votes may be missing, weights negative.
NODES = {
    "nodes_treeids": (0, 0, 0, 1, 1, 1, 1, 1),
    "nodes_nodeids": (0, 1, 2, 0, 1, 2, 3, 4),
    "nodes_featureids": (2, 0, 0, 0, 0, 3, 0, 0),
    "nodes_modes": ("BRANCH_LEQ", "LEAF", "LEAF", "BRANCH_GT", "LEAF", "BRANCH_LT", "LEAF", "LEAF"),
    "nodes_values": (0.5, 0.0, 0.0, -0.25, 0.0, 0.25, 0.0, 0.0),
    "nodes_truenodeids": (1, 0, 0, 1, 0, 3, 0, 0),
    "nodes_falsenodeids": (2, 0, 0, 2, 0, 4, 0, 0),
}
MISSING = {"nodes_missing_value_tracks_true": (1, 0, 0, 0, 0, 1, 0, 0)}


def votes(prefix: str, ids: tuple[int, ...], weights: tuple[float, ...]) -> dict[str, Any]:
    return {
        f"{prefix}_treeids": (0, 0, 1, 1, 1),
        f"{prefix}_nodeids": (1, 2, 1, 3, 4),
        f"{prefix}_ids": ids,
        f"{prefix}_weights": weights,
    }


FIVE = (0.25, 0.5, -0.125, 1.0, 0.75)
POSITIVE = (0.25, 0.5, 0.125, 0.1, 0.25)
NEGATIVE = (-0.25, -0.5, -0.125, -1.0, -0.75)
THREE = {"classlabels_int64s": (7, 3, 5)}
WORDS = {"classlabels_strings": ("no", "yes")}
TREE5 = {
    "nodes_featureids": (2, 0, 3),
    "nodes_modes": np.array([0, 3, 5], np.uint8),
    "nodes_splits": np.array([0.5, -0.25, 0.25], np.float32),
    "nodes_truenodeids": (1, 0, 1),
    "nodes_trueleafs": (0, 1, 1),
    "nodes_falsenodeids": (2, 2, 3),
    "nodes_falseleafs": (0, 1, 1),
    "tree_roots": (0,),
    "leaf_targetids": (0, 1, 0, 1),
    "leaf_weights": np.array([1.0, 2.0, 3.0, 4.0], np.float32),
    "n_targets": 2,
}
SVM = {
    "coefficients": (0.5, -1.0, 0.25, 0.75, 0.1),
    "support_vectors": tuple(CHANCE.standard_normal(5 * WIDTH).astype(np.float32).tolist()),
    "kernel_params": (0.4, 0.3, 2.0),
    "rho": (0.125,),
}
DUELS = {
    **SVM,
    "coefficients": tuple(CHANCE.standard_normal(10).astype(np.float32).tolist()),
    "vectors_per_class": (2, 1, 2),
    "rho": (0.125, -0.5, 0.25),
    "classlabels_ints": (4, 2, 9),
}
LINEAR = tuple(CHANCE.standard_normal(3 * WIDTH).astype(np.float32).tolist())

CASES: dict[str, tuple[str, dict[str, Any]]] = {
    **{
        f"regressor {how} {after}": (
            "TreeEnsembleRegressor",
            {
                **NODES, **MISSING, **votes("target", (0, 1, 1, 0, 1), FIVE), "n_targets": 2,
                "aggregate_function": how, "post_transform": after, "base_values": (0.5, -0.5),
            },
        )
        for how in ("SUM", "AVERAGE", "MIN", "MAX")
        for after in ("NONE", "SOFTMAX", "LOGISTIC", "SOFTMAX_ZERO")
    },
    **{
        f"classifier {name}": ("TreeEnsembleClassifier", {**NODES, **extra})
        for name, extra in {
            "of three": {**votes("class", (0, 1, 2, 0, 1), FIVE), **THREE},
            "of votes below zero": {**votes("class", (0, 1, 2, 0, 1), NEGATIVE), **THREE},
            "with a base": {
                **votes("class", (0, 1, 2, 0, 1), FIVE), **THREE, "base_values": (0.1, 0.9, -1.0),
            },
            "of one score": {**votes("class", (1,) * 5, FIVE), **WORDS},
            "of one share": {**votes("class", (0,) * 5, POSITIVE), **WORDS},
            "of one score, logistic": {
                **votes("class", (1,) * 5, FIVE), **WORDS, "post_transform": "LOGISTIC",
                "base_values": (0.25,),
            },
        }.items()
    },
    "trees of version 5": ("TreeEnsemble", TREE5),
    "trees of version 5, logistic": ("TreeEnsemble", {**TREE5, "post_transform": 2}),
    **{
        f"svm {kind}": ("SVMRegressor", {**SVM, "kernel_type": kind, "n_supports": 5})
        for kind in ("LINEAR", "RBF", "POLY", "SIGMOID")
    },
    "svm of one class": ("SVMRegressor", {**SVM, "n_supports": 5, "one_class": 1}),
    "svm without vectors": ("SVMRegressor", {"coefficients": LINEAR[:WIDTH], "rho": (0.5,)}),
    "svm of three classes": ("SVMClassifier", {**DUELS, "kernel_type": "RBF"}),
    "svm of two classes": (
        "SVMClassifier", {**SVM, "vectors_per_class": (2, 3), **WORDS, "kernel_type": "RBF"},
    ),
    "svm of odds": (
        "SVMClassifier",
        {**DUELS, "kernel_type": "RBF", "prob_a": (-1.5, -2.0, -0.5), "prob_b": (0.1, -0.2, 0.3)},
    ),
    "svm of scores": (
        "SVMClassifier", {"coefficients": LINEAR, "rho": (0.5,), "classlabels_ints": (0, 1, 2)},
    ),
    "linear": (
        "LinearRegressor", {"coefficients": LINEAR, "targets": 3, "intercepts": (0.1, 0.2, 0.3)},
    ),
    "linear of three classes": (
        "LinearClassifier",
        {"coefficients": LINEAR, "classlabels_ints": (5, 4, 3), "post_transform": "SOFTMAX"},
    ),
    "linear of one score": ("LinearClassifier", {"coefficients": LINEAR[:WIDTH], **WORDS}),
    "scaler": ("Scaler", {"offset": (0.1, 0.2, 0.3, 0.4), "scale": (1.0, 2.0, 3.0, 4.0)}),
    **{f"normalizer {norm}": ("Normalizer", {"norm": norm}) for norm in ("L1", "L2", "MAX")},
    "binarizer": ("Binarizer", {"threshold": 0.25}),
    "imputer of a number": (
        "Imputer", {"replaced_value_float": 1.0, "imputed_value_floats": (9.0,)},
    ),
    "imputer of NaN": (
        "Imputer",
        {"replaced_value_float": float("nan"), "imputed_value_floats": (1.0, 2.0, 3.0, 4.0)},
    ),
    "one column per category": ("OneHotEncoder", {"cats_int64s": (-1, 0, 2)}),
    "every element in a category": (
        "OneHotEncoder", {"cats_int64s": tuple(range(-9, 9)), "zeros": 0},
    ),
    "labels to numbers": (
        "LabelEncoder", {"keys_floats": (1.0, -1.0), "values_int64s": (10, 20), "default_int64": 3},
    ),
    "labels to text": (
        "LabelEncoder", {"keys_floats": (1.0, 0.0), "values_strings": ("one", "none")},
    ),
}  # fmt: skip


def graph_of(op: str, attrs: dict[str, Any], dtype: DType) -> Graph:
    graph = Graph("g")
    x = graph.add_input("x", TensorType(dtype, parse_shape(["N", WIDTH])))
    outputs = ["y", "z"] if op.endswith("Classifier") else ["y"]
    node = graph.add(f"ai.onnx.ml::{op}", [x], attrs, outputs=outputs, name="n")
    graph.set_outputs(node.outputs)
    return graph


def samples(op: str, dtype: DType) -> Array:
    x = CHANCE.integers(-4, 5, (ROWS, WIDTH)) / 4
    x[3] = 0
    if dtype.is_float and op in ("TreeEnsembleRegressor", "Imputer"):
        x[1, 2] = np.nan
    return x.astype(dtype.numpy)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("dtype", [DType.F32, DType.F64, DType.I64])
def test_the_rewritten_graph_means_the_same(name: str, dtype: DType) -> None:
    op, attrs = CASES[name]
    if dtype is not DType.F32 and op in ("TreeEnsemble", "Imputer", "LabelEncoder"):
        pytest.skip("its attributes are of the type of its input")
    graph = graph_of(op, attrs, dtype)
    contents = infer(graph)
    x = samples(op, dtype)
    wanted = run(graph, {"x": x})
    types = [str(value.type) for value in graph.outputs]
    assert ml_to_core(graph, contents)
    infer(graph)
    assert not [node for node in graph.nodes if node.op.startswith("ai.onnx.ml")]
    assert [str(value.type) for value in graph.outputs] == types
    for key, found in run(graph, {"x": x}).items():
        if found.dtype.kind == "f":
            np.testing.assert_allclose(found, wanted[key], rtol=1e-5, atol=1e-6)
        else:
            assert found.tolist() == wanted[key].tolist()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"nodes_featureids": (9,) + (0,) * 7}, "the 10 features of the model: 4 against 10"),
        ({"nodes_truenodeids": (8, 0, 0, 1, 0, 3, 0, 0)}, "node 0 branches to a node that is not"),
        ({"nodes_falsenodeids": (4, 2)}, "nodes_falsenodeids has 2 items; expected 8"),
        ({"target_nodeids": (1, 2, 1, 3, 9)}, r"target_nodeids\[4\] is node 9 of tree 1"),
    ],
)
def test_trees_that_lead_nowhere_are_refused(change: dict[str, Any], message: str) -> None:
    attrs = {**NODES, **votes("target", (0,) * 5, FIVE), **change}
    graph = graph_of("TreeEnsembleRegressor", attrs, DType.F32)
    with pytest.raises(InvalidModel, match=f"TreeEnsembleRegressor node 'n': .*{message}"):
        ml_to_core(graph, infer(graph))
