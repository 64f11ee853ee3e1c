"""From a graph to a program: every node by its kernel family, in order."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from tuili.codegen.families import choose
from tuili.codegen.kernel import Context, memory_of
from tuili.codegen.kernels.control.host import (
    can_run_on_host,
    emit_constant,
    emit_on_host,
    meets_objects,
)
from tuili.codegen.kernels.movement.copy import copy_call
from tuili.codegen.targets import Target
from tuili.errors import InvalidModel, Unsupported, UnsupportedOperator
from tuili.ir import Graph, MapType, Node, TensorType, Value, reads
from tuili.lower.choice import Pick, by_cost
from tuili.lower.image_blocks import gather_blocks
from tuili.lower.memory import lifetimes
from tuili.lower.program import (
    Branch,
    Buffer,
    Call,
    Demand,
    HostCall,
    Place,
    Program,
    ReadSymbol,
    Repeat,
    Step,
    View,
    all_steps,
    found_by,
    touched,
)
from tuili.ops.contents import Contents
from tuili.ops.requirements import Requirement
from tuili.tensors import Dim, TensorSpec, symbols_of

# Operators whose kernels find out dims themselves.
FINDS_DIMS = frozenset({"If", "Loop", "Scan", "Compress", "NonMaxSuppression", "NonZero", "Range"})

# Operators that only look at memory in another shape; see `Context.alias`.
VIEW_OPS = frozenset({"Reshape", "Squeeze", "Unsqueeze", "Flatten", "Identity"})


def translate(
    graph: Graph,
    contents: Contents,
    target: Target,
    *,
    exact: bool = False,
    pick: Pick = by_cost,
    bf16: bool = False,
) -> Program:
    """The program of a typed graph whose layouts are assigned; raises UnsupportedOperator."""
    bound = _symbols(graph)
    late = [name for name in contents.sources if name not in bound]
    program = Program(graph.name, (*bound, *late), len(bound))
    ctx = Context(program, target, contents, exact, pick, bf16)
    sources = Sources(contents)
    for each in contents.requirements:
        if program.depends_on_data(each.left) or program.depends_on_data(each.right):
            sources.demands.setdefault(each.label, []).append(each)
    program.inputs = [_spec(value) for value in graph.inputs]
    program.outputs = [_spec(value) for value in graph.outputs]
    _bind_inputs(graph, ctx)
    _bind_outputs(graph, ctx)
    for value in graph.inputs:
        _read_symbols(value, sources, ctx)
    ctx.emit_graph = lambda nested: _emit_body(nested, sources, ctx)
    _emit_nodes(graph, sources, ctx)
    _copy_outputs(graph, ctx)
    program.steps = _live_steps(program.steps, set(program.output_buffers))
    _drop_unused_buffers(program)
    gather_blocks(program)
    return program


class Sources:
    """Which data-dependent symbols come from which values."""

    def __init__(self, contents: Contents) -> None:
        self.axes: dict[str, list[str]] = {}  # value name -> symbols of its axes
        self.elements: dict[str, list[tuple[str, int]]] = {}  # value name -> symbol, element
        self.demands: dict[str, list[Requirement]] = {}  # node -> what it asks of late sizes
        for symbol, origin in contents.sources.items():
            if origin.endswith("]"):
                name, _, element = origin[:-1].rpartition("[")
                self.elements.setdefault(name, []).append((symbol, int(element)))
            else:
                self.axes.setdefault(origin.rpartition("#")[0], []).append(symbol)

    def found_by(self, node: Node) -> tuple[str, ...]:
        """The symbols that stand for axes of the node's outputs."""
        return tuple(s for value in node.outputs for s in self.axes.get(value.name, ()))


def _emit_nodes(graph: Graph, sources: Sources, ctx: Context) -> None:
    for node in graph.nodes:
        later = _demand(sources.demands.pop(node.label, []), ctx)
        # In a nested graph all sizes are there, but for those that the node itself finds.
        own = {*sources.found_by(node)}
        inner = [*ctx.contents.nested.get(node, ())]
        early = [each for each in inner if not own & _needed(each)]
        _ask(early, ctx)
        _emit(node, sources, ctx)
        _demand(later, ctx)
        _ask([each for each in inner if each not in early], ctx)
        for value in node.outputs:
            _read_symbols(value, sources, ctx)


def _demand(asked: list[Requirement], ctx: Context) -> list[Requirement]:
    """Check what can be checked here; the rest, whose sizes are not found yet."""
    if not asked:
        return []
    steps = ctx.program.steps
    found = {*ctx.program.bound, *(symbol for step in steps for symbol in _found(step))}
    ready = [each for each in asked if _needed(each) <= found]
    _ask(ready, ctx)
    return [each for each in asked if each not in ready]


def _needed(asked: Requirement) -> set[str]:
    return symbols_of(asked.left) | symbols_of(asked.right)


def _ask(asked: Sequence[Requirement], ctx: Context) -> None:
    if asked:
        ctx.program.steps.append(Demand(tuple(asked)))


