"""Nothing is added to rows, as PyTorch exports `index_add`: experts and nodes that nobody names."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

import tuili
from tuili.errors import InvalidArgument

# The updates are spread to the size of x[:1], which is 1 in every run but that of an empty x.
INDEX_ADD = """<ir_version: 8, opset_import: ["": 17]>
net (float[n, 3] x, int64[k] at, float[k, 3] u) => (float[n, 3] y) {
    zero = Constant <value_ints = [0]> ()
    one = Constant <value_ints = [1]> ()
    first = Slice (x, zero, one, zero)
    size = Shape (first)
    spread = Expand (u, size)
    whole = Shape (spread)
    column = Unsqueeze (at, one)
    places = Expand (column, whole)
    y = ScatterElements <axis = 0, reduction = "add"> (x, places, spread)
}"""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> tuili.Model:
    path: Path = tmp_path_factory.mktemp("index_add") / "m.onnx"
    onnx.save(onnx.parser.parse_model(INDEX_ADD), path)
    return tuili.load(path)


@pytest.mark.parametrize("at", [[], [2], [0, 3, 0], [1, 1, 1, 1, 1, 1]])
def test_as_many_rows_as_there_are_are_added(model: tuili.Model, at: list[int]) -> None:
    x = np.arange(12, dtype=np.float32).reshape(4, 3)
    u = np.ones((len(at), 3), np.float32)
    expected = x.copy()
    np.add.at(expected, np.array(at, int), u)
    found = model.run({"x": x, "at": np.array(at, np.int64), "u": u})["y"]
    np.testing.assert_array_equal(found, expected)


def test_nothing_is_added_to_nothing(model: tuili.Model) -> None:
    none = np.empty((0, 3), np.float32)
    found = model.run({"x": none, "at": np.empty(0, np.int64), "u": none})["y"]
    assert found.shape == (0, 3)


def test_rows_for_an_empty_tensor_are_refused(model: tuili.Model) -> None:
    none, u = np.empty((0, 3), np.float32), np.ones((2, 3), np.float32)
    with pytest.raises(InvalidArgument, match=r"sizes that broadcast together: min\(1, n\) = 0"):
        model.run({"x": none, "at": np.zeros(2, np.int64), "u": u})
