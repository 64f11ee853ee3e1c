"""Windows that lie side by side in a volume: which convolutions, and that the answer stays."""

from __future__ import annotations

import numpy as np
import pytest

from tests.passes.support import load
from tuili.ops.interpret import run
from tuili.passes.volume_patches import volume_patches

WEIGHTS = ", ".join(str(round(float(value), 2)) for value in np.linspace(-1, 1, 96))
PATCHES = ("2, 4, 4, 6", "2, 5, 4, 7", "n, t, h, w")


def text_of(sizes: str, strides: str = "[2, 2, 3]", extra: str = "") -> str:
    batch, *volume = sizes.split(", ")
    return f"""graph main(%x: f32[{batch}, 2, {", ".join(volume)}], %b: f32[4]) {{
  %w = constant f32[4, 2, 2, 2, 3] [{WEIGHTS}]
  %y = Conv(%x, %w, %b) {{strides={strides}{extra}}}
  return %y
}}
"""


@pytest.mark.parametrize("sizes", PATCHES)
def test_patches_become_a_product(sizes: str):
    graph = load(text_of(sizes))
    given = [int(size) if size.isdigit() else 5 for size in sizes.split(", ")]
    rng = np.random.default_rng(0)
    x = rng.standard_normal((given[0], 2, *given[1:])).astype(np.float32)
    feeds = {"x": x, "b": np.arange(4, dtype=np.float32)}
    before = run(graph, feeds)["y"]
    assert volume_patches(graph)
    assert "Conv" not in {node.op for node in graph.nodes}
    np.testing.assert_allclose(next(iter(run(graph, feeds).values())), before, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("strides", "extra"),
    [("[2, 2, 2]", ""), ("[2, 2, 3]", ", pads=[0, 0, 0, 0, 0, 1]"),
     ("[2, 2, 3]", ", dilations=[1, 1, 2]")],
)  # fmt: skip
def test_other_windows_stay(strides: str, extra: str):
    assert not volume_patches(load(text_of(PATCHES[0], strides, extra)))
