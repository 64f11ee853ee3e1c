"""OneHotEncoder as scikit-learn exports it by default: what is in no category ends the run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

import tuili
from tuili.artifact import open_artifact
from tuili.errors import InvalidArgument

ENCODER = """<ir_version: 8, opset_import: ["": 17, "ai.onnx.ml": 3]>
net (int64[n, 1] x) => (float[n, 1, 3] y) {
    y = ai.onnx.ml.OneHotEncoder <cats_int64s = [2, 5, -7], zeros = 0> (x)
}"""


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("categories")
    proto = onnx.parser.parse_model(ENCODER)
    proto.graph.node[0].name = "encoder"
    return tuili.compile(proto, folder / "m.tuili").path


def test_categories_become_columns_natively(path: Path) -> None:
    assert not open_artifact(path).manifest.host_steps
    y = tuili.load(path).run({"x": np.array([[5], [-7], [2]])})["y"]
    assert y.tolist() == [[[0, 1, 0]], [[0, 0, 1]], [[1, 0, 0]]]


@pytest.mark.parametrize("other", [0, 3, -1, 2**60])
def test_an_element_in_no_category_ends_the_run(path: Path, other: int) -> None:
    with pytest.raises(InvalidArgument, match="encoder: an element is in no category"):
        tuili.load(path).run({"x": np.array([[5], [other]])})
