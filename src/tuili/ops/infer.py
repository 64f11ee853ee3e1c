"""Inference: the type of every value and the known contents of small integer tensors."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from tuili.errors import InternalError, InvalidArgument
from tuili.ir import Graph, Node, TensorType, Value, ValueType
from tuili.ops.bounds import bounds, has_element
from tuili.ops.contents import (
    MOST_ELEMENTS,
    Contents,
    as_dims,
    concrete,
    symbols_in,
    symbols_of_attributes,
)
from tuili.ops.op import Op, Result
from tuili.ops.requirements import Requirement
from tuili.ops.site import Site, UnknownRank
from tuili.ops.table import attributes, lookup
from tuili.ops.verify import check, slot_at
from tuili.tensors import Array, Dim, DType, Expr, numel


def infer(graph: Graph, *, overrides: Mapping[str, Sequence[Dim]] | None = None) -> Contents:
    """Fill the type of every value, nested graphs too; returns what is known of contents.

    `overrides` gives graph inputs other shapes. Raises InvalidModel for a node that breaks the
    rules of its operator.
    """
    contents = Contents(graph.metadata, _symbols(graph))
    inputs = {value.name: value for value in graph.inputs}
    for name, shape in (overrides or {}).items():
        if name not in inputs:
            raise InvalidArgument(f"no input is called {name!r}; inputs: {', '.join(inputs)}")
        inputs[name].type = TensorType(inputs[name].dtype, tuple(shape))
    infer_graph(graph, contents)
    contents.settle(_symbols(graph))
    return contents


def _symbols(graph: Graph) -> Iterator[str]:
    for value in graph.inputs:
        if isinstance(value.type, TensorType):
            yield from symbols_in(value.type.shape or ())
    yield from symbols_of_attributes(graph)


def infer_graph(graph: Graph, contents: Contents) -> None:
    """Infer the nodes of one graph in order."""
    for node in graph.nodes:
        infer_node(node, contents)


def _infer_nested(graph: Graph, contents: Contents) -> None:
    contents.depth += 1
    try:
        infer_graph(graph, contents)
    finally:
        contents.depth -= 1


def infer_node(node: Node, contents: Contents) -> None:
    """Fill the types of a node's outputs and record their contents where they are known."""
    op = lookup(node.op)
    bound = check(node, op)
    contents.forget(node)
    site = Site(node, op, contents, _infer_nested)
    try:
        results = op.infer(site)
    except UnknownRank:
        results = []
    if results and len(results) < len(node.outputs):
        raise InternalError(f"{node.label}: its shape rule gives {len(results)} outputs")
    for index, value in enumerate(node.outputs):
        result = results[index] if results else None
        value.type = _typed(node, index, result, bound)
        _require_sizes(node, value, contents)
    epilogue = node.attrs.get("epilogue")
    if isinstance(epilogue, Graph):
        _infer_epilogue(node, op, epilogue, contents)
    else:
        _propagate(node, op, contents)


def _require_sizes(node: Node, value: Value, contents: Contents) -> None:
    """Sizes that follow from elements of tensors may be negative; the run refuses them."""
    if not isinstance(value.type, TensorType):
        return
    for dim in value.type.shape or ():
        if isinstance(dim, Expr) and has_element(dim) and bounds(dim)[0] < 0:
            what = f"a size of {value.name!r} is negative"
            contents.require(node, Requirement(node.label, dim, 0, what, or_more=True))


def _typed(node: Node, index: int, result: Result, bound: Mapping[str, DType]) -> ValueType | None:
    before = node.outputs[index].type
    if result is not None and not isinstance(result, Sequence):
        return before if _is_narrower(before, result) else result
    dtype = _output_dtype(node, index, bound)
    if dtype is None:
        return before
    if result is None:
        return before if isinstance(before, TensorType) else TensorType(dtype, None)
    layout = before.layout if isinstance(before, TensorType) else ""
    return TensorType(dtype, tuple(result), layout)


