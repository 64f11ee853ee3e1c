"""Convolutions with few output channels compute columns as channels; the meaning stays."""

from __future__ import annotations

import numpy as np
import pytest

from tests.passes.support import feeds
from tuili.ir import Graph, verify
from tuili.ir.text import parse
from tuili.ops.infer import infer
from tuili.ops.interpret import run
from tuili.passes import few_channels
from tuili.passes.few_channels import split_transposed, widen_few_channels
from tuili.passes.fuse_epilogue import fuse_epilogues


@pytest.fixture(autouse=True)
def every_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(few_channels, "FEW_FLOPS", 0)


def graph_of(body: str, shapes: dict[str, tuple[int, ...]], x: str = "f32[2, 2, 5, 23]") -> Graph:
    rng = np.random.default_rng(1)
    weights = {
        name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()
    }
    lines = [f"%{name} = constant f32{list(shape)} @{name}" for name, shape in shapes.items()]
    text = f"graph main(%x: {x}) {{\n" + "\n".join([*lines, body]) + "\n}"
    for name, array in weights.items():
        if array.size <= 64:
            text = text.replace(f"@{name}\n", f"{array.ravel().tolist()}\n")
    graph = parse(text, weights)
    infer(graph)
    return graph


def ops_after(graph: Graph, rewrite) -> list[str]:
    before = run(graph, feeds(graph))
    rewrite(graph, 16)
    verify(graph)
    infer(graph)
    after = run(graph, feeds(graph))
    assert list(after) == list(before)
    for name, array in before.items():
        np.testing.assert_allclose(after[name], array, rtol=1e-4, atol=1e-5)
    return [node.op for node in graph.nodes]


WIDE = ["Conv", "Reshape", "Transpose", "Reshape"]


@pytest.mark.parametrize(
    ("attrs", "shapes", "expected"),
    [
        ("", {"w": (1, 2, 3, 7)}, [*WIDE, "Slice"]),
        ("{pads=[1, 3, 1, 3]}", {"w": (1, 2, 3, 7), "b": (1,)}, [*WIDE, "Slice"]),
        ("{pads=[1, 3, 1, 2], strides=[2, 1]}", {"w": (8, 2, 3, 7), "b": (8,)}, WIDE),
        ("{pads=[0, 0, 0, 7], strides=[1, 2]}", {"w": (4, 2, 1, 8), "b": (4,)}, WIDE),
        ("{dilations=[2, 1]}", {"w": (2, 2, 2, 9)}, [*WIDE, "Slice"]),
        ("{dilations=[1, 2]}", {"w": (1, 2, 3, 7)}, ["Conv"]),
        ("", {"w": (1, 2, 1, 1)}, ["Conv"]),
        ("", {"w": (16, 2, 3, 7)}, ["Conv"]),
        ("{group=2}", {"w": (2, 1, 3, 7)}, ["Conv"]),
        ('{auto_pad="SAME_UPPER"}', {"w": (1, 2, 3, 7)}, ["Conv"]),
    ],
)  # fmt: skip
def test_columns_become_channels(attrs: str, shapes, expected: list[str]) -> None:
    inputs = ", ".join(f"%{name}" for name in ("x", *shapes))
    graph = graph_of(f"%y = Conv({inputs}) {attrs}\nreturn %y", shapes)
    assert ops_after(graph, widen_few_channels) == expected


def test_the_height_and_the_batch_may_be_unknown() -> None:
    body = "%y = Conv(%x, %w)\nreturn %y"
    graph = graph_of(body, {"w": (1, 2, 3, 7)}, "f32[N, 2, H, 24]")
    widen_few_channels(graph, 16)
    contents = infer(graph)
    assert contents.sources == {}
    assert str(graph.outputs[0].type) == "f32[N, 1, H - 2, 18]"


def test_an_epilogue_moves_along() -> None:
    body = """
        %k = constant f32[] [2.0]
        %c = Conv(%x, %w, %b)
        %s = Mul(%c, %slope)
        %t = Add(%s, %k)
        %y = Relu(%t)
        return %y"""
    graph = graph_of(body, {"w": (4, 2, 3, 7), "b": (4,), "slope": (4, 1, 1)})
    fuse_epilogues(graph)
    infer(graph)
    assert [node.op for node in graph.nodes] == ["Conv"]
    assert ops_after(graph, widen_few_channels) == [*WIDE, "Slice"]


def test_a_residual_in_the_epilogue_keeps_the_convolution() -> None:
    body = "%c = Conv(%x, %w) {pads=[1, 3, 1, 3]}\n%y = Add(%c, %x)\nreturn %y"
    graph = graph_of(body, {"w": (2, 2, 3, 7)})
    fuse_epilogues(graph)
    infer(graph)
    assert ops_after(graph, widen_few_channels) == ["Conv"]


@pytest.mark.parametrize(
    ("attrs", "shapes", "expected"),
    [
        ("{strides=[2, 2]}", {"w": (2, 1, 2, 2), "b": (1,)}, ["Conv", "DepthToSpace"]),
        ("{strides=[2, 2]}", {"w": (2, 3, 2, 2)}, ["Conv", "DepthToSpace"]),
        ("{strides=[2, 2]}", {"w": (2, 8, 2, 2)}, ["ConvTranspose"]),
        ("{strides=[1, 1]}", {"w": (2, 1, 2, 2)}, ["ConvTranspose"]),
        ("{strides=[2, 2], pads=[1, 0, 0, 0]}", {"w": (2, 1, 2, 2)}, ["ConvTranspose"]),
        ("{strides=[2, 2], output_padding=[1, 0]}", {"w": (2, 1, 2, 2)}, ["ConvTranspose"]),
    ],
)
def test_disjoint_windows_become_depth(attrs: str, shapes, expected: list[str]) -> None:
    inputs = ", ".join(f"%{name}" for name in ("x", *shapes))
    graph = graph_of(f"%y = ConvTranspose({inputs}) {attrs}\nreturn %y", shapes)
    assert ops_after(graph, split_transposed) == expected
