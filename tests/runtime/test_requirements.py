"""Inputs whose open sizes do not fit together are refused by the run, naming node and sizes."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import helper

import tuili
from tuili.errors import InvalidArgument


def compiled(tmp_path, op, shapes, constants=(), **attrs):
    """A model of one node; its inputs are `shapes`, then constants."""
    names = [f"x{i}" for i in range(len(shapes))]
    inits = [
        onnx.numpy_helper.from_array(np.asarray(array), f"c{i}")
        for i, array in enumerate(constants)
    ]
    graph = helper.make_graph(
        [helper.make_node(op, [*names, *(i.name for i in inits)], ["y"], name="n", **attrs)],
        "g",
        [
            helper.make_tensor_value_info(name, 1, shape)
            for name, shape in zip(names, shapes, strict=True)
        ],
        [helper.make_tensor_value_info("y", 1, None)],
        inits,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    return tuili.load(tuili.compile(model, tmp_path / "m.tuili").path)


def ones(*shape):
    return np.ones(shape, np.float32)


CASES = {
    # name: (op, open shapes, constants, attributes, sizes that fit, sizes that do not, message)
    "a constant of another size": (
        "Add", [["N", 3]], [ones(5, 3)], {}, [(5, 3)], [(2, 3)],
        "N = 2 and 5; they must be equal or one of them 1, and none 0",
    ),
    "two open sizes": (
        "Mul", [["N", 3], ["M", 3]], [], {}, [(1, 3), (4, 3)], [(2, 3), (4, 3)],
        "N = 2 and M = 4; they must be equal or one of them 1, and none 0",
    ),
    "inner sizes of a product": (
        "MatMul", [[2, "K"]], [ones(5, 3)], {}, [(2, 5)], [(2, 4)], "K = 4 and 5",
    ),
    "parts that do not add up": (
        "Split", [["N", 3]], [np.array([16])], {"axis": 0}, [(16, 3)], [(4, 3)], "16 and N = 4",
    ),
    "rows beside one another": (
        "Concat", [["N", 3], ["M", 3]], [], {"axis": 1}, [(2, 3), (2, 3)], [(2, 3), (5, 3)],
        "N = 2 and M = 5; they must be equal",
    ),
    "elements left over": (
        "Reshape", [["N", 3]], [np.array([5, -1])], {}, [(10, 3)], [(2, 3)], "numbers of elements",
    ),
    "channels": (
        "Conv", [[1, "C", 4, 4]], [ones(2, 3, 3, 3)], {}, [(1, 3, 4, 4)], [(1, 4, 4, 4)],
        "C = 4 and 3",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_sizes_that_do_not_fit_are_refused(tmp_path, name):
    op, shapes, constants, attrs, good, bad, message = CASES[name]
    model = compiled(tmp_path, op, shapes, constants, **attrs)
    model.run({f"x{i}": ones(*shape) for i, shape in enumerate(good)})
    with pytest.raises(InvalidArgument, match=f"{op} node 'n'.*{message}"):
        model.run({f"x{i}": ones(*shape) for i, shape in enumerate(bad)})


def test_a_rank_that_depends_on_sizes_is_left_to_the_run(tmp_path):
    model = compiled(tmp_path, "Squeeze", [["N", "M"]])
    assert model.run({"x0": ones(3, 1)})["y"].shape == (3,)
    assert model.run({"x0": ones(1, 1)})["y"].shape == ()


GROWING = """<ir_version: 10, opset_import: ["" : 21]>
g (float[n] x, float[m] y, int64 rounds) => (float[k] last) {
    last = Loop<body = b (int64 i, bool go, float[w] s) => (bool more, float[v] t) {
        more = Identity(go)
        sum = Add(s, y)
        t = Concat<axis = 0>(sum, x)
    }>(rounds, , x)
}"""


def test_sizes_that_stop_fitting_in_a_round_are_refused(tmp_path):
    model = tuili.load(tuili.compile(onnx.parser.parse_model(GROWING), tmp_path / "m.tuili").path)
    feeds = {"x": ones(2), "y": ones(2)}
    assert model.run({**feeds, "rounds": np.int64(1)})["last"].tolist() == [2, 2, 1, 1]
    with pytest.raises(InvalidArgument, match="Add node .*: 4.* and m = 2|Add node .*= 4"):
        model.run({**feeds, "rounds": np.int64(2)})
