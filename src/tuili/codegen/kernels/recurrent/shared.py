"""RNN, GRU, LSTM over a few sequences: threads share each step, by hidden units, and then meet.

Where a thread takes whole sequences (`steps`), one sequence has one thread, however many there are.
Here each step is a call: V units of all rows per grid item, from the state before to the one after.
The states of even and odd steps lie apart, so that none is overwritten while others read it. A GRU
whose reset gates come before its products takes two calls, between which all gates are exchanged.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from tuili.codegen.kernel import Context, KernelBuilder
from tuili.codegen.kernels.recurrent.cells import GATES, Cell, has_two_phases
from tuili.codegen.kernels.recurrent.sizes import Sizes
from tuili.codegen.kernels.recurrent.tiles import GROUP, step_function
from tuili.ir import Node
from tuili.lower.program import Repeat, View
from tuili.ops.table import attr
from tuili.tensors import DType, Sym

# Of a step. Threads exchange the state and meet after each, which takes them about 2 us.
_WORTH_FLOPS = 400_000


def is_worth_sharing(node: Node, sizes: Sizes) -> bool:
    """Whether the rows are one thread's, and a step is more than its meetings."""
    rows, meetings = sizes.batch, 2 if has_two_phases(node) else 1
    if node.input(4) or sizes.directions > 1 or not isinstance(rows, int) or rows > GROUP:
        return False
    return rows * 2 * GATES[node.op] * sizes.hidden**2 >= meetings * _WORTH_FLOPS


