"""Differences from onnxruntime that are its own doing, or the standard's silence: one row each."""

from __future__ import annotations

from collections.abc import Callable

from tests.fuzz.part import Part
from tuili.ir import Node, Value

# (operator, what its node must look like, the reason)
ROWS: tuple[tuple[str, Callable[[Part, Node], bool], str], ...] = (
    (
        "NonZero",
        lambda part, node: part.of(node.required(0)).ndim == 0,
        "of a scalar gives [0, N] by the standard; onnxruntime gives [1, N]",
    ),
    (
        "MeanVarianceNormalization",
        lambda part, node: True,
        "takes E[x²] - E[x]², which rounding makes negative; onnxruntime then gives NaN",
    ),
    (
        "Resize",
        lambda part, node: (
            node.attrs.get("coordinate_transformation_mode") == "align_corners"
            and node.input(2) is not None
        ),
        "the standard's tests divide by the length before it is cut; onnxruntime by that after",
    ),
    (
        "LSTM",
        lambda part, node: "clip" in node.attrs,
        "clips the input of every activation by the standard; onnxruntime leaves one out",
    ),
    (
        "Loop",
        lambda part, node: any(part.of(value).shape[:1] == (0,) for value in node.outputs),
        "of no iteration: onnxruntime gives every open axis of what would be collected size 0",
    ),
)


def explained(part: Part, value: Value) -> str:
    """Why onnxruntime may answer differently; empty when nothing says so."""
    for node in _above(value):
        for op, matches, reason in ROWS:
            if node.op == op and matches(part, node):
                return f"{op}: {reason}"
    return ""


def _above(value: Value) -> list[Node]:
    """The nodes that a value comes from."""
    waiting, seen = [value], []
    while waiting:
        node = waiting.pop().producer
        if node is not None and node not in seen:
            seen.append(node)
            captured = [value for graph in node.graphs() for value in graph.captured()]
            waiting += [each for each in (*node.inputs, *captured) if each is not None]
    return seen
