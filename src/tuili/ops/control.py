"""Control flow: If, Loop, Scan; their nested graphs arrive in the meanings as functions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tuili.errors import InvalidModel
from tuili.ir import Graph, SequenceType, TensorType, ValueType
from tuili.limits import Limits
from tuili.ops.bounds import at_least
from tuili.ops.contents import Contents, symbols_in
from tuili.ops.op import REQUIRED, Result, op
from tuili.ops.site import Site
from tuili.tensors import Array, Dim, DType, Shape

# -- types ---------------------------------------------------------------------------------


def join(site: Site, output: int, left: ValueType | None, right: ValueType | None) -> Any:
    """The type that holds both: differing dims get a symbol, differing ranks stay open."""
    if left == right or right is None:
        return left
    if left is None:
        return right
    if isinstance(left, SequenceType) and isinstance(right, SequenceType):
        return SequenceType(_join_elements(left.element, right.element))
    if not isinstance(left, TensorType) or not isinstance(right, TensorType):
        return left
    if left.dtype is not right.dtype:
        site.fail(f"output {output} is {left} on one path and {right} on the other")
    if left.shape is None or right.shape is None or len(left.shape) != len(right.shape):
        return TensorType(left.dtype, None)
    pairs = enumerate(zip(left.shape, right.shape, strict=True))
    shape = tuple(a if a == b else site.fresh(axis, output) for axis, (a, b) in pairs)
    return TensorType(left.dtype, shape)


def _join_elements(left: ValueType, right: ValueType) -> ValueType:
    if left == right:
        return left
    if isinstance(left, TensorType):
        return TensorType(left.dtype, None)
    return left


def _outside(site: Site, output: int, body: Graph, type_: ValueType | None, skip: int = 0) -> Any:
    """A body's type as seen outside: symbols that the body made vary, so they are replaced."""
    if not isinstance(type_, TensorType) or type_.shape is None:
        return type_
    inner = _made_inside(site, body)
    shape = tuple(
        site.fresh(axis + skip, output) if symbols_in([dim]) & inner else dim
        for axis, dim in enumerate(type_.shape)
    )
    return TensorType(type_.dtype, shape)


def _made_inside(site: Site, body: Graph) -> set[str]:
    names = {value.name for value in body.inputs}
    names |= {value.name for node in body.walk() for value in node.outputs}
    sources = site.contents.sources.items()
    return {symbol for symbol, origin in sources if origin.rstrip("0123456789]")[:-1] in names}


# -- If ------------------------------------------------------------------------------------


def _if_shape(site: Site) -> list[Result]:
    branches: list[Graph] = [site.attr("then_branch"), site.attr("else_branch")]
    taken = site.number(0)
    if taken is not None:
        # The other branch may not even fit the shapes that decided against it.
        branch = branches[0 if taken else 1]
        return [*_branch(site, branch)]
    types = [_attempt(site, branch) for branch in branches]
    squeezes = [_operators(branch) for branch in branches] == [["Squeeze"], []]
    if squeezes and branches[0] not in site.contents.impossible:
        _bar_unsqueezed(site, branches[1], types)
    return [join(site, i, *pair) for i, pair in enumerate(zip(*types, strict=True))]


def _operators(branch: Graph) -> list[str]:
    return [node.op for node in branch.nodes if node.op != "Identity"]


def _bar_unsqueezed(site: Site, branch: Graph, types: list[list[ValueType | None]]) -> None:
    """`x.squeeze(axis)` of PyTorch is an If whose rank depends on a size.

    What follows is written for the squeezed rank; a run with another size is told so.
    """
    site.contents.impossible[branch] = (
        "a size is not 1 where the model squeezes its axis; the rank of the result would differ."
        " Compile for these shapes, so that the rank is known"
    )
    types[1] = [None] * site.num_outputs


