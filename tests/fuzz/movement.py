"""Steps that move elements: shapes, slices, gathers, scatters, padding, fills."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tests.fuzz.elementwise import PLAIN, some_type
from tests.fuzz.part import INTS, SIZES, Discard, Part
from tuili.ir import Value
from tuili.tensors import DType


def any_of(p: Part, rank: Callable[[int], bool] | None = None) -> Value:
    return p.pick(some_type(p, PLAIN), rank)


def reshape(p: Part) -> None:
    x = any_of(p)
    shape = _factored(p, p.of(x).size)
    if shape and p.chance(40) and 0 not in shape:
        shape[p.below(len(shape))] = -1
    p.node("Reshape", [x, p.ints(shape)], exact=True)


def _factored(p: Part, size: int) -> list[int]:
    if size == 0:
        return [-1]
    dims: list[int] = []
    while size > 1 and len(dims) < 4 and p.chance(80):
        options = [n for n in (2, 3, 4, 5, 7, 8) if size % n == 0]
        if not options:
            break
        dims.append(p.one(options))
        size //= dims[-1]
    return [*dims, size][:: -1 if p.chance(50) else 1]


def reshape_with_zeros(p: Part) -> None:
    x = any_of(p, lambda rank: rank >= 2)
    kept = 1 + p.below(p.of(x).ndim - 1)
    if not p.of(x).size:
        raise Discard  # what -1 stands for is open then
    p.node("Reshape", [x, p.ints([0] * kept + [-1])], exact=True)


def flatten(p: Part) -> None:
    x = any_of(p)
    rank = p.of(x).ndim
    p.node("Flatten", [x], {"axis": p.below(2 * rank + 1) - rank}, exact=True)


def squeeze(p: Part) -> None:
    x = any_of(p, lambda rank: rank > 0)
    ones = [axis for axis, dim in enumerate(p.of(x).shape) if dim == 1]
    if not ones:
        raise Discard
    if p.opened == 0 and p.chance(20):  # with open axes the rank would depend on the sizes
        p.node("Squeeze", [x], exact=True)
        return
    rank = p.of(x).ndim
    axes = [axis - rank if p.chance(30) else axis for axis in ones[: 1 + p.below(len(ones))]]
    p.node("Squeeze", [x, p.ints(axes, 0)], exact=True)


def unsqueeze(p: Part) -> None:
    x = any_of(p)
    rank = p.of(x).ndim
    count = 1 + p.below(2)
    axes = sorted({p.below(rank + count) for _ in range(count)})
    full = rank + len(axes)
    axes = [axis for axis in axes if axis < full]
    picked = [axis - full if p.chance(30) else axis for axis in axes]
    p.node("Unsqueeze", [x, p.ints(picked, 0)], exact=True)


def transpose(p: Part) -> None:
    x = any_of(p)
    axes = list(range(p.of(x).ndim))
    perm = [axes.pop(p.below(len(axes))) for _ in range(len(axes))]
    attrs = {} if p.chance(20) else {"perm": tuple(perm)}
    if attrs and not perm:
        raise Discard
    p.node("Transpose", [x], attrs, exact=True)


def expand(p: Part) -> None:
    x = any_of(p)
    target = [p.one(SIZES) if dim == 1 and p.chance(60) else dim for dim in p.of(x).shape]
    if p.chance(30):
        target = [1 + p.below(3), *target]
    elif target and p.chance(20):
        target = target[1:]
    asked = [1 if p.chance(20) else dim for dim in target]
    p.node("Expand", [x, p.ints(asked)], exact=True)


def tile(p: Part) -> None:
    x = any_of(p, lambda rank: rank > 0)
    p.node("Tile", [x, p.ints([1 + p.below(3) for _ in p.of(x).shape])], exact=True)


def concat(p: Part) -> None:
    x = any_of(p, lambda rank: rank > 0)
    axis = p.axis(p.of(x).ndim)
    parts = [x]
    for _ in range(p.below(3)):
        shape = list(p.of(x).shape)
        shape[axis] = p.one((1, 2, 3, 4, 0, 8) if p.chance(10) else (1, 2, 3, 4, 8))
        parts.append(x if p.chance(15) else p.leaf(p.dtype(x), shape))
    if p.chance(30):
        parts.reverse()
    p.node("Concat", parts, {"axis": axis}, exact=True)


def split(p: Part) -> None:
    x = any_of(p, lambda rank: rank > 0)
    axis = p.axis(p.of(x).ndim)
    size = p.of(x).shape[axis]
    count = 1 + p.below(3)
    if p.chance(50):
        cuts = sorted(p.below(size + 1) for _ in range(count - 1))
        sizes = [b - a for a, b in zip([0, *cuts], [*cuts, size], strict=True)]
        p.node("Split", [x, p.ints(sizes, 0)], {"axis": axis}, outputs=count, exact=True)
    else:
        each = -(-size // count)
        if each * (count - 1) >= size:
            raise Discard
        attrs = {"axis": axis, "num_outputs": count}
        p.node("Split", [x], attrs, outputs=count, exact=True)


def depth(p: Part) -> None:
    block = 2
    if p.chance(50):
        x = p.leaf(DType.F32, (1 + p.below(2), 4 * (1 + p.below(3)), 1 + p.below(3), 2))
        p.node("DepthToSpace", [x], {"blocksize": block, "mode": p.one(("DCR", "CRD"))}, exact=True)
    else:
        x = p.leaf(DType.F32, (1 + p.below(2), 1 + p.below(3), 2 * (1 + p.below(3)), 4))
        p.node("SpaceToDepth", [x], {"blocksize": block}, exact=True)


def dropout(p: Part) -> None:
    p.node("Dropout", [p.pick()], outputs=1 + p.below(2), exact=True)


def identity(p: Part) -> None:
    p.node("Identity", [any_of(p)], exact=True)


def cut(p: Part) -> None:
    x = any_of(p, lambda rank: rank > 0)
    rank = p.of(x).ndim
    axes = p.axes(rank, 1)
    starts, ends, steps = [], [], []
    for axis in axes:
        size = p.of(x).shape[axis]
        step = p.one((1, 1, 2, -1, -2, 3))
        low, high = sorted((p.below(size + 1), p.below(size + 1)))
        if step < 0:
            low, high = high, low - 1
        start, end = low, high
        if end < 0:
            end = -(1 << 40)
        elif p.chance(20) and step > 0:
            end = (1 << 31) - 1
        starts.append(start - size if p.chance(30) and size > 0 and start < size else start)
        ends.append(end)
        steps.append(step)
    inputs: list[Value | None] = [x, p.ints(starts), p.ints(ends)]
    if axes != list(range(rank))[: len(axes)] or len(axes) < rank or p.chance(50):
        inputs.append(p.ints(axes, 0))
    if len(inputs) == 4 and (any(step != 1 for step in steps) or p.chance(30)):
        inputs.append(p.ints(steps, 0))
    p.node("Slice", inputs, exact=True)


def pad(p: Part) -> None:
    x = p.pick(some_type(p, (DType.F32, DType.F64, DType.F16, *INTS, DType.BOOL)))
    mode = p.one(("constant", "constant", "edge", "reflect", "wrap"))
    shape = p.of(x).shape
    if mode != "constant" and 0 in shape:
        raise Discard
    pads = [[0, 0, 1, 2, 3][p.below(5)] for _ in range(2 * len(shape))]
    if mode == "constant" and p.chance(15):
        pads = [-1 if amount == 1 else amount for amount in pads]
    if mode in {"reflect", "wrap"}:
        pads = [min(amount, max(dim - 1, 0)) for amount, dim in zip(pads, shape * 2, strict=True)]
    inputs: list[Value | None] = [x, p.ints(pads)]
    if mode == "constant" and p.chance(50):
        inputs.append(p.given(np.array(1).astype(p.of(x).dtype)))
    p.node("Pad", inputs, {"mode": mode}, exact=True)


def trilu(p: Part) -> None:
    x = any_of(p, lambda rank: rank >= 2)
    inputs = [x, p.given(np.array(p.below(5) - 2, np.int64))] if p.chance(60) else [x]
    p.node("Trilu", inputs, {"upper": p.below(2)}, exact=True)


def center(p: Part) -> None:
    x = any_of(p, lambda rank: rank >= 1)
    axes = sorted({axis % p.of(x).ndim for axis in p.axes(p.of(x).ndim, 1)})
    sizes = [1 + p.below(6) for _ in axes]
    p.node("CenterCropPad", [x, p.ints(sizes, 0)], {"axes": tuple(axes)}, exact=True)


# -- by index ------------------------------------------------------------------------------


def indices(p: Part, shape: Any, size: int, dtype: DType | None = None) -> Value:
    """Indices into an axis, counted from either end."""
    if size == 0:
        raise Discard
    seed = p.below(1000)
    found = np.random.default_rng(seed).integers(-size if p.chance(50) else 0, size, shape)
    kind = dtype or p.one((DType.I64, DType.I32))
    return p.given(found.astype(kind.numpy), 60)


def gather(p: Part) -> None:
    x = any_of(p, lambda rank: rank > 0)
    axis = p.axis(p.of(x).ndim)
    at = indices(p, p.shape(0, 2), p.of(x).shape[axis])
    p.node("Gather", [x, at], {"axis": axis}, exact=True)


def gather_elements(p: Part) -> None:
    x = any_of(p, lambda rank: rank > 0)
    axis = p.axis(p.of(x).ndim)
    shape = [1 + p.below(dim) if dim else 0 for dim in p.of(x).shape]
    p.node(
        "GatherElements", [x, indices(p, shape, p.of(x).shape[axis])], {"axis": axis}, exact=True
    )


def gather_nd(p: Part) -> None:
    x = any_of(p, lambda rank: rank > 0)
    shape = p.of(x).shape
    batch = p.below(min(2, len(shape)))
    depth_ = 1 + p.below(len(shape) - batch)
    size = min(shape[batch : batch + depth_])
    at = indices(p, [*shape[:batch], 1 + p.below(4), depth_], size, DType.I64)
    p.node("GatherND", [x, at], {"batch_dims": batch}, exact=True)


def scatter_elements(p: Part) -> None:
    x = p.pick(some_type(p, (DType.F32, DType.F64, DType.I64, DType.I32)), lambda rank: rank > 0)
    axis = p.axis(p.of(x).ndim)
    shape = p.of(x).shape
    count = 1 + p.below(shape[axis]) if shape[axis] else 0
    reduction = p.one(("none", "add", "mul", "max", "min"))
    # Without a reduction two updates of one place have no order.
    places = np.moveaxis(
        np.argsort(np.random.default_rng(p.below(1000)).random(shape), axis=axis), axis, 0
    )[:count]
    at = p.given(np.moveaxis(places, 0, axis).astype(np.int64), 60)
    updates = p.leaf(p.dtype(x), p.of(at).shape)
    op = "ScatterElements"
    p.node(op, [x, at, updates], {"axis": axis, "reduction": reduction}, exact=True)


def scatter_nd(p: Part) -> None:
    x = p.pick(some_type(p, (DType.F32, DType.F64, DType.I64, DType.I32)), lambda rank: rank > 0)
    shape = p.of(x).shape
    depth_ = 1 + p.below(len(shape))
    total = int(np.prod(shape[:depth_]))
    if not total:
        raise Discard
    count = 1 + p.below(min(total, 6))
    flat = np.random.default_rng(p.below(1000)).permutation(total)[:count]
    at = np.stack(np.unravel_index(flat, shape[:depth_]), axis=-1).astype(np.int64)
    updates = p.leaf(p.dtype(x), (count, *shape[depth_:]))
    reduction = p.one(("none", "add", "mul", "max", "min"))
    p.node("ScatterND", [x, p.given(at, 60), updates], {"reduction": reduction}, exact=True)


# -- made --------------------------------------------------------------------------------


def shape_of(p: Part) -> None:
    x = any_of(p)
    rank = p.of(x).ndim
    attrs: dict[str, Any] = {}
    if p.chance(40):
        attrs["start"] = p.below(2 * rank + 1) - rank
    if p.chance(40):
        attrs["end"] = p.below(2 * rank + 1) - rank
    p.node(p.one(("Shape", "Size")) if not attrs else "Shape", [x], attrs, exact=True)


def shape_arithmetic(p: Part) -> None:
    """What exporters write for a reshape: dims taken out, put together again."""
    x = any_of(p, lambda rank: rank >= 2)
    if not p.of(x).size:
        raise Discard
    (dims,) = p.node("Shape", [x])
    (first,) = p.node("Gather", [dims, p.constant(np.array(0, np.int64))], {"axis": 0})
    (flat,) = p.node("Unsqueeze", [first, p.ints([0], 0)])
    (shape,) = p.node("Concat", [flat, p.ints([-1], 0)], {"axis": 0})
    p.node("Reshape", [x, shape], exact=True)


def filled(p: Part) -> None:
    dtype = p.one(PLAIN)
    value = np.ones(1, dtype.numpy)
    dims = p.ints(p.shape(0, 3))
    p.node("ConstantOfShape", [dims], {"value": value} if p.chance(70) else {}, exact=True)


def counted(p: Part) -> None:
    dtype = p.one((DType.I64, DType.I32, DType.F32, DType.F64, DType.I16))
    start, step = p.below(5) - 2, p.one((1, 2, -1, 3))
    numbers = (start, start + step * p.below(9), step)
    p.node("Range", [p.given(np.array(n).astype(dtype.numpy), 30) for n in numbers], exact=True)


def eye(p: Part) -> None:
    x = p.pick(rank=lambda rank: rank == 2)
    attrs = {"k": p.below(5) - 2, "dtype": p.one((DType.F32, DType.I64, DType.F64, DType.I32))}
    p.node("EyeLike", [x], attrs, exact=True)


def one_hot(p: Part) -> None:
    depth_ = 1 + p.below(5)
    at = indices(p, p.shape(0, 2), depth_)
    values = p.given(np.array([0, 1], np.float32), 30)
    rank = p.of(at).ndim
    depth_value = p.given(np.array(depth_, np.int64), 10)
    p.node("OneHot", [at, depth_value, values], {"axis": p.below(rank + 1)}, exact=True)


def non_zero(p: Part) -> None:
    p.node("NonZero", [p.pick((DType.F32, DType.BOOL, DType.I64), exact=True)], jumps=True)


def compress(p: Part) -> None:
    x = any_of(p, lambda rank: rank > 0)
    if p.chance(30):
        condition = p.leaf(DType.BOOL, (p.of(x).size,), constant=0)
        p.node("Compress", [x, condition], exact=True)
    else:
        axis = p.axis(p.of(x).ndim)
        condition = p.leaf(DType.BOOL, (p.of(x).shape[axis],), constant=0)
        p.node("Compress", [x, condition], {"axis": axis}, exact=True)


def unique(p: Part) -> None:
    x = p.pick((DType.F32, DType.I64), exact=True)
    attrs = {"axis": p.axis(p.of(x).ndim)} if p.chance(30) else {}
    p.node("Unique", [x], attrs, outputs=1 + p.below(4), jumps=True, exact=True)


def reverse_sequence(p: Part) -> None:
    x = p.pick(rank=lambda rank: rank >= 2)
    time = p.below(2)
    steps, batch = p.of(x).shape[time], p.of(x).shape[1 - time]
    if not steps:
        raise Discard
    lengths = p.given(np.array([1 + p.below(steps) for _ in range(batch)], np.int64), 50)
    attrs = {"time_axis": time, "batch_axis": 1 - time}
    p.node("ReverseSequence", [x, lengths], attrs, exact=True)


STEPS: dict[str, Callable[[Part], None]] = {
    "Reshape": reshape, "Reshape with zeros": reshape_with_zeros, "Flatten": flatten,
    "Squeeze": squeeze, "Unsqueeze": unsqueeze, "Transpose": transpose, "Expand": expand,
    "Tile": tile, "Concat": concat, "Split": split, "DepthToSpace": depth, "SpaceToDepth": depth,
    "Dropout": dropout, "Identity": identity, "Slice": cut, "Pad": pad, "Trilu": trilu,
    "CenterCropPad": center, "Gather": gather, "GatherElements": gather_elements,
    "GatherND": gather_nd, "ScatterElements": scatter_elements, "ScatterND": scatter_nd,
    "Shape": shape_of, "Size": shape_of, "shape arithmetic": shape_arithmetic,
    "ConstantOfShape": filled, "Range": counted, "EyeLike": eye, "OneHot": one_hot,
    "NonZero": non_zero, "Compress": compress, "Unique": unique,
    "ReverseSequence": reverse_sequence,
}  # fmt: skip
