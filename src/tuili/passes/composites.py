"""Composite operators of the standard become core operators, as one table."""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from tuili.ir import Graph, Node, Value
from tuili.ops.contents import Contents
from tuili.ops.table import attr
from tuili.passes.making import Making, counted, is_known, shaped
from tuili.passes.rewrite import Rewrite, rewrite_nodes
from tuili.passes.signals import is_stft, stft
from tuili.tensors import Dim, DType, dim_max, numel


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


# -- norms and pools ---------------------------------------------------------------------------


def _is_real(node: Node) -> bool:
    return is_known(node.required(0)) and node.output.dtype in (DType.F32, DType.F64)


def _mean_variance(m: Making) -> None:
    """Less its mean, over its deviation."""
    x = m.node.required(0)
    axes = np.array(attr(m.node, "axes"), np.int64)
    centred = m("Sub", x, m("ReduceMean", x, axes))
    variance = m("ReduceMean", m("Mul", centred, centred), axes)
    least = np.array(1e-9, x.dtype.numpy)
    m.replace(m("Div", centred, m("Add", m("Sqrt", variance), least)))


def _is_norm(node: Node) -> bool:
    return _is_real(node) and attr(node, "p") in (1, 2)


def _global_norm(m: Making) -> None:
    """Over all axes behind the channels."""
    x = m.node.required(0)
    axes = np.arange(2, len(x.shape))
    m.replace(m(f"ReduceL{attr(m.node, 'p')}", x, axes))


def _is_inferred(node: Node) -> bool:
    return _is_real(node) and is_known(node.output) and node.input(2) is None


def _max_unpool(m: Making) -> None:
    """Elements put back where they were the largest, among zeros."""
    x, places = (m("Reshape", m.node.required(at), np.array([-1])) for at in range(2))
    shape = m.node.output.shape
    zeros = m("Expand", np.zeros(1, x.dtype.numpy), m.dims((numel(shape),)))
    m.replace(shaped(m, m("ScatterElements", zeros, places, x, axis=0), shape))


REWRITES: Final = {
    "AffineGrid": Rewrite(_affine_grid, _is_affine),
    "GlobalLpPool": Rewrite(_global_norm, _is_norm),
    "MaxUnpool": Rewrite(_max_unpool, _is_inferred),
    "MeanVarianceNormalization": Rewrite(_mean_variance, _is_real),
    "ReverseSequence": Rewrite(_reverse_sequence, _is_reversal),
    "STFT": Rewrite(stft, is_stft),
}
