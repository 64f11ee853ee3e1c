"""Strides: how an operand is walked beside an output, broadcast or in a blocked layout."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

from tuili.codegen.kernel import KernelBuilder, physical_shape
from tuili.ir import TensorType, block_of
from tuili.tensors import Dim, Shape, ceil_div


@dataclass(frozen=True, slots=True)
class Unless1:
    """0 when the dim turns out to be 1 at run time (it is broadcast then), else the stride."""

    dim: Dim
    stride: Dim


Stride: TypeAlias = "Dim | Unless1"


def contiguous(shape: Sequence[Dim]) -> tuple[Dim, ...]:
    """The strides of a row-major tensor, in elements."""
    strides: list[Dim] = []
    step: Dim = 1
    for dim in reversed(shape):
        strides.append(step)
        step = step * dim
    return tuple(reversed(strides))


def _beside(dim: Dim, wanted: Dim, stride: Dim) -> Stride:
    """The stride of an axis of size `dim` beside an output axis of size `wanted`."""
    if dim == 1:
        return 0
    if dim == wanted or isinstance(dim, int):
        return stride
    return Unless1(dim, stride)


def broadcast_strides(shape: Shape, out: Shape) -> tuple[Stride, ...]:
    """The strides of a row-major operand over the axes of a row-major output."""
    missing = len(out) - len(shape)
    own = contiguous(shape)
    inner = (_beside(*axis) for axis in zip(shape, out[missing:], own, strict=True))
    return (0,) * missing + tuple(inner)


def blocked_strides(operand: TensorType, out: TensorType) -> tuple[Stride, ...] | None:
    """The strides of an operand over the physical axes [N, C/b, ..., b] of a blocked output.

    None when whole blocks of channels cannot be read.
    """
    shape, out_shape = operand.shape, out.shape
    assert shape is not None
    assert out_shape is not None
    block = block_of(out.layout)
    if operand.layout:
        return _from_blocked(operand, out) if operand.layout == out.layout else None
    full = (1,) * (len(out_shape) - len(shape)) + tuple(shape)
    channels = full[1]
    batch, channel, *space = (
        _beside(*axis) for axis in zip(full, out_shape, contiguous(full), strict=True)
    )
    if channels == 1:
        return (batch, 0, *space, 0)
    if not isinstance(channels, int) or channels % block or isinstance(channel, Unless1):
        return None
    return (batch, channel * block, *space, channel)


def _from_blocked(operand: TensorType, out: TensorType) -> tuple[Stride, ...] | None:
    shape, out_shape = operand.shape, out.shape
    assert shape is not None
    assert out_shape is not None
    if len(shape) != len(out_shape):
        return None
    physical = physical_shape(operand)
    batch, group, *space, lane = contiguous(physical)
    outer = [
        _beside(*axis)
        for axis in zip(
            (shape[0], *shape[2:]), (out_shape[0], *out_shape[2:]), (batch, *space), strict=True
        )
    ]
    if shape[1] == 1 and out_shape[1] != 1:
        return (outer[0], 0, *outer[1:], 0)
    return (outer[0], group, *outer[1:], lane)


def physical_axes(out: TensorType) -> Shape:
    """The axes that a kernel walks to fill an output."""
    assert out.shape is not None
    block = block_of(out.layout)
    if block == 1:
        return out.shape
    return (out.shape[0], ceil_div(out.shape[1], block), *out.shape[2:], block)


Walk: TypeAlias = "tuple[list[Dim], list[list[Stride]]]"


def collapse(axes: Sequence[Dim], strides: Sequence[Sequence[Stride]]) -> Walk:
    """Drop axes of size 1 and merge neighbours that every operand walks in one stride."""
    dims: list[Dim] = []
    rows: list[list[Stride]] = [[] for _ in strides]
    for axis, dim in enumerate(axes):
        if dim == 1:
            continue
        here = [row[axis] for row in strides]
        if dims and all(
            _continues(kept[-1], step, dim) for kept, step in zip(rows, here, strict=True)
        ):
            dims[-1] = dims[-1] * dim
            for kept, step in zip(rows, here, strict=True):
                kept[-1] = step
            continue
        dims.append(dim)
        for kept, step in zip(rows, here, strict=True):
            kept.append(step)
    if not dims:
        return [1], [[1] for _ in strides]
    return dims, rows


def _continues(outer: Stride, inner: Stride, dim: Dim) -> bool:
    if isinstance(outer, Unless1) or isinstance(inner, Unless1):
        return False
    return outer == inner * dim


def declare_stride(k: KernelBuilder, name: str, stride: Stride) -> str:
    """A stride as a C constant, parameter or choice; returns the C expression."""
    if not isinstance(stride, Unless1):
        return str(stride) if isinstance(stride, int) else k.dim(name, stride)
    dim, step = k.dim(f"{name}_dim", stride.dim), stride.stride
    taken = str(step) if isinstance(step, int) else k.dim(f"{name}_step", step)
    return f"({dim} == 1 ? 0 : {taken})"
