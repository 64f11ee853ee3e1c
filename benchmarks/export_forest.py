"""Exports a random forest fitted to random data: `python export_forest.py NAME OUTPUT.onnx`."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from skl2onnx import to_onnx
from sklearn.datasets import make_classification
from sklearn.ensemble import RandomForestClassifier

ROWS = 64


def main(_: str, target: str) -> None:
    """300 trees of depth 12 for batches of 64 rows of 40 features and 4 classes."""
    x, y = make_classification(2000, 40, n_informative=20, n_classes=4, random_state=0)
    forest = RandomForestClassifier(300, max_depth=12, random_state=0, n_jobs=-1).fit(x, y)
    sample = x[:ROWS].astype(np.float32)
    model = to_onnx(forest, sample, options={"zipmap": False}, target_opset=18)
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = ROWS
    Path(target).write_bytes(model.SerializeToString())


if __name__ == "__main__":
    main(*sys.argv[1:])
