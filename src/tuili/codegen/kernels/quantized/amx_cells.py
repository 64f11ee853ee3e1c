"""Direct convolution of cells of 64 bytes by AMX: blocks of 32 output pixels by 32 outputs.

Output pixels are counted along rows of `pitch`. Where windows step by one it is the width of the
padded input, so that rows of a block lie at one distance across the ends of rows too, and what is
computed between them is left out; else it is a multiple of 16, so that no tile meets an end.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from tuili.codegen.kernel import KernelBuilder
from tuili.codegen.kernels.conv.rows import indent
from tuili.codegen.kernels.conv.shape import ConvShape
from tuili.codegen.kernels.quantized.amx import COLUMNS, LANES, ROWS, STEP_BYTES
from tuili.codegen.kernels.quantized.dot import Dot
from tuili.codegen.kernels.quantized.ends import Ends
from tuili.codegen.kernels.quantized.input import Cells
from tuili.tensors import Array, Dim, ceil_div

BAND_BYTES = 384 * 1024  # of input that all panels read before the next band
ENOUGH_ITEMS = 16
C_SUMS = {"vi": "int32_t", "vf": "float"}
TILE = 16  # pixels of one tile


def slack(shape: ConvShape) -> int:
    """Cells behind the input that a tile may read for pixels that do not exist."""
    return TILE * shape.columns.stride


def amx_steps(shape: ConvShape, weights: Array, dot: Dot) -> Array:
    """[OC, C, (KH,) KW] as [OC, blocks of a step, KH, KW, quads, group], zero padded."""
    outputs, channels = weights.shape[:2]
    taps, cell = (shape.rows.taps, shape.columns.taps), STEP_BYTES // dot.bytes
    full = np.zeros((outputs, -(-channels // cell) * cell, *taps), weights.dtype)
    full[:, :channels] = weights.reshape(outputs, channels, *taps)
    cells = full.reshape(outputs, -1, cell // dot.group, dot.group, *taps)
    return cells.transpose(0, 1, 4, 5, 2, 3)


def print_amx_cells(
    k: KernelBuilder,
    shape: ConvShape,
    dot: Dot,
    source: Cells,
    panels: Array,
    ends: Callable[[], Ends],
) -> None:
    """The kernel; `ends` declares what both ends of the sums read, after the weights."""
    k.support(dot.text)
    k.read("x", source.source, dot.ctype)
    k.write("y", k.node.output)
    k.weight("w", panels)
    both = ends()
    rows, columns = shape.rows, shape.columns
    pitch = _pitch(shape, source)
    pixels = (rows.out - 1) * pitch + columns.out
    blocks = ceil_div(pixels, ROWS)
    band = _band(shape, blocks, len(panels), source.blocks)
    bands = ceil_div(blocks, band)
    k.dims("OH OW CB HP WP", (rows.out, columns.out, source.blocks, source.height, source.width))
    k.dims("PITCH PIXELS BLOCKS", (pitch, pixels, blocks))
    k.dims("PANELS BAND BANDS PANEL", (len(panels), band, bands, panels.shape[1]))
    k.dim("OB", -(-shape.outputs // LANES))
    k.body(_body(shape, dot, source.cell, both))
    flops = shape.batch * shape.pixels * (2 * shape.outputs * shape.channels * shape.taps)
    traffic = shape.batch * source.blocks * source.height * source.width * source.cell * dot.bytes
    results = shape.batch * shape.outputs * shape.pixels * k.node.output.dtype.itemsize
    k.emit(
        grid=shape.batch * bands * len(panels),
        flops=flops,
        bytes=traffic + panels.nbytes + results,
    )


def _pitch(shape: ConvShape, source: Cells) -> Dim:
    """Pixels from one output row to the next; see the top of this file."""
    width = shape.columns.out
    if shape.rows.out == 1:
        return width
    whole = ceil_div(width, TILE) * TILE
    if shape.rows.stride != 1 or shape.columns.stride != 1:
        return whole
    if isinstance(whole, int) and isinstance(source.width, int):
        return min(whole, source.width)
    return source.width


def _band(shape: ConvShape, blocks: Dim, panels: int, depth: int) -> Dim:
    """Blocks of one item."""
    room = max(1, BAND_BYTES // (ROWS * depth * 64 * shape.rows.stride * shape.columns.stride))
    if not isinstance(blocks, int):
        return room
    images = shape.batch if isinstance(shape.batch, int) else 1
    wanted = -(-ENOUGH_ITEMS // (panels * images))
    return max(1, min(room, -(-blocks // wanted)))


def _body(shape: ConvShape, dot: Dot, cell: int, ends: Ends) -> str:
    rows, columns, total = shape.rows, shape.columns, C_SUMS[dot.sum]
    at = f"{{q}} / PITCH * {rows.stride} * WP + {{q}} % PITCH * {columns.stride}"
    return "\n".join(
        [
            "(void)HP;",
            "tl_tiles tiles = tl_tiles_begin();",
            f"const tl_walk walk = {{{{CB, {rows.taps}, {columns.taps}}},",
            f"    {{HP * WP * 64, WP * {64 * rows.dilation}, {64 * columns.dilation}}}}};",
            f"{total} sums[4 * 256] __attribute__((aligned(64)));",
            f"{total} starts[{COLUMNS}] __attribute__((aligned(64)));",
            "for (int64_t item = begin; item < end; item++) {",
            "    const int64_t panel = item % PANELS, band = item / PANELS % BANDS;",
            f"    const int64_t n = item / (PANELS * BANDS), oc = panel * {COLUMNS};",
            f"    const {dot.ctype} *const xn = x + n * CB * HP * WP * {cell};",
            *(f"    {ends.start(f'start{v}', f'oc + {v} * V')}" for v in range(2)),
            *(f"    memcpy(starts + {v} * V, &start{v}, sizeof start{v});" for v in range(2)),
            "    for (int64_t b = band * BAND; b < tl_min((band + 1) * BAND, BLOCKS); b++) {",
            f"        const int64_t q0 = b * {ROWS}, q1 = q0 + {TILE} < PIXELS ? q0 + {TILE} : q0;",
            f"        const {dot.ctype} *const x0 = xn + ({at.format(q='q0')}) * {cell};",
            f"        const {dot.ctype} *const x1 = xn + ({at.format(q='q1')}) * {cell};",
            f"        tl_block(&tiles, sums, starts, x0, x1, {64 * columns.stride},",
            "                 w + panel * PANEL, &walk);",
            "        for (int64_t tile = 0; tile < 4; tile++) {",
            f"            const int64_t q = q0 + tile / 2 * {TILE}, block = oc / V + tile % 2;",
            "            if (q >= PIXELS || block >= OB)",
            "                continue;",
            f"            const {total} *const from = sums + tile * 256;",
            *indent(_stores(dot, ends), 3),
            "        }",
            "    }",
            "}",
            "tl_tiles_end(&tiles);",
        ]
    )


def _stores(dot: Dot, ends: Ends) -> list[str]:
    """What lies in rows of the output, run by run; `q`, `block` and `from` are in scope."""

    def results(count: int) -> list[str]:
        accs = [f"*(const {dot.sum}_any *)(from + (r + {i}) * V)" for i in range(count)]
        return ends.stores(accs, "at + r * V", "block * V")

    return [
        "int64_t oh = q / PITCH, ow = q % PITCH;",
        f"for (int64_t r = 0, next; r < {TILE} && oh < OH; r = next, oh++, ow = 0) {{",
        "    const int64_t at = (((n * OB + block) * OH + oh) * OW + ow - r) * V;",
        f"    const int64_t stop = tl_min({TILE}, r + tl_max(OW - ow, 0));",
        "    next = r + PITCH - ow;",
        "    for (; r + 4 <= stop; r += 4) {",
        *indent(results(4), 2),
        "    }",
        "    for (; r < stop; r++) {",
        *indent(results(1), 2),
        "    }",
        "}",
    ]
