"""CodedLSTM over a few rows: threads share each step by hidden units, as `shared` has it.

Every thread makes the codes of the whole state for itself, which is little beside its products.
"""

from __future__ import annotations

from collections.abc import Callable

from tuili.codegen.kernel import Context, KernelBuilder
from tuili.codegen.kernels.recurrent.coded_cells import GATES, ROWS, CodedCell
from tuili.codegen.kernels.recurrent.shared import (
    begin_states,
    end_states,
    new_kernel,
    repeat_steps,
    step_kernel,
)
from tuili.codegen.kernels.recurrent.sizes import Sizes
from tuili.ir import Node
from tuili.ops.table import attr
from tuili.tensors import DType

_WORTH_OPERATIONS = 1_600_000  # of a step, beside a meeting of all threads


def is_worth_sharing(node: Node, sizes: Sizes) -> bool:
    """Whether few rows go one way, and a step is more than a meeting."""
    rows = sizes.batch
    if node.input(3) or sizes.directions > 1 or not isinstance(rows, int) or rows > ROWS:
        return False
    return rows * 2 * GATES * sizes.hidden**2 >= _WORTH_OPERATIONS


def shared_steps(
    node: Node, ctx: Context, sizes: Sizes, read_cell: Callable[[KernelBuilder], CodedCell]
) -> None:
    """Begin, step by step, end; `read_cell` declares weights and what multiplies them."""
    assert isinstance(sizes.batch, int)
    line = -(-sizes.hidden // ctx.target.lanes) * ctx.target.lanes
    begin = new_kernel(node, ctx, "begin", sizes)
    h = begin.temp("states", DType.F32, 2 * sizes.batch * line)
    c = begin.temp("cells", DType.F32, sizes.batch * line)
    begin_states(begin, node, (4, 5), h, c)

    def step(number: str) -> None:
        k = step_kernel(node, ctx, "step", sizes, number, {"h": h, "c": c})
        _step(k, node, sizes, read_cell(k))

    repeat_steps(node, ctx, sizes, step)
    end_states(new_kernel(node, ctx, "end", sizes), node, h, c)


def _step(k: KernelBuilder, node: Node, sizes: Sizes, cell: CodedCell) -> None:
    rows, blocks = sizes.batch, -(-sizes.hidden // cell.lanes)
    assert isinstance(rows, int)
    k.read("parts", node.required(0))
    if node.output.uses:
        k.write("y", node.output)
    padded = -(-sizes.hidden // cell.dot.group) * cell.dot.group
    k.dims("LINE KP", (blocks * cell.lanes, padded))
    k.scratch(rows * padded * cell.dot.bytes)
    k.body(_body(node, cell, rows))
    work = rows * 2 * GATES * sizes.hidden**2
    # Its weights stay in the near caches from step to step: they are no traffic of memory.
    k.emit(grid=blocks, flops=work, spread=True)


def _body(node: Node, cell: CodedCell, rows: int) -> str:
    place = "T - 1 - t" if attr(node, "direction") == "reverse" else "t"
    one = cell.call(0, 1, "begin, end", "codes + r * KP")
    all_rows = cell.call(0, ROWS, "begin, end", "codes + r * KP")
    walk = [f"for (int64_t r = 0; r < {rows}; r++)", f"    {one}"]
    if rows == ROWS:
        walk = ["const int64_t r = 0;", all_rows]
    kept = [
        "const int64_t from = begin * V, units = tl_min(end * V, H) - from;",
        "for (int64_t r = 0; r < B; r++)",
        "    memcpy(y + (place * B + r) * H + from, n[r] + from, (size_t)units * 4);",
    ]
    lines = [
        f"const int64_t place = {place}, direction = 0;",
        f"{cell.dot.ctype} *const codes = ({cell.dot.ctype} *)scratch;",
        f"memset(codes, 0, (size_t)({rows} * KP) * sizeof *codes);",
        "float scale;",
        "const int32_t middle = tl_state_codes(h + (t & 1) * B * LINE, B, codes, &scale);",
        f"const float *part[{rows}];",
        f"float *c_of[{rows}], *n[{rows}];",
        "for (int64_t r = 0; r < B; r++) {",
        f"    part[r] = parts + (place * B + r) * {GATES} * H;",
        "    n[r] = h + ((~t & 1) * B + r) * LINE;",
        "    c_of[r] = c + r * LINE;",
        "}",
        "{",
        "    float *const *const c = c_of, *const *const m = c_of;",
        *(f"    {line}" for line in walk),
        "}",
        *(kept if node.output.uses else []),
    ]
    return "\n".join(["(void)T, (void)BLOCKS;", *lines])
