"""Operators that read and write elements by index: Gather, Scatter and their kin."""

from __future__ import annotations

from typing import Any

import numpy as np

from tuili.ops.op import Op, Result, op
from tuili.ops.shapes import moved
from tuili.ops.site import Site
from tuili.tensors import Array


def _gather_shape(site: Site) -> list[Result]:
    shape = site.shape(0)
    axis = site.axis(site.attr("axis"), len(shape))
    if not shape:
        site.fail("the data has rank 0; expected rank 1 or more")
    _check_indices(site, axis)
    return [[*shape[:axis], *site.shape(1), *shape[axis + 1 :]]]


def _check_indices(site: Site, axis: int) -> None:
    indices = site.ints(1)
    size = site.shape(0)[axis]
    if not indices:
        return
    if not isinstance(size, int):
        reach = max(max(indices) + 1, -min(indices))
        site.at_least(size, reach, f"axis {axis} against the furthest index")
        return
    for index in indices:
        if not -size <= index < size:
            site.fail(f"index {index} is out of range for axis {axis} of size {size}")


def gather(data: Array, indices: Array, axis: int = 0) -> Array:
    """Slices of the data by index along an axis (Gather-13)."""
    return np.take(data, indices.astype(np.int64), axis)


def _nd_batch(site: Site) -> int:
    return site.attr("batch_dims")


def _gather_nd_shape(site: Site) -> list[Result]:
    data, indices = site.shape(0), site.shape(1)
    depth, batch = indices[-1], _nd_batch(site)
    if not isinstance(depth, int):
        return [None]
    if batch + depth > len(data):
        site.fail(f"indices address {depth} axes after {batch} batch axes; data has {len(data)}")
    site.same_shape(data[:batch], indices[:batch], "batch axes of data and indices")
    return [[*indices[:-1], *data[batch + depth :]]]


def _gather_nd(data: Array, indices: Array, batch_dims: int) -> Array:
    batch = indices.shape[:batch_dims]
    count = int(np.prod(batch))
    flat = data.reshape(count, *data.shape[batch_dims:])
    places = indices.reshape(count, *indices.shape[batch_dims:])
    rows = np.arange(count).reshape(-1, *[1] * (places.ndim - 2))
    picked = flat[(rows, *np.moveaxis(places, -1, 0))]
    return picked.reshape(*indices.shape[:-1], *data.shape[batch_dims + indices.shape[-1] :])


def _wrapped(indices: Array, size: int) -> Array:
    wrong = indices[(indices < -size) | (indices >= size)]
    if wrong.size:
        raise IndexError(f"index {wrong[0]} is out of range for an axis of size {size}")
    return np.where(indices < 0, indices + size, indices)


def _along(indices: Array, axis: int, size: int) -> tuple[Array, ...]:
    grid: list[Any] = list(np.indices(indices.shape, sparse=True))
    grid[axis] = _wrapped(indices, size)
    return tuple(grid)


def _check_places(site: Site, axis: int) -> None:
    """Indices of elements: of the rank of the data, and within it along all other axes."""
    data, indices = site.shape(0), site.shape(1)
    if len(indices) != len(data):
        site.fail(f"indices of rank {len(indices)} into data of rank {len(data)}; expected equal")
    for other, (size, count) in enumerate(zip(data, indices, strict=True)):
        if other != axis:
            site.at_least(size, count, f"axis {other} of the data against that of the indices")


def _gather_elements_shape(site: Site) -> list[Result]:
    _check_places(site, site.axis(site.attr("axis"), site.rank(0)))
    return [site.shape(1)]


def gather_elements(data: Array, indices: Array, axis: int = 0) -> Array:
    """One element for each index (GatherElements-13)."""
    return data[_along(indices, axis % data.ndim, data.shape[axis])]


def _scatter_elements_shape(site: Site) -> list[Result]:
    _check_places(site, site.axis(site.attr("axis"), site.rank(0)))
    site.same_shape(site.shape(1), site.shape(2), "shapes of indices and updates")
    return [site.shape(0)]


def _scatter_nd_shape(site: Site) -> list[Result]:
    data, indices, updates = site.shape(0), site.shape(1), site.shape(2)
    depth = indices[-1] if indices else 0
    if isinstance(depth, int):
        if not 0 < depth <= len(data):
            site.fail(f"indices address {depth} axes; expected 1 to {len(data)}, as the data has")
        wanted = (*indices[:-1], *data[depth:])
        site.same_shape(wanted, updates, "the shape that data and indices ask for, and of updates")
    return [data]


