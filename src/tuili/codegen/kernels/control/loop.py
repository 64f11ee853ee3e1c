"""Loop and Scan: the body's steps in the same run function, round after round.

A state lives in the memory of the node's output: it starts as a copy of the initial value, the
body reads it there, and what the body returns is copied over it after the round. A stacked output
is filled in place, one round's part at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from tuili.codegen.kernel import Context, KernelBuilder, size_of
from tuili.codegen.kernels.movement.copy import copy_call
from tuili.codegen.kernels.movement.slices import copy_part
from tuili.ir import Graph, Node, TensorType, Value
from tuili.lower.program import Place, Repeat, Room, SetSymbol, View
from tuili.tensors import Dim, DType, Sym


@dataclass(frozen=True, slots=True)
class State:
    """A value that each round passes to the next."""

    initial: Value
    inside: Value  # the body's input
    returned: Value  # the body's output
    outside: Value  # the node's output


@dataclass(frozen=True, slots=True)
class Stack:
    """An output made of one part per round, along `axis`."""

    part: Value
    outside: Value
    axis: int = 0
    backward: bool = False


@dataclass(slots=True)
class Rounds:
    """One loop while it is written."""

    node: Node
    body: Graph
    states: list[State]
    stacks: list[Stack]
    limit: View | Dim | None
    begin: Callable[[Rounds, Context], None]  # what the body needs before its nodes
    going: View | None = None
    flag: Value | None = None  # the body's output that decides about the next round
    round: str = ""

    @property
    def label(self) -> str:
        """The node, for comments and errors."""
        return self.node.label


def emit_loop(node: Node, ctx: Context) -> None:
    """Rounds up to a limit, while a condition holds."""
    body = _body(node)
    initial = [node.required(index) for index in range(2, len(node.inputs))]
    count = len(initial)
    states = zip(initial, body.inputs[2:], body.outputs[1 : 1 + count], node.outputs, strict=False)
    stacks = zip(body.outputs[1 + count :], node.outputs[count:], strict=True)
    limit = node.input(0)
    rounds = Rounds(
        node,
        body,
        [State(*each) for each in states],
        [Stack(*each) for each in stacks],
        None if limit is None else ctx.view(limit),
        _begin_loop,
    )
    first, flag = node.input(1), body.outputs[0]
    if not (_always(first, ctx) and _always(flag, ctx)):
        rounds.going = View(ctx.new_buffer(f"{node.output.name}.going", DType.BOOL, 1))
        rounds.flag = flag
    _emit(rounds, first, ctx)


def _begin_loop(rounds: Rounds, ctx: Context) -> None:
    """The number of the round, and the condition, which is true in every round."""
    counter, condition = rounds.body.inputs[:2]
    k = KernelBuilder(ctx, rounds.node, "set_number")
    k.write("y", counter)
    k.dim("number", Sym(rounds.round))
    k.body("y[0] = number;")
    k.emit(grid=1)
    ctx.views[condition] = View(ctx.add_weight(condition.name, np.array(True)))


def emit_scan(node: Node, ctx: Context) -> None:
    """One round per part of the scan inputs."""
    body = _body(node)
    scanned = int(str(node.attrs["num_scan_inputs"]))
    count = len(node.inputs) - scanned
    inputs = [node.required(index) for index in range(len(node.inputs))]
    states = zip(inputs[:count], body.inputs, body.outputs, node.outputs, strict=False)
    stacks = zip(body.outputs[count:], node.outputs[count:], strict=True)
    parts = [
        Stack(part, value, _item(node, "scan_input_axes", i) % len(value.shape),
              bool(_item(node, "scan_input_directions", i)))
        for i, (part, value) in enumerate(zip(body.inputs[count:], inputs[count:], strict=True))
    ]  # fmt: skip

    def begin(rounds: Rounds, ctx: Context) -> None:
        for part in parts:
            _copy(rounds, part, ctx, into=False)

    rounds = Rounds(
        node,
        body,
        [State(*each) for each in states],
        [
            Stack(part, value, _item(node, "scan_output_axes", i) % len(value.shape),
                  bool(_item(node, "scan_output_directions", i)))
            for i, (part, value) in enumerate(stacks)
        ],
        parts[0].outside.shape[parts[0].axis],
        begin,
    )  # fmt: skip
    _emit(rounds, None, ctx)


def supports(node: Node, ctx: Context) -> bool:
    """Whether all values between rounds are tensors of numbers of known rank."""
    body = _body(node)
    values = (*body.inputs, *body.outputs, *node.outputs, *node.inputs)
    if not all(value is None or _is_plain(value) for value in values):
        return False
    # A part whose size is found in the first round cannot be placed along another axis before.
    outputs = node.outputs[len(body.inputs) - int(str(node.attrs.get("num_scan_inputs", 0))) :]
    return node.op != "Scan" or all(
        not _item(node, "scan_output_axes", index) or not ctx.own_symbols(value)
        for index, value in enumerate(outputs)
    )


def _is_plain(value: Value) -> bool:
    type_ = value.type
    known = isinstance(type_, TensorType) and type_.shape is not None
    return known and not value.layout and value.dtype is not DType.STR


def _body(node: Node) -> Graph:
    body = node.attrs["body"]
    assert isinstance(body, Graph)
    return body


def _item(node: Node, name: str, index: int) -> int:
    numbers = node.attrs.get(name)
    return int(str(numbers[index])) if isinstance(numbers, Sequence) and numbers else 0


def _always(value: Value | None, ctx: Context) -> bool:
    """Whether a condition is known to hold."""
    known = None if value is None else ctx.contents.dims(value)
    return value is None or known == (1,)


# -- the parts of a loop -------------------------------------------------------------------------


def _emit(rounds: Rounds, first: Value | None, ctx: Context) -> None:
    rounds.round = ctx.new_round()
    enter = ctx.steps_of(lambda: _enter(rounds, first, ctx))
    body = ctx.steps_of(lambda: _round(rounds, ctx))
    carry = _carry(rounds, ctx)
    commit = ctx.steps_of(lambda: _commit(rounds, ctx))
    ctx.program.steps.append(
        Repeat(rounds.label, rounds.round, rounds.limit, rounds.going, enter, body, carry, commit)
    )


def _enter(rounds: Rounds, first: Value | None, ctx: Context) -> None:
    add = ctx.program.steps.append
    for state in rounds.states:
        for symbol, axis in ctx.own_symbols(state.outside):
            add(SetSymbol(symbol, state.initial.shape[axis]))
    for stack in rounds.stacks:
        for symbol, _ in ctx.own_symbols(stack.outside):
            add(SetSymbol(symbol, 0))
    for state in rounds.states:
        source, target = ctx.view(state.initial), ctx.view(state.outside)
        add(copy_call(rounds.label, source, target, size_of(state.outside.tensor)))
    for stack in rounds.stacks:
        if _is_late(ctx.view(stack.outside), ctx):
            add(Room(ctx.view(stack.outside).buffer, size_of(stack.outside.tensor)))
    if rounds.going is not None:
        true = View(ctx.add_weight("true", np.array(True)))
        add(copy_call(rounds.label, true if first is None else ctx.view(first), rounds.going, 1))


def _is_late(view: View, ctx: Context) -> bool:
    return view.buffer.place is Place.HEAP or ctx.program.is_late_output(view.buffer)


def _round(rounds: Rounds, ctx: Context) -> None:
    for state in rounds.states:
        ctx.views[state.inside] = ctx.view(state.outside)
    rounds.begin(rounds, ctx)
    ctx.emit_graph(rounds.body)
    for stack in rounds.stacks:
        _stack(rounds, stack, ctx)
    _set_apart(rounds, ctx)


def _stack(rounds: Rounds, stack: Stack, ctx: Context) -> None:
    """Put the part of this round where it belongs, in memory that grows where it must."""
    own = ctx.own_symbols(stack.outside)
    growing = any(axis == stack.axis for _, axis in own)
    for symbol, axis in own:
        if axis != stack.axis:
            _check_same(rounds, stack, symbol, axis, ctx)
    if own:
        size = size_of(stack.part.tensor)
        length = Sym(rounds.round) + 1 if growing else stack.outside.shape[stack.axis]
        ctx.program.steps.append(Room(ctx.view(stack.outside).buffer, length * size))
    _copy(rounds, stack, ctx, into=True)


def _check_same(rounds: Rounds, stack: Stack, symbol: str, axis: int, ctx: Context) -> None:
    """Parts of an output have one shape; `symbol` is what the round before had."""
    k = KernelBuilder(ctx, rounds.node, "same_size")
    k.write("y", stack.outside, "uint8_t")  # named, so that the step counts as used
    k.dims("number before now", (Sym(rounds.round), Sym(symbol), _inner(stack, axis)))
    fault = k.fault(f"the parts of {stack.outside.name!r} differ in shape; one shape is expected")
    k.body(f"(void)y;\nif (number > 0 && before != now) {fault}")
    k.emit(grid=1)


def _inner(stack: Stack, axis: int) -> Dim:
    """The size of a part along an axis of the output."""
    return stack.part.shape[axis - (axis > stack.axis)]


def _copy(rounds: Rounds, stack: Stack, ctx: Context, *, into: bool) -> None:
    """Copy the part of this round into the whole, or out of it."""
    length, number = stack.outside.shape[stack.axis], Sym(rounds.round)
    at = length - 1 - number if stack.backward else number
    views = ctx.view(stack.part), ctx.view(stack.outside)
    step = copy_part(rounds.label, *views, stack.part.tensor, stack.axis, length, at, into=into)
    ctx.program.steps.append(step)


def _set_apart(rounds: Rounds, ctx: Context) -> None:
    """Copy what lies in another state's memory, which the commit overwrites."""
    places = {ctx.view(state.outside).buffer for state in rounds.states}
    returned = [(state.returned, ctx.view(state.outside)) for state in rounds.states]
    for value, target in returned:
        view = ctx.view(value)
        if view.buffer in places and view != target:
            size = size_of(value.tensor)
            apart = View(ctx.new_buffer(f"{value.name}.apart", value.dtype, size))
            ctx.program.steps.append(copy_call(rounds.label, view, apart, size))
            ctx.views[value] = apart


def _carry(rounds: Rounds, ctx: Context) -> tuple[tuple[str, Dim], ...]:
    """The dims of the next round, in those of this one."""
    carry: list[tuple[str, Dim]] = [
        (symbol, state.returned.shape[axis])
        for state in rounds.states
        for symbol, axis in ctx.own_symbols(state.outside)
    ]
    for stack in rounds.stacks:
        for symbol, axis in ctx.own_symbols(stack.outside):
            counts = axis == stack.axis
            carry.append((symbol, Sym(rounds.round) + 1 if counts else _inner(stack, axis)))
    return tuple(carry)


def _commit(rounds: Rounds, ctx: Context) -> None:
    add = ctx.program.steps.append
    for state in rounds.states:
        source, target = ctx.view(state.returned), ctx.view(state.outside)
        size = size_of(state.outside.tensor)
        if source == target:
            continue
        if _is_late(target, ctx):
            add(Room(target.buffer, size))
        add(copy_call(rounds.label, source, target, size))
    if rounds.going is not None and rounds.flag is not None:
        add(copy_call(rounds.label, ctx.view(rounds.flag), rounds.going, 1))
