"""Random graphs run clean under the sanitizers, and a kernel that does not is reported."""

from pathlib import Path

import pytest

from tests.sanitize.run import graphs, library, sanitize

pytestmark = pytest.mark.skipif(
    not Path(library("libasan.so")).is_absolute(), reason="gcc has no libasan here"
)

# Beyond the output, and a shift beyond the width of an int.
BAD = """
static void bad(int64_t begin, int64_t end, const int32_t *x, int32_t *y)
{
    for (int64_t i = begin; i <= end; i++)
        y[i] = i < end ? x[i] << (x[i] + 39) : 0;
}
"""
MODEL = f"""
import numpy as np, tempfile, tuili
from tuili.ir import Graph, TensorType
row = tuili.operator(
    "my::Bad", "x:i32", "y:i32", shape=lambda site: [site.shape(0)], meaning=lambda x: x,
    kernel=tuili.CKernel("bad", {BAD!r}),
)
graph = Graph("g")
x = graph.add_input("x", TensorType(tuili.DType.I32, (64,)))
graph.set_outputs([graph.add(row.name, [x], outputs=["y"]).output])
with tempfile.TemporaryDirectory() as folder:
    artifact = tuili.compile(graph, folder + "/m.tuili", operators=[row])
    tuili.load(artifact.path).run({{"x": np.ones(64, np.int32)}})
"""


def test_random_graphs_run_clean():
    # Among them a softmax of open length at length 0, which once read an element that is not there.
    found, failed = sanitize([graphs(394, 400)])
    assert (dict(found), failed) == ({}, [])


def test_a_kernel_that_leaves_its_memory_is_reported():
    found, _ = sanitize([["-c", MODEL]])
    assert any("AddressSanitizer" in kind for kind in found), found
    assert any("shift exponent" in kind for kind in found), found
