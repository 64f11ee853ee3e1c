"""Layouts: how requests of different shapes lie in one batch, and how its outputs are told apart.

Without a layout only requests of one shape are joined, row after row. A layout lets others join:

- *Ragged*: an input is packed, all elements of all requests one after the other, and further
  inputs tell the model where each begins (Triton's `allow_ragged_batch` and `batch_input`).
- *Padded*: an open dim, such as the length of a text, is filled up to the next of a few buckets,
  and outputs that have it are cropped again; the number of rows may be filled up likewise.

Both work in place on the requests' arrays, whose concatenation along the first axis is the batch,
so whatever runs batches need not know of them.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol, TypeVar

import numpy as np

from tuili.server.protocol.messages import Array


class Laid(Protocol):
    """What a layout needs of a request."""

    rows: int
    arrays: dict[str, Array]
    plain: dict[str, Array] | None  # the arrays as they came


Item = TypeVar("Item", bound=Laid)


@dataclass(frozen=True, slots=True)
class BatchInput:
    """An input made by the server that describes the requests of a batch; `kind` is Triton's."""

    name: str
    kind: str
    source: str
    dtype: np.dtype


@dataclass(frozen=True, slots=True)
class Padding:
    """Which axis of which input is padded with what, and which axis of which output is cropped."""

    buckets: tuple[int, ...]
    inputs: Mapping[str, int]
    outputs: Mapping[str, int] = field(default_factory=dict[str, int])
    values: Mapping[str, float] = field(default_factory=dict[str, float])


@dataclass(frozen=True, slots=True)
class Layout:
    """The layout of one model's batches."""

    ragged: frozenset[str] = frozenset()
    batch_inputs: tuple[BatchInput, ...] = ()
    # Outputs whose elements belong to the requests as those of a ragged input do.
    scattered: Mapping[str, str] = field(default_factory=dict[str, str])
    padding: Padding | None = None
    row_buckets: tuple[int, ...] = ()

    def lane(self, arrays: Mapping[str, Array]) -> object:
        """Requests with the same lane may share a batch: all have the same optional inputs."""
        return tuple(
            sorted(
                (name, () if name in self.ragged else self._lane_dims(name, array.shape[1:]))
                for name, array in arrays.items()
            )
        )

    def prepare(self, batch: Sequence[Laid]) -> int:
        """Lay out a batch; returns its number of rows, filling included."""
        for item in batch:
            if item.plain is None:
                item.plain = item.arrays
            item.arrays = {name: self._laid(name, array) for name, array in item.plain.items()}
        for wanted in self.batch_inputs:
            sources = [plain_of(item)[wanted.source] for item in batch]
            rows = [item.rows for item in batch]
            for item, part in zip(batch, _KINDS[wanted.kind](sources, rows), strict=True):
                item.arrays[wanted.name] = part.astype(wanted.dtype)
        return self._fill_rows(batch)

    def filled(self, rows: int) -> int:
        """How many rows the model is given for `rows` of requests."""
        return _bucket(rows, self.row_buckets)

    def divide(
        self, batch: Sequence[Laid], outputs: Mapping[str, Array]
    ) -> Iterator[dict[str, Array]]:
        """The outputs of each request of a laid-out batch."""
        row = 0
        offsets = dict.fromkeys(self.scattered, 0)
        for item in batch:
            mine: dict[str, Array] = {}
            for name, array in outputs.items():
                source = self.scattered.get(name)
                if source is None:
                    mine[name] = self._cropped(name, array[row : row + item.rows], item)
                    continue
                shape = plain_of(item)[source].shape
                count = int(np.prod(shape))
                at = offsets[name]
                mine[name] = array.reshape(-1)[at : at + count].reshape(shape)
                offsets[name] = at + count
            row += item.rows
            yield mine

    def elements_of(self, output: str, batch: Sequence[Laid]) -> int:
        """How many elements a scattered output must have for a batch."""
        source = self.scattered[output]
        return sum(plain_of(item)[source].size for item in batch)

    def splits_by_rows(self, output: str) -> bool:
        """Whether an output has one row per row of the batch."""
        return output not in self.scattered

    def _lane_dims(self, name: str, dims: tuple[int, ...]) -> tuple[int, ...]:
        padding = self.padding
        if padding is None or name not in padding.inputs:
            return dims
        at = padding.inputs[name] - 1
        return (*dims[:at], _bucket(dims[at], padding.buckets), *dims[at + 1 :])

    def _laid(self, name: str, array: Array) -> Array:
        if name in self.ragged:
            return array.reshape(-1)
        padding = self.padding
        if padding is None or name not in padding.inputs:
            return array
        axis = padding.inputs[name]
        size = _bucket(array.shape[axis], padding.buckets)
        if size == array.shape[axis]:
            return array
        shape = (*array.shape[:axis], size, *array.shape[axis + 1 :])
        empty = b"" if array.dtype == object else padding.values.get(name, 0)
        filled = np.full(shape, empty, array.dtype)
        filled[(*(slice(None),) * axis, slice(array.shape[axis]))] = array
        return filled

    def _fill_rows(self, batch: Sequence[Laid]) -> int:
        rows = sum(item.rows for item in batch)
        wanted = self.filled(rows)
        if wanted > rows:
            last = batch[-1]
            last.arrays = {
                name: np.concatenate([array, np.repeat(array[-1:], wanted - rows, axis=0)])
                for name, array in last.arrays.items()
            }
        return wanted

    def _cropped(self, name: str, array: Array, item: Laid) -> Array:
        padding = self.padding
        if padding is None or name not in padding.outputs:
            return array
        plain = plain_of(item)
        sizes = (plain[name].shape[axis] for name, axis in padding.inputs.items() if name in plain)
        size = next(sizes, None)  # optional inputs may be left out, even all of them
        return array[(*(slice(None),) * padding.outputs[name], slice(size))]


