"""Direct convolution of cells by AMX: blocks of 32 output pixels by 32 outputs.

A step takes 64 bytes of each pixel. They are one cell, or, where all channels are less, as many
neighbouring cells of a row: several taps at once, with weights of zero for what lies behind them.

Output pixels are counted along rows of `pitch`. Where windows step by one it is the width of the
padded input, so that rows of a block lie at one distance across the ends of rows too, and what is
computed between them is left out; else it is a multiple of 16, so that no tile meets an end.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from tuili.codegen.kernel import KernelBuilder
from tuili.codegen.kernels.conv.shape import Axis, ConvShape
from tuili.codegen.kernels.quantized.amx import COLUMNS, LANES, ROWS, STEP_BYTES, print_starts
from tuili.codegen.kernels.quantized.dot import Dot
from tuili.codegen.kernels.quantized.ends import Ends
from tuili.codegen.kernels.quantized.input import Cells, picks_pixels
from tuili.codegen.text import indent
from tuili.tensors import Array, Dim, ceil_div

BAND_BYTES = 384 * 1024  # of input that all panels read before the next band
ENOUGH_ITEMS = 16
TILE = 16  # pixels of one tile


@dataclass(frozen=True, slots=True)
class AmxWindow:
    """How a window is cut into steps."""

    shape: ConvShape
    dot: Dot
    cell: int  # channels that lie side by side
    row_steps: int  # of a row of the window

    @property
    def step(self) -> int:
        """Numbers of a step."""
        return STEP_BYTES // self.dot.bytes

    @property
    def blocks(self) -> int:
        """Cells of a pixel."""
        return -(-self.shape.channels // self.cell)

    @property
    def is_joined(self) -> bool:
        """Whether a step takes several taps."""
        return self.cell < self.step

    @property
    def slack(self) -> int:
        """Cells behind the input that a block may read for pixels and taps that do not exist."""
        return TILE * self.shape.columns.stride + self.step // self.cell

    @property
    def cycles(self) -> int:
        """Of the multipliers for a block, as they are counted in `choice`."""
        return 4 * TILE * self.blocks * self.shape.rows.taps * self.row_steps


def cut_window(shape: ConvShape, dot: Dot, block: int) -> AmxWindow:
    """The steps over an input in a layout of blocks of so many channels, 1 for row-major.

    Where `copy_cells` picks pixels, what is multiplied is a row of those.
    """
    side = max(block, dot.group)
    whole, columns = -(-shape.channels // side) * side, shape.columns
    step = STEP_BYTES // dot.bytes
    is_joined = whole < step and columns.dilation == 1
    cell = whole if is_joined else step
    row_steps = -(-columns.taps * cell // step) if is_joined else columns.taps
    if picks_pixels(shape, block, cell):
        pixels = Axis(shape.pixels, shape.pixels, 1)
        shape = replace(shape, rows=Axis(1, 1, 1), columns=pixels)
    return AmxWindow(shape.flat(), dot, cell, row_steps)


def amx_steps(window: AmxWindow, weights: Array) -> Array:
    """[OC, C, (KH,) KW] as [OC, blocks, KH, steps of a row, quads, group], zero padded."""
    shape, cell, step = window.shape, window.cell, window.step
    outputs, channels = weights.shape[:2]
    rows, columns = shape.rows.taps, shape.columns.taps
    full = np.zeros((outputs, window.blocks * cell, rows, columns), weights.dtype)
    full[:, :channels] = weights.reshape(outputs, channels, rows, columns)
    cells = full.reshape(outputs, window.blocks, cell, rows, columns).transpose(0, 1, 3, 4, 2)
    flat = cells.reshape(outputs, window.blocks, rows, columns * cell)
    padded = np.zeros((*flat.shape[:-1], window.row_steps * step), weights.dtype)
    padded[..., : flat.shape[-1]] = flat
    return padded.reshape(*flat.shape[:-1], window.row_steps, -1, window.dot.group)


def print_amx_cells(
    k: KernelBuilder,
    window: AmxWindow,
    source: Cells,
    panels: Array,
    ends: Callable[[], Ends],
) -> None:
    """The kernel; `ends` declares what both ends of the sums read, after the weights."""
    shape, dot = window.shape, window.dot
    k.support(dot.text)
    k.read("x", source.source, dot.ctype)
    k.write("y", k.node.output)
    k.weight("w", panels)
    both = ends()
    rows, columns = shape.rows, shape.columns
    pitch = _pitch(shape, source.width)
    pixels = (rows.out - 1) * pitch + columns.out
    blocks = ceil_div(pixels, ROWS)
    band = _band(window, blocks, len(panels))
    bands = ceil_div(blocks, band)
    height, width = source.height, source.width
    if (rows.size, rows.out, rows.taps) == (1, 1, 1):  # all pixels are one row
        height, width = 1, height * width
    k.dims("OH OW CB HP WP", (rows.out, columns.out, source.blocks, height, width))
    k.dims("PITCH PIXELS BLOCKS", (pitch, pixels, blocks))
    k.dims("PANELS BAND BANDS PANEL", (len(panels), band, bands, panels.shape[1]))
    k.dim("OB", -(-shape.outputs // LANES))
    k.body(_body(window, both))
    flops = shape.batch * shape.pixels * (2 * shape.outputs * shape.channels * shape.taps)
    traffic = shape.batch * source.blocks * source.height * source.width * source.cell * dot.bytes
    results = shape.batch * shape.outputs * shape.pixels * k.node.output.dtype.itemsize
    k.emit(
        grid=shape.batch * bands * len(panels),
        flops=flops,
        bytes=traffic + panels.nbytes + results,
    )


def _pitch(shape: ConvShape, padded: Dim) -> Dim:
    """Pixels from one output row to the next; see the top of this file."""
    width = shape.columns.out
    if shape.rows.out == 1:
        return width
    whole = ceil_div(width, TILE) * TILE
    if shape.rows.stride != 1 or shape.columns.stride != 1:
        return whole
    return min(whole, padded) if isinstance(whole, int) and isinstance(padded, int) else padded


def _band(window: AmxWindow, blocks: Dim, panels: int) -> Dim:
    """Blocks of one item."""
    shape = window.shape
    pixel = window.blocks * window.cell * window.dot.bytes
    room = max(1, BAND_BYTES // (ROWS * pixel * shape.rows.stride * shape.columns.stride))
    if not isinstance(blocks, int):
        return room
    images = shape.batch if isinstance(shape.batch, int) else 1
    wanted = -(-ENOUGH_ITEMS // (panels * images))
    return max(1, min(room, -(-blocks // wanted)))


def _body(window: AmxWindow, ends: Ends) -> str:
    dot, cell, size = window.dot, window.cell, window.cell * window.dot.bytes
    rows, columns, total = window.shape.rows, window.shape.columns, dot.scalar
    tap = STEP_BYTES if window.is_joined else size * columns.dilation
    at = f"{{q}} / PITCH * {rows.stride} * WP + {{q}} % PITCH * {columns.stride}"
    return "\n".join(
        [
            "(void)HP;",
            "tl_tiles tiles = tl_tiles_begin();",
            f"const tl_walk walk = {{{{CB, {rows.taps}, {window.row_steps}}},",
            f"    {{HP * WP * {size}, WP * {size * rows.dilation}, {tap}}}}};",
            f"{total} sums[4 * 256] __attribute__((aligned(64)));",
            f"{total} starts[{COLUMNS}] __attribute__((aligned(64)));",
            "for (int64_t item = begin; item < end; item++) {",
            "    const int64_t panel = item % PANELS, band = item / PANELS % BANDS;",
            f"    const int64_t n = item / (PANELS * BANDS), oc = panel * {COLUMNS};",
            f"    const {dot.ctype} *const xn = x + n * CB * HP * WP * {cell};",
            *indent(print_starts(ends)),
            "    for (int64_t b = band * BAND; b < tl_min((band + 1) * BAND, BLOCKS); b++) {",
            f"        const int64_t q0 = b * {ROWS}, q1 = q0 + {TILE} < PIXELS ? q0 + {TILE} : q0;",
            f"        const {dot.ctype} *const x0 = xn + ({at.format(q='q0')}) * {cell};",
            f"        const {dot.ctype} *const x1 = xn + ({at.format(q='q1')}) * {cell};",
            f"        tl_block(&tiles, sums, starts, x0, x1, {size * columns.stride},",
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
