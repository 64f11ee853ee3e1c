"""Composite operators of the standard become core operators, as one table."""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from tuili.ir import Graph, Node, Value
from tuili.ops.contents import Contents
from tuili.ops.table import attr
from tuili.passes.losses import cross_entropy, is_loss, log_likelihood
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
    batch, time = (int(attr(m.node, name)) % len(x.shape) for name in ("batch_axis", "time_axis"))
    if {batch, time} != {0, 1}:
        order = (batch, time, *(axis for axis in range(len(x.shape)) if axis not in (batch, time)))
        texts = m("Transpose", x, perm=order)
        picked = m("GatherND", texts, _turned(m, lengths, x.shape[time]), batch_dims=1)
        m.replace(m("Transpose", picked, perm=tuple(int(at) for at in np.argsort(order))))
        return
    places = _turned(m, lengths, x.shape[time])
    if batch == 0:
        m.replace(m("GatherND", x, places, batch_dims=1))
        return
    places = m("Transpose", places, perm=(1, 0, 2))
    texts = m("Reshape", counted(m, x.shape[batch]), np.array([1, -1, 1], np.int64))
    texts = m("Expand", texts, m.dims((x.shape[time], x.shape[batch], 1)))
    m.replace(m("GatherND", x, m("Concat", places, texts, axis=2)))


def _turned(m: Making, lengths: Value, longest: Dim) -> Value:
    """[batch, time, 1]: where the element of each place comes from."""
    places = counted(m, longest)
    ends = m("Reshape", m("Min", lengths, m.dims((longest,))), np.array([-1, 1], np.int64))
    turned = m("Sub", m("Sub", ends, places), np.int64(1))
    taken = m("Where", m("Less", places, ends), turned, places)
    return m("Unsqueeze", taken, np.array([2]))


# -- TensorScatter -------------------------------------------------------------------------------


def _is_written(node: Node) -> bool:
    given = (value for value in node.inputs if value is not None)
    return all(map(is_known, given)) and is_known(node.output)


def _tensor_scatter(m: Making) -> None:
    """Rows of a cache, written from a place on that each text has of its own (TensorScatter-24)."""
    past, update, starts = m.node.required(0), m.node.required(1), m.node.input(2)
    axis = int(attr(m.node, "axis")) % len(past.shape)
    batch, size, count = past.shape[0], past.shape[axis], update.shape[axis]
    between, behind = numel(past.shape[1:axis]), past.shape[axis + 1 :]
    places = m("Reshape", counted(m, count), np.array([1, 1, -1, 1], np.int64))
    if starts is not None:
        places = m("Add", m("Reshape", starts, np.array([-1, 1, 1, 1], np.int64)), places)
    if attr(m.node, "mode") == "circular":
        places = m("Mod", places, m.dims((size,)))
    every = m.dims((batch, between, count, 1))
    lines = m("Reshape", counted(m, batch * between), m.dims((batch, between, 1, 1)))
    indices = m("Concat", *(m("Expand", each, every) for each in (lines, places)), axis=3)
    indices = shaped(m, indices, (batch * between, count, 2))
    data = shaped(m, past, (batch * between, size, *behind))
    rows = shaped(m, update, (batch * between, count, *behind))
    m.replace(shaped(m, m("ScatterND", data, indices, rows), past.shape))


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
    "NegativeLogLikelihoodLoss": Rewrite(log_likelihood, is_loss),
    "ReverseSequence": Rewrite(_reverse_sequence, _is_reversal),
    "STFT": Rewrite(stft, is_stft),
    "SoftmaxCrossEntropyLoss": Rewrite(cross_entropy, is_loss),
    "TensorScatter": Rewrite(_tensor_scatter, _is_written),
}
