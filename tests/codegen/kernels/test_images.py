"""Loops over images in native code: as the batch as a whole, in the memory of one image."""

from __future__ import annotations

import numpy as np
import pytest

from tests.codegen.compiled import BEST, Library
from tests.passes.support import load
from tuili.codegen.translate import translate
from tuili.lower.program import Repeat, counted_calls
from tuili.ops.infer import infer
from tuili.ops.interpret import run as interpret
from tuili.passes.each_image import each_image
from tuili.tensors import evaluate

# %a leaves the loop, %b and %c stay in it; %r is read by its number in a batch that is not first.
TEXT = """
graph main(%x: f32[N, 4, 80, 80], %r: f32[N, 4, 80, 80], %s: f32[4, 1, 1]) {
  %w = constant f32[4, 1, 1, 1] [1.0, 2.0, 3.0, 4.0]
  %a = Conv(%x, %w, _) {group=4}
  %b = Mul(%a, %s)
  %c = Add(%b, %r)
  %d = MaxPool(%c) {kernel_shape=[2, 2], strides=[2, 2]}
  %e = ReduceMax(%a) {keepdims=0}
  return %d, %a, %e
}
"""


def library(text: str, *, apart: bool = True) -> Library:
    graph = load(text)
    if apart:
        assert each_image(graph)
    return Library(translate(graph, infer(graph), BEST), BEST)


@pytest.fixture(scope="module")
def apart() -> Library:
    return library(TEXT)


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("batch", [0, 1, 2, 7, 9])  # 7: two for each thread, and one for all
def test_every_batch_gives_what_the_graph_means(apart: Library, batch: int, threads: int) -> None:
    rng = np.random.default_rng(batch)
    feeds = {name: rng.standard_normal((batch, 4, 80, 80)).astype(np.float32) for name in "xr"}
    feeds["s"] = rng.standard_normal((4, 1, 1)).astype(np.float32)
    got, want = apart.run(feeds, threads), interpret(load(TEXT), feeds)
    for name, array in want.items():
        np.testing.assert_allclose(got[name], array, rtol=1e-4, atol=1e-4)


def test_what_stays_inside_takes_the_memory_of_one_image(apart: Library) -> None:
    whole, image = library(TEXT, apart=False), 4 * 80 * 80 * 4
    sizes = [
        [evaluate(buffer.size, {"N": 8}) for buffer in each.program.buffers]
        for each in (whole, apart)
    ]
    assert sum(sizes[0]) >= 2 * 8 * image
    assert sum(sizes[1]) <= 2 * image
    loops = [step for step in apart.program.steps if isinstance(step, Repeat)]
    assert [loop.block in apart.program.buffers for loop in loops] == [True]


def test_the_work_of_all_images_is_counted(apart: Library) -> None:
    whole, each = (
        sum(evaluate(times * call.flops, {"N": 8}) for call, times in counted_calls(steps))
        for steps in (library(TEXT, apart=False).program.steps, apart.program.steps)
    )
    assert whole == each > 0
