"""Composite operators of the standard become core operators, as one table."""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from tuili.ir import Graph, Node, Value
from tuili.ops.contents import Contents
from tuili.ops.table import attr
from tuili.passes.making import Making, counted, is_known
from tuili.passes.rewrite import Rewrite, rewrite_nodes
from tuili.passes.signals import is_stft, stft
from tuili.tensors import Dim, DType, dim_max


def composites_to_core(graph: Graph, contents: Contents) -> bool:
    """Rewrite every such node whose types are known."""
    return rewrite_nodes(graph, contents, REWRITES)


# -- ReverseSequence -----------------------------------------------------------------------------


def _is_reversal(node: Node) -> bool:
    return all(map(is_known, (node.required(0), node.required(1), node.output)))


def _reverse_sequence(m: Making) -> None:
    """Places of each text: those within its length backwards, the others as they are."""
    x, lengths = m.node.required(0), m.node.required(1)
    rank = len(x.shape)
    batch, time = (int(attr(m.node, name)) % rank for name in ("batch_axis", "time_axis"))
    order = (batch, time, *(axis for axis in range(rank) if axis not in (batch, time)))
    places = counted(m, x.shape[time])
    ends = m("Reshape", m("Min", lengths, m.dims((x.shape[time],))), np.array([-1, 1], np.int64))
    turned = m("Sub", m("Sub", ends, places), np.int64(1))
    taken = m("Where", m("Less", places, ends), turned, places)
    indices = m("Unsqueeze", taken, np.array([2]))
    picked = m("GatherND", m("Transpose", x, perm=order), indices, batch_dims=1)
    back = tuple(int(axis) for axis in np.argsort(order))
    m.replace(m("Transpose", picked, perm=back))


# -- AffineGrid ----------------------------------------------------------------------------------


def _is_affine(node: Node) -> bool:
    known = is_known(node.required(0)) and is_known(node.output)
    return known and node.output.dtype is DType.F32


def _affine_grid(m: Making) -> None:
    """Every place of the output, and a one, times the transposed matrices."""
    theta = m.node.required(0)
    batch, *spatial, rank = m.node.output.shape
    assert isinstance(rank, int)
    shape = m.dims((*spatial, 1))
    lines: list[Value] = []
    for axis in reversed(range(rank)):  # x, the last axis, comes first
        along = [1] * (rank + 1)
        along[axis] = -1
        line = m("Reshape", _line(m, spatial[axis]), np.array(along, np.int64))
        lines.append(m("Expand", line, shape))
    ones = m("Expand", np.float32(1), shape)
    points = m("Reshape", m("Concat", *lines, ones, axis=-1), np.array([-1, rank + 1], np.int64))
    made = m("MatMul", points, m("Transpose", theta, perm=(0, 2, 1)))
    m.replace(m("Reshape", made, m.dims((batch, *spatial, rank))))


def _line(m: Making, size: Dim) -> Value:
    """Where the elements of an axis lie between -1 and 1: (2 i + 1 - size) / width."""
    steps: Any = dim_max(size - 1, 1) if attr(m.node, "align_corners") else size
    last, width = (
        m("Cast", m("Dims", values=(dim,), rank0=1), to=DType.F32) for dim in (size - 1, steps)
    )
    twice = m("Mul", m("Cast", counted(m, size), to=DType.F32), np.float32(2))
    return m("Div", m("Sub", twice, last), width)


REWRITES: Final = {
    "AffineGrid": Rewrite(_affine_grid, _is_affine),
    "ReverseSequence": Rewrite(_reverse_sequence, _is_reversal),
    "STFT": Rewrite(stft, is_stft),
}
