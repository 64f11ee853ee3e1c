"""Images apart: which nodes become a loop over images; what the loop gives."""

from __future__ import annotations

import numpy as np
import pytest

from tests.passes.support import feeds, load
from tuili.ir import Graph, TensorType, verify
from tuili.ir.text import parse, to_text
from tuili.ops.infer import infer
from tuili.ops.interpret import run
from tuili.passes.each_image import each_image
from tuili.tensors import DType

# A batch of eight whose images together leave a cache of 512 KiB, alone do not.
HEAD = """
graph main(%x: f32[{batch}, 4, 96, 96], %s: f32[4, 1, 1]) {{
  %w = constant f32[4, 1, 1, 1] [1.0, 2.0, 3.0, 4.0]
  %deep = constant f32[4, 1, 3, 1, 1] [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 8.0, 7.0, 6.0]
  %counts = constant i64[2] [1, 8]
  %each = constant f32[8, 1, 1, 1] [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0]
  %own = constant f32[8] [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0]
  %half = constant f32[4] [1.0, 1.0, 0.5, 0.5]
  {body}
}}
"""
DEEP = "%a = EachChannelOfFrames(%x, %deep, %counts, _) {depth_pads=[1, 1]}"
TWO = "%a = Conv(%x, %w, _) {group=4}\n %y = Relu(%a)"

LOOPS = {
    "neighbours": (f"{TWO}\n return %y", ["EachImage"]),
    "a value that others read is made whole": (
        f"{TWO}\n %t = ReduceMax(%a) {{keepdims=0}}\n return %y, %t",
        ["EachImage", "ReduceMax"],
    ),
    "what all images share": (f"{TWO}\n %z = Mul(%y, %s)\n return %z", ["EachImage"]),
    "two branches that meet": (
        f"{TWO}\n %b = Neg(%x)\n %z = Concat(%y, %b) {{axis=1}}\n return %z",
        ["EachImage"],
    ),
    "another shape of the same images": (
        f"{TWO}\n %z = Unsqueeze(%y, %at)\n return %z".replace(
            "%a = Conv", "%at = constant i64[1] [1]\n %a = Conv"
        ),
        ["EachImage"],
    ),
    "axes that change places within an image": (
        f"{TWO}\n %z = Transpose(%y) {{perm=[0, 2, 3, 1]}}\n return %z",
        ["EachImage"],
    ),
    "a picture made smaller": (
        f'{TWO}\n %z = Resize(%y, _, %half) {{mode="nearest"}}\n return %z',
        ["EachImage"],
    ),
    "images that are not alone": (
        f"{TWO}\n %z = Concat(%y, %x) {{axis=0}}\n return %z",
        ["EachImage", "Concat"],
    ),
    "a constant for each image": (
        f"{TWO}\n %z = Mul(%y, %each)\n return %z",
        ["EachImage", "Mul"],
    ),
    "a batch that changes places": (
        f"{TWO}\n %z = Transpose(%y) {{perm=[1, 0, 2, 3]}}\n return %z",
        ["EachImage", "Transpose"],
    ),
    "a scale for each image": (
        f"{TWO}\n %z = QuantizeLinear(%y, %own, _) {{axis=0}}\n return %z",
        ["EachImage", "QuantizeLinear"],
    ),
    "a scale for each channel": (
        f"{TWO}\n %z = QuantizeLinear(%y, %half, _) {{axis=1}}\n return %z",
        ["EachImage"],
    ),
    "windows over a depth of eight, which see the pictures beside each": (
        f"{DEEP}\n %y = Relu(%a)\n %z = Neg(%y)\n return %z",
        ["EachChannelOfFrames", "EachImage"],
    ),
    "a node by itself": ("%y = Relu(%x)\n return %y", ["Relu"]),
}


def loop_of(graph: Graph) -> list[str]:
    each_image(graph)
    verify(graph)
    infer(graph)
    return [node.op for node in graph.nodes]


@pytest.mark.parametrize(("body", "ops"), LOOPS.values(), ids=LOOPS)
def test_nodes_that_treat_images_alone_become_a_loop_that_means_the_same(
    body: str, ops: list[str]
) -> None:
    graph = load(HEAD.format(batch=8, body=body))
    before = run(graph, feeds(graph))
    assert loop_of(graph) == ops
    after = run(graph, feeds(graph))
    assert list(before) == list(after)
    assert all(np.array_equal(after[name], found) for name, found in before.items())


@pytest.mark.parametrize(
    "images",
    [
        "f32[1, 4, 96, 96]",
        "f32[8, 4, 16, 16]",  # stay in the cache together
        "f32[8, 4, H, W]",  # of unknown size
    ],
)
def test_a_batch_that_gains_nothing_stays_whole(images: str) -> None:
    text = HEAD.format(batch=8, body=f"{TWO}\n return %y").replace("f32[8, 4, 96, 96]", images)
    assert loop_of(load(text)) == ["Conv", "Relu"]


def test_weights_that_outweigh_an_image_are_read_once() -> None:
    graph = Graph()
    y = graph.add_input("x", TensorType(DType.F32, (8, 512, 24, 24)))
    for _ in range(2):
        weights = graph.add_constant(np.ones((512, 512, 3, 3), np.float32), "w")
        y = graph.add("Conv", [y, weights, None], {"pads": (1, 1, 1, 1)}).output
    infer(graph)
    graph.set_outputs([y])
    assert loop_of(graph) == ["Conv", "Conv"]


@pytest.mark.parametrize("batch", [0, 1, 3])
def test_an_open_batch_of_any_size_runs(batch: int) -> None:
    graph = load(HEAD.format(batch="N", body=f"{TWO}\n return %y"))
    assert loop_of(graph) == ["EachImage"]
    x = np.random.default_rng(0).standard_normal((batch, 4, 96, 96)).astype(np.float32)
    y = run(graph, {"x": x, "s": np.ones((4, 1, 1), np.float32)})["y"]
    weights = np.arange(1, 5, dtype=np.float32).reshape(4, 1, 1)
    np.testing.assert_array_equal(y, np.maximum(x * weights, 0))


def test_a_loop_over_images_is_text_too() -> None:
    graph = load(HEAD.format(batch=8, body=f"{TWO}\n return %y"))
    loop_of(graph)
    assert to_text(parse(to_text(graph))) == to_text(graph)
