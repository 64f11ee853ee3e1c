"""RNN, GRU, LSTM: the inputs' share of the gates for all times at once, then step by step.

Three kernels: weights that are not constants are packed; `project` multiplies all inputs, V hidden
units of one direction per grid item; `steps` walks time, a few rows of the batch of one direction
per grid item, with the state in the thread's own memory. A thread's items walk together.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from tuili.codegen.kernel import Context, KernelBuilder
from tuili.codegen.kernels.recurrent.cells import (
    GATES,
    LINE_FLOATS,
    Cell,
    activations,
    has_two_phases,
    packed_together,
)
from tuili.codegen.kernels.recurrent.project import project, project_tile
from tuili.codegen.kernels.recurrent.shared import is_worth_sharing, shared_steps
from tuili.codegen.kernels.recurrent.sizes import Sizes, sizes_of
from tuili.codegen.kernels.recurrent.tiles import GROUP, MOST_ROWS, step_function
from tuili.codegen.strides import contiguous
from tuili.codegen.text import indent
from tuili.ir import Node, Value
from tuili.lower.program import View
from tuili.ops.table import attr
from tuili.tensors import Array, Dim, DType, ceil_div


def supports(node: Node, ctx: Context) -> bool:
    """f32 with known input and hidden sizes."""
    floats = [node.input(slot) for slot in (0, 1, 2, 3, 5, 6, 7)]
    plain = all(v is None or (v.dtype is DType.F32 and not v.layout) for v in floats)
    return plain and isinstance(node.required(0).shape[2], int) and _has_hidden(node)


def _has_hidden(node: Node) -> bool:
    return isinstance(node.required(2).shape[2], int)


def emit(node: Node, ctx: Context) -> None:
    """Pack, project, step."""
    if any(0 in value.shape for value in node.outputs if value.uses):
        return
    sizes = sizes_of(node)
    gates = GATES[node.op]
    names = tuple(range(gates))
    _, near = project_tile(gates, ctx.target.registers)
    weights = _packed(node, ctx, "w", node.required(1), names, sizes.inputs, near)
    bias_value = node.input(3)
    bias = None
    if bias_value is not None:
        bias = _packed(node, ctx, "bias", bias_value, tuple(range(2 * gates)), 1)
    elif node.op == "GRU" and attr(node, "linear_before_reset"):
        # Its candidate adds a bias between the product and the gate: without one, zeros.
        zeros = np.zeros((sizes.directions, 2 * gates * sizes.hidden), np.float32)
        packed = pack_gates(zeros, tuple(range(2 * gates)), sizes.hidden, ctx.target.lanes)
        bias = View(ctx.add_weight(f"{node.output.name}.bias", packed))
    read = {"parts": project(node, ctx, sizes, weights, bias), **_weights(node, ctx, sizes)}
    if bias is not None:
        read["bias"] = bias
    if is_worth_sharing(node, sizes):
        shared_steps(node, ctx, sizes, read, _cell_of(node, ctx, 0))
    else:
        _steps(node, ctx, sizes, read)


# -- packing ------------------------------------------------------------------------------------


def _packed(
    node: Node,
    ctx: Context,
    name: str,
    value: Value,
    gates: Sequence[int],
    depth: int,
    together: int = 1,
) -> View:
    """As `pack_gates`; a bias has depth 1, where it does not matter which gates are together."""
    sizes = sizes_of(node)
    lanes = ctx.target.lanes
    if value.constant is not None:
        array = pack_gates(value.constant, gates, sizes.hidden, lanes, together)
        return View(ctx.add_weight(f"{node.output.name}.{name}", array))
    k = KernelBuilder(ctx, node, "pack_gates")
    blocks = -(-sizes.hidden // lanes)
    count = sizes.directions * blocks * depth * len(gates) * lanes
    view = k.temp(name, DType.F32, count)
    k.read("x", value)
    k.write("y", view)
    rows = value.shape[1] if len(value.shape) > 1 else 0
    k.dims("ROWS DEPTH H BLOCKS", (rows, depth, sizes.hidden, blocks))
    words = {"COUNT": len(gates), "FIRST": gates[0], "TOGETHER": together}
    k.body(re.sub("|".join(words), lambda word: str(words[word[0]]), _PACK))
    k.emit(grid=sizes.directions * blocks, bytes=count * 8)
    return view


def pack_gates(
    array: Array, gates: Sequence[int], hidden: int, lanes: int, together: int = 1
) -> Array:
    """[D, gates * H, depth] as [D][blocks][gates / G][depth][G][V], zero padded; G: `together`."""
    directions = array.shape[0]
    depth = array.shape[2] if array.ndim == 3 else 1
    blocks = -(-hidden // lanes)
    cut = array.reshape(directions, -1, hidden, depth)[:, list(gates)]
    padded = np.zeros((directions, len(gates), blocks * lanes, depth), np.float32)
    padded[:, :, :hidden] = cut
    split = padded.reshape(directions, -1, together, blocks, lanes, depth)
    return np.ascontiguousarray(split.transpose(0, 3, 1, 5, 2, 4))


_PACK = """
for (int64_t item = begin; item < end; item++) {
    const int64_t direction = item / BLOCKS, block = item % BLOCKS;
    float *to = y + item * DEPTH * COUNT * V;
    for (int64_t first = 0; first < COUNT; first += TOGETHER)
        for (int64_t k = 0; k < DEPTH; k++)
            for (int64_t g = first; g < first + TOGETHER; g++)
                for (int64_t l = 0; l < V; l++, to++) {
                    const int64_t unit = block * V + l, row = (FIRST + g) * H + unit;
                    *to = unit < H ? x[(direction * ROWS + row) * DEPTH + k] : 0.0f;
                }
}
"""


# -- the steps ----------------------------------------------------------------------------------


def _weights(node: Node, ctx: Context, sizes: Sizes) -> dict[str, View]:
    """The packed weights that steps read, by name: `w2` of a second phase, `peep` of peepholes."""
    two_phases, recurrent = has_two_phases(node), node.required(2)
    first = (0, 1) if two_phases else tuple(range(GATES[node.op]))
    near = packed_together(len(first), ctx.target.registers)
    found = {"w": _packed(node, ctx, "r", recurrent, first, sizes.hidden, near)}
    if two_phases:
        found["w2"] = _packed(node, ctx, "r2", recurrent, (2,), sizes.hidden)
    peep = node.input(7)
    if peep is not None:
        found["peep"] = _packed(node, ctx, "peep", peep, (0, 1, 2), 1)
    return found


def _cell_of(node: Node, ctx: Context, direction: int) -> Callable[[int], Cell]:
    """The cell of a direction, by rows."""
    functions, registers = activations(node, direction), ctx.target.registers
    return lambda rows: Cell(node, functions, rows, node.input(7) is not None, registers)


def _steps(node: Node, ctx: Context, sizes: Sizes, read: Mapping[str, View]) -> None:
    """The steps of all rows, each thread's in one call; `read`: parts, bias and weights."""
    gates, lanes = GATES[node.op], ctx.target.lanes
    blocks = -(-sizes.hidden // lanes)
    k = KernelBuilder(ctx, node, f"{node.op.lower()}_steps")
    for name, view in read.items():
        k.read(name, view)
    read_states(k, node, 4)
    groups = ceil_div(sizes.batch, GROUP)
    k.dims("T B H BLOCKS GROUPS", (sizes.time, sizes.batch, sizes.hidden, blocks, groups))
    _declare_strides(k, node, sizes)
    known = sizes.batch if isinstance(sizes.batch, int) else None
    most = MOST_ROWS if known is None else min(MOST_ROWS, known)
    names = f"H = {sizes.hidden}, BLOCKS = {blocks}"
    for direction in range(sizes.directions):
        cell = _cell_of(node, ctx, direction)
        rest = None if known is None else known % GROUP
        k.support(step_function(f"tl_step_{direction}", cell, most, rest, names))
    # State, next state (twice for LSTM) and two spare lines for GRU, for each row.
    k.scratch(most * (6 * blocks * lanes + LINE_FLOATS) * 4)
    fault = k.fault("a sequence length is not from 0 to the steps of X") if node.input(4) else ""
    k.body(_steps_body(node, sizes, most, read=read, fault=fault))
    work = sizes.time * sizes.batch * (2 * gates * blocks * lanes * sizes.hidden)
    k.emit(grid=groups * sizes.directions, flops=work * sizes.directions, bytes=0)


def read_states(k: KernelBuilder, node: Node, first: int) -> None:
    """The lengths and states, which are inputs from `first` on, and the outputs that are used."""
    for slot, name in enumerate(("lengths", "h0", "c0"), first):
        value = node.input(slot)
        if value is not None:
            k.read(name, value)
    for name, value in zip(("y", "last_h", "last_c"), node.outputs, strict=False):
        if value.uses:
            k.write(name, value)


def _declare_strides(k: KernelBuilder, node: Node, sizes: Sizes) -> None:
    """Distances in parts, Y and states along time, batch and direction."""
    d, h = sizes.directions, sizes.hidden
    if sizes.batch_first:
        shape, order = (sizes.batch, sizes.time, d, h), (1, 2, 0)
        state = {"b": d * h, "d": h}
        part: tuple[Dim, Dim] = (1, sizes.time)
    else:
        shape, order = (sizes.time, d, sizes.batch, h), (0, 1, 2)
        state = {"b": h, "d": sizes.batch * h}
        part = (sizes.batch, 1)
    steps = contiguous(shape)
    k.dims("Y_T Y_D Y_B", [steps[axis] for axis in order])
    k.dims("S_B S_D", (state["b"], state["d"]))
    k.dims("P_T P_B", part)


def _steps_body(
    node: Node, sizes: Sizes, most: int, *, read: Mapping[str, View], fault: str
) -> str:
    """The loops over items, steps and rows; `read`: what they read, by name."""
    given = {name for name, slot in (("len", 4), ("h0", 5), ("c0", 6)) if node.input(slot)}
    used = [value.uses != [] for value in node.outputs] + [False] * 3
    end = "ends[r]" if "len" in given else "T"
    return "\n".join(
        [
            "for (int64_t item = begin, joined; item < end; item += joined) {",
            "    const int64_t direction = item / GROUPS, group = item % GROUPS;",
            f"    joined = tl_min(tl_min(end - item, GROUPS - group), {-(-most // GROUP)});",
            f"    const int64_t b = group * {GROUP}, rows = tl_min({GROUP} * joined, B - b);",
            *indent(_first_states(given, fault, most)),
            "    for (int64_t t = 0; t < T; t++) {",
            *indent(_place_rows(node, sizes.directions, end, most), 2),
            *indent(_step_rows(node, sizes.directions, read), 2),
            *indent(_keep_rows(end, is_kept=used[0]), 2),
            "    }",
            *indent(_last_states(used)),
            "}",
        ]
    )


_LINE = "BLOCKS * V"  # floats of a state
# Floats of a row's states: a line of the cache more, or rows would share sets of the cache.
_OWN = f"(4 * {_LINE} + {LINE_FLOATS})"


def _first_states(given: set[str], fault: str, most: int) -> list[str]:
    """Four states for each row: old and new h and c; the old ones are given, or zero."""
    length = [
        "    ends[r] = lengths[b + r];",
        "    if (ends[r] < 0 || ends[r] > T) {",
        f"        {fault}",
        "        ends[r] = 0;",
        "    }",
    ]
    return [
        *([f"int64_t ends[{most}];"] if "len" in given else []),
        f"const float *part[{most}];",
        f"float *h[{most}], *n[{most}], *c[{most}], *m[{most}];",
        f"float *const spare = (float *)scratch + {most} * {_OWN};",
        "for (int64_t r = 0; r < rows; r++) {",
        f"    float *const own = (float *)scratch + r * {_OWN};",
        f"    h[r] = own, n[r] = own + {_LINE};",
        f"    c[r] = own + 2 * {_LINE}, m[r] = own + 3 * {_LINE};",
        f"    memset(own, 0, 4 * {_LINE} * sizeof *own);",
        "    const int64_t state = (b + r) * S_B + direction * S_D;",
        "    (void)state;",
        *(length if "len" in given else []),
        *(["    memcpy(h[r], h0 + state, (size_t)H * 4);"] if "h0" in given else []),
        *(["    memcpy(c[r], c0 + state, (size_t)H * 4);"] if "c0" in given else []),
        "}",
    ]


def _place_rows(node: Node, directions: int, end: str, most: int) -> list[str]:
    """Where each row is in time at step `t`, and what its input amounts to there."""
    always_back = attr(node, "direction") == "reverse"
    backward = "1" if always_back else "direction" if directions == 2 else "0"
    return [
        f"int64_t place[{most}];",
        "for (int64_t r = 0; r < rows; r++) {",
        f"    place[r] = {backward} && t < {end} ? {end} - 1 - t : t;",
        "    const int64_t row = place[r] * P_T + (b + r) * P_B;",
        f"    part[r] = parts + (row * {directions} + direction) * BLOCKS * {GATES[node.op]} * V;",
        "}",
    ]


def _step_rows(node: Node, directions: int, read: Mapping[str, View]) -> list[str]:
    """All rows of the thread by one step."""
    gates = GATES[node.op]
    args = ", ".join(
        [
            "0, BLOCKS, rows, part, h, n, c, m",
            f"w + direction * BLOCKS * H * {2 if 'w2' in read else gates} * V",
            "w2 + direction * BLOCKS * H * V" if "w2" in read else "0",
            f"bias + direction * BLOCKS * {2 * gates} * V" if "bias" in read else "0",
            "peep + direction * BLOCKS * 3 * V" if "peep" in read else "0",
            "spare",
        ]
    )
    choice = [f"tl_step_{direction}({args});" for direction in range(directions)]
    if directions == 1:
        return choice
    return ["if (direction == 0)", f"    {choice[0]}", "else", f"    {choice[1]}"]


def _keep_rows(end: str, *, is_kept: bool) -> list[str]:
    """New states become old ones in rows that have not ended; Y has them, and zeros after that."""
    kept = [
        "    float *const to = y + place[r] * Y_T + direction * Y_D + (b + r) * Y_B;",
        "    if (live)",
        "        memcpy(to, h[r], (size_t)H * 4);",
        "    else",
        "        memset(to, 0, (size_t)H * 4);",
    ]
    return [
        "for (int64_t r = 0; r < rows; r++) {",
        f"    const int live = t < {end};",
        "    if (live) {",
        "        float *const old_h = h[r], *const old_c = c[r];",
        "        h[r] = n[r], n[r] = old_h, c[r] = m[r], m[r] = old_c;",
        "    }",
        *(kept if is_kept else []),
        "}",
    ]


def _last_states(used: list[bool]) -> list[str]:
    return [
        "for (int64_t r = 0; r < rows; r++) {",
        "    const int64_t state = (b + r) * S_B + direction * S_D;",
        "    (void)state;",
        *(["    memcpy(last_h + state, h[r], (size_t)H * 4);"] if used[1] else []),
        *(["    memcpy(last_c + state, c[r], (size_t)H * 4);"] if used[2] else []),
        "}",
    ]
