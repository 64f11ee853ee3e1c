"""Operators that rearrange elements: reshape, transpose, concatenate, split, repeat."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from tuili.ops.bounds import has_element, product_without, simpler, struck
from tuili.ops.op import REQUIRED, Op, Result, op
from tuili.ops.shapes import moved, same
from tuili.ops.site import Site
from tuili.tensors import Array, Dim, Expr, ceil_div, dim_max, dim_min, floor_div, numel, shape_text

# -- reshape -------------------------------------------------------------------------------


def _reshape_shape(site: Site) -> list[Result]:
    target = site.contents.dims(site.value(1))
    if target is None:
        length = site.need_rank(1, 1)[0]
        return [site.open(length) if isinstance(length, int) else None]
    return [reshaped(site, site.shape(0), target)]


def reshaped(site: Site, source: Sequence[Dim], target: Sequence[Dim]) -> list[Dim]:
    """The shape that Reshape gives: 0 copies a dim, -1 (or one unproved dim) takes the rest."""
    result = list(target)
    if not site.attr("allowzero"):
        for axis, dim in enumerate(target):
            if dim == 0:
                if axis >= len(source):
                    copied = f"{shape_text(target)} copies dim {axis} of {shape_text(source)}"
                    site.fail(f"shape {copied}, which it does not have")
                result[axis] = source[axis]
    open_axes = [axis for axis, dim in enumerate(result) if dim == -1]
    if len(open_axes) > 1:
        site.fail(f"shape {shape_text(target)} has -1 more than once; one dim may be inferred")
    # Without a -1, one number that only the run knows is what the others leave over.
    open_axes = open_axes or [axis for axis, dim in enumerate(result) if has_element(dim)]
    if len(open_axes) == 1:
        axis = open_axes[0]
        result[axis] = _rest(site, source, result[:axis] + result[axis + 1 :])
    if 0 in source and 0 in result:
        return result  # no elements on both sides, whatever else is struck from them
    _settle_last(source, result)
    before, after = product_without(source, result)
    if isinstance(before, int) and isinstance(after, int) and before != after:
        site.fail(
            f"cannot reshape {shape_text(source)} to {shape_text(target)}:"
            f" {numel(source)} elements against {numel(result)}"
        )
    shapes = f"{shape_text(source)} and {shape_text(target)}"
    site.same(before, after, f"numbers of elements of {shapes}")
    return result


def _settle_last(source: Sequence[Dim], result: list[Dim]) -> None:
    """A dim that all others leave no choice is what they leave; the simpler of both texts stays."""
    left, right = struck(source, result)
    if len(right) == 1 and isinstance(right[0], Expr):
        result[result.index(right[0])] = simpler(numel(left), right[0])


def _rest(site: Site, source: Sequence[Dim], others: Sequence[Dim]) -> Dim:
    total, known = product_without(source, others)
    if known == 0:
        return 0
    if isinstance(total, int) and isinstance(known, int) and total % known:
        site.fail(
            f"cannot reshape {shape_text(source)}: {numel(source)} elements do not divide"
            f" by {numel(others)}"
        )
    return floor_div(total, known)


def reshape(data: Array, shape: Array, allowzero: int = 0) -> Array:
    """The same elements in another shape (Reshape-25)."""
    sizes = [int(size) for size in shape]
    if not allowzero:
        sizes = [data.shape[axis] if size == 0 else size for axis, size in enumerate(sizes)]
    if min(sizes, default=0) < -1:
        raise ValueError(f"shape {sizes} has a size below -1")
    if -1 in sizes and 0 in sizes:
        sizes[sizes.index(-1)] = 0
    return data.reshape(sizes)


def _flatten_shape(site: Site) -> list[Result]:
    shape = site.shape(0)
    axis = site.attr("axis")
    axis += len(shape) if axis < 0 else 0
    return [(numel(shape[:axis]), numel(shape[axis:]))]


def flatten(data: Array, axis: int = 1) -> Array:
    """Rank 2: the dims before `axis`, and the others."""
    split = axis + data.ndim if axis < 0 else axis
    rows = int(np.prod(data.shape[:split]))
    return data.reshape(rows, int(np.prod(data.shape[split:])))


def _squeeze_shape(site: Site) -> list[Result]:
    shape = site.shape(0)
    if not site.has(1):
        if any(not isinstance(dim, int) for dim in shape):
            return [None]
        return [[dim for dim in shape if dim != 1]]
    axes = site.ints(1)
    if axes is None:
        return [None]
    dropped = site.axes(axes, len(shape))
    for axis in dropped:
        site.same(shape[axis], 1, f"axis {axis} is squeezed, so its size must be 1")
    return [[dim for axis, dim in enumerate(shape) if axis not in dropped]]


def _squeeze(data: Array, axes: Array | None = None) -> Array:
    return np.squeeze(data, None if axes is None else tuple(axes.ravel().tolist()))


def _unsqueeze_shape(site: Site) -> list[Result]:
    shape = list(site.shape(0))
    axes = site.ints(1)
    if axes is None:
        return [None]
    for axis in sorted(site.axes(axes, len(shape) + len(axes))):
        shape.insert(axis, 1)
    return [shape]


def _unsqueeze(data: Array, axes: Array) -> Array:
    return np.expand_dims(data, tuple(np.ravel(axes).tolist()))


# -- transpose, expand, tile ---------------------------------------------------------------


def _transpose_shape(site: Site) -> list[Result]:
    shape = site.shape(0)
    perm = site.attr("perm")
    order = range(len(shape))[::-1] if perm is None else site.axes(perm, len(shape))
    if len(order) != len(shape):
        site.fail(f"perm {list(order)} does not permute the axes of {shape_text(shape)}")
    return [[shape[axis] for axis in order]]


def _transpose(data: Array, perm: Sequence[int] | None = None) -> Array:
    return np.transpose(data, perm)


def _tile(data: Array, repeats: Array) -> Array:
    return np.tile(data, repeats.tolist())


def _expand_shape(site: Site) -> list[Result]:
    target = site.dims(1)
    if target is not None:
        return [site.broadcast(site.shape(0), target)]
    length = site.need_rank(1, 1)[0]
    return [site.open(max(length, site.rank(0))) if isinstance(length, int) else None]


def _expand(data: Array, shape: Array) -> Array:
    return np.broadcast_to(data, np.broadcast_shapes(data.shape, tuple(shape.tolist()))).copy()


def _tile_shape(site: Site) -> list[Result]:
    shape = site.shape(0)
    repeats = site.dims(1)
    if repeats is None:
        return [site.open(len(shape))]
    if len(repeats) != len(shape):
        site.fail(f"{len(repeats)} repeats are given for shape {shape_text(shape)}; one per axis")
    return [[dim * count for dim, count in zip(shape, repeats, strict=True)]]


# -- concat, split -------------------------------------------------------------------------


def _concat_shape(site: Site) -> list[Result]:
    shapes = [site.shape(index) for index in range(site.num_inputs)]
    rank = len(shapes[0])
    axis = site.axis(site.attr("axis"), rank)
    _bind_parts(site)
    result = list(shapes[0])
    for shape in shapes[1:]:
        if len(shape) != rank:
            site.fail(f"ranks differ: {shape_text(shapes[0])} and {shape_text(shape)}")
        for index, dim in enumerate(shape):
            if index == axis:
                result[axis] = result[axis] + dim
            else:
                result[index] = site.same(result[index], dim, f"sizes along axis {index} differ")
    return [result]


def _bind_parts(site: Site) -> None:
    """Partly known integer vectors, such as [batch, 3, ?], get symbols for the unknown parts."""
    indices = range(site.num_inputs)
    if any(site.known(index) is not None for index in indices):
        for index in indices:
            site.dims(index)


def concat(*inputs: Array, axis: int) -> Array:
    """The inputs one after the other along an axis."""
    return np.concatenate(inputs, axis)


def _split_sizes(site: Site, total: Dim) -> list[Dim]:
    if site.has(1):
        sizes = site.dims(1)
        return [] if sizes is None else list(sizes)
    count = site.attr("num_outputs") or site.num_outputs
    part = ceil_div(total, count)
    if part * count == total:
        return [part] * count
    starts = [dim_min(part * index, total) for index in range(count + 1)]
    return [dim_max(end - start, 0) for start, end in pairwise(starts)]


def _split_shape(site: Site) -> list[Result]:
    shape = site.shape(0)
    axis = site.axis(site.attr("axis"), len(shape))
    sizes = _split_sizes(site, shape[axis])
    if not sizes:
        sizes = [site.fresh(axis, output) for output in range(site.num_outputs)]
    if len(sizes) != site.num_outputs:
        site.fail(f"{len(sizes)} sizes for {site.num_outputs} outputs; give one size per output")
    total: Dim = 0
    for size in sizes:
        total = total + size
    if isinstance(total, int) or site.has(1):
        site.same(total, shape[axis], f"the sizes along axis {axis} must add up to its size")
    return [[*shape[:axis], size, *shape[axis + 1 :]] for size in sizes]


def split(
    data: Array,
    split: Array | None = None,
    *,
    axis: int = 0,
    num_outputs: int | None = None,
    count: int = 1,
) -> tuple[Array, ...]:
    """Pieces along an axis; the last one is smaller when sizes are not given (Split-18)."""
    total = data.shape[axis]
    if split is None:
        part = -(-total // (num_outputs or count))
        ends = [min(part * (index + 1), total) for index in range((num_outputs or count) - 1)]
    else:
        if int(np.sum(split)) != total or np.any(np.asarray(split) < 0):
            raise ValueError(f"sizes {np.asarray(split).tolist()} do not add up to {total}")
        ends = np.cumsum(split)[:-1].tolist()
    return tuple(np.split(data, ends, axis))


# -- blocks --------------------------------------------------------------------------------


def _depth_to_space_shape(site: Site) -> list[Result]:
    n, c, h, w = site.need_rank(0, 4)
    b = site.attr("blocksize")
    site.divides(b * b, c, f"channels for a blocksize of {b}")
    return [(n, c // (b * b), h * b, w * b)]


def _depth_to_space(x: Array, blocksize: int, mode: str) -> Array:
    n, c, h, w = x.shape
    b = blocksize
    if mode == "DCR":
        moved_ = x.reshape(n, b, b, c // (b * b), h, w).transpose(0, 3, 4, 1, 5, 2)
    else:
        moved_ = x.reshape(n, c // (b * b), b, b, h, w).transpose(0, 1, 4, 2, 5, 3)
    return moved_.reshape(n, c // (b * b), h * b, w * b)


def _space_to_depth_shape(site: Site) -> list[Result]:
    n, c, h, w = site.need_rank(0, 4)
    b = site.attr("blocksize")
    site.divides(b, h, f"height for a blocksize of {b}")
    site.divides(b, w, f"width for a blocksize of {b}")
    return [(n, c * b * b, h // b, w // b)]


def _space_to_depth(x: Array, blocksize: int, mode: str = "DCR") -> Array:
    n, c, h, w = x.shape
    b = blocksize
    order = (0, 3, 5, 1, 2, 4) if mode == "DCR" else (0, 1, 3, 5, 2, 4)
    blocks = x.reshape(n, c, h // b, b, w // b, b).transpose(order)
    return blocks.reshape(n, c * b * b, h // b, w // b)


def _dropout(
    data: Array,
    ratio: Array | None = None,
    training: Array | None = None,
    *,
    seed: int | None = None,
    count: int = 1,
) -> Any:
    mask = np.ones(data.shape, bool)
    if training is not None and bool(training):
        rate = 0.5 if ratio is None else float(ratio)
        mask = np.random.default_rng(seed).random(data.shape) >= rate
        data = data * mask / (1 - rate)
    return (data, mask) if count > 1 else data


def _row(name: str, inputs: str, infer: Any, meaning: Any, **options: Any) -> Op:
    return op(name, inputs, "output", infer, meaning, symbolic=moved(meaning), **options)


def _concat_dims(inputs: Sequence[Any], attrs: Any, dtype: Any) -> Array:
    return concat(*(np.asarray(item, object) for item in inputs), **attrs)


ROWS = (
    _row("Reshape", "data shape:i64", _reshape_shape, reshape, attrs={"allowzero": 0}),
    _row("Flatten", "data", _flatten_shape, flatten, attrs={"axis": 1}),
    _row("Squeeze", "data axes?:i64", _squeeze_shape, _squeeze),
    _row("Unsqueeze", "data axes:i64", _unsqueeze_shape, _unsqueeze),
    _row(
        "Transpose",
        "data",
        _transpose_shape,
        attrs={"perm": None},
        meaning=_transpose,
    ),
    _row("Expand", "data shape:i64", _expand_shape, _expand),
    _row("Tile", "data repeats:i64", _tile_shape, _tile),
    _row("Identity", "data:any", lambda site: [site.type(0)], lambda data: data),
    op(
        "Concat",
        "inputs*",
        "output",
        _concat_shape,
        concat,
        attrs={"axis": REQUIRED},
        symbolic=_concat_dims,
    ),
    op(
        "Split",
        "data split?:i64",
        "outputs*",
        _split_shape,
        split,
        counts_outputs=True,
        attrs={"axis": 0, "num_outputs": None},
        symbolic=moved(split),
    ),
    op(
        "DepthToSpace",
        "X",
        "Y",
        _depth_to_space_shape,
        _depth_to_space,
        attrs={"blocksize": REQUIRED, "mode": "DCR"},
    ),
    op(
        "SpaceToDepth",
        "X",
        "Y",
        _space_to_depth_shape,
        _space_to_depth,
        attrs={"blocksize": REQUIRED, "mode": "DCR"},
    ),
    op(
        "Dropout",
        "data ratio?:U training_mode?:bool",
        "output mask:bool",
        same,
        _dropout,
        attrs={"seed": None},
        counts_outputs=True,
        random=True,
    ),
)
