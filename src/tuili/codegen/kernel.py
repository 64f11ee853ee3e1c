"""KernelBuilder: how a kernel family writes one kernel call.

k = KernelBuilder(ctx, node, "conv3x3")
x = k.read("x", node.required(0))       # const float *restrict x
y = k.write("y", node.output)           # float *restrict y
w = k.weight("w", packed)               # packed at compile time, 64-byte aligned
k.dim("H", dims[2])                     # a C constant when known, else an int64_t parameter
k.body('''for (int64_t i = begin; i < end; i++) ...''')
k.emit(grid=oc_blocks, flops=..., bytes=...)
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from tuili.codegen.targets import Target
from tuili.errors import InternalError, Unsupported
from tuili.ir import Graph, Node, TensorType, Value, block_of
from tuili.lower.choice import Pick, Plan, by_cost, decide
from tuili.lower.program import (
    ALIGNMENT,
    Arg,
    Buffer,
    Call,
    Kernel,
    Place,
    Pointer,
    Program,
    Step,
    View,
    Weight,
)
from tuili.ops.contents import Contents
from tuili.tensors import Array, Dim, DType, Expr, Shape, ceil_div, numel

# To what these add up, subnormal numbers add nothing. Of others a logarithm or a quotient may be
# asked, and they keep them.
SUMS_OF_PRODUCTS: Final = frozenset((
    "Conv", "ConvTranspose", "EachChannelOfFrames", "MatMul", "com.microsoft::MatMulNBits",
    "FusedAttention", "RNN", "GRU", "LSTM", "CodedLSTM",
))  # fmt: skip


def physical_shape(type_: TensorType) -> Shape:
    """The shape in memory: [N, C/b, ..., b] for a blocked layout, else the logical one."""
    shape = type_.shape
    if shape is None:
        raise InternalError(f"{type_} has no shape yet")
    block = block_of(type_.layout)
    if block == 1:
        return shape
    return (shape[0], ceil_div(shape[1], block), *shape[2:], block)


def size_of(type_: TensorType) -> Dim:
    """The bytes that a tensor takes in memory."""
    return numel(physical_shape(type_)) * type_.dtype.itemsize


def memory_of(value: Value) -> tuple[DType, Dim]:
    """The element type and the bytes of a value's memory; a handle is an int64."""
    if value.is_object:
        return DType.I64, DType.I64.itemsize
    return value.dtype, size_of(value.tensor)


