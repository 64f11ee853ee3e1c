"""QConv, 3x3 and stride 1, by Winograd in whole numbers: a quarter of the products, and exact.

Output tiles of m x m pixels are counted through the batch and taken in blocks.
    v[group][i][c / V][p][V] = B d B'       16 bits, i < (m + 2)^2
    m[group][i][p][V]        = sum over c of v * u[panel][i][c / 2][V][2]       32 bits, wrapping
    sums                     = A m A', divided; then as in every product of codes
Where there are few blocks of tiles, v is made by a kernel of its own, so that threads can share the
panels of output channels; where there are many, it stays in a thread's own cache.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tuili.codegen.kernel import Context, KernelBuilder
from tuili.codegen.kernels import quantized_conv
from tuili.codegen.kernels.conv_rows import indent
from tuili.codegen.kernels.conv_shape import ConvShape, conv_shape
from tuili.codegen.kernels.quantized_dot import Dot, dot_of_shorts, dots_for
from tuili.codegen.kernels.quantized_sums import Sums, known_zero
from tuili.codegen.kernels.quantized_tile import Loop, Nest, QTile, choose_q_tile, print_sums
from tuili.codegen.kernels.quantized_winograd_transforms import (
    WHOLE_F2,
    WHOLE_F4,
    WholeWinograd,
    input_function,
    output_function,
)
from tuili.codegen.targets import Target
from tuili.ir import Node
from tuili.lower.program import View
from tuili.ops.table import attr
from tuili.tensors import Array, Dim, DType, ceil_div

V_BYTES = 320 * 1024  # of transformed input that all panels read before the next block
FEW_BLOCKS = 24  # up to so many blocks of tiles, threads share output channels too
STREAM = 6  # bytes of weights per cycle from beyond the second-level cache
GUESSED_SIZE = 80  # rows and columns when they are not known


def supports(node: Node, ctx: Context) -> bool:
    """Whether the node is a 3x3 convolution of stride 1 that Winograd makes cheaper, exactly."""
    x = node.required(0)
    if not quantized_conv.supports(node, ctx) or len(x.shape) != 4 or not x.layout:
        return False
    steps = (attr(node, "strides") or (1, 1), attr(node, "dilations") or (1, 1))
    if any(tuple(step) != (1, 1) for step in steps) or node.required(1).shape[2:] != (3, 3):
        return False
    return _choose(node, ctx.target) is not None


@dataclass(frozen=True, slots=True)
class _Plan:
    """What the printer decides from."""

    winograd: WholeWinograd
    shape: ConvShape
    lanes: int
    dot: Dot
    tile: QTile  # tiles of pixels times vectors of output channels
    groups: int  # register tiles in a block

    @property
    def products(self) -> int:
        """Products per tile and channel pair."""
        return self.winograd.size**2

    @property
    def channel_blocks(self) -> int:
        """Vectors of input channels."""
        return -(-self.shape.channels // self.lanes)

    @property
    def out_blocks(self) -> int:
        """Vectors of output channels."""
        return -(-self.shape.outputs // self.lanes)

    @property
    def panels(self) -> int:
        """Panels of output channels."""
        return -(-self.out_blocks // self.tile.vectors)

    @property
    def block(self) -> int:
        """Tiles in a block."""
        return self.tile.pixels * self.groups

    @property
    def high(self) -> Dim:
        """Tiles in a column of the map."""
        return ceil_div(self.shape.rows.out, self.winograd.outputs)

    @property
    def wide(self) -> Dim:
        """Tiles in a row of the map."""
        return ceil_div(self.shape.columns.out, self.winograd.outputs)

    @property
    def tiles(self) -> Dim:
        """Tiles of the batch."""
        return self.shape.batch * self.high * self.wide

    @property
    def is_shared(self) -> bool:
        """Whether threads share the output channels of a block of tiles."""
        return _likely_tiles(self.shape, self.winograd) <= FEW_BLOCKS * self.block

    @property
    def v_step(self) -> int:
        """Codes from one product to the next in v: an odd number of cache lines."""
        lines = -(-self.channel_blocks * self.tile.pixels * self.lanes // 32)
        return (lines | 1) * 32

    @property
    def v_group(self) -> int:
        """Codes of v for one register tile."""
        return self.products * self.v_step

    @property
    def m_step(self) -> int:
        """Sums from one product to the next in m; an odd number of vectors spreads the sets."""
        return (self.tile.pixels * self.tile.vectors | 1) * self.lanes

    @property
    def m_group(self) -> int:
        """Sums of one register tile."""
        return self.products * self.m_step

    @property
    def slice(self) -> int:
        """Weights of one product in one panel."""
        return self.channel_blocks * self.lanes * self.tile.vectors * self.lanes


def _known(dim: Dim) -> int:
    return dim if isinstance(dim, int) else GUESSED_SIZE


def _likely_tiles(shape: ConvShape, winograd: WholeWinograd) -> int:
    m, rows, columns = winograd.outputs, _known(shape.rows.out), _known(shape.columns.out)
    batch = shape.batch if isinstance(shape.batch, int) else 1
    return batch * -(-rows // m) * -(-columns // m)


def _choose(node: Node, target: Target) -> tuple[WholeWinograd, Array] | None:
    """The cheaper of F(4, 3) and F(2, 3) that is exact, and its filters; None: neither pays."""
    weights = node.required(1).constant
    assert weights is not None  # quantized_conv.supports
    shape = conv_shape(node, (3, 3))
    narrow, wide = dots_for(target, weights)[0], dot_of_shorts(target)
    ins, outs = -(-shape.channels // target.lanes), -(-shape.outputs // target.lanes)
    pairs = ins * target.lanes * outs
    pixels = _known(shape.rows.out) * _known(shape.columns.out)
    pixels *= shape.batch if isinstance(shape.batch, int) else 1
    direct = max(pixels * 9 * pairs * narrow.cycles, 9 * pairs * target.lanes / STREAM)
    costs: list[tuple[float, int, WholeWinograd]] = []
    for winograd in (WHOLE_F4, WHOLE_F2):
        tiles, products = _likely_tiles(shape, winograd), winograd.size**2
        compute = tiles * products * pairs * wide.cycles
        stream = products * pairs * target.lanes * 2 / STREAM
        # About one cycle for each load, store and sum of the transforms.
        transforms = tiles * products * 3.5 * (ins + outs)
        costs.append((max(compute, stream) + transforms, winograd.outputs, winograd))
    for cost, _, winograd in sorted(costs, key=lambda each: each[:2]):
        filters = winograd.transform_filters(weights) if cost < direct * 0.9 else None
        if filters is not None:
            return winograd, filters
    return None


def _plan(shape: ConvShape, target: Target, winograd: WholeWinograd, dot: Dot) -> _Plan:
    tiles = _likely_tiles(shape, winograd)
    tile = choose_q_tile(target, tiles, -(-shape.outputs // target.lanes))
    each = winograd.size**2 * shape.channels * 2 * tile.pixels
    groups = max(1, min(V_BYTES // each, -(-tiles // tile.pixels)))
    return _Plan(winograd, shape, target.lanes, dot, tile, groups)


def emit(node: Node, ctx: Context) -> None:
    """One call, or one for v and one for the rest."""
    chosen, weights = _choose(node, ctx.target), node.required(1).constant
    assert chosen is not None  # supports
    assert weights is not None
    winograd, filters = chosen
    plan = _plan(conv_shape(node, (3, 3)), ctx.target, winograd, dot_of_shorts(ctx.target))
    blocks = ceil_div(plan.tiles, plan.block)
    v = _emit_transform(node, ctx, plan, blocks) if plan.is_shared else None
    k = _builder(node, ctx, plan, "qwinograd")
    k.support(plan.dot.text)
    _types(k, node)
    if v is None:
        _read_codes(k, node, plan)
    else:
        k.read("v", v, "int16_t")
    k.write("y", node.output)
    k.weight("u", _packed(filters, plan))
    k.support(output_function(winograd))
    outputs = plan.panels * plan.tile.vectors * plan.lanes
    centred = Dot(2, "int16_t", DType.I16, {DType.U8: 0, DType.I8: 0}, "")
    sums = Sums(k, node, centred, np.zeros(outputs, np.int32))
    _dims(k, plan, blocks)
    k.body("\n".join(_main(plan, sums, node)))
    k.scratch(plan.groups * (plan.m_group * 4 + (0 if v is not None else plan.v_group * 2)))
    flops = plan.tiles * (2 * plan.products * plan.shape.channels * plan.shape.outputs)
    moved = plan.shape.batch * plan.shape.pixels * (plan.shape.channels + plan.shape.outputs)
    grid = blocks * plan.panels if v is not None else blocks
    k.emit(grid=grid, flops=flops, bytes=moved + filters.nbytes)


def _emit_transform(node: Node, ctx: Context, plan: _Plan, blocks: Dim) -> View:
    """The call that makes v; returns where it lies."""
    k = _builder(node, ctx, plan, "qwinograd_input")
    v = k.temp("v", DType.I16, blocks * plan.groups * plan.v_group)
    _types(k, node)
    _read_codes(k, node, plan)
    k.write("v", v)
    if known_zero(node) is None:
        k.read("zero", node.required(2))
    _dims(k, plan, blocks)
    k.body(
        "\n".join(
            [
                *_zero(node),
                "for (int64_t item = begin; item < end; item++) {",
                "    const int64_t cb = item % CB, group = item / CB;",
                f"    int16_t *const vg = v + group * {plan.v_group};",
                f"    const int64_t t0 = group * {plan.tile.pixels};",
                *indent(_transform(plan, node, "cb", "cb + 1")),
                "}",
            ]
        )
    )
    moved = plan.tiles * plan.channel_blocks * plan.products * plan.lanes
    k.emit(grid=blocks * plan.groups * plan.channel_blocks, flops=moved * 4, bytes=moved * 3)
    return v


def _packed(filters: Array, plan: _Plan) -> Array:
    """[OC, C, i] as [panel][i][C / 2][vectors][V][2], zero padded."""
    outputs, channels, products = filters.shape
    wide = plan.tile.vectors * plan.lanes
    padded = np.zeros((plan.panels * wide, plan.channel_blocks * plan.lanes, products), np.int16)
    padded[:outputs, :channels] = filters
    split = padded.reshape(plan.panels, wide, -1, 2, products)
    return np.ascontiguousarray(split.transpose(0, 4, 2, 1, 3))


def _builder(node: Node, ctx: Context, plan: _Plan, part: str) -> KernelBuilder:
    shape = plan.shape
    sizes = [shape.channels, shape.rows.size, shape.columns.size, shape.outputs]
    known = "x".join(str(size) for size in sizes if isinstance(size, int))
    return KernelBuilder(ctx, node, f"{part}{plan.winograd.outputs}_{known}")


def _dims(k: KernelBuilder, plan: _Plan, blocks: Dim) -> None:
    rows, columns = plan.shape.rows, plan.shape.columns
    k.dims("H W OH OW", (rows.size, columns.size, rows.out, columns.out))
    k.dims("PT PL CB OB", (rows.pad, columns.pad, plan.channel_blocks, plan.out_blocks))
    k.dims("TILES HIGH WIDE", (plan.tiles, plan.high, plan.wide))
    k.dims("BLOCKS PANELS", (blocks, plan.panels))
    k.body("(void)H, (void)W, (void)OH, (void)OW, (void)PT, (void)PL, (void)CB, (void)OB;")
    k.body("(void)HIGH, (void)WIDE, (void)BLOCKS, (void)PANELS;")


_TYPES = """
typedef int16_t vs __attribute__((vector_size(2 * V)));
typedef int16_t vs_any __attribute__((vector_size(2 * V), aligned(2), may_alias));
#if defined(TL_GCC_X86) && V == 8
static inline vs q_load_SHORT(const CODES *p)
{
    long long x;
    memcpy(&x, p, 8);
    return (vs)__builtin_ia32_EXTEND128((tl_v16qi)(tl_v2di){x, 0});
}
#else
static inline vs q_load_SHORT(const CODES *p)
{
    return __builtin_convertvector(*(const WIDE_TYPE *)p, vs);
}
#endif
"""


def _words(node: Node, text: str) -> str:
    is_u8 = node.required(0).dtype is DType.U8
    words = {
        "CODES": "uint8_t" if is_u8 else "int8_t",
        "SHORT": "u8" if is_u8 else "i8",
        "EXTEND": "pmovzxbw" if is_u8 else "pmovsxbw",
        "WIDE_TYPE": "vb_any" if is_u8 else "vc_any",
        "LOAD": "q_load_u8" if is_u8 else "q_load_i8",
    }
    for word, value in words.items():
        text = text.replace(word, value)
    return text


def _types(k: KernelBuilder, node: Node) -> None:
    k.support(_words(node, _TYPES))


def _read_codes(k: KernelBuilder, node: Node, plan: _Plan) -> None:
    """The codes, and the function that transforms them."""
    k.read("x", node.required(0))
    k.support(_words(node, input_function(plan.winograd)))


def _zero(node: Node) -> list[str]:
    zero = known_zero(node)
    text = "zero[0]" if zero is None else str(zero)
    return [f"const vs middle = (vs){{0}} + (int16_t){text};"]


def _transform(plan: _Plan, node: Node, first: str, last: str) -> list[str]:
    """C that fills `vg` with the products of tiles t0 ..., input blocks first .. last - 1."""
    n, m, pixels = plan.winograd.size, plan.winograd.outputs, plan.tile.pixels
    lines = [
        f"for (int64_t p = 0; p < {pixels}; p++) {{",
        "    const int64_t t = tl_min(t0 + p, TILES - 1), n = t / (HIGH * WIDE);",
        f"    const int64_t h = t / WIDE % HIGH * {m} - PT, left = t % WIDE * {m} - PL;",
        f"    const int inside = h >= 0 && h + {n} <= H && left >= 0 && left + {n} <= W;",
        f"    for (int64_t b = {first}; b < {last}; b++) {{",
        "        const CODES *from = x + (((n * CB + b) * H + h) * W + left) * V;",
        "        int64_t row = W * V;",
        f"        CODES edge[{n * n} * V];",
        "        if (!inside) {",
        f"            for (int64_t i = 0; i < {n}; i++)",
        f"                for (int64_t j = 0; j < {n}; j++) {{",
        "                    const int rows = h + i >= 0 && h + i < H;",
        f"                    CODES *const to = edge + (i * {n} + j) * V;",
        "                    if (rows && left + j >= 0 && left + j < W)",
        "                        memcpy(to, from + i * row + j * V, V);",
        "                    else",
        "                        memset(to, (uint8_t)middle[0], V);",
        "                }",
        f"            from = edge, row = {n} * V;",
        "        }",
        "        q_transform_input(",
        f"            from, row, middle, vg + (b * {pixels} + p) * V, {plan.v_step});",
        "    }",
        "}",
    ]
    return [_words(node, line) for line in lines]


def _main(plan: _Plan, sums: Sums, node: Node) -> list[str]:
    head = ["int32_t *const products = (int32_t *)scratch;"]
    if plan.is_shared:
        return [
            *head,
            "for (int64_t item = begin; item < end; item++) {",
            "    const int64_t block = item % BLOCKS, panel = item / BLOCKS;",
            f"    const int16_t *const vb = v + block * {plan.groups * plan.v_group};",
            *indent(_panel(plan, sums)),
            "}",
        ]
    return [
        *head,
        f"int16_t *const vb = (int16_t *)(products + {plan.groups * plan.m_group});",
        *_zero(node),
        "for (int64_t block = begin; block < end; block++) {",
        f"    for (int64_t g = 0; g < {plan.groups}; g++) {{",
        f"        int16_t *const vg = vb + g * {plan.v_group};",
        f"        const int64_t t0 = block * {plan.block} + g * {plan.tile.pixels};",
        *indent(_transform(plan, node, "0", "CB"), 2),
        "    }",
        "    for (int64_t panel = 0; panel < PANELS; panel++) {",
        *indent(_panel(plan, sums), 2),
        "    }",
        "}",
    ]


def _panel(plan: _Plan, sums: Sums) -> list[str]:
    """The products of one panel and one block of tiles, then their outputs."""
    pixels, vectors = plan.tile.pixels, plan.tile.vectors
    nest = Nest(
        [Loop("cb", plan.channel_blocks, str(pixels * plan.lanes))],
        plan.lanes // 2,
        str(plan.lanes),
        has_extra=False,
    )
    group_loop = f"for (int64_t g = 0; g < {plan.groups}; g++) {{"
    return [
        f"const int64_t oc = panel * {vectors * plan.lanes};",
        *(f"const vi start{v} = {{0}};" for v in range(vectors)),
        f"for (int64_t i = 0; i < {plan.products}; i++) {{",
        f"    const int16_t *const wn = u + (panel * {plan.products} + i) * {plan.slice};",
        f"    {group_loop}",
        f"        const int16_t *const xp = vb + g * {plan.v_group} + i * {plan.v_step};",
        f"        int32_t *const to = products + g * {plan.m_group} + i * {plan.m_step};",
        *indent(print_sums(plan.dot, nest, plan.tile, pixels), 2),
        *(
            f"        *(vi_any *)(to + {v * pixels + p} * V) = acc{p}_{v};"
            for v in range(vectors)
            for p in range(pixels)
        ),
        "    }",
        "}",
        group_loop,
        f"    const int32_t *const mg = products + g * {plan.m_group};",
        f"    const int64_t t0 = block * {plan.block} + g * {pixels};",
        *indent(_store(plan, sums)),
        "}",
    ]


def _store(plan: _Plan, sums: Sums) -> list[str]:
    """Outputs of the tiles of a group, cut at the edges of the map."""
    m, pixels = plan.winograd.outputs, plan.tile.pixels
    whole = sums.stores([f"(r[i][{j}] + start)" for j in range(m)], "at", "channel")
    single = sums.stores(["(r[i][j] + start)"], "(at + j * V)", "channel")
    return [
        f"for (int64_t v = 0; v < tl_min({plan.tile.vectors}, OB - oc / V); v++) {{",
        "    const int64_t channel = oc + v * V;",
        f"    {sums.start('start', 'channel')}",
        f"    for (int64_t p = 0; p < tl_min({pixels}, TILES - t0); p++) {{",
        "        const int64_t t = t0 + p, n = t / (HIGH * WIDE);",
        f"        const int64_t oh = t / WIDE % HIGH * {m}, ow = t % WIDE * {m};",
        f"        vi r[{m}][{m}];",
        f"        q_transform_output(mg + (v * {pixels} + p) * V, {plan.m_step}, r);",
        f"        for (int64_t i = 0; i < tl_min({m}, OH - oh); i++) {{",
        "            const int64_t line = ((n * OB + channel / V) * OH + oh + i) * OW;",
        "            const int64_t at = (line + ow) * V;",
        f"            if (ow + {m} <= OW) {{",
        *indent(whole, 4),
        "            } else {",
        "                for (int64_t j = 0; j < OW - ow; j++) {",
        *indent(single, 5),
        "                }",
        "            }",
        "        }",
        "    }",
        "}",
    ]
