"""The program: what the generated `tuili_run` does, step by step, before it is text.

    Program ::= inputs, outputs, symbols, weights, buffers, Step*
    Step    ::= Call(kernel, grid) | Branch(condition, Step*, Step*) | HostCall(node)
              | Repeat(limit, going, Step*) | Room(buffer, size)
              | SetSymbol(symbol, dim) | ReadSymbol(symbol, element)
    Arg     ::= pointer into a Buffer | Dim | C literal

Every kernel has the C form

    static void NAME(int64_t begin, int64_t end, uint8_t *scratch, <params...>)

and works on the items [begin, end) of its step's grid; items are independent of each other.

Dims that depend on data are symbols too. Some step finds them while the model runs; a buffer whose
size depends on one lives on the heap and is made before the first step that touches it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import TypeAlias

from tuili.ir import Graph
from tuili.lower.choice import Decision
from tuili.ops.requirements import Requirement
from tuili.tensors import Array, Dim, DType, Expr, TensorSpec, symbols_of

ALIGNMENT = 64


class Place(Enum):
    """Where a buffer lives."""

    INPUT = "input"
    OUTPUT = "output"
    WEIGHT = "weight"
    ARENA = "arena"
    HEAP = "heap"  # grows at run time: the size depends on data


@dataclass(eq=False, slots=True)
class Buffer:
    """A piece of memory; `index` counts within its place (inputs, outputs, weights)."""

    name: str
    dtype: DType
    size: Dim  # bytes
    place: Place
    index: int = -1
    offset: int = -1  # in the weight file, or in the arena when all sizes are known


@dataclass(frozen=True, slots=True)
class View:
    """A part of a buffer, `offset` bytes from its start."""

    buffer: Buffer
    offset: Dim = 0


@dataclass(frozen=True, slots=True)
class Kernel:
    """One C function. `params` are C declarations after (begin, end, scratch)."""

    name: str
    params: tuple[str, ...]
    body: str
    support: str = ""  # static helper functions that the body calls, printed before it


@dataclass(frozen=True, slots=True)
class Pointer:
    """A pointer argument."""

    view: View
    writes: bool
    updates: bool = False  # what is there before it is written matters


Arg: TypeAlias = "Pointer | Dim | str"


@dataclass(frozen=True, slots=True)
class Call:
    """One kernel call: `grid` independent items; flops and bytes say what it costs."""

    label: str  # the graph node, for comments and profiles
    kernel: Kernel
    args: tuple[Arg, ...]
    grid: Dim
    flops: Dim
    bytes: Dim
    scratch: Dim = 0  # bytes per thread
    spread: bool = False  # over all threads, whatever it costs
    flushes: bool = False  # results below the normal numbers are zeros

    @property
    def reads(self) -> list[Buffer]:
        """The buffers read."""
        pointers = [arg for arg in self.args if isinstance(arg, Pointer)]
        return [arg.view.buffer for arg in pointers if arg.updates or not arg.writes]

    @property
    def writes(self) -> list[Buffer]:
        """The buffers written."""
        return [arg.view.buffer for arg in self.args if isinstance(arg, Pointer) and arg.writes]


@dataclass(frozen=True, slots=True)
class Branch:
    """Runs one of two lists of steps; the condition is one byte, zero for `otherwise`."""

    label: str
    condition: View
    then: list[Step]
    otherwise: list[Step]
    symbols: tuple[str, ...] = ()  # that both sides set


@dataclass(frozen=True, slots=True)
class HostCall:
    """A node that Python runs by its NumPy meaning; `symbols` are the dims that it finds out."""

    label: str
    index: int  # of its graph in `Program.host`
    inputs: tuple[View, ...]
    outputs: tuple[View, ...]
    symbols: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class SetSymbol:
    """A data-dependent symbol gets the value of a dim."""

    symbol: str
    dim: Dim


@dataclass(frozen=True, slots=True)
class ReadSymbol:
    """A data-dependent symbol gets the value of an element of an integer tensor."""

    symbol: str
    view: View
    element: int


@dataclass(frozen=True, slots=True)
class Demand:
    """Sizes that only the run finds must meet these requirements, or it ends here."""

    requirements: tuple[Requirement, ...]


@dataclass(frozen=True, slots=True)
class Room:
    """A buffer whose size depends on data gets room for `size` bytes, and keeps its contents."""

    buffer: Buffer
    size: Dim


@dataclass(frozen=True, slots=True)
class Repeat:
    """Rounds of a loop.

    Once `enter`, then `body` and `commit` while `going` (one byte) is not zero and there have been
    fewer rounds than `limit`. After a body the symbols of `carry` get their values for the next
    round, all at once; `commit` sees the new ones, and carries the states over.

    Of `counted` rounds there are as many as `limit`, a dim; nothing else decides about another.
    Unless they are `ordered` they do not depend on each other: threads may take whole rounds where
    there is a `block`, the memory of all that a round keeps for itself.
    """

    label: str
    round: str  # the symbol that counts rounds from 0; known inside only
    limit: View | Dim | None  # a view of an int64
    going: View | None
    enter: list[Step]
    body: list[Step]
    carry: tuple[tuple[str, Dim], ...]
    commit: list[Step]
    counted: bool = False
    ordered: bool = False
    block: Buffer | None = None

    @property
    def symbols(self) -> tuple[str, ...]:
        """The symbols that the rounds decide."""
        return tuple(symbol for symbol, _ in self.carry)

    @property
    def control(self) -> list[Buffer]:
        """The buffers that decide about another round."""
        return [view.buffer for view in (self.limit, self.going) if isinstance(view, View)]


Step: TypeAlias = "Call | Branch | Repeat | HostCall | Room | SetSymbol | ReadSymbol | Demand"


def touched(step: Step) -> list[Buffer]:
    """The buffers that a step itself reads or writes; of nested steps only what decides them."""
    match step:
        case Call():
            return [*step.writes, *step.reads]
        case Branch():
            return [step.condition.buffer]
        case Repeat():
            return step.control
        case Room():
            return [step.buffer]
        case HostCall():
            return [view.buffer for view in (*step.inputs, *step.outputs)]
        case ReadSymbol():
            return [step.view.buffer]
        case SetSymbol() | Demand():
            return []


def found_by(step: Step) -> tuple[str, ...]:
    """The symbols that are known once threads have met after the step."""
    match step:
        case SetSymbol() | ReadSymbol():
            return (step.symbol,)
        case Branch() | Repeat():
            return step.symbols
        case _:
            return ()


def all_steps(steps: Sequence[Step]) -> Iterator[Step]:
    """Every step in order, nested ones after the step that holds them."""
    for step in steps:
        yield step
        for nested in nested_steps(step):
            yield from all_steps(nested)


def nested_steps(step: Step) -> tuple[list[Step], ...]:
    """The lists of steps that a step holds, in the order in which they are printed."""
    match step:
        case Branch():
            return step.then, step.otherwise
        case Repeat():
            return step.enter, step.body, step.commit
        case _:
            return ()


def calls_of(steps: Sequence[Step]) -> Iterator[Call]:
    """Every call in order, nested ones too."""
    return (call for call, _ in counted_calls(steps))


def counted_calls(steps: Sequence[Step], times: Dim = 1) -> Iterator[tuple[Call, Dim]]:
    """Every call with how often it runs, where no data decides about that."""
    for step in steps:
        if isinstance(step, Call):
            yield step, times
        inner = times
        if isinstance(step, Repeat) and step.counted and isinstance(step.limit, int | Expr):
            inner = times * step.limit
        for nested in nested_steps(step):
            yield from counted_calls(nested, inner)


@dataclass(slots=True)
class Weight:
    """A packed constant."""

    buffer: Buffer
    array: Array


@dataclass(slots=True)
class Program:
    """Everything that code generation prints."""

    name: str
    symbols: tuple[str, ...]  # of the inputs, then those found while running
    num_bound: int = 0  # how many of them the inputs bind
    inputs: list[TensorSpec] = field(default_factory=list[TensorSpec])
    outputs: list[TensorSpec] = field(default_factory=list[TensorSpec])
    input_buffers: list[Buffer] = field(default_factory=list[Buffer])
    output_buffers: list[Buffer] = field(default_factory=list[Buffer])
    weights: list[Weight] = field(default_factory=list[Weight])
    buffers: list[Buffer] = field(default_factory=list[Buffer])  # arena and heap
    steps: list[Step] = field(default_factory=list["Step"])
    host: list[Graph] = field(default_factory=list[Graph])  # one node each, for HostCall
    requirements: list[Requirement] = field(default_factory=list[Requirement])  # of the inputs
    faults: list[str] = field(default_factory=list[str])  # run-time errors, codes from 1
    # By node: the kernel family that runs it, and those that were asked before and do not fit.
    families: dict[str, tuple[str, tuple[str, ...]]] = field(
        default_factory=dict[str, tuple[str, tuple[str, ...]]]
    )
    # By node: which of several ways to run it was chosen, where there are several.
    decisions: dict[str, Decision] = field(default_factory=dict[str, Decision])

    def is_late_output(self, buffer: Buffer) -> bool:
        """Whether data decides an axis of an output; [0, N] has no bytes, and yet such a shape."""
        if buffer.place is not Place.OUTPUT:
            return False
        spec = self.outputs[buffer.index]
        return not spec.is_object and any(map(self.depends_on_data, spec.shape))

    def require(self, requirements: Iterable[Requirement]) -> None:
        """Keep what the shapes of the inputs decide; the first node that asks is named."""
        asked = {each.rule for each in self.requirements}
        for each in requirements:
            if (
                each.rule in asked
                or self.depends_on_data(each.left)
                or self.depends_on_data(each.right)
            ):
                continue
            asked.add(each.rule)
            self.requirements.append(each)

    @property
    def bound(self) -> frozenset[str]:
        """The symbols that the inputs bind."""
        return frozenset(self.symbols[: self.num_bound])

    def depends_on_data(self, dim: Dim) -> bool:
        """Whether a dim is known only while the model runs."""
        return not symbols_of(dim) <= self.bound
