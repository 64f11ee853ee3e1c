"""Where the run function finds buffers: baked offsets, offsets planned per shape, or the heap."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

from tuili.codegen.c_dims import c_dim
from tuili.lower.memory import Interval, MemoryPlan, aligned, lifetimes, plan_memory
from tuili.lower.program import Buffer, Place, Program, Repeat, View, all_steps, calls_of
from tuili.tensors import Dim, Expr, Sym, dim_max, substitute, symbols_of

_KEPT = 1 << 12  # dims whose C is kept: sizes and offsets stand in many places of one run


@lru_cache(maxsize=_KEPT)
def c_of(dim: Dim, *, saturating: bool = False) -> str:
    """The C of a dim; symbols are local constants `d_NAME`."""
    local = substitute(dim, {name: Sym(f"d_{name}") for name in symbols_of(dim)})
    return c_dim(local, saturating=saturating)


class DimNames:
    """Names for dims that are more than a symbol, so that each is computed once per run."""

    def __init__(self, program: Program) -> None:
        self._program = program
        self._names: dict[Expr, str] = {}

    def c(self, dim: Dim) -> str:
        """The C of a dim: a number, a symbol or a name."""
        if not isinstance(dim, Expr) or dim.symbol or self._program.depends_on_data(dim):
            return c_of(dim)
        return self._names.setdefault(dim, f"e{len(self._names)}")

    def lines(self) -> list[str]:
        """The definitions of the names in use."""
        return [f"const int64_t {name} = {c_of(dim)};" for dim, name in self._names.items()]


class RunLayout:
    """The memory of one program."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.dims = DimNames(program)
        self.lives = lifetimes(program)
        used = [buffer for buffer in program.buffers if buffer in self.lives]
        self.buffers = [buffer for buffer in used if buffer.place is Place.ARENA]
        self.heap = {b: slot for slot, b in enumerate(b for b in used if b.place is Place.HEAP)}
        self._late_outputs = [
            buffer for buffer in program.output_buffers if program.is_late_output(buffer)
        ]
        self.num_late = len(self.heap) + len(self._late_outputs)
        self.num_loops = sum(isinstance(step, Repeat) for step in all_steps(program.steps))
        self.scratch = _most(
            call.scratch
            for call in calls_of(program.steps)
            if not program.depends_on_data(call.scratch)
        )
        loops = [step for step in all_steps(program.steps) if isinstance(step, Repeat)]
        self.blocks = [loop.block for loop in loops if loop.block is not None]
        self._slots = {buffer: slot for slot, buffer in enumerate(self.buffers)}
        self.plan = self._static_plan()

    def _static_plan(self) -> MemoryPlan | None:
        intervals: list[Interval] = []
        for buffer in self.buffers:
            if not isinstance(buffer.size, int):
                return None
            intervals.append(Interval(buffer.size, *self.lives[buffer]))
        plan = plan_memory(intervals)
        for buffer, offset in zip(self.buffers, plan.offsets, strict=True):
            buffer.offset = offset
        return plan

    @property
    def own_block(self) -> int:
        """The bytes that each of several threads needs for images of its own."""
        sizes = (block.size for block in self.blocks)
        return max((aligned(size) for size in sizes if isinstance(size, int)), default=0)

    @property
    def num_offsets(self) -> int:
        """Run-time offsets: one per buffer unless baked, then scratch start and stride."""
        return (0 if self.plan else len(self.buffers)) + 2

    def is_late(self, buffer: Buffer) -> bool:
        """Whether the buffer is made while the model runs."""
        return buffer in self.heap or buffer in self._late_outputs

    def late_index(self, buffer: Buffer) -> int:
        """The number of a late buffer: those of the heap first, then outputs."""
        if buffer in self.heap:
            return self.heap[buffer]
        return len(self.heap) + self._late_outputs.index(buffer)

    def slot(self, buffer: Buffer) -> str:
        """The C lvalue that holds the address of a late buffer."""
        if buffer.place is Place.OUTPUT:
            return f"run->outputs[{buffer.index}]"
        return f"shared->heap[{self.heap[buffer]}]"

    def address(self, view: View) -> str:
        """The C expression of a view's address."""
        offset = "" if view.offset == 0 else f" + {self.dims.c(view.offset)}"
        return self._start(view.buffer) + offset

    def _start(self, buffer: Buffer) -> str:
        match buffer.place:
            case Place.INPUT:
                return f"(const uint8_t *)run->inputs[{buffer.index}]"
            case Place.OUTPUT:
                return f"(uint8_t *)run->outputs[{buffer.index}]"
            case Place.WEIGHT:
                return f"run->weights + {buffer.offset}"
            case Place.HEAP:
                return f"(uint8_t *)shared->heap[{self.heap[buffer]}]"
            case Place.ARENA:
                where = str(buffer.offset) if self.plan else f"run->offsets[{self._slots[buffer]}]"
                return f"run->arena + {where}"


def _most(dims: Iterable[Dim]) -> Dim:
    most: Dim = 0
    for dim in dims:
        most = dim_max(most, dim)
    return most