def _tensor_scatter_shape(site: Site) -> list[Result]:
    past, update = site.shape(0), site.shape(1)
    if len(past) != len(update):
        site.fail(f"an update of rank {len(update)} into rank {len(past)}; expected equal ranks")
    axis = site.axis(site.attr("axis"), len(past))
    if axis == 0:
        site.fail("axis 0 is the batch; expected another one")
    for other, (size, count) in enumerate(zip(past, update, strict=True)):
        if other == axis:
            site.at_least(size, count, f"axis {axis} of the past against that of the update")
        else:
            site.same(size, count, f"axis {other} of past and update")
    if site.has(2):
        site.same(site.need_rank(2, 1)[0], past[0], "one write index for each row of the batch")
    return [past]


def _combine(result: Any, places: Any, updates: Any, reduction: str) -> Array:
    match reduction:
        case "none":
            result[places] = updates
        case "add":
            np.add.at(result, places, updates)
        case "mul":
            np.multiply.at(result, places, updates)
        case "max":
            np.maximum.at(result, places, updates)
        case "min":
            np.minimum.at(result, places, updates)
        case _:
            expected = "none, add, mul, max or min"
            raise ValueError(f"unknown reduction {reduction!r}; expected {expected}")
    return result


def _in_wide(function: Any) -> Any:
    """ufunc.at does not know 16-bit brain floats; f32 does their sums."""

    def meaning(data: Array, indices: Array, updates: Array, **attrs: Any) -> Array:
        if data.dtype.name != "bfloat16":
            return function(data.copy(), indices, updates, **attrs)
        wide = function(data.astype(np.float32), indices, updates.astype(np.float32), **attrs)
        return wide.astype(data.dtype)

    return meaning


def _need_shape(updates: Array, wanted: tuple[int, ...]) -> None:
    """NumPy would broadcast."""
    if updates.shape != wanted:
        raise ValueError(f"updates of shape {updates.shape}; expected {wanted}")


@_in_wide
def _scatter_elements(
    data: Array, indices: Array, updates: Array, axis: int, reduction: str
) -> Array:
    _need_shape(updates, indices.shape)
    places = _along(indices, axis % data.ndim, data.shape[axis])
    return _combine(data, places, updates, reduction)


@_in_wide
def _scatter_nd(data: Array, indices: Array, updates: Any, reduction: str) -> Array:
    _need_shape(updates, (*indices.shape[:-1], *data.shape[indices.shape[-1] :]))
    places = tuple(np.moveaxis(indices, -1, 0))
    return _combine(data, places, updates, reduction)


def _tensor_scatter(
    past: Array, update: Array, write_indices: Array | None = None, *, axis: int, mode: str
) -> Array:
    axis %= past.ndim
    result = past.copy()
    size, count = past.shape[axis], update.shape[axis]
    starts = np.zeros(past.shape[0], int) if write_indices is None else write_indices
    for row, start in enumerate(starts):
        places = int(start) + np.arange(count)
        places = places % size if mode == "circular" else places
        target = np.moveaxis(result[row], axis - 1, 0)
        target[places] = np.moveaxis(update[row], axis - 1, 0)
    return result


def _scatter(name: str, rule: Any, meaning: Any, **attrs: Any) -> Op:
    return op(
        name,
        "data indices:I updates",
        "output",
        rule,
        meaning,
        attrs={**attrs, "reduction": "none"},
        allow={"T": "any", "I": "index"},
    )


_INDEX = {"T": "any", "I": "index"}

ROWS = (
    op(
        "Gather",
        "data indices:I",
        "output",
        _gather_shape,
        gather,
        attrs={"axis": 0},
        allow=_INDEX,
        symbolic=moved(gather),
    ),
    op(
        "GatherElements",
        "data indices:I",
        "output",
        _gather_elements_shape,
        gather_elements,
        attrs={"axis": 0},
        allow=_INDEX,
        symbolic=moved(gather_elements),
    ),
    op(
        "GatherND",
        "data indices:i64",
        "output",
        _gather_nd_shape,
        _gather_nd,
        attrs={"batch_dims": 0},
        symbolic=moved(_gather_nd),
    ),
    _scatter("ScatterElements", _scatter_elements_shape, _scatter_elements, axis=0),
    _scatter("Scatter", _scatter_elements_shape, _scatter_elements, axis=0),
    _scatter("ScatterND", _scatter_nd_shape, _scatter_nd),
    op(
        "TensorScatter",
        "past update write_indices?:i64",
        "output",
        _tensor_scatter_shape,
        _tensor_scatter,
        attrs={"axis": -2, "mode": "linear"},
    ),
)
