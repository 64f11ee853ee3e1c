"""CodedLSTM: every step makes codes of the state of the whole batch and multiplies them.

A grid item is a direction: the range of the codes is that of all rows. The state is in the thread's
own memory; weights stay bytes, a quarter of what an LSTM of floats reads in every step. Of few rows
of many units threads share each step (`coded_shared`).
"""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np

from tuili.codegen.kernel import Context, KernelBuilder
from tuili.codegen.kernels.conv.register_tile import Tile
from tuili.codegen.kernels.quantized.row_products import quads_of, row_steps
from tuili.codegen.kernels.quantized.tile import Loop, Nest, pack_best, read_panels
from tuili.codegen.kernels.recurrent.cells import activations
from tuili.codegen.kernels.recurrent.coded_cells import GATES, ROWS, CodedCell, state_codes
from tuili.codegen.kernels.recurrent.coded_shared import is_worth_sharing, shared_steps
from tuili.codegen.kernels.recurrent.sizes import Sizes
from tuili.codegen.kernels.recurrent.steps import pack_gates, read_states
from tuili.codegen.kernels.reductions.rows import row_support
from tuili.ir import Node
from tuili.ops.table import attr
from tuili.tensors import Array


def supports(node: Node, ctx: Context) -> bool:
    """Known weights, and a batch whose states fit memory that is planned."""
    known = node.required(1).is_constant and node.required(2).is_constant
    peep = node.input(6)
    known = known and (peep is None or peep.is_constant)
    return known and not ctx.program.depends_on_data(node.required(0).shape[1])