def shared_steps(
    node: Node, ctx: Context, sizes: Sizes, read: Mapping[str, View], cell: Callable[[int], Cell]
) -> None:
    """Begin, step by step, end; `read`: the views of parts and packed weights by name."""
    assert isinstance(sizes.batch, int)
    blocks = -(-sizes.hidden // ctx.target.lanes)
    states = sizes.batch * blocks * ctx.target.lanes
    begin = new_kernel(node, ctx, "begin", sizes)
    h = begin.temp("states", DType.F32, 2 * states)
    c = begin.temp("cells", DType.F32, states)
    views = {"h": h, "c": c}
    if has_two_phases(node):
        views["spare"] = begin.temp("gates", DType.F32, 2 * states)
    begin_states(begin, node, (5, 6), h, c)
    count = len(cell(1).phases)

    def phases(number: str) -> None:
        for phase in range(count):
            name = "step" if count == 1 else f"step{phase + 1}"
            step = step_kernel(node, ctx, name, sizes, number, views)
            for each, view in read.items():
                step.read(each, view)
            _step(step, node, sizes, cell, phase)

    repeat_steps(node, ctx, sizes, phases)
    end_states(new_kernel(node, ctx, "end", sizes), node, h, c)


def repeat_steps(node: Node, ctx: Context, sizes: Sizes, step: Callable[[str], None]) -> None:
    """The rounds of all times; `step` adds the calls of one, given the symbol of the round."""
    number = ctx.new_round()
    body, rounds = ctx.steps_of(lambda: step(number)), sizes.time * ctx.only_if
    ctx.program.steps.append(
        Repeat(node.label, number, rounds, None, [], body, (), [], counted=True, ordered=True)
    )


def step_kernel(
    node: Node, ctx: Context, name: str, sizes: Sizes, number: str, views: Mapping[str, View]
) -> KernelBuilder:
    """A call of every step, `t`, which changes `views`."""
    step = new_kernel(node, ctx, name, sizes)
    step.dim("t", Sym(number))
    for each, view in views.items():
        step.update(each, view)
    return step


def new_kernel(node: Node, ctx: Context, name: str, sizes: Sizes) -> KernelBuilder:
    """A kernel with the sizes of the node."""
    k = KernelBuilder(ctx, node, f"{node.op.lower()}_{name}")
    blocks = -(-sizes.hidden // ctx.target.lanes)
    k.dims("T B H BLOCKS", (sizes.time, sizes.batch, sizes.hidden, blocks))
    return k


def begin_states(k: KernelBuilder, node: Node, slots: tuple[int, int], h: View, c: View) -> None:
    """The states given in these inputs, or zeros; zeros behind the last unit."""
    k.write("h", h)
    k.write("c", c)
    lines = [
        "memset(h, 0, (size_t)(B * BLOCKS * V) * 4);",
        "memset(c, 0, (size_t)(B * BLOCKS * V) * 4);",
    ]
    for name, slot in zip("hc", slots, strict=True):
        value = node.input(slot)
        if value is not None:
            k.read(f"{name}0", value)
            lines += [
                "for (int64_t r = 0; r < B; r++)",
                f"    memcpy({name} + r * BLOCKS * V, {name}0 + r * H, (size_t)H * 4);",
            ]
    k.body("\n".join(["(void)T;", *lines]))
    k.emit(grid=1, bytes=h.buffer.size + c.buffer.size)


def _step(
    k: KernelBuilder, node: Node, sizes: Sizes, cell: Callable[[int], Cell], phase: int
) -> None:
    """One phase of a step; the last one keeps the new state."""
    phases, rows = cell(1).phases, sizes.batch
    is_kept = bool(node.output.uses) and phase == len(phases) - 1
    assert isinstance(rows, int)
    lanes = k.ctx.target.lanes
    blocks = -(-sizes.hidden // lanes)
    if is_kept:
        k.write("y", node.output)
    # Distances along time and batch, of which either may be the outer one.
    across, along = (1, sizes.time) if sizes.batch_first else (rows, 1)
    k.dims("ACROSS ALONG", (across, along))
    names = f"H = {sizes.hidden}, BLOCKS = {blocks}"
    k.support(step_function("tl_units", cell, rows, rows % GROUP, names, phase))
    k.body(_step_body(node, rows, is_kept=is_kept))
    weights = phases[phase].gates * sizes.hidden * blocks * lanes
    # Its weights stay in the near caches from step to step: they are no traffic of memory.
    k.emit(grid=blocks, flops=2 * rows * weights, spread=True)


def _step_body(node: Node, rows: int, *, is_kept: bool) -> str:
    gates, two = GATES[node.op], has_two_phases(node)
    # The share of a GRU's candidate that its reset gate multiplies has a bias, if of zeros.
    linear = node.op == "GRU" and not two
    bias = "bias" if node.input(3) or linear else "0"
    last = "w2" if two else "0", bias, "peep" if node.input(7) else "0", "spare" if two else "0"
    place = "T - 1 - t" if attr(node, "direction") == "reverse" else "t"
    kept = [
        "const int64_t from = begin * V, units = tl_min(end * V, H) - from;",
        "for (int64_t r = 0; r < B; r++) {",
        "    float *const to = y + (place * ACROSS + r * ALONG) * H + from;",
        "    memcpy(to, after[r] + from, (size_t)units * 4);",
        "}",
    ]
    lines = [
        f"const int64_t place = {place};",
        f"const float *part[{rows}];",
        f"float *before[{rows}], *after[{rows}], *cells[{rows}];",
        "for (int64_t r = 0; r < B; r++) {",
        f"    part[r] = parts + (place * ACROSS + r * ALONG) * BLOCKS * {gates} * V;",
        "    before[r] = h + ((t & 1) * B + r) * BLOCKS * V;",
        "    after[r] = h + ((~t & 1) * B + r) * BLOCKS * V;",
        "    cells[r] = c + r * BLOCKS * V;",
        "}",
        f"tl_units(begin, end, B, part, before, after, cells, cells, w, {', '.join(last)});",
        *(kept if is_kept else []),
    ]
    return "\n".join(["(void)T;", *lines])


def end_states(k: KernelBuilder, node: Node, h: View, c: View) -> None:
    """The last states."""
    lines: list[str] = []
    for place, (name, view, first) in enumerate((("h", h, "(T & 1) * B + "), ("c", c, "")), 1):
        if place < len(node.outputs) and node.outputs[place].uses:
            k.read(name, view)
            k.write(f"last_{name}", node.outputs[place])
            lines += [
                "for (int64_t r = 0; r < B; r++) {",
                f"    const float *const from = {name} + ({first}r) * BLOCKS * V;",
                f"    memcpy(last_{name} + r * H, from, (size_t)H * 4);",
                "}",
            ]
    if lines:
        k.body("\n".join(["(void)T;", *lines]))
        k.emit(grid=1, bytes=h.buffer.size)
