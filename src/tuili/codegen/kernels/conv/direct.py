"""Direct convolution into blocked output: register tiles slide along the rows of the input.

    y[n][oc / V][oh][ow][V] += x[n][c / B][oh * SH + kh * DH - PT][ow * SW + kw * DW - PL][B]
                               * w[panel][c / B][kh][kw][B][NV * V]

B is V for blocked input and 1 for plain input (first layers). A grid item is one panel of NV output
vectors for one band of rows; a panel's weights are read in the order in which they are stored.
Bands of few rows share the work of many threads; whoever takes several in a row runs them as one. A
1x1 window is one long row of all pixels. When the width is known every tile of a row is printed
with just the taps that its pixels have; when it is not, tiles at the borders read a padded copy.
Grouped convolution is the same: a panel reads the input blocks of its groups, and the weights of
channels that do not belong to an output are zero.
"""

from __future__ import annotations

from tuili.codegen.epilogue import Epilogue
from tuili.codegen.kernel import Context, KernelBuilder
from tuili.codegen.kernels.conv.choice import plan_conv
from tuili.codegen.kernels.conv.gather import emit_gather
from tuili.codegen.kernels.conv.plan import DirectPlan, pack_panels
from tuili.codegen.kernels.conv.register_tile import (
    Tile,
    print_accumulate,
)
from tuili.codegen.kernels.conv.rows import (
    equal_tiles,
    known_tiles,
    print_panels,
    tap_rows,
    tile_start,
    unknown_tiles,
)
from tuili.codegen.kernels.conv.shape import MOST_TAPS, ConvShape
from tuili.codegen.packing import pad_to_multiple
from tuili.codegen.text import indent
from tuili.ir import Node
from tuili.ops.table import attr
from tuili.tensors import Array, DType

OWN_SLOTS = 3  # x, w, bias
CACHE_LINE = 16  # floats
FEW_WIDTHS = 8  # of a tile, to print all of them
INLINE_STATEMENTS = 4  # longer epilogues become a loop over the tile


def supports_direct(node: Node, ctx: Context) -> bool:
    """Whether x and y are f32 maps, y blocked, and the weights are known."""
    x, y, bias = node.required(0), node.output, node.input(2)
    weights, known = node.required(1), bias is None or bias.is_constant
    f32 = x.dtype is DType.F32 and y.dtype is DType.F32
    blocked = y.layout == ctx.target.layout and x.layout in ("", ctx.target.layout)
    return f32 and blocked and known and weights.is_constant and len(x.shape) in (3, 4)


def emit_direct(node: Node, ctx: Context) -> None:
    """Conv: one call; see the module."""
    plan = plan_conv(node, ctx)
    assert isinstance(plan, DirectPlan)  # what fits Winograd has been taken by it
    emit_planned(node, ctx, plan)


def emit_planned(node: Node, ctx: Context, plan: DirectPlan) -> None:
    """The call of a Conv for one of its plans."""
    weights = node.required(1).constant
    assert weights is not None  # supports_direct
    emit_plan(node, ctx, plan, pack_panels(weights, attr(node, "group"), plan), _name(plan.shape))


def emit_plan(node: Node, ctx: Context, plan: DirectPlan, packed: Array, name: str) -> None:
    """The call that a plan describes, for a node with inputs x, w and bias."""
    shape, x = plan.shape, emit_gather(node, ctx) if plan.is_gathered else node.required(0)
    k = KernelBuilder(ctx, node, name)
    k.read("x", x)
    k.write("y", node.output)
    k.weight("w", packed)
    bias = node.input(2)
    if bias is not None and bias.constant is not None:
        k.weight("bias", pad_to_multiple(bias.constant, plan.tile.vectors * plan.lanes))
    epilogue = Epilogue(k, node, OWN_SLOTS)
    _dims(k, plan)
    if plan.has_borders:
        k.support(_pad(plan))
    k.body(_Printer(plan, epilogue, plan.tile.vectors, has_bias=bias is not None).body())
    depth = shape.taps * min(shape.channels, plan.blocks * plan.block)
    flops = shape.batch * shape.pixels * (2 * shape.outputs * depth)
    traffic = shape.batch * shape.channels * shape.rows.size * shape.columns.size
    traffic = (traffic + packed.size + shape.batch * shape.outputs * shape.pixels) * 4
    items = plan.groups * (plan.together * len(plan.first))
    k.emit(grid=shape.batch * items, flops=flops, bytes=traffic)


def _name(shape: ConvShape) -> str:
    sizes = [shape.channels, shape.rows.size, shape.columns.size, shape.outputs]
    known = "x".join(str(size) for size in sizes if isinstance(size, int))
    stride = shape.columns.stride
    return f"conv{shape.rows.taps}x{shape.columns.taps}s{stride}_{known}"


def _dims(k: KernelBuilder, plan: DirectPlan) -> None:
    rows, columns = plan.shape.rows, plan.shape.columns
    k.dims("H W OH OW", (rows.size, columns.size, rows.out, columns.out))
    k.dims("FH FW", (plan.scatter.height, plan.scatter.width))
    k.dims("PT PL BAND", (rows.pad, columns.pad, plan.band))
    k.dims("TOGETHER GROUPS", (plan.together, plan.groups))
    k.dims("CB NB PANELS", (plan.channel_blocks, plan.blocks, len(plan.first)))
    if plan.has_borders:
        span = (plan.tile.pixels - 1) * columns.stride + columns.reach
        k.scratch(plan.chunk * rows.taps * span * plan.block * 4)