def _attempt(site: Site, branch: Graph) -> list[ValueType | None]:
    """The types of a branch; of one that cannot run for these shapes, nothing.

    Such a branch may never be taken (a model for two sampling rates, given one input shape), so
    it is no error to have it; `contents.impossible` tells why it cannot run.
    """
    try:
        return _branch(site, branch)
    except InvalidModel as error:
        site.contents.impossible[branch] = str(error)
        if all(graph in site.contents.impossible for graph in site.node.graphs()):
            raise
        return [None] * site.num_outputs


def _branch(site: Site, branch: Graph) -> list[ValueType | None]:
    found = site.body(branch, ())
    if len(found) != site.num_outputs:
        site.fail(f"{branch.name!r} returns {len(found)} values for {site.num_outputs} outputs")
    return [_outside(site, i, branch, type_) for i, type_ in enumerate(found)]


def _if(cond: Array, *, then_branch: Callable[[], list[Any]], else_branch: Any) -> tuple[Any, ...]:
    return tuple(then_branch() if bool(np.ravel(cond)[0]) else else_branch())


# -- Loop ----------------------------------------------------------------------------------


def _fixed_states(
    site: Site,
    body: Graph,
    initial: list[ValueType | None],
    leading: list[ValueType | None],
    trailing: Sequence[ValueType | None] = (),
    skip: int = 0,
) -> tuple[list[ValueType | None], list[ValueType | None]]:
    """Types of loop states that hold in every round, and the types that the body returns."""
    states = initial
    for _ in range(4):
        found = site.body(body, [*leading, *states, *trailing])
        returned = found[skip : skip + len(states)]
        joined = [join(site, i, *pair) for i, pair in enumerate(zip(states, returned, strict=True))]
        if joined == states:
            break
        states = joined
    else:
        states = [TensorType(s.dtype, None) if isinstance(s, TensorType) else s for s in states]
        found = site.body(body, [*leading, *states, *trailing])
    return states, found


def _loop_shape(site: Site) -> list[Result]:
    body: Graph = site.attr("body")
    initial = [site.value(index).type for index in range(2, site.num_inputs)]
    leading: list[ValueType | None] = [TensorType(DType.I64, ()), TensorType(DType.BOOL, ())]
    states, found = _fixed_states(site, body, initial, leading, skip=1)
    if len(found) - 1 != site.num_outputs:
        site.fail(f"its body returns {len(found)} values; expected {site.num_outputs + 1}")
    results: list[Any] = [_outside(site, i, body, state) for i, state in enumerate(states)]
    rounds = _rounds(site, body)
    for output in range(len(states), site.num_outputs):
        element = _outside(site, output, body, found[1 + output], skip=1)
        count = site.fresh(0, output) if rounds is None else rounds
        results.append(_stacked(site, output, 0, count, element))
    return results


def _rounds(site: Site, body: Graph) -> Dim | None:
    """The number of rounds where no condition can end them before."""
    limit = site.dims(0) if site.has(0) else None
    begins = not site.has(1) or site.contents.dims(site.value(1)) == (1,)
    always = begins and goes_on(body, site.contents)
    return at_least(limit[0], 0) if limit is not None and always else None


def goes_on(body: Graph, contents: Contents) -> bool:
    """Whether every round of a loop lets the next one come."""
    flag = body.outputs[0]
    while flag.producer is not None and flag.producer.op == "Identity":
        flag = flag.producer.required(0)
    return flag is body.inputs[1] or contents.dims(flag) == (1,)


def _stacked(site: Site, output: int, axis: int, count: Dim, element: Any) -> Any:
    if not isinstance(element, TensorType) or element.shape is None:
        return TensorType(element.dtype, None) if isinstance(element, TensorType) else None
    rank = len(element.shape) + 1
    axis = site.axis(axis, rank)
    shape: Shape = (*element.shape[:axis], count, *element.shape[axis:])
    return TensorType(element.dtype, shape)


