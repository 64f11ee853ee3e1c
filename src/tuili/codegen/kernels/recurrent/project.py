"""The inputs' share of the gates of an RNN, GRU or LSTM: one product, for all times at once.

A grid item is V hidden units of one direction. Sums of as many rows of inputs, and of as many gates
of them, are made together as fit the registers beside the weights and a broadcast.
"""

from __future__ import annotations

from collections.abc import Sequence

from tuili.codegen.kernel import Context, KernelBuilder
from tuili.codegen.kernels.recurrent.cells import GATES
from tuili.codegen.kernels.recurrent.sizes import Sizes
from tuili.codegen.text import indent
from tuili.ir import Node
from tuili.lower.program import View
from tuili.ops.table import attr
from tuili.tensors import DType

MOST_ROWS = 8


def project(node: Node, ctx: Context, sizes: Sizes, weights: View, bias: View | None) -> View:
    """Parts [T][B][D][blocks][gates][V] (or [B][T]..., as X lies)."""
    gates, lanes = GATES[node.op], ctx.target.lanes
    blocks = -(-sizes.hidden // lanes)
    k = KernelBuilder(ctx, node, f"{node.op.lower()}_project")
    count = sizes.time * sizes.batch
    parts = k.temp("parts", DType.F32, count * (sizes.directions * blocks * gates * lanes))
    k.read("x", node.required(0))
    k.read("w", weights)
    if bias is not None:
        k.read("bias", bias)
    k.write("parts", parts)
    k.dims("M I BLOCKS ITEMS", (count, sizes.inputs, blocks, sizes.directions * blocks))
    linear = node.op == "GRU" and bool(attr(node, "linear_before_reset"))
    start: list[str] = []
    for gate in range(gates):
        terms = [f"v_load(b + {gate} * V)"] if bias is not None else ["v_set1(0.0f)"]
        # With linear_before_reset the recurrent bias of the candidate is behind the reset gate.
        if bias is not None and not (linear and gate == 2):
            terms.append(f"v_load(b + {gates + gate} * V)")
        start.append(" + ".join(terms))
    rows, together = project_tile(gates, ctx.target.registers)
    lines = [
        "for (int64_t item = begin; item < end; item++) {",
        f"    const float *const panel = w + item * I * {gates} * V;",
        *([f"    const float *const b = bias + item * {2 * gates} * V;"] if bias else []),
        *(
            line
            for first in range(0, gates, together)
            for line in indent(_project_gates(gates, range(first, first + together), rows, start))
        ),
        "}",
    ]
    k.body("\n".join(lines))
    work = count * (sizes.inputs * gates * blocks * lanes * sizes.directions * 2)
    k.emit(
        grid=sizes.directions * blocks, flops=work, bytes=work // 8 if isinstance(work, int) else 0
    )
    return parts


def project_tile(gates: int, registers: int) -> tuple[int, int]:
    """Rows, and gates of them, whose sums stay in registers beside the weights and a broadcast."""
    together = 2 if gates == 4 and registers < 32 else gates
    return min(MOST_ROWS, (registers - together - 1) // together), together


def _project_gates(gates: int, chosen: range, rows: int, start: Sequence[str]) -> list[str]:
    """All rows of some gates: many at once, then fewer, then one by one."""
    lines = ["{", *(f"    const vf start{gate} = {start[gate]};" for gate in chosen)]
    lines.append("    int64_t row = 0;")
    for count in sorted({rows, rows // 2, 1} - {0}, reverse=True):
        inner = indent(_project_rows(gates, chosen, count), 2)
        lines += [f"    for (; row + {count} <= M; row += {count}) {{", *inner, "    }"]
    return [*lines, "}"]


def _project_rows(gates: int, chosen: range, rows: int) -> list[str]:
    copies = max(1, 8 // (rows * len(chosen)))
    lines: list[str] = []
    for row in range(rows):
        lines.append(f"const float *const x{row} = x + (row + {row}) * I;")
        for gate in chosen:
            spare = "".join(f", s{row}_{gate}_{c} = {{0}}" for c in range(1, copies))
            lines.append(f"vf s{row}_{gate} = start{gate}{spare};")
    lines += [f"const float *at = panel + {chosen[0]} * I * V;", "int64_t k = 0;"]

    def inner(count: int) -> list[str]:
        text: list[str] = []
        for copy in range(count):
            mark = f"_{copy}" if copy else ""
            for gate in chosen:
                place = copy * len(chosen) + gate - chosen[0]
                text.append(f"    const vf w{copy}_{gate} = v_load(at + {place} * V);")
            for row in range(rows):
                text += [
                    f"    s{row}_{gate}{mark} += w{copy}_{gate} * x{row}[k + {copy}];"
                    for gate in chosen
                ]
        return text

    lines.append(f"for (; k + {copies} <= I; k += {copies}, at += {copies * len(chosen)} * V) {{")
    lines += [*inner(copies), "}"]
    if copies > 1:
        lines += [f"for (; k < I; k++, at += {len(chosen)} * V) {{", *inner(1), "}"]
    for row in range(rows):
        lines.append(
            f"float *const to{row} = parts + ((row + {row}) * ITEMS + item) * {gates} * V;"
        )
        for gate in chosen:
            names = [f"s{row}_{gate}", *(f"s{row}_{gate}_{c}" for c in range(1, copies))]
            lines.append(f"v_store(to{row} + {gate} * V, {' + '.join(names)});")
    return lines