def _pad(plan: DirectPlan) -> str:
    """C that copies what a tile at a border reads, padded with zeros.

    A function of its own, for inlined it would take registers that the sums need.
    """
    block = plan.block
    copy = "*to = in ? *from : 0.0f;" if block == 1 else "v_store(to, in ? v_load(from) : (vf){0});"
    return f"""
        static __attribute__((noinline)) void pad_borders(
            float *restrict to, const float *restrict xs, int64_t row, int64_t plane,
            int64_t blocks, int64_t kh0, int64_t kh1, int64_t left, int64_t width, int64_t span)
        {{
            for (int64_t cb = 0; cb < blocks; cb++, xs += plane) {{
                to += kh0 * span * {block};
                for (int64_t kh = kh0; kh < kh1; kh++)
                    for (int64_t q = 0; q < span; q++, to += {block}) {{
                        const float *const from = xs + kh * row + q * {block};
                        const int in = left + q >= 0 && left + q < width;
                        {copy}
                    }}
                to += ({plan.shape.rows.taps} - kh1) * span * {block};
            }}
        }}
        """


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
        ahead = [f"const float *ahead = wn + stop * {plan.step_floats};"] if plan.share else []
        rows = print_panels(plan.out_blocks, plan.tile.vectors, self._of_vectors)
        lines = [
            *(table if varies else []),
            "(void)H, (void)OH, (void)PT, (void)PL, (void)CB;",
            "for (int64_t item = begin, take; item < end; item += take) {",
            "    const int64_t panel = item / TOGETHER % PANELS;",
            "    const int64_t group = item / (TOGETHER * PANELS), n = group / GROUPS;",
            "    const int64_t band = group % GROUPS * TOGETHER + item % TOGETHER;",
            "    take = tl_min(TOGETHER - item % TOGETHER, end - item);",
            f"    const int64_t first = {'firsts[panel]' if varies else firsts};",
            f"    const float *const xn = x + (n * CB + first) * H * W * {plan.block};",
            f"    const float *const wn = w + panel * {plan.panel_floats};",
            f"    const int64_t oc = panel * {plan.tile.vectors * plan.lanes};",
            f"    for (int64_t block = 0; block < NB; block += {plan.chunk}) {{",
            f"        const int64_t stop = tl_min(block + {plan.chunk}, NB);",
            *indent(ahead, 2),
            *indent(rows, 2),
            "    }",
            "}",
        ]
        return "\n".join(lines)

    def _of_vectors(self, vectors: int) -> list[str]:
        """The rows of a panel that has so many vectors."""
        printer = _Printer(self.plan, self.epilogue, vectors, has_bias=self.has_bias)
        return printer._rows()

    def _rows(self) -> list[str]:
        """The rows of the bands that are taken."""
        if self.plan.is_row:
            return ["const int64_t oh = 0;", *self._row()]
        return [
            "for (int64_t oh = band * BAND; oh < tl_min((band + take) * BAND, OH); oh++) {",
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
            return [*head, *known_tiles(plan.shape.columns, plan.widths, self._tile)]
        return [*head, "int64_t ow = 0;", *self._open_row("OW")]

    def _band_of_one_row(self) -> list[str]:
        if not self.plan.shape.is_static:
            limits = "const int64_t left = band * BAND, right = tl_min(left + take * BAND, OW);"
            return [limits, "int64_t ow = left;", *self._open_row("right")]
        columns, widths = self.plan.shape.columns, self.plan.widths
        limits = [
            f"const int64_t left = {tile_start('band * BAND', widths)};",
            f"const int64_t right = {tile_start('(band + take) * BAND', widths)};",
        ]
        return [*limits, *known_tiles(columns, widths, self._tile, limited=True)]

    def _open_row(self, stop: str) -> list[str]:
        """Tiles up to `stop`, nearly equal where that does not take much text."""
        pixels = self.plan.tile.pixels
        print_tiles = equal_tiles if pixels <= FEW_WIDTHS else unknown_tiles
        return print_tiles(pixels, self._tile, stop)

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
            *self._columns_of_taps(pixels),
            f"if (left_edge < 0 || left_edge + {span} > W) {{",
            "    float *const patch = (float *)scratch;",
            "    const float *const from = xs + block * XB;",
            "    const int64_t blocks = stop - block;",
            f"    pad_borders(patch, from, XR, XB, blocks, kh0, kh1, left_edge, W, {span});",
            f"    XR = {span * block}, XB = {rows.taps * span * block};",
            "    xs = patch - block * XB;",
            "}",
        ]

    def _columns_of_taps(self, pixels: int) -> list[str]:
        """The taps that some pixel of the tile finds inside: long windows reach far out."""
        columns = self.plan.shape.columns
        last = f"left_edge + {(pixels - 1) * columns.stride}"
        room = f"(W - left_edge + {columns.dilation - 1}) / {columns.dilation}"
        return [
            f"const int64_t kw0 = tl_max(0, -({last}) / {columns.dilation});",
            f"const int64_t kw1 = tl_max(kw0, tl_min({columns.taps}, {room}));",
            "(void)kw0, (void)kw1;",
        ]

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
            *indent(self._ask_ahead()),
            *indent(tile),
            "}",
        ]

    def _ask_ahead(self) -> list[str]:
        """Prefetch a share of the weights that come after this chunk: those of the next panel."""
        share = self.plan.share
        if not share:
            return []
        asks = [f"__builtin_prefetch(ahead + {at}, 0, 2);" for at in range(0, share, CACHE_LINE)]
        return [*asks, f"ahead += {share};"]

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
