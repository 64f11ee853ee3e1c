"""Direct convolution into blocked output: register tiles slide along the rows of the input.

    y[n][oc / V][oh][ow][V] += x[n][c / B][oh * SH + kh * DH - PT][ow * SW + kw * DW - PL][B]
                               * w[panel][c / B][kh][kw][B][NV * V]

B is V for blocked input and 1 for plain input (first layers). A grid item is one panel of NV output
vectors for one band of rows; a panel's weights are read in the order in which they are stored. A
1x1 window is one long row of all pixels. When the width is known every tile of a row is printed
with just the taps that its pixels have; when it is not, tiles at the borders read a padded copy.
Grouped convolution is the same: a panel reads the input blocks of its groups, and the weights of
channels that do not belong to an output are zero.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tuili.codegen.epilogue import Epilogue
from tuili.codegen.kernel import Context, KernelBuilder
from tuili.codegen.kernels.conv_rows import indent, known_tiles, tap_rows, unknown_tiles
from tuili.codegen.kernels.conv_shape import MOST_TAPS, ConvShape, conv_shape
from tuili.codegen.kernels.register_tile import (
    Steps,
    Tile,
    choose_tile,
    print_accumulate,
)
from tuili.codegen.packing import pad_to_multiple
from tuili.codegen.targets import Target
from tuili.ir import Node, block_of
from tuili.ops.table import attr
from tuili.tensors import Array, Dim, DType, ceil_div

OWN_SLOTS = 3  # x, w, bias
L2_BYTES = 512 * 1024  # of the second-level cache, for one core to rely on
AHEAD = 512  # floats that weights are prefetched ahead, when they outgrow that cache
ENOUGH_ITEMS = 128  # grid items that balance over many threads
INLINE_STATEMENTS = 4  # longer epilogues become a loop over the tile


def supports_direct(node: Node, ctx: Context) -> bool:
    """Whether x and y are f32 maps, y blocked, and the weights are known."""
    x, y, bias = node.required(0), node.output, node.input(2)
    weights, known = node.required(1), bias is None or bias.is_constant
    f32 = x.dtype is DType.F32 and y.dtype is DType.F32
    blocked = y.layout == ctx.target.layout and x.layout in ("", ctx.target.layout)
    return f32 and blocked and known and weights.is_constant and len(x.shape) in (3, 4)


@dataclass(frozen=True, slots=True)
class Scatter:
    """Where results go: output (i, j) to (i * stride + phase, ...) of a map of the full size."""

    height: Dim
    width: Dim
    strides: tuple[int, int] = (1, 1)
    phase: tuple[int, int] = (0, 0)

    def row(self, row: str) -> str:
        """The output row as C."""
        return _scaled(row, self.strides[0], self.phase[0])

    def column(self, column: str) -> str:
        """The output column as C."""
        return _scaled(column, self.strides[1], self.phase[1])


def _scaled(index: str, stride: int, phase: int) -> str:
    text = index if stride == 1 else f"{index} * {stride}"
    return text if phase == 0 else f"({text} + {phase})"


@dataclass(frozen=True, slots=True)
class DirectPlan:
    """Everything that the printer decides from."""

    shape: ConvShape
    tile: Tile
    lanes: int  # V
    block: int  # B
    first: tuple[int, ...]  # the first input block that each panel reads
    blocks: int  # NB: how many it reads
    chunk: int  # input blocks whose weights stay in the cache together
    band: Dim  # rows of a grid item; pixels when the map is one row
    scatter: Scatter

    @property
    def steps(self) -> Steps:
        """Distances of the micro-kernel."""
        columns = self.shape.columns
        ahead = AHEAD if len(self.first) * self.panel_floats * 4 > 2 * L2_BYTES else 0
        return Steps(columns.stride * self.block, columns.dilation * self.block, self.block, ahead)

    @property
    def channel_blocks(self) -> int:
        """Blocks of the whole input."""
        return -(-self.shape.channels // self.block)

    @property
    def out_blocks(self) -> int:
        """Vectors of output channels."""
        return -(-self.shape.outputs // self.lanes)

    @property
    def tail(self) -> int:
        """Vectors of the last panel when it has fewer than the others, else 0."""
        return self.out_blocks % self.tile.vectors

    @property
    def panel_floats(self) -> int:
        """Weights of one panel."""
        return self.blocks * self.shape.taps * self.block * self.tile.vectors * self.lanes

    @property
    def is_row(self) -> bool:
        """Whether bands are cut along the only row."""
        return self.shape.rows.out == 1

    @property
    def has_borders(self) -> bool:
        """Whether tiles of an unknown row may need a padded copy."""
        return not self.shape.is_static and not self.shape.columns.is_inside


def plan_direct(
    shape: ConvShape, groups: int, block: int, target: Target, scatter: Scatter | None = None
) -> DirectPlan:
    """The plan of a convolution whose input comes in blocks of `block` channels."""
    lanes = target.lanes
    per_group, out_blocks = shape.outputs // groups, -(-shape.outputs // lanes)
    divides = 0 if groups == 1 else per_group // lanes if per_group % lanes == 0 else 1
    tile = choose_tile(target, shape.columns.out, out_blocks, divides=divides)
    first, blocks = panel_blocks(shape, groups, tile.vectors * lanes, block)
    step = shape.taps * block * tile.vectors * lanes * 4
    chunk = blocks if _is_one_tile(shape, tile) else min(blocks, max(1, L2_BYTES // 2 // step))
    band = _band(shape, tile, len(first), len(first) * blocks * step)
    scatter = scatter or Scatter(shape.rows.out, shape.columns.out)
    return DirectPlan(shape, tile, lanes, block, first, blocks, chunk, band, scatter)


def _is_one_tile(shape: ConvShape, tile: Tile) -> bool:
    return shape.rows.out == 1 and shape.columns.out == tile.pixels


def panel_blocks(
    shape: ConvShape, groups: int, panel: int, block: int
) -> tuple[tuple[int, ...], int]:
    """The first input block of every panel of `panel` output channels, and how many all read."""
    ins, outs = shape.channels // groups, shape.outputs // groups
    ranges: list[tuple[int, int]] = []
    for start in range(0, shape.outputs, panel):
        last = min(start + panel, shape.outputs) - 1
        ranges.append((start // outs * ins // block, ((last // outs + 1) * ins - 1) // block + 1))
    most = max(end - begin for begin, end in ranges)
    limit = -(-shape.channels // block) - most
    return tuple(min(begin, limit) for begin, _ in ranges), most


def _band(shape: ConvShape, tile: Tile, panels: int, weight_bytes: int) -> Dim:
    """Rows (or pixels) of a grid item: input that stays in the cache, and enough items."""
    is_row = shape.rows.out == 1
    unit = tile.pixels if is_row else 1
    row = tile.pixels if is_row else shape.columns.size
    bytes_each = shape.channels * 4 * (row if isinstance(row, int) else 160)
    room = L2_BYTES // 2 if weight_bytes > L2_BYTES else L2_BYTES // 4
    count = max(1, room // (bytes_each * shape.rows.stride))
    total = shape.columns.out if is_row else shape.rows.out
    if not isinstance(total, int):
        return count * unit
    units = -(-total // unit)
    images = shape.batch if isinstance(shape.batch, int) else 1
    wanted = -(-ENOUGH_ITEMS // (panels * images))
    # Small weights cost nothing when they are read again: there bands may be short.
    least = 1 if weight_bytes <= L2_BYTES else min(count, -(-units // 4))
    return max(min(count, units // wanted, units), least) * unit


def pack_panels(weights: Array, groups: int, plan: DirectPlan) -> Array:
    """[OC, C / groups, (KH,) KW] as [panel][NB][KH][KW][B][NV * V], zeros where nothing belongs."""
    outputs, ins = weights.shape[:2]
    taps = weights.shape[2:] if weights.ndim == 4 else (1, *weights.shape[2:])
    wide = plan.tile.vectors * plan.lanes
    block = plan.block
    packed = np.zeros((len(plan.first), plan.blocks * block, *taps, wide), np.float32)
    per_group = outputs // groups
    source = weights.reshape(outputs, ins, *taps)
    for panel, first in enumerate(plan.first):
        start, stop = panel * wide, min((panel + 1) * wide, outputs)
        for group in range(start // per_group, (stop - 1) // per_group + 1):
            low, high = max(start, group * per_group), min(stop, (group + 1) * per_group)
            channel = group * ins - first * block
            packed[panel, channel : channel + ins, :, :, low - start : high - start] = np.moveaxis(
                source[low:high], 0, -1
            )
    blocked = np.moveaxis(packed.reshape(len(plan.first), plan.blocks, block, *taps, wide), 2, -2)
    result = np.ascontiguousarray(blocked).reshape(len(plan.first), -1)
    if plan.tail:
        narrow = blocked[-1, ..., : plan.tail * plan.lanes].flatten()
        result[-1] = 0
        result[-1, : narrow.size] = narrow
    return result


def emit_direct(node: Node, ctx: Context) -> None:
    """Conv: one call; see the module."""
    weights = node.required(1).constant
    assert weights is not None  # supports_direct
    shape = conv_shape(node, weights.shape[2:]).flat()
    groups, block = attr(node, "group"), block_of(node.required(0).layout)
    plan = plan_direct(shape, groups, block, ctx.target)
    emit_plan(node, ctx, plan, pack_panels(weights, groups, plan), _name(shape))


def emit_plan(node: Node, ctx: Context, plan: DirectPlan, packed: Array, name: str) -> None:
    """The call that a plan describes, for a node with inputs x, w and bias."""
    shape = plan.shape
    k = KernelBuilder(ctx, node, name)
    k.read("x", node.required(0))
    k.write("y", node.output)
    k.weight("w", packed)
    bias = node.input(2)
    if bias is not None and bias.constant is not None:
        k.weight("bias", pad_to_multiple(bias.constant, plan.tile.vectors * plan.lanes))
    epilogue = Epilogue(k, node, OWN_SLOTS)
    _dims(k, plan)
    k.body(_Printer(plan, epilogue, plan.tile.vectors, has_bias=bias is not None).body())
    bands = ceil_div(shape.columns.out if plan.is_row else shape.rows.out, plan.band)
    flops = shape.batch * shape.pixels * (2 * packed.size)
    traffic = shape.batch * shape.channels * shape.rows.size * shape.columns.size
    traffic = (traffic + packed.size + shape.batch * shape.outputs * shape.pixels) * 4
    k.emit(grid=shape.batch * bands * len(plan.first), flops=flops, bytes=traffic)


def _name(shape: ConvShape) -> str:
    sizes = [shape.channels, shape.rows.size, shape.columns.size, shape.outputs]
    known = "x".join(str(size) for size in sizes if isinstance(size, int))
    stride = shape.columns.stride
    return f"conv{shape.rows.taps}x{shape.columns.taps}s{stride}_{known}"


def _dims(k: KernelBuilder, plan: DirectPlan) -> None:
    rows, columns = plan.shape.rows, plan.shape.columns
    bands = ceil_div(columns.out if plan.is_row else rows.out, plan.band)
    k.dims("H W OH OW", (rows.size, columns.size, rows.out, columns.out))
    k.dims("FH FW", (plan.scatter.height, plan.scatter.width))
    k.dims("PT PL BAND BANDS", (rows.pad, columns.pad, plan.band, bands))
    k.dims("CB NB PANELS", (plan.channel_blocks, plan.blocks, len(plan.first)))
    if plan.has_borders:
        span = (plan.tile.pixels - 1) * columns.stride + columns.reach
        k.scratch(plan.chunk * rows.taps * span * plan.block * 4)


class _Printer:
    """Prints the body of a direct convolution, from the outer loops to the stores."""

    def __init__(
        self, plan: DirectPlan, epilogue: Epilogue, vectors: int, *, has_bias: bool
    ) -> None:
        self.plan = plan
        self.epilogue = epilogue
        self.vectors = vectors  # of the panels that are printed
        self.has_bias = has_bias

    def body(self) -> str:
        """The loops over items, chunks of input blocks and rows."""
        plan = self.plan
        varies = len(set(plan.first)) > 1
        firsts = ", ".join(str(first) for first in (plan.first if varies else plan.first[:1]))
        table = [f"static const int32_t firsts[{len(plan.first)}] = {{{firsts}}};"]
        rows = self._rows()
        if plan.tail and len(plan.first) > 1:
            narrow = _Printer(plan, self.epilogue, plan.tail, has_bias=self.has_bias)
            rows = [
                "if (panel + 1 < PANELS) {",
                *indent(rows),
                "} else {  /* fewer vectors */",
                *indent(narrow._rows()),
                "}",
            ]
        lines = [
            *(table if varies else []),
            "(void)H, (void)OH, (void)PT, (void)PL, (void)CB;",
            "for (int64_t item = begin; item < end; item++) {",
            "    const int64_t panel = item % PANELS, band = item / PANELS % BANDS;",
            "    const int64_t n = item / (PANELS * BANDS);",
            f"    const int64_t first = {'firsts[panel]' if varies else firsts};",
            f"    const float *const xn = x + (n * CB + first) * H * W * {plan.block};",
            f"    const float *const wn = w + panel * {plan.panel_floats};",
            f"    const int64_t oc = panel * {plan.tile.vectors * plan.lanes};",
            f"    for (int64_t block = 0; block < NB; block += {plan.chunk}) {{",
            f"        const int64_t stop = tl_min(block + {plan.chunk}, NB);",
            *indent(rows, 2),
            "    }",
            "}",
        ]
        return "\n".join(lines)

    def _rows(self) -> list[str]:
        """The rows of a band."""
        if self.plan.is_row:
            return ["const int64_t oh = 0;", *self._row()]
        return [
            "for (int64_t oh = band * BAND; oh < tl_min((band + 1) * BAND, OH); oh++) {",
            *indent(self._row()),
            "}",
        ]

    def _row(self) -> list[str]:
        """The taps of the row that lie inside, then its tiles."""
        plan = self.plan
        head = tap_rows(plan.shape.rows)
        if plan.is_row:
            return [*head, *self._band_of_one_row()]
        if plan.shape.is_static:
            return [*head, *known_tiles(plan.shape.columns, plan.tile.pixels, self._tile)]
        return [*head, "int64_t ow = 0;", *unknown_tiles(plan.tile.pixels, self._tile, "OW")]

    def _band_of_one_row(self) -> list[str]:
        columns, pixels = self.plan.shape.columns, self.plan.tile.pixels
        limits = ["const int64_t left = band * BAND, right = tl_min(left + BAND, OW);"]
        if not self.plan.shape.is_static:
            return [*limits, "int64_t ow = left;", *unknown_tiles(pixels, self._tile, "right")]
        return [*limits, *known_tiles(columns, pixels, self._tile, limited=True)]

    # -- one tile ------------------------------------------------------------------------------

    def _tile(self, pixels: int, taps: list[tuple[int, int]] | None) -> list[str]:
        vectors = range(self.vectors)
        names = [f"acc{p}_{v}" for p in range(pixels) for v in vectors]
        return [
            f"const int64_t at = {self._at()};",
            "float *const out = y + at;",
            f"vf {', '.join(names)};",
            *self._start(pixels),
            *self._input(pixels),
            "for (int64_t cb = block; cb < stop; cb++) {",
            *indent(self._rows_of_taps(pixels, taps)),
            "}",
            *self._store(pixels),
        ]

    def _at(self) -> str:
        """The index of the tile's first result."""
        scatter = self.plan.scatter
        block = f"n * {self.plan.out_blocks} + oc / V"
        return f"((({block}) * FH + {scatter.row('oh')}) * FW + {scatter.column('ow')}) * V"

    def _offset(self, vector: object, pixel: object) -> str:
        """From there to a vector and pixel of the tile."""
        stride = self.plan.scatter.strides[1]
        step = "V" if stride == 1 else f"{stride} * V"
        return f"{vector} * FH * FW * V + {pixel} * {step}"

    def _start(self, pixels: int) -> list[str]:
        """Sums start from the bias, or go on from the last chunk of input blocks."""
        vectors = range(self.vectors)
        fresh: list[str] = []
        for v in vectors:
            value = f"v_load(start + {v} * V)" if self.has_bias else "(vf){0}"
            names = " = ".join(f"acc{p}_{v}" for p in range(pixels))
            fresh.append(f"{names} = {value};")
        if self.has_bias:
            # Hidden, or gcc keeps the bias in registers across tiles and spills weights for it.
            fresh[:0] = ["const float *start = bias + oc;", '__asm__ volatile("" : "+r"(start));']
        if self.plan.chunk >= self.plan.blocks:
            return fresh
        resumed = [
            f"acc{p}_{v} = v_load(out + {self._offset(v, p)});"
            for v in vectors
            for p in range(pixels)
        ]
        return ["if (block == 0) {", *indent(fresh), "} else {", *indent(resumed), "}"]

    def _input(self, pixels: int) -> list[str]:
        """`xt0`: where the first tap of the first pixel lies; `XR`, `XB`: to rows and blocks."""
        plan = self.plan
        rows, columns, block = plan.shape.rows, plan.shape.columns, plan.block
        here = f"xn + (h * W + ow * {columns.stride} - PL) * {block}"
        steps = f"XR = {rows.dilation} * W * {block}, XB = H * W * {block}"
        if not plan.has_borders:
            return [f"const float *const xs = {here};", f"const int64_t {steps};"]
        span = (pixels - 1) * columns.stride + columns.reach
        return [
            f"const float *xs = {here};",
            f"int64_t {steps};",
            f"const int64_t left_edge = ow * {columns.stride} - PL;",
            f"if (left_edge < 0 || left_edge + {span} > W) {{  /* a copy, padded with zeros */",
            "    float *const patch = (float *)scratch;",
            "    for (int64_t cb = block; cb < stop; cb++)",
            "        for (int64_t kh = kh0; kh < kh1; kh++)",
            f"            for (int64_t q = 0; q < {span}; q++) {{",
            f"                const float *const from = xs + cb * XB + kh * XR + q * {block};",
            "                const int inside = left_edge + q >= 0 && left_edge + q < W;",
            f"                const int64_t line = (cb - block) * {rows.taps} + kh;",
            f"                float *const to = patch + (line * {span} + q) * {block};",
            f"                {self._copy_pixel()}",
            "            }",
            f"    XR = {span * block}, XB = {rows.taps * span * block};",
            "    xs = patch - block * XB;",
            "}",
        ]

    def _copy_pixel(self) -> str:
        if self.plan.block == 1:
            return "*to = inside ? *from : 0.0f;"
        return "v_store(to, inside ? v_load(from) : (vf){0});"

    def _rows_of_taps(self, pixels: int, taps: list[tuple[int, int]] | None) -> list[str]:
        plan = self.plan
        rows, columns = plan.shape.rows, plan.shape.columns
        row_floats = columns.taps * plan.block * self.vectors * plan.lanes
        # One channel makes a short loop body: print the taps side by side.
        short = plan.block == 1 and columns.taps <= MOST_TAPS
        every = [(0, pixels)] * columns.taps if short else columns.taps
        tile = print_accumulate(Tile(pixels, self.vectors), pixels, plan.steps, taps or every)
        return [
            *self._lanes(),
            "for (int64_t kh = kh0; kh < kh1; kh++) {",
            "    const float *const xr = xs + cb * XB + kh * XR;",
            f"    const float *const wr = wn + (cb * {rows.taps} + kh) * {row_floats};",
            *indent(tile),
            "}",
        ]

    def _lanes(self) -> list[str]:
        plan = self.plan
        if plan.block == 1:
            return []
        rest = plan.shape.channels % plan.block
        if not rest:
            return [f"const int64_t lanes = {plan.block};"]
        return [f"const int64_t lanes = first + cb + 1 < CB ? {plan.block} : {rest};"]

    def _store(self, pixels: int) -> list[str]:
        vectors = range(self.vectors)
        plain = [
            f"v_store(out + {self._offset(v, p)}, acc{p}_{v});"
            for v in vectors
            for p in range(pixels)
        ]
        if self.epilogue.empty:
            return plain
        finished = self._finish(pixels)
        if self.plan.chunk >= self.plan.blocks:
            return finished
        return ["if (stop < NB) {", *indent(plain), "} else {", *indent(finished), "}"]

    def _finish(self, pixels: int) -> list[str]:
        """The epilogue: line by line, or as a loop when it is long."""
        vectors = range(self.vectors)
        statements, result = self.epilogue.vector(
            "tile[v][p]", f"at + {self._offset('v', 'p')}", "oc + v * V"
        )
        if len(statements) > INLINE_STATEMENTS:
            sums = [f"tile[{v}][{p}] = acc{p}_{v};" for v in vectors for p in range(pixels)]
            return [
                f"vf tile[{len(vectors)}][{pixels}];",
                *sums,
                f"for (int64_t v = 0; v < {len(vectors)}; v++)",
                f"    for (int64_t p = 0; p < {pixels}; p++) {{",
                *indent(statements, 2),
                f"        v_store(out + {self._offset('v', 'p')}, {result});",
                "    }",
            ]
        lines: list[str] = []
        for v in vectors:
            for p in range(pixels):
                statements, result = self.epilogue.vector(
                    f"acc{p}_{v}", f"at + {self._offset(v, p)}", f"oc + {v} * V"
                )
                store = f"v_store(out + {self._offset(v, p)}, {result});"
                lines.append("{ " + " ".join([*statements, store]) + " }")
        return lines
