"""Fourier transforms of a known, short length are products with a matrix of sines and cosines.

A transform is linear, so its matrix is what it makes of the unit vectors. STFT is a convolution:
its windows overlap, and a window function is a factor of the matrix.
"""

from __future__ import annotations

from collections.abc import Sequence
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


def _unit_vectors(length: int, parts: int) -> Array:
    """[length * parts, length, parts]: every element by itself."""
    return np.eye(length * parts, dtype=np.float32).reshape(-1, length, parts)


def _evaluated(node: Node, inputs: Sequence[Array | None]) -> Array:
    """What an operator with the node's attributes gives for other inputs."""
    names = [f"in{index}" for index in range(len(inputs))]
    graph = Graph("matrix")
    given = [None if array is None else graph.add_constant(array, name)
             for array, name in zip(inputs, names, strict=True)]  # fmt: skip
    return run_node(graph.add(node.op, given, node.attrs), inputs)[0]


# -- DFT -----------------------------------------------------------------------------------------


def _dft_axis(node: Node) -> int:
    rank = len(node.required(0).shape)
    axis = _number(node.input(2)) if node.input(2) is not None else -2
    assert axis is not None  # is_dft
    return axis % rank


def is_dft(node: Node) -> bool:
    """f32 along a known axis, from and to known lengths."""
    x, output = node.required(0), node.output
    known = all(
        each is None or _number(each) is not None for each in (node.input(1), node.input(2))
    )
    if not known or not _is_f32(x) or not _is_f32(output):
        return False
    axis = _dft_axis(node)
    sizes: list[Any] = [x.shape[axis], output.shape[axis], x.shape[-1]]
    return all(isinstance(size, int) and 0 < size <= MOST for size in sizes)


def dft(m: Making) -> None:
    """The axis goes beside the parts, and both together through one product."""
    x, axis = m.node.required(0), _dft_axis(m.node)
    rank = len(x.shape)
    length: Any = x.shape[axis]
    parts: Any = x.shape[-1]
    counts = m.node.input(1)
    basis = [_unit_vectors(length, parts), None if counts is None else counts.constant]
    matrix = _evaluated(m.node, [*basis, np.array(1, np.int64)])
    others = [each for each in range(rank - 1) if each != axis]
    order = (*others, axis, rank - 1)
    turned = m("Transpose", x, perm=order)
    rows = m("Reshape", turned, np.array([0] * len(others) + [length * parts], np.int64))
    made = m("MatMul", rows, matrix.reshape(length * parts, -1))
    shape = np.array([0] * len(others) + [*matrix.shape[1:]], np.int64)
    back = tuple(int(each) for each in np.argsort(order))
    m.replace(m("Transpose", m("Reshape", made, shape), perm=back))


# -- STFT ----------------------------------------------------------------------------------------


def _frame(node: Node) -> int | None:
    """How many points a window has."""
    window = node.input(2)
    if node.input(3) is not None:
        return _number(node.input(3))
    length: Any = node.required(0).shape[1] if window is None else window.shape[0]
    return length if isinstance(length, int) else None


def is_stft(node: Node) -> bool:
    """f32 in windows of a known length and function, a known step apart."""
    window, step, frame = node.input(2), _number(node.input(1)), _frame(node)
    shown = window is None or window.is_constant
    return shown and _is_f32(node.required(0)) and bool(step) and 0 < (frame or 0) <= MOST


def stft(m: Making) -> None:
    """A convolution from the parts of the signal to the parts of every frequency."""
    x, frame, step = m.node.required(0), _frame(m.node), _number(m.node.input(1))
    assert frame is not None
    assert step is not None
    parts: Any = x.shape[2] if len(x.shape) == 3 else 1
    window = m.node.input(2)
    inputs = [
        _unit_vectors(frame, parts),
        np.array(1, np.int64),
        None if window is None else window.constant,
        np.array(frame, np.int64),
    ]
    matrix = _evaluated(m.node, inputs)[:, 0]  # [frame * parts, bins, 2]
    bins = matrix.shape[1]
    filters = matrix.reshape(frame, parts, 2 * bins).transpose(2, 1, 0)
    if len(x.shape) == 3:
        signal = m("Transpose", x, perm=(0, 2, 1))
    else:
        signal = m("Unsqueeze", x, np.array([1]))
    made = m("Conv", signal, np.ascontiguousarray(filters), strides=(step,))
    turned = m("Transpose", made, perm=(0, 2, 1))
    m.replace(m("Reshape", turned, np.array([0, 0, bins, 2], np.int64)))
