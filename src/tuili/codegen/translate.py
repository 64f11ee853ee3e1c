"""From a graph to a program: every node by its kernel family, in order."""

from __future__ import annotations

from collections.abc import Iterable

from tuili.codegen.families import choose
from tuili.codegen.kernel import Context, size_of
from tuili.codegen.kernels.copy import copy_call
from tuili.codegen.targets import Target
from tuili.ir import Graph, Value
from tuili.lower.memory import lifetimes
from tuili.lower.program import (
    Branch,
    Buffer,
    Place,
    Program,
    Step,
    View,
)
from tuili.ops.contents import Contents
from tuili.tensors import Dim, TensorSpec, symbols_of

# Operators that only look at memory in another shape; see `Context.alias`.
VIEW_OPS = frozenset({"Reshape", "Squeeze", "Unsqueeze", "Flatten", "Identity"})


def translate(graph: Graph, contents: Contents, target: Target, *, exact: bool = False) -> Program:
    """The program of a typed graph whose layouts are assigned; raises UnsupportedOperator."""
    program = Program(graph.name, _symbols(graph))
    ctx = Context(program, target, contents, exact)
    program.inputs = [_spec(value) for value in graph.inputs]
    program.outputs = [_spec(value) for value in graph.outputs]
    _bind_inputs(graph, ctx)
    _bind_outputs(graph, ctx)
    ctx.emit_graph = lambda nested: _emit_nodes(nested, ctx)
    _emit_nodes(graph, ctx)
    _copy_outputs(graph, ctx)
    program.steps = _live_steps(program.steps, set(program.output_buffers))
    _drop_unused_buffers(program)
    return program


def _emit_nodes(graph: Graph, ctx: Context) -> None:
    for node in graph.nodes:
        choose(node, ctx).emit(node, ctx)


def _spec(value: Value) -> TensorSpec:
    return TensorSpec(value.name, value.dtype, value.shape)


def _symbols(graph: Graph) -> tuple[str, ...]:
    dims: Iterable[Dim] = (dim for value in graph.inputs for dim in value.shape)
    names = dict.fromkeys(name for dim in dims for name in sorted(symbols_of(dim)))
    return tuple(names)


def _bind_inputs(graph: Graph, ctx: Context) -> None:
    for index, value in enumerate(graph.inputs):
        buffer = Buffer(value.name, value.dtype, size_of(value.tensor), Place.INPUT, index)
        ctx.program.input_buffers.append(buffer)
        ctx.views[value] = View(buffer)


def _bind_outputs(graph: Graph, ctx: Context) -> None:
    """Give outputs their own memory, and what they only look at too, so that nothing is copied."""
    for index, value in enumerate(graph.outputs):
        buffer = Buffer(value.name, value.dtype, size_of(value.tensor), Place.OUTPUT, index)
        ctx.program.output_buffers.append(buffer)
        if value.producer is None or value in ctx.views or value.layout:
            continue
        ctx.views[value] = View(buffer)
        source = value
        while source.producer is not None and source.producer.op in VIEW_OPS:
            source = source.producer.required(0)
            if source.producer is None or source in ctx.views or source.layout:
                break
            ctx.views[source] = View(buffer)


def _copy_outputs(graph: Graph, ctx: Context) -> None:
    """Copy outputs that are inputs, constants or other outputs as well."""
    for value, buffer in zip(graph.outputs, ctx.program.output_buffers, strict=True):
        view = ctx.view(value)
        if view.buffer is not buffer:
            ctx.program.steps.append(
                copy_call(f"output {buffer.name!r}", view, View(buffer), buffer.size)
            )


def _live_steps(steps: list[Step], needed: set[Buffer]) -> list[Step]:
    """The steps whose results reach an output; `needed` grows by what they read.

    A buffer that is written in parts stays needed: earlier steps may write its other parts.
    """
    kept: list[Step] = []
    for step in reversed(steps):
        if isinstance(step, Branch):
            sides = (_live_steps(step.then, needed), _live_steps(step.otherwise, needed))
            if any(sides):
                kept.append(Branch(step.label, step.condition, *sides))
                needed.add(step.condition.buffer)
        elif any(buffer in needed for buffer in step.writes):
            kept.append(step)
            needed.update(step.reads)
    return kept[::-1]


def _drop_unused_buffers(program: Program) -> None:
    touched = set(lifetimes(program))
    program.buffers = [buffer for buffer in program.buffers if buffer in touched]
