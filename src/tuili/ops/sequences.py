"""Sequences and optionals: lists of values, and values that may be absent."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tuili.ir import Graph, OptionalType, SequenceType, TensorType, ValueType
from tuili.ops.op import REQUIRED, Result, op
from tuili.ops.shapes import scalar
from tuili.ops.site import Site
from tuili.tensors import Array, Dim, DType


def _element(site: Site, index: int = 0) -> ValueType:
    found = site.type(index)
    if isinstance(found, OptionalType):
        found = found.element
    if not isinstance(found, SequenceType):
        site.fail(f"input {index} has type {found}; expected a sequence")
    return found.element


def _loose(left: ValueType, right: ValueType) -> ValueType:
    if left == right or not isinstance(left, TensorType) or not isinstance(right, TensorType):
        return left
    return TensorType(left.dtype, None)


def _construct_shape(site: Site) -> list[Result]:
    types = [site.type(index) for index in range(site.num_inputs)]
    element = types[0]
    for each in types[1:]:
        element = _loose(element, each)
    return [SequenceType(element)]


def _insert_shape(site: Site) -> list[Result]:
    inserted = site.type(1)
    element = _element(site)
    known = not isinstance(element, TensorType) or element.shape is not None
    return [SequenceType(_loose(element, inserted) if known else element)]


def _position(position: Array | None, default: int) -> int:
    return default if position is None else int(np.ravel(position)[0])


def _insert(items: list[Any], item: Any, position: Array | None = None) -> list[Any]:
    result = list(items)
    result.insert(_position(position, len(items)), item)
    return result


def _erase(items: list[Any], position: Array | None = None) -> list[Any]:
    result = list(items)
    del result[_position(position, -1)]
    return result


def _split_to_sequence_shape(site: Site) -> list[Result]:
    if site.tensor(0).shape is None:
        return [SequenceType(TensorType(site.dtype(0), None))]
    shape: list[Dim] = list(site.shape(0))
    axis = site.axis(site.attr("axis"), len(shape))
    single = site.has(1) and site.tensor(1).shape == () and site.dims(1) == (1,)
    if not site.has(1) or (single and not site.attr("keepdims")):
        shape[axis] = 1
        if not site.attr("keepdims"):
            del shape[axis]
        return [SequenceType(TensorType(site.dtype(0), tuple(shape)))]
    return [SequenceType(TensorType(site.dtype(0), None))]


def _split_to_sequence(
    data: Array, split: Array | None = None, *, axis: int, keepdims: int
) -> list[Array]:
    size = data.shape[axis]
    # PyTorch writes `unbind` as pieces of 1 without their axis; onnxruntime takes it so too.
    single = split is not None and split.ndim == 0 and int(split) == 1
    if split is None or (single and not keepdims):
        pieces = np.split(data, size, axis)
        return pieces if keepdims else [np.squeeze(piece, axis) for piece in pieces]
    if split.ndim == 0:
        ends = list(range(int(split), size, int(split)))
    else:
        ends = np.cumsum(split)[:-1].tolist()
    return list(np.split(data, ends, axis))


def _concat_shape(site: Site) -> list[Result]:
    element = _element(site)
    if not isinstance(element, TensorType) or element.shape is None:
        dtype = element.dtype if isinstance(element, TensorType) else DType.F32
        return [TensorType(dtype, None)]
    shape = list(element.shape)
    axis = site.attr("axis")
    if site.attr("new_axis"):
        shape.insert(site.axis(axis, len(shape) + 1), site.fresh(axis % (len(shape) + 1)))
    else:
        axis = site.axis(axis, len(shape))
        shape[axis] = site.fresh(axis)
    return [TensorType(element.dtype, tuple(shape))]


def _concat(items: Sequence[Array], axis: int, new_axis: int) -> Array:
    return np.stack(items, axis) if new_axis else np.concatenate(items, axis)


def _map_shape(site: Site) -> list[Result]:
    body: Graph = site.attr("body")
    inputs: list[ValueType | None] = [_element(site)]
    for index in range(1, site.num_inputs):
        found = site.type(index)
        inputs.append(found.element if isinstance(found, SequenceType) else found)
    results: list[Result] = []
    for found in site.body(body, inputs):
        element = found if found is not None else TensorType(DType.F32, None)
        results.append(SequenceType(element))
    return results


def _map(items: list[Any], *others: Any, body: Any) -> tuple[list[Any], ...]:
    rows = [
        body(item, *(each[i] if isinstance(each, list) else each for each in others))
        for i, item in enumerate(items)
    ]
    if not rows:
        return tuple([] for _ in range(body.num_outputs))
    return tuple(list(column) for column in zip(*rows, strict=True))


# -- optionals -----------------------------------------------------------------------------


def _optional_shape(site: Site) -> list[Result]:
    if site.has(0):
        return [OptionalType(site.type(0))]
    before = site.node.output.type
    return [before if before is not None else OptionalType(TensorType(DType.F32, None))]


def _get_shape(site: Site) -> list[Result]:
    found = site.type(0)
    return [found.element if isinstance(found, OptionalType) else found]


def _get(item: Any) -> Any:
    if item is None:
        raise ValueError("the optional is empty; test it with OptionalHasElement first")
    return item


_POSITION = "index"

ROWS = (
    op("SequenceConstruct", "inputs*:any", "seq:any", _construct_shape, lambda *items: list(items)),
    op(
        "SequenceEmpty",
        "",
        "seq:any",
        attrs={"dtype": None},
        meaning=lambda dtype: [],
        infer=lambda site: [SequenceType(TensorType(site.attr("dtype") or DType.F32, None))],
    ),
    op(
        "SequenceAt",
        "seq:any position:I",
        "item:any",
        lambda site: [_element(site)],
        lambda items, position: items[int(position)],
        allow={"I": _POSITION},
    ),
    op(
        "SequenceInsert",
        "seq:any item:any position?:I",
        "seq:any",
        _insert_shape,
        _insert,
        allow={"I": _POSITION},
    ),
    op(
        "SequenceErase",
        "seq:any position?:I",
        "seq:any",
        lambda site: [site.type(0)],
        _erase,
        allow={"I": _POSITION},
    ),
    op(
        "SequenceLength",
        "seq:any",
        "length:i64",
        scalar,
        lambda items: np.array(len(items), np.int64),
    ),
    op(
        "SplitToSequence",
        "input split?:I",
        "seq:any",
        _split_to_sequence_shape,
        _split_to_sequence,
        attrs={"axis": 0, "keepdims": 1},
        allow={"T": "any", "I": _POSITION},
    ),
    op(
        "ConcatFromSequence",
        "seq:any",
        "result:any",
        _concat_shape,
        _concat,
        attrs={"axis": REQUIRED, "new_axis": 0},
    ),
    op(
        "SequenceMap",
        "seq:any inputs*:any",
        "outputs*:any",
        _map_shape,
        _map,
        attrs={"body": REQUIRED},
    ),
    op(
        "Optional",
        "input?:any",
        "output:any",
        _optional_shape,
        lambda item=None, type=None: item,  # noqa: A006
        attrs={"type": None},
    ),
    op("OptionalGetElement", "input:any", "output:any", _get_shape, _get),
    op(
        "OptionalHasElement",
        "input?:any",
        "output:bool",
        scalar,
        lambda item=None: np.array(item is not None),
    ),
)
