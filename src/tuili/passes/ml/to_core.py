"""ai.onnx.ml operators that say in other words what core operators say, as one table."""

from __future__ import annotations

import numpy as np

from tuili.ir import Graph, Node, TensorType, Value
from tuili.ops.contents import Contents
from tuili.passes.making import Making
from tuili.passes.ml import features, linear, trees
from tuili.passes.rewrite import Rewrite, rewrite_nodes
from tuili.tensors import DType, Shape, numel


def ml_to_core(graph: Graph, contents: Contents) -> bool:
    """Rewrite every such node whose types are known."""
    return rewrite_nodes(graph, contents, REWRITES)


def _is_extractor(node: Node) -> bool:
    types = (node.required(0).type, node.required(1).type, node.output.type)
    known = all(isinstance(type_, TensorType) and type_.shape is not None for type_ in types)
    return known and bool(node.required(0).shape) and node.required(0).dtype is not DType.STR


def _extractor(m: Making) -> None:
    """Picks along the last axis by the flat indices Y: a Gather. A vector X counts as one row."""
    x, y = m.node.required(0), m.node.required(1)
    indices = _reshaped(m, y, (numel(y.shape),))
    if len(x.shape) == 1:
        x = _reshaped(m, x, (1, *x.shape))
    m.replace(m("Gather", x, indices, axis=len(x.shape) - 1))


def _reshaped(m: Making, value: Value, shape: Shape) -> Value:
    """The value with its last dim taking what is left over."""
    sizes = [
        dim if isinstance(dim, int) and index < len(shape) - 1 else -1
        for index, dim in enumerate(shape)
    ]
    return m("Reshape", value, np.array(sizes, np.int64))


_ROWS = {
    "ArrayFeatureExtractor": Rewrite(_extractor, _is_extractor),
    "TreeEnsembleRegressor": Rewrite(trees.regressor, trees.is_trees),
    "TreeEnsembleClassifier": Rewrite(trees.classifier, trees.is_trees),
    "TreeEnsemble": Rewrite(trees.ensemble, trees.is_trees),
    "LinearRegressor": Rewrite(linear.linear_regressor, linear.is_linear),
    "LinearClassifier": Rewrite(linear.linear_classifier, linear.is_linear),
    "SVMRegressor": Rewrite(linear.svm_regressor, linear.is_linear),
    "SVMClassifier": Rewrite(linear.svm_classifier, linear.is_linear),
    "LabelEncoder": Rewrite(features.label_encoder, features.is_short_table),
    "Scaler": Rewrite(features.scaler, features.is_numeric),
    "Normalizer": Rewrite(features.normalizer, features.is_numeric),
    "Binarizer": Rewrite(features.binarizer, features.is_numeric),
    "Imputer": Rewrite(features.imputer, features.is_numeric),
    "FeatureVectorizer": Rewrite(features.vectorizer, features.is_plain_batch),
    "OneHotEncoder": Rewrite(features.one_hot, features.is_hot),
}
REWRITES = {f"ai.onnx.ml::{name}": rewrite for name, rewrite in _ROWS.items()}
