"""The program: what the generated `tuili_run` does, step by step, before it is text.

    Program ::= inputs, outputs, symbols, weights, buffers, Step*
    Step    ::= Call(kernel, grid) | Branch(condition, Step*, Step*)
    Arg     ::= pointer into a Buffer | Dim | C literal

Every kernel has the C form

    static void NAME(int64_t begin, int64_t end, uint8_t *scratch, <params...>)

and works on the items [begin, end) of its step's grid; items are independent of each other.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import TypeAlias

from tuili.tensors import Array, Dim, DType, TensorSpec

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

    @property
    def reads(self) -> list[Buffer]:
        """The buffers read."""
        return [arg.view.buffer for arg in self.args if isinstance(arg, Pointer) and not arg.writes]

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


Step: TypeAlias = "Call | Branch"


def calls_of(steps: Sequence[Step]) -> Iterator[Call]:
    """Every call in order, those of both sides of branches too."""
    for step in steps:
        if isinstance(step, Branch):
            yield from calls_of(step.then)
            yield from calls_of(step.otherwise)
        else:
            yield step


@dataclass(slots=True)
class Weight:
    """A packed constant."""

    buffer: Buffer
    array: Array


@dataclass(slots=True)
class Program:
    """Everything that code generation prints."""

    name: str
    symbols: tuple[str, ...]
    inputs: list[TensorSpec] = field(default_factory=list[TensorSpec])
    outputs: list[TensorSpec] = field(default_factory=list[TensorSpec])
    input_buffers: list[Buffer] = field(default_factory=list[Buffer])
    output_buffers: list[Buffer] = field(default_factory=list[Buffer])
    weights: list[Weight] = field(default_factory=list[Weight])
    buffers: list[Buffer] = field(default_factory=list[Buffer])  # arena and heap
    steps: list[Step] = field(default_factory=list["Step"])
    faults: list[str] = field(default_factory=list[str])  # run-time errors, codes from 1