def _loop(
    M: Array | None = None, cond: Array | None = None, *initial: Any, body: Any
) -> tuple[Any, ...]:
    limit = None if M is None else int(np.ravel(M)[0])
    going = True if cond is None else bool(np.ravel(cond)[0])
    states, scans = list(initial), [[] for _ in range(body.num_outputs - 1 - len(initial))]
    count, most = 0, Limits.from_environment().loop_rounds
    while going and (limit is None or count < limit):
        if 0 < most <= count:
            raise InvalidModel(
                f"it has run {count} rounds without an end; give it a limit M, or allow more "
                "(limit loop_rounds)"
            )
        flag, *results = body(np.array(count, np.int64), np.array(going), *states)
        going = bool(np.ravel(flag)[0])
        states = results[: len(states)]
        for scan, item in zip(scans, results[len(states) :], strict=True):
            scan.append(item)
        count += 1
    first = 1 + len(states)
    stacked = [_stack(scan, body, first + index) for index, scan in enumerate(scans)]
    return (*states, *stacked)


def _stack(items: list[Any], body: Any, output: int, axis: int = 0) -> Any:
    return np.stack(items, axis) if items else body.empty(output, axis)


# -- Scan ----------------------------------------------------------------------------------


def _scan_shape(site: Site) -> list[Result]:
    body: Graph = site.attr("body")
    count = site.attr("num_scan_inputs")
    split = site.num_inputs - count
    length: Dim | None = None
    slices: list[ValueType | None] = []
    for index in range(split, site.num_inputs):
        if site.tensor(index).shape is None:
            slices.append(TensorType(site.dtype(index), None))
            continue
        shape = list(site.shape(index))
        axis = site.axis(_axis_of(site.attr("scan_input_axes"), index - split), len(shape))
        size = shape.pop(axis)
        length = size if length is None else site.same(length, size, "lengths of the scan inputs")
        slices.append(TensorType(site.dtype(index), tuple(shape)))
    initial = [site.value(index).type for index in range(split)]
    states, found = _fixed_states(site, body, initial, [], slices)
    results: list[Any] = [_outside(site, i, body, state) for i, state in enumerate(states)]
    for output in range(split, site.num_outputs):
        axis = _axis_of(site.attr("scan_output_axes"), output - split)
        element = _outside(site, output, body, found[output], skip=1)
        rounds = site.fresh(axis, output) if length is None else length
        results.append(_stacked(site, output, axis, rounds, element))
    return results


def _axis_of(axes: Sequence[int] | None, index: int) -> int:
    return axes[index] if axes else 0


def _scan(
    *inputs: Any,
    body: Any,
    num_scan_inputs: int,
    scan_input_axes: Any,
    scan_input_directions: Any,
    scan_output_axes: Any,
    scan_output_directions: Any,
) -> tuple[Any, ...]:
    split = len(inputs) - num_scan_inputs
    states = list(inputs[:split])
    moved: list[Array] = []
    for index, array in enumerate(inputs[split:]):
        rows = np.moveaxis(array, _axis_of(scan_input_axes, index), 0)
        moved.append(rows[::-1] if _axis_of(scan_input_directions, index) else rows)
    scans: list[list[Any]] = [[] for _ in range(body.num_outputs - split)]
    for rows in zip(*moved, strict=True):
        results = body(*states, *rows)
        states = results[:split]
        for scan, item in zip(scans, results[split:], strict=True):
            scan.append(item)
    stacked: list[Any] = []
    for index, scan in enumerate(scans):
        items = scan[::-1] if _axis_of(scan_output_directions, index) else scan
        stacked.append(_stack(items, body, split + index, _axis_of(scan_output_axes, index)))
    return (*states, *stacked)


ROWS = (
    op(
        "If",
        "cond:bool",
        "outputs*:any",
        _if_shape,
        _if,
        attrs={"then_branch": REQUIRED, "else_branch": REQUIRED},
    ),
    op(
        "Loop",
        "M?:i64 cond?:bool v_initial*:any",
        "outputs*:any",
        _loop_shape,
        _loop,
        attrs={"body": REQUIRED},
    ),
    op(
        "Scan",
        "inputs*:any",
        "outputs*:any",
        _scan_shape,
        _scan,
        attrs={
            "body": REQUIRED,
            "num_scan_inputs": REQUIRED,
            "scan_input_axes": None,
            "scan_input_directions": None,
            "scan_output_axes": None,
            "scan_output_directions": None,
        },
    ),
)