def plain_of(item: Laid) -> dict[str, Array]:
    """The arrays of a request as they came."""
    return item.arrays if item.plain is None else item.plain


def _bucket(size: int, buckets: Sequence[int]) -> int:
    """The smallest bucket that holds `size`; sizes above all buckets stay as they are."""
    at = bisect_left(buckets, size)
    return buckets[at] if at < len(buckets) else size


# Each gives one part per request; their concatenation is the input. As Triton's documentation of
# ragged batching has it: counts are per request, item shapes per row.
def _element_counts(sources: Sequence[Array], _: Sequence[int]) -> list[Array]:
    return [np.array([source.size]) for source in sources]


def _accumulated(sources: Sequence[Array], _: Sequence[int]) -> list[Array]:
    return [*np.cumsum([source.size for source in sources]).reshape(-1, 1)]


def _accumulated_with_zero(sources: Sequence[Array], rows: Sequence[int]) -> list[Array]:
    first, *others = _accumulated(sources, rows)
    return [np.concatenate([[0], first]), *others]


def _max_as_shape(sources: Sequence[Array], _: Sequence[int]) -> list[Array]:
    most = max(source.size for source in sources)
    return [np.zeros(most), *(np.zeros(0) for _ in sources[1:])]


def _item_shapes(sources: Sequence[Array], rows: Sequence[int]) -> list[Array]:
    return [np.tile(s.shape[1:], (n, 1)) for s, n in zip(sources, rows, strict=True)]


def _item_shapes_flat(sources: Sequence[Array], rows: Sequence[int]) -> list[Array]:
    return [np.tile(s.shape[1:], n) for s, n in zip(sources, rows, strict=True)]


_KINDS: Final[dict[str, Callable[[Sequence[Array], Sequence[int]], list[Array]]]] = {
    "BATCH_ELEMENT_COUNT": _element_counts,
    "BATCH_ACCUMULATED_ELEMENT_COUNT": _accumulated,
    "BATCH_ACCUMULATED_ELEMENT_COUNT_WITH_ZERO": _accumulated_with_zero,
    "BATCH_MAX_ELEMENT_COUNT_AS_SHAPE": _max_as_shape,
    "BATCH_ITEM_SHAPE": _item_shapes,
    "BATCH_ITEM_SHAPE_FLATTEN": _item_shapes_flat,
}