def _found(step: Step) -> tuple[str, ...]:
    return step.symbols if isinstance(step, HostCall) else found_by(step)


def _emit_body(graph: Graph, sources: Sources, ctx: Context) -> None:
    for value in graph.inputs:
        _read_symbols(value, sources, ctx)
    _emit_nodes(graph, sources, ctx)


def _emit(node: Node, sources: Sources, ctx: Context) -> None:
    """By a kernel family, else by the host."""
    symbols = sources.found_by(node)
    before, hosted = len(ctx.program.steps), len(ctx.program.host)
    try:
        if symbols and node.op not in FINDS_DIMS:
            raise UnsupportedOperator(f"{node.label}: its shape depends on data")
        if meets_objects(node):
            raise UnsupportedOperator(f"{node.label}: takes or gives {_object_types(node)}")
        choose(node, ctx).emit(node, ctx)
    except (Unsupported, UnsupportedOperator) as error:
        del ctx.program.steps[before:], ctx.program.host[hosted:]
        if not can_run_on_host(node):
            raise error
        why = str(error).removeprefix(f"{node.label}: ")
        emit_on_host(node, symbols, why, ctx)


def _read_symbols(value: Value, sources: Sources, ctx: Context) -> None:
    """After the value is there, some of its elements become dims."""
    for symbol, element in sources.elements.get(value.name, ()):
        ctx.program.steps.append(ReadSymbol(symbol, ctx.view(value), element))


def _object_types(node: Node) -> str:
    found = (str(value.type) for value in (*reads(node), *node.outputs) if value.is_object)
    return ", ".join(dict.fromkeys(found))


def _spec(value: Value) -> TensorSpec:
    type_ = value.type
    if isinstance(type_, TensorType) and type_.shape is not None:
        return TensorSpec(value.name, type_.dtype, type_.shape)
    while not isinstance(type_, TensorType):
        if type_ is None:
            raise InvalidModel(
                f"the element type of {value.name!r} is not known, as the rank of what it is made "
                "of is not; declare the shapes of the inputs, open sizes by name"
            )
        type_ = type_.value if isinstance(type_, MapType) else type_.element
    return TensorSpec(value.name, type_.dtype, (), str(value.type))


def _symbols(graph: Graph) -> tuple[str, ...]:
    shaped = (value for value in graph.inputs if not _spec(value).type)
    dims: Iterable[Dim] = (dim for value in shaped for dim in value.shape)
    names = dict.fromkeys(name for dim in dims for name in sorted(symbols_of(dim)))
    return tuple(names)


def _bind_inputs(graph: Graph, ctx: Context) -> None:
    for index, value in enumerate(graph.inputs):
        buffer = Buffer(value.name, *memory_of(value), Place.INPUT, index)
        ctx.program.input_buffers.append(buffer)
        ctx.views[value] = View(buffer)


def _bind_outputs(graph: Graph, ctx: Context) -> None:
    """Give outputs their own memory, and what they only look at too, so that nothing is copied."""
    for index, value in enumerate(graph.outputs):
        buffer = Buffer(value.name, *memory_of(value), Place.OUTPUT, index)
        ctx.program.output_buffers.append(buffer)
        if value.producer is None or value in ctx.views or (not value.is_object and value.layout):
            continue
        ctx.views[value] = View(buffer)
        if value.is_object:
            continue
        if ctx.program.is_late_output(buffer):
            continue  # it is made once its shape is known, which may be after what it looks at
        source = value
        while source.producer is not None and source.producer.op in VIEW_OPS:
            source = source.producer.required(0)
            if source.producer is None or source in ctx.views or source.layout:
                break
            ctx.views[source] = View(buffer)


def _copy_outputs(graph: Graph, ctx: Context) -> None:
    """Copy outputs that are inputs, constants or other outputs as well."""
    for value, buffer in zip(graph.outputs, ctx.program.output_buffers, strict=True):
        if value.is_constant and value.is_object and value not in ctx.views:
            emit_constant(value, ctx)
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
                kept.append(Branch(step.label, step.condition, *sides, step.symbols))
                needed.add(step.condition.buffer)
        elif isinstance(step, Repeat):
            kept.append(_live_rounds(step, needed))
        elif isinstance(step, Call):
            if any(buffer in needed for buffer in step.writes):
                kept.append(step)
                needed.update(step.reads)
        else:
            # Steps that find dims stay: sizes may depend on them.
            kept.append(step)
            needed.update(touched(step))
    return kept[::-1]


def _live_rounds(step: Repeat, needed: set[Buffer]) -> Repeat:
    """A loop with the steps that reach an output, or another round."""
    needed.update(step.control)
    for nested in all_steps(step.commit):
        needed.update(touched(nested))
    body = _live_steps(step.body, needed)
    return replace(step, body=body, enter=_live_steps(step.enter, needed))


def _drop_unused_buffers(program: Program) -> None:
    touched = set(lifetimes(program))
    program.buffers = [buffer for buffer in program.buffers if buffer in touched]