@dataclass(slots=True)
class Context:
    """What families see while a graph becomes a program."""

    program: Program
    target: Target
    contents: Contents  # known symbolic contents of small integer tensors
    exact: bool = False  # no Winograd, no fast math
    pick: Pick = by_cost  # which of several plans is taken
    bf16: bool = False  # products may be in bfloat16
    views: dict[Value, View] = field(default_factory=dict[Value, View])
    packed: dict[object, Buffer] = field(default_factory=dict[object, Buffer])
    only_if: Dim = 1  # 0 or 1: whether the calls that are added now run
    rounds: int = 0  # how many loops there are so far; numbers their symbols
    emit_graph: Callable[[Graph], None] = field(default=lambda graph: None)  # set by translate

    def view(self, value: Value) -> View:
        """Where a value lives; constants are placed among the weights on first use."""
        if value not in self.views:
            if value.constant is None or value.is_object:
                self.views[value] = View(self.new_buffer(value.name, *memory_of(value)))
            else:
                self.views[value] = View(self.add_weight(value.name, value.constant))
        return self.views[value]

    def choose(self, node: Node, problem: str, plans: Mapping[str, Plan]) -> Plan:
        """The plan to run a node by, of several by name, the cost model's first.

        The answer is the same as often as it is asked.
        """
        decision, plan = decide(problem, plans, self.pick)
        if len(plans) > 1:
            self.program.decisions[node.label] = decision
        return plan

    def alias(self, value: Value, source: Value) -> bool:
        """Let `value` share the memory of `source`; False when it must be copied instead.

        A graph output has its own memory from the start, so only a copy can fill it, unless the
        translator has already given both the same place.
        """
        view = self.view(source)
        return self.views.setdefault(value, view) == view

    def steps_of(self, write: Callable[[], None]) -> list[Step]:
        """The steps that a function writes, which are no part of the program yet."""
        outer, steps = self.program.steps, list[Step]()
        self.program.steps = steps
        try:
            write()
        finally:
            self.program.steps = outer
        return steps

    def new_round(self) -> str:
        """The symbol that counts the rounds of another loop."""
        self.rounds += 1
        return f"round{self.rounds}"

    def own_symbols(self, value: Value) -> list[tuple[str, int]]:
        """(symbol, axis) for the dims of a value that the step which makes it finds."""
        sources = self.contents.sources
        return [
            (dim.symbol, axis)
            for axis, dim in enumerate(value.shape)
            if isinstance(dim, Expr)
            and dim.symbol
            and sources.get(dim.symbol) == f"{value.name}#{axis}"
        ]

    def fault(self, message: str) -> int:
        """The code that stands for a run-time error; see `KernelBuilder.fault`."""
        self.program.faults.append(message)
        return len(self.program.faults)

    def new_buffer(self, name: str, dtype: DType, size: Dim) -> Buffer:
        """A new arena buffer of `size` bytes."""
        late = self.program.depends_on_data(size)
        buffer = Buffer(name, dtype, size, Place.HEAP if late else Place.ARENA)
        self.program.buffers.append(buffer)
        return buffer

    def add_weight(self, name: str, array: Array) -> Buffer:
        """A packed constant; equal contents are stored once."""
        array = np.ascontiguousarray(array)
        key = (array.dtype.str, array.shape, array.tobytes())
        if key not in self.packed:
            dtype = DType.of(array.dtype)
            buffer = Buffer(name, dtype, array.nbytes, Place.WEIGHT, len(self.program.weights))
            last = self.program.weights[-1].buffer if self.program.weights else None
            end = 0 if last is None else last.offset + int(last.size)  # pyright: ignore[reportArgumentType]
            buffer.offset = -(-end // ALIGNMENT) * ALIGNMENT
            self.program.weights.append(Weight(buffer, array))
            self.packed[key] = buffer
        return self.packed[key]


class KernelBuilder:
    """Collects parameters and arguments together, so that they cannot disagree."""

    def __init__(self, ctx: Context, node: Node, name: str) -> None:
        self.ctx = ctx
        self.node = node
        self.name = name
        self._params: list[str] = []
        self._args: list[Arg] = []
        self._constants: list[str] = []
        self._support: list[str] = []
        self._lines: list[str] = []
        self._scratch: Dim = 0

    def read(self, name: str, value: Value | View, ctype: str = "") -> str:
        """A pointer that is read; returns its C name."""
        return self._pointer(name, value, ctype, writes=False)

    def write(self, name: str, value: Value | View, ctype: str = "") -> str:
        """A pointer that is written; returns its C name."""
        return self._pointer(name, value, ctype, writes=True)

    def update(self, name: str, value: Value | View, ctype: str = "") -> str:
        """A pointer that is read and written; returns its C name."""
        return self._pointer(name, value, ctype, writes=True, updates=True)

    def _pointer(
        self, name: str, value: Value | View, ctype: str, *, writes: bool, updates: bool = False
    ) -> str:
        view = self.ctx.view(value) if isinstance(value, Value) else value
        ctype = ctype or view.buffer.dtype.c
        self._params.append(f"{'' if writes else 'const '}{ctype} *restrict {name}")
        self._args.append(Pointer(view, writes, updates))
        return name

    def weight(self, name: str, array: Array) -> str:
        """A constant packed the way the kernel wants it; returns its C name."""
        value = self.node.outputs[0].name
        return self.read(name, View(self.ctx.add_weight(f"{value}.{name}", array)))

    def temp(self, name: str, dtype: DType, count: Dim) -> View:
        """Arena memory shared by all threads, for passing results from one kernel to the next."""
        size = count * dtype.itemsize * self.ctx.only_if
        return View(self.ctx.new_buffer(f"{self.node.outputs[0].name}.{name}", dtype, size))

    def scratch(self, size: Dim) -> None:
        """Ask for `size` bytes of private memory per thread (the `scratch` parameter)."""
        self._scratch = size

    def dim(self, name: str, dim: Dim) -> str:
        """A whole number: a C constant when known, else a parameter; returns its C name."""
        if isinstance(dim, int):
            self._constants.append(f"const int64_t {name} = {dim};")
        else:
            self._params.append(f"int64_t {name}")
            self._args.append(dim)
        return name

    def dims(self, names: str, dims: Sequence[Dim]) -> None:
        """Several dims at once: `k.dims("N C H W", shape)`."""
        for name, dim in zip(names.split(), dims, strict=True):
            self.dim(name, dim)

    def fault(self, message: str) -> str:
        """A C statement that makes the run fail with `message`; the node is added to it.

        The kernel must leave memory alone afterwards, and may go on or return.
        """
        code = self.ctx.fault(f"{self.node.label}: {message}")
        name = f"fault_{code}"
        self._params.append(f"int32_t *{name}")
        self._args.append("&shared->fault")
        return f"__atomic_store_n({name}, {code}, __ATOMIC_RELAXED);"

    def support(self, text: str) -> None:
        """Static functions that the body calls."""
        self._support.append(textwrap.dedent(text).strip("\n"))

    def body(self, text: str) -> None:
        """C statements; `begin`, `end` and `scratch` are in scope."""
        self._lines.append(textwrap.dedent(text).strip("\n"))

    def emit(
        self,
        *,
        grid: Dim,
        flops: Dim = 0,
        bytes: Dim = 0,  # noqa: A002 - roofline's word
        spread: bool = False,
    ) -> None:
        """Append the call to the program; `spread`: all threads share it, whatever it costs."""
        if self.ctx.program.depends_on_data(self._scratch):
            raise Unsupported(f"{self.node.label}: scratch memory whose size depends on data")
        body = "\n".join([*self._constants, *self._lines])
        kernel = Kernel(self.name, tuple(self._params), body, "\n\n".join(self._support))
        grid, flops, bytes = (self.ctx.only_if * each for each in (grid, flops, bytes))  # noqa: A001
        args, scratch = tuple(self._args), self._scratch
        flushes = self.node.op in SUMS_OF_PRODUCTS and not self.ctx.exact
        call = Call(self.node.label, kernel, args, grid, flops, bytes, scratch, spread, flushes)
        self.ctx.program.steps.append(call)
