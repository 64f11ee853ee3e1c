"""Products of rows with known weights by AMX: blocks of 32 rows by 32 columns."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from tuili.codegen.kernel import KernelBuilder
from tuili.codegen.kernels.quantized.amx import COLUMNS, LANES, ROWS, STEP_BYTES, print_starts
from tuili.codegen.kernels.quantized.dot import Dot
from tuili.codegen.kernels.quantized.ends import Ends
from tuili.codegen.text import indent
from tuili.ir import Value
from tuili.lower.program import View
from tuili.tensors import Array, Dim, ceil_div

BAND_BYTES = 384 * 1024  # of rows that all panels read before the next band
ENOUGH_ITEMS = 16
LEAST_ROWS = 5  # fewer leave the multipliers of AMX without work
LEAST_DEPTH = 32


def fits_amx_rows(rows: Dim, depth: int, width: int) -> bool:
    """Whether a product gives tile registers enough to do."""
    enough = not isinstance(rows, int) or rows >= LEAST_ROWS
    return enough and depth >= LEAST_DEPTH and width >= LANES


def padded_depth(depth: int, dot: Dot) -> int:
    """Numbers of a row in whole steps."""
    step = STEP_BYTES // dot.bytes
    return -(-depth // step) * step


def amx_row_steps(weights: Array, dot: Dot) -> Array:
    """[K, N] as [N, steps, quads, group], zero padded."""
    depth, width = weights.shape
    full = np.zeros((padded_depth(depth, dot), width), weights.dtype)
    full[:depth] = weights
    step = STEP_BYTES // dot.bytes
    return np.ascontiguousarray(full.T).reshape(width, -1, step // dot.group, dot.group)


def print_amx_rows(
    k: KernelBuilder,
    source: Value | View,
    sizes: tuple[Dim, int, int],
    dot: Dot,
    panels: Array,
    ends: Callable[[], Ends],
) -> None:
    """The kernel for `sizes` (rows, depth, width), rows padded to whole steps where they are read.

    `ends` declares what both ends of the sums read, after the weights.
    """
    rows, depth, width = sizes
    padded = padded_depth(depth, dot)
    k.support(dot.text)
    k.read("x", source, dot.ctype)
    k.write("y", k.node.output)
    k.weight("w", panels)
    both = ends()
    band = _band(rows, padded * dot.bytes, len(panels))
    bands = ceil_div(rows, band)
    k.dims("M N K", (rows, width, padded))
    k.dims("PANELS BAND BANDS PANEL", (len(panels), band, bands, panels.shape[1]))
    k.body(_body(dot, width, both))
    k.emit(
        grid=bands * len(panels),
        flops=rows * (2 * depth * width),
        bytes=rows * (padded * dot.bytes + width * k.node.output.dtype.itemsize) + panels.nbytes,
    )


def _band(rows: Dim, row_bytes: int, panels: int) -> Dim:
    """Rows of an item, whole blocks of them."""
    room = max(1, BAND_BYTES // (row_bytes * ROWS))
    if not isinstance(rows, int):
        return room * ROWS
    wanted = -(-ENOUGH_ITEMS // panels)
    return max(1, min(room, -(-rows // (wanted * ROWS)))) * ROWS


def _body(dot: Dot, width: int, ends: Ends) -> str:
    total, numbers = dot.scalar, STEP_BYTES // dot.bytes
    return "\n".join(
        [
            "(void)BANDS;",
            "tl_tiles tiles = tl_tiles_begin();",
            f"const tl_walk walk = {{{{1, 1, K / {numbers}}}, {{0, 0, {STEP_BYTES}}}}};",
            f"{total} sums[4 * 256] __attribute__((aligned(64)));",
            f"{total} starts[{COLUMNS}] __attribute__((aligned(64)));",
            "for (int64_t item = begin; item < end; item++) {",
            "    const int64_t panel = item % PANELS, band = item / PANELS;",
            f"    const int64_t oc = panel * {COLUMNS}, stop = tl_min((band + 1) * BAND, M);",
            *indent(print_starts(ends)),
            f"    for (int64_t row = band * BAND; row < stop; row += {ROWS}) {{",
            f"        const int64_t rows = tl_min({ROWS}, stop - row);",
            f"        const {dot.ctype} *const x0 = x + row * K;",
            "        tl_tiles_rows(&tiles, rows);",
            "        tl_block(&tiles, sums, starts, x0, rows > 16 ? x0 + 16 * K : x0,",
            f"                 K * {dot.bytes}, w + panel * PANEL, &walk);",
            "        for (int64_t r = 0; r < rows; r++)",
            "            for (int64_t v = 0; v < 2 && oc + v * V < N; v++) {",
            f"                const {total} *const from = sums + v * 256 + (r + r / 16 * 16) * V;",
            "                const int64_t at = (row + r) * N + oc + v * V;",
            *indent(_store(dot, width, ends), 4),
            "            }",
            "    }",
            "}",
            "tl_tiles_end(&tiles);",
        ]
    )


def _store(dot: Dot, width: int, ends: Ends) -> list[str]:
    """V results, or those that there are; `from`, `at` and `v` are in scope."""
    whole = ends.stores([f"*(const {dot.sum}_any *)from"], "at", "oc + v * V")
    if width % LANES == 0:
        return whole
    statements, result = ends.scalar("from[c]", "at + c", "oc + v * V + c")
    return [
        "if (oc + (v + 1) * V <= N) {",
        *indent(whole),
        "} else {",
        "    for (int64_t c = 0; c < N - oc - v * V; c++) {",
        *indent([*statements, f"y[at + c] = {result};"], 2),
        "    }",
        "}",
    ]
