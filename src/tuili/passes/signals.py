"""STFT with windows of a known, short length is a convolution with sines and cosines.

A transform is linear, so its matrix is what it makes of the unit vectors. Windows overlap, which is
what a convolution is for, and a window function is a factor of the matrix. DFT stays as it is: a
kernel runs it, and sums that cancel to nothing in a fast transform leave a residue in a product.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tuili.ir import Graph, Node, TensorType, Value
from tuili.ops.interpret import run_node
from tuili.passes.making import Making
from tuili.tensors import Array, DType

MOST = 1024  # points: above, what fast transforms save is worth a step in Python


def _is_f32(value: Value) -> bool:
    type_ = value.type
    return isinstance(type_, TensorType) and type_.dtype is DType.F32 and bool(type_.shape)


def _number(value: Value | None) -> int | None:
    """A constant of one whole number."""
    known = None if value is None else value.constant
    return None if known is None or known.size != 1 else int(known.reshape(-1)[0])


def _frame(node: Node) -> int | None:
    """How many points a window has."""
    window = node.input(2)
    if node.input(3) is not None:
        return _number(node.input(3))
    length: Any = node.required(0).shape[1] if window is None else window.shape[0]
    return length if isinstance(length, int) else None


def is_stft(node: Node) -> bool:
    """f32 in windows of a known length and function, a known step apart."""
    x, window = node.required(0), node.input(2)
    if not _is_f32(x) or not (window is None or window.is_constant):
        return False
    parts = x.shape[2] if len(x.shape) == 3 else 1
    return bool(_number(node.input(1))) and 0 < (_frame(node) or 0) <= MOST and parts in (1, 2)


def stft(m: Making) -> None:
    """A convolution from the parts of the signal to the parts of every frequency."""
    x, step = m.node.required(0), _number(m.node.input(1))
    assert step is not None  # is_stft
    filters = _filters(m.node)
    if len(x.shape) == 3:
        signal = m("Transpose", x, perm=(0, 2, 1))
    else:
        signal = m("Unsqueeze", x, np.array([1]))
    made = m("Conv", signal, filters, strides=(step,))
    turned = m("Transpose", made, perm=(0, 2, 1))
    m.replace(m("Reshape", turned, np.array([0, 0, len(filters) // 2, 2], np.int64)))


def _filters(node: Node) -> Array:
    """[2 * frequencies, parts, points]: what the operator makes of each element by itself."""
    x, frame, window = node.required(0), _frame(node), node.input(2)
    assert frame is not None
    parts: Any = x.shape[2] if len(x.shape) == 3 else 1
    inputs = [
        np.eye(frame * parts).reshape(-1, frame, parts),
        np.array(1, np.int64),
        None if window is None or window.constant is None else window.constant.astype(np.float64),
        np.array(frame, np.int64),
    ]
    alone = Graph("filters")
    given = [None if array is None else alone.add_constant(array) for array in inputs]
    (matrix,) = run_node(alone.add(node.op, given, node.attrs), inputs)
    whole = np.asarray(matrix)[:, 0].reshape(frame, parts, -1).transpose(2, 1, 0)
    return np.ascontiguousarray(whole.astype(np.float32))
