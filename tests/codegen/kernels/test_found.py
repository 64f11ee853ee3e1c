"""Operators whose results have a size that data decides, beside their NumPy meaning."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import parser

import tuili
from tuili.errors import InvalidArgument
from tuili.importers.onnx import import_model
from tuili.ops.infer import infer
from tuili.ops.interpret import run as interpret

# All in one model, so that it is compiled once; no output depends on another one's inputs.
TEXT = """<ir_version: 10, opset_import: ["" : 21]>
g (float[a, b] x, bool[c] wanted, float16[a, b] half, int64 first, int64 last, int64 step,
   float from, float to, float by, int64[1] count, float[n, m, 4] boxes, float[n, k, m] scores,
   int64 most)
=> (int64[2, d] where, int64[2, e] where_half, float[f] elements, float[a, g] columns,
    int64[h] numbers, float[i] reals, float[j, b] best, int64[l, 3] kept, int64[o, 3] centered,
    float[p] doubled)
{
    where = NonZero(x)
    where_half = NonZero(half)
    elements = Compress(x, wanted)
    columns = Compress<axis = -1>(x, wanted)
    numbers = Range(first, last, step)
    reals = Range(from, to, by)
    best, places = TopK<axis = 0>(x, count)
    overlap = Constant<value = float {0.4}>()
    least = Constant<value = float {0.1}>()
    kept = NonMaxSuppression(boxes, scores, most, overlap, least)
    centered = NonMaxSuppression<center_point_box = 1>(boxes, scores, most, overlap)
    doubled = Add(elements, elements)
}"""

rng = np.random.default_rng(0)


def feeds(rows: int, columns: int, boxes: int, **changes: Any) -> dict[str, Any]:
    x = (rng.standard_normal((rows, columns)) * (rng.random((rows, columns)) < 0.6)).astype("f4")
    corners = rng.random((2, boxes, 4)).astype("f4")
    given: dict[str, Any] = {
        "x": x,
        "wanted": rng.random(columns) < 0.5,
        "half": -x.astype(np.float16),
        "first": 3,
        "last": 20,
        "step": 4,
        "from": np.float32(0.5),
        "to": np.float32(-2),
        "by": np.float32(-0.3),
        "count": np.array([min(rows, 2)]),
        "boxes": corners,
        "scores": np.round(rng.random((2, 3, boxes)), 1).astype("f4"),  # with ties
        "most": 5,
    }
    return {name: np.asarray(value) for name, value in (given | changes).items()}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Any:
    path = tmp_path_factory.mktemp("found") / "m.tuili"
    artifact = tuili.compile(parser.parse_model(TEXT), Path(path))
    assert artifact.manifest.host_steps == []
    return tuili.load(artifact.path, threads=2)


@pytest.mark.parametrize(
    "given",
    [
        feeds(4, 5, 40),
        feeds(1, 1, 1, most=2**62),
        feeds(7, 3, 90, most=0, first=20, last=3, step=-5),
        feeds(2, 6, 60, most=1000, first=5, last=5, wanted=np.zeros(6, bool)),
        feeds(3, 4, 0, first=1, last=-9, to=np.float32(7)),
    ],
    ids=["mixed", "smallest", "nothing kept", "no limit", "no boxes"],
)
def test_sizes_and_contents_are_those_of_the_meaning(model: Any, given: dict[str, Any]) -> None:
    graph = import_model(parser.parse_model(TEXT))
    infer(graph)
    want, got = interpret(graph, given), model.run(given)
    for name, array in want.items():
        assert got[name].shape == array.shape, name
        np.testing.assert_allclose(got[name], array, rtol=1e-6, err_msg=name)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"step": 0}, "Range node 'numbers': the delta of a Range is 0"),
        ({"last": 2**60, "step": 1}, "'numbers', whose shape depends on data, needs"),
        ({"wanted": np.ones(30, bool)}, "Compress node .* beyond the end of the axis"),
        ({"count": np.array([9])}, "TopK node 'best': elements along axis 0 against"),
    ],
    ids=["no step", "endless range", "long condition", "large K"],
)
def test_data_that_fits_nothing_is_an_error_that_names_the_node(
    model: Any, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(InvalidArgument, match=message):
        model.run(feeds(4, 5, 3, **changes))
