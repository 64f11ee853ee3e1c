"""Col2Im: columns put back where they were cut from, overlapping ones added; any rank.

A grid item is one plane of one image, which stays near while its taps pass.
"""

from __future__ import annotations

from math import prod

from tuili.codegen.kernel import Context, KernelBuilder, size_of
from tuili.codegen.text import indent
from tuili.ir import Node
from tuili.ops.table import attr
from tuili.tensors import DType


def supports_fold(node: Node, ctx: Context) -> bool:
    """Whether the sizes of picture and blocks are known, in f32 or f64."""
    x, image, block = (node.required(slot) for slot in range(3))
    known = image.is_constant and block.is_constant
    return known and not x.layout and x.dtype in (DType.F32, DType.F64)


def emit_fold(node: Node, ctx: Context) -> None:
    """Zeros, then every tap's places added."""
    x, y = node.required(0), node.output
    image, block = (node.required(slot).constant for slot in (1, 2))
    assert image is not None
    assert block is not None  # supports_fold
    sizes, taps = image.tolist(), block.tolist()
    rank = len(taps)
    strides, dilations = (attr(node, name) or (1,) * rank for name in ("strides", "dilations"))
    pads = attr(node, "pads") or (0,) * 2 * rank
    k = KernelBuilder(ctx, node, f"fold{rank}d_{y.dtype.value}")
    k.read("x", x)
    k.write("y", y)
    counts: list[int] = []
    for a in range(rank):
        room = sizes[a] + pads[a] + pads[a + rank] - dilations[a] * (taps[a] - 1) - 1
        counts.append(room // strides[a] + 1)
        k.dims(
            " ".join(f"{letter}{a}" for letter in "IQKSDP"),
            (sizes[a], counts[a], taps[a], strides[a], dilations[a], pads[a]),
        )
    k.dims("PLANE COLUMNS", (prod(sizes), prod(taps) * prod(counts)))
    k.body("\n".join(_lines(rank, y.dtype.c)))
    planes = y.shape[0] * y.shape[1]
    work = prod(taps) * prod(counts)
    k.emit(grid=planes, flops=planes * work, bytes=size_of(x.tensor) + size_of(y.tensor))


def _lines(rank: int, ctype: str) -> list[str]:
    z = rank - 1
    to = source = "0"
    for a in range(z):
        to, source = f"({to} * I{a} + i{a})", f"({source} * Q{a} + o{a})"
    loops = [
        f"{ctype} *const to = plane + {to} * I{z} + start;",
        f"const {ctype} *const from = column + {source} * Q{z};",
        "for (int64_t o = low; o < high; o++)",
        f"    to[o * S{z}] += from[o];",
    ]
    for a in reversed(range(z)):
        loops = [
            f"for (int64_t o{a} = 0; o{a} < Q{a}; o{a}++) {{",
            f"    const int64_t i{a} = o{a} * S{a} + k{a} * D{a} - P{a};",
            f"    if (i{a} < 0 || i{a} >= I{a})",
            "        continue;",
            *indent(loops),
            "}",
        ]
    loops = [
        f"const int64_t start = k{z} * D{z} - P{z};",
        f"const int64_t low = tl_max(0, tl_floordiv(S{z} - 1 - start, S{z}));",
        f"const int64_t high = tl_min(Q{z}, tl_floordiv(I{z} - start + S{z} - 1, S{z}));",
        *loops,
        f"column += {' * '.join(f'Q{a}' for a in range(rank))};",
    ]
    for a in reversed(range(rank)):
        loops = [f"for (int64_t k{a} = 0; k{a} < K{a}; k{a}++) {{", *indent(loops), "}"]
    return [
        "for (int64_t item = begin; item < end; item++) {",
        f"    {ctype} *const plane = y + item * PLANE;",
        f"    const {ctype} *column = x + item * COLUMNS;",
        "    memset(plane, 0, (size_t)PLANE * sizeof *y);",
        *indent(loops),
        "}",
    ]
