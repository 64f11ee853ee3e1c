"""Copies between a whole tensor and its part at one place of an axis."""

from __future__ import annotations

from tuili.codegen.kernel import size_of
from tuili.codegen.kernels.movement.copy import copy_call
from tuili.ir import TensorType
from tuili.lower.program import Call, Kernel, Pointer, View
from tuili.tensors import Dim, numel

_ROWS = Kernel(
    "copy_rows",
    (
        "const uint8_t *restrict from",
        "uint8_t *restrict to",
        "int64_t size",
        "int64_t from_step",
        "int64_t to_step",
    ),
    "for (int64_t row = begin; row < end; row++)\n"
    "    memcpy(to + row * to_step, from + row * from_step, (size_t)size);",
)


def copy_part(  # noqa: PLR0913 - a place in a tensor is that many numbers
    label: str,
    part: View,
    whole: View,
    type_: TensorType,
    axis: int,
    length: Dim,
    at: Dim,
    *,
    into: bool,
) -> Call:
    """Copy the part `at` of `length` along `axis`: into the whole, or out of it.

    `type_` is the part's, which lacks the axis.
    """
    shape = type_.shape or ()
    rows, size = numel(shape[:axis]), numel(shape[axis:]) * type_.dtype.itemsize
    place = View(whole.buffer, whole.offset + at * size)
    source, target = (part, place) if into else (place, part)
    whole_size = size_of(type_)
    if axis == 0:
        return copy_call(label, source, target, whole_size)
    steps = (size, length * size) if into else (length * size, size)
    pointers = Pointer(source, writes=False), Pointer(target, writes=True)
    return Call(label, _ROWS, (*pointers, size, *steps), rows, 0, whole_size * 2)