def emit(node: Node, ctx: Context) -> None:
    """One kernel, or one for each step."""
    if any(0 in value.shape for value in node.outputs if value.uses):
        return
    weights = node.required(1).constant
    assert weights is not None  # supports
    directions, hidden, _ = weights.shape
    time, batch, _ = node.required(0).shape
    sizes = Sizes(time, batch, 0, hidden, directions, False)
    if is_worth_sharing(node, sizes):
        shared_steps(node, ctx, sizes, lambda k: read_cell(k, weights))
        return
    k = KernelBuilder(ctx, node, f"coded_lstm_{hidden}")
    k.read("parts", node.required(0))
    cell = read_cell(k, weights)
    padded = -(-hidden // cell.dot.group) * cell.dot.group
    blocks = -(-hidden // cell.lanes)
    read_states(k, node, 3)
    k.dims("T B H D LINE KP", (time, batch, hidden, directions, blocks * cell.lanes, padded))
    k.body(_body(node, cell, directions, _fault(k, node)))
    line = blocks * cell.lanes * 4
    k.scratch((batch + ROWS) * (2 * line) + batch * (padded * cell.dot.bytes))
    work = time * batch * (2 * GATES * hidden * hidden * directions)
    k.emit(grid=directions, flops=work, bytes=time * weights.size)


def _fault(k: KernelBuilder, node: Node) -> str:
    return k.fault("a sequence length is not from 0 to the steps of X") if node.input(3) else ""


def read_cell(k: KernelBuilder, weights: Array) -> CodedCell:
    """Packs the weights and prints the functions of a step, `tl_coded{rows}_{direction}`."""
    node, target = k.node, k.ctx.target
    directions, hidden, _ = weights.shape
    vectors = 1 if target.registers <= 16 else GATES
    codes = _in_blocks(weights, target.lanes)
    tile = Tile(ROWS, vectors)
    dot, packed = pack_best(target, codes, tile, lambda dot: row_steps(codes, dot))
    padded = -(-hidden // dot.group) * dot.group
    quads = quads_of(padded, dot)
    loop = Loop("q", padded // dot.group // quads, str(quads * dot.group))
    nest = Nest([loop], quads, str(padded), bool(len(packed.extra)), is_flat=True)
    read_panels(k, packed, nest, [quads * dot.group, dot.group])
    k.weight("sums_of", packed.sums)
    factors = node.required(2).constant
    assert factors is not None  # supports
    k.weight("factors", _in_blocks(factors[:, None], target.lanes)[0])
    peep = node.input(6)
    if peep is not None and peep.constant is not None:
        k.weight("peep", pack_gates(peep.constant, (0, 1, 2), hidden, target.lanes))
    k.support(dot.text)
    k.support(row_support("max", "min"))
    k.support(state_codes(dot, hidden, padded, target.lanes))
    extra = packed.extra.shape[1] if nest.has_extra else 0
    first = CodedCell(
        node, activations(node, 0), 1, peep is not None, hidden, target.lanes, vectors,
        packed.panels.shape[1], extra, dot, nest,
    )  # fmt: skip
    for direction in range(directions):
        for rows in (1,) if node.required(0).shape[1] == 1 else (1, ROWS):
            cell = replace(first, rows=rows, functions=activations(node, direction))
            k.support(cell.step(f"tl_coded{rows}_{direction}"))
    return first


def _in_blocks(array: Array, lanes: int) -> Array:
    """[D, depth, gates * H] as [depth, D * blocks * gates * V], zero padded."""
    directions, depth, outputs = array.shape
    hidden = outputs // GATES
    blocks = -(-hidden // lanes)
    padded = np.zeros((directions, depth, GATES, blocks * lanes), array.dtype)
    padded[..., :hidden] = array.reshape(directions, depth, GATES, hidden)
    split = padded.reshape(directions, depth, GATES, blocks, lanes)
    return np.ascontiguousarray(split.transpose(1, 0, 3, 2, 4)).reshape(depth, -1)


# -- the walk over time -------------------------------------------------------------------------


def _body(node: Node, cell: CodedCell, directions: int, fault: str) -> str:
    """The loops over directions, steps and rows."""
    given = {name for name, slot in (("h0", 4), ("c0", 5)) if node.input(slot)}
    used = [value.uses != [] for value in node.outputs] + [False] * 3
    always_back = attr(node, "direction") == "reverse"
    words = {
        "CODE": cell.dot.ctype,
        "STEP4": "" if node.required(0).shape[1] == 1 else _call(cell, directions, ROWS),
        "STEP1": _call(cell, directions, 1),
        "ENDS": _LENGTHS.replace("FAULT", fault) if fault else "",
        "END": "lengths[b + r]" if fault else "T",
        "BACKWARD": "1" if always_back else "direction" if directions == 2 else "0",
        "FIRST_H": _COPY_FIRST.replace("_S", "h") if "h0" in given else "",
        "FIRST_C": _COPY_FIRST.replace("_S", "c") if "c0" in given else "",
        "KEEP_Y": _KEEP_Y if used[0] else "",
        "LAST_H": _COPY_LAST.replace("_S", "h") if used[1] else "",
        "LAST_C": _COPY_LAST.replace("_S", "c") if used[2] else "",
    }
    pattern = "|".join(sorted(words, key=len, reverse=True))
    return re.sub(rf"\b({pattern})\b", lambda word: words[word[0]], _WALK)


def _call(cell: CodedCell, directions: int, rows: int) -> str:
    """The call of a step for the rows from `r` on."""
    blocks, codes = f"0, {-(-cell.hidden // cell.lanes)}", "codes + (b + r) * KP"
    calls = [cell.call(each, rows, blocks, codes) for each in range(directions)]
    call = calls[0] if directions == 1 else f"if (direction == 0) {calls[0]} else {calls[1]}"
    return call if rows == 1 else f"if (rows == {rows}) {{ {call} r = {rows}; }}"


_LENGTHS = """if (lengths[b] < 0 || lengths[b] > T) {
            FAULT
            return;
        }"""
_COPY_FIRST = "memcpy(own__S + b * LINE, _S0 + (direction * B + b) * H, (size_t)H * 4);"
_COPY_LAST = "memcpy(last__S + (direction * B + b) * H, own__S + b * LINE, (size_t)H * 4);"
_KEEP_Y = """float *const to = y + ((place[r] * D + direction) * B + b + r) * H;
                if (live)
                    memcpy(to, n[r], (size_t)H * 4);
                else
                    memset(to, 0, (size_t)H * 4);"""
_WALK = """
for (int64_t direction = begin; direction < end; direction++) {
    float *const own_h = (float *)scratch, *const own_c = own_h + B * LINE;
    float *const next = own_c + B * LINE;
    CODE *const codes = (CODE *)(next + 8 * LINE);
    memset(own_h, 0, (size_t)(B * LINE) * 8);
    memset(codes, 0, (size_t)(B * KP) * sizeof *codes);
    for (int64_t b = 0; b < B; b++) {
        ENDS
        FIRST_H
        FIRST_C
    }
    for (int64_t t = 0; t < T; t++) {
        float scale;
        const int32_t middle = tl_state_codes(own_h, B, codes, &scale);
        for (int64_t b = 0; b < B; b += 4) {
            const int64_t rows = tl_min(4, B - b);
            int64_t place[4];
            const float *part[4];
            float *c[4], *n[4], *m[4];
            for (int64_t r = 0; r < rows; r++) {
                place[r] = BACKWARD && t < END ? END - 1 - t : t;
                part[r] = parts + ((place[r] * B + b + r) * D + direction) * 4 * H;
                c[r] = own_c + (b + r) * LINE;
                n[r] = next + 2 * r * LINE, m[r] = n[r] + LINE;
            }
            int64_t r = 0;
            STEP4
            for (; r < rows; r++) {
                STEP1
            }
            for (r = 0; r < rows; r++) {
                const int live = t < END;
                KEEP_Y
                if (live) {
                    memcpy(own_h + (b + r) * LINE, n[r], (size_t)H * 4);
                    memcpy(c[r], m[r], (size_t)H * 4);
                }
            }
        }
    }
    for (int64_t b = 0; b < B; b++) {
        LAST_H
        LAST_C
    }
}
"""