def _is_narrower(before: ValueType | None, result: ValueType) -> bool:
    """Whether what a file declares says more than the rule: a rank where the rule has none."""
    if not isinstance(before, TensorType) or not isinstance(result, TensorType):
        return False
    return result.shape is None and before.dtype is result.dtype


def _output_dtype(node: Node, index: int, bound: Mapping[str, DType]) -> DType | None:
    slot = slot_at(lookup(node.op).outputs, index)
    if slot.type.startswith("@"):
        found = attributes(node)[slot.type[1:]]
        return found if isinstance(found, DType) else None
    if slot.type[0].isupper():
        return bound.get(slot.type)
    return None if slot.type == "any" else DType(slot.type)


def _infer_epilogue(node: Node, op: Op, body: Graph, contents: Contents) -> None:
    """An epilogue works on elements: its body sees rank 0 and may change the element type."""
    operands: list[Value] = [node.output]
    operands += [value for value in node.inputs[op.own_slots :] if value is not None]
    if len(operands) != len(body.inputs):
        raise InternalError(
            f"{node.label}: its epilogue takes {len(body.inputs)} inputs, {len(operands)} are given"
        )
    for inner, outer in zip(body.inputs, operands, strict=True):
        inner.type = TensorType(outer.dtype, ())
    infer_graph(body, contents)
    node.output.type = replace(node.output.tensor, dtype=body.outputs[0].dtype)


# -- contents ------------------------------------------------------------------------------


def _propagate(node: Node, op: Op, contents: Contents) -> None:
    """Compute the elements of small outputs from the known elements of the inputs."""
    if op.random or node.graphs() or not any(_is_small(value) for value in node.outputs):
        return
    elements: list[Array | None] = []
    for value in node.inputs:
        known = contents.get(value)
        if known is None and value is not None:
            return
        elements.append(known)
    if elements or op.symbolic is not None:
        _record(node, _evaluate(node, op, elements), contents)


def _is_small(value: Value) -> bool:
    type_ = value.type
    if not isinstance(type_, TensorType) or type_.shape is None:
        return False
    size = numel(type_.shape)
    kind = type_.dtype
    countable = kind.is_int or kind.is_float or kind is DType.BOOL
    # A shape such as [0, N] has a known number of elements, and yet an open axis.
    static = all(isinstance(dim, int) for dim in type_.shape)
    return static and isinstance(size, int) and size <= MOST_ELEMENTS and countable


def _evaluate(node: Node, op: Op, elements: Sequence[Array | None]) -> Any:
    arrays: list[Array | None] = []
    symbolic = False
    for value, known in zip(node.inputs, elements, strict=True):
        if value is None or known is None:
            arrays.append(None)
            continue
        exact = value.constant if value.constant is not None else concrete(known, value.dtype)
        arrays.append(known if exact is None else exact)
        symbolic |= exact is None
    attrs = attributes(node)
    try:
        with np.errstate(all="ignore"):
            if symbolic:
                dtype = _dtype_of(node)
                return None if op.symbolic is None else op.symbolic(arrays, attrs, dtype)
            if op.counts_outputs:
                attrs["count"] = len(node.outputs)
            return op.meaning(*arrays, **attrs)
    except (ArithmeticError, IndexError, TypeError, ValueError):
        # Contents are a bonus: what cannot be computed from dims is computed at run time.
        return None


def _dtype_of(node: Node) -> DType:
    types = (value.type for value in node.inputs if value is not None)
    return next((type_.dtype for type_ in types if isinstance(type_, TensorType)), DType.I64)


def _record(node: Node, results: Any, contents: Contents) -> None:
    if results is None:
        return
    listed = results if isinstance(results, tuple) else (results,)
    for value, result in zip(node.outputs, listed, strict=False):
        if result is None or not _is_small(value):
            continue
        array = np.asarray(result)
        found = array if array.dtype == object else as_dims(array.astype(value.dtype.numpy))
        if found is not None and all(item is not None for item in found.ravel()):
            contents.set(value, found.reshape(_static(value)))


def _static(value: Value) -> tuple[int, ...]:
    return tuple(dim for dim in value.shape if isinstance(dim, int))
