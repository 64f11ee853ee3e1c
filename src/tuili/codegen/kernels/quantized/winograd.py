"""QConv, 3x3 and stride 1, by Winograd in whole numbers: a quarter of the products, and exact.

Output tiles of m x m pixels are counted through the batch and taken in blocks.
    v[group][i][c / V][p][V] = B d B'       16 bits, i < (m + 2)^2
    m[group][i][p][V]        = sum over c of v * u[panel][i][c / 2][V][2]       32 bits, wrapping
    sums                     = A m A', divided; then as in every product of codes
Where there are few blocks of tiles, v is made by a kernel of its own, so that threads can share the
panels of output channels; where there are many, it stays in a thread's own cache.
"""

from __future__ import annotations

import numpy as np

from tuili.codegen.kernel import Context, KernelBuilder
from tuili.codegen.kernels.quantized import conv as quantized_conv
from tuili.codegen.kernels.quantized.choice import plan_qconv
from tuili.codegen.kernels.quantized.dot import Dot
from tuili.codegen.kernels.quantized.sums import Sums, known_zero
from tuili.codegen.kernels.quantized.tile import Later, Loop, Nest, print_sums
from tuili.codegen.kernels.quantized.winograd_plan import QWinogradPlan, pack_whole
from tuili.codegen.kernels.quantized.winograd_transforms import input_function, output_function
from tuili.codegen.text import indent
from tuili.ir import Node
from tuili.lower.program import View
from tuili.tensors import Dim, DType, ceil_div

NEAR_BYTES = 8192  # of the weights of a product: the nearest cache holds the next ones as well


def supports(node: Node, ctx: Context) -> bool:
    """Whether the node is a 3x3 convolution of stride 1 that is best done so."""
    return quantized_conv.supports(node, ctx) and isinstance(plan_qconv(node, ctx), QWinogradPlan)


def emit(node: Node, ctx: Context) -> None:
    """One call, or one for v and one for the rest."""
    plan = plan_qconv(node, ctx)
    assert isinstance(plan, QWinogradPlan)  # supports
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
    k.weight("u", pack_whole(plan))
    k.support(output_function(plan.winograd))
    outputs = plan.panels * plan.tile.vectors * plan.lanes
    centred = Dot(2, "int16_t", DType.I16, {DType.U8: 0, DType.I8: 0}, "")
    sums = Sums(k, node, centred, np.zeros(outputs, np.int32))
    _dims(k, plan, blocks)
    k.body("\n".join(_main(plan, sums, node)))
    k.scratch(plan.groups * (plan.m_group * 4 + (0 if v is not None else plan.v_group * 2)))
    flops = plan.tiles * (2 * plan.products * plan.shape.channels * plan.shape.outputs)
    moved = plan.shape.batch * plan.shape.pixels * (plan.shape.channels + plan.shape.outputs)
    grid = blocks * plan.panels if v is not None else blocks
    k.emit(grid=grid, flops=flops, bytes=moved + plan.filters.nbytes)


def _emit_transform(node: Node, ctx: Context, plan: QWinogradPlan, blocks: Dim) -> View:
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


def _builder(node: Node, ctx: Context, plan: QWinogradPlan, part: str) -> KernelBuilder:
    shape = plan.shape
    sizes = [shape.channels, shape.rows.size, shape.columns.size, shape.outputs]
    known = "x".join(str(size) for size in sizes if isinstance(size, int))
    return KernelBuilder(ctx, node, f"{part}{plan.winograd.outputs}_{known}")


def _dims(k: KernelBuilder, plan: QWinogradPlan, blocks: Dim) -> None:
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


def _read_codes(k: KernelBuilder, node: Node, plan: QWinogradPlan) -> None:
    """The codes, and the function that transforms them."""
    k.read("x", node.required(0))
    k.support(_words(node, input_function(plan.winograd)))


def _zero(node: Node) -> list[str]:
    zero = known_zero(node)
    text = "zero[0]" if zero is None else str(zero)
    return [f"const vs middle = (vs){{0}} + (int16_t){text};"]


def _transform(plan: QWinogradPlan, node: Node, first: str, last: str) -> list[str]:
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


def _main(plan: QWinogradPlan, sums: Sums, node: Node) -> list[str]:
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


def _panel(plan: QWinogradPlan, sums: Sums) -> list[str]:
    """The products of one panel and one block of tiles, then their outputs.

    Weights of a product are read by one group of tiles after the other. Each asks for its part of
    those of the next, so that memory answers all the time.
    """
    pixels, vectors = plan.tile.pixels, plan.tile.vectors
    slice_bytes = plan.slice * plan.dot.weights.itemsize
    share = slice_bytes // (plan.channel_blocks * plan.groups)
    nest = Nest(
        [Loop("cb", plan.channel_blocks, str(pixels * plan.lanes))],
        plan.lanes // 2,
        str(plan.lanes),
        has_extra=False,
        later=Later(share, 3 if slice_bytes <= NEAR_BYTES else 2),
    )
    group_loop = f"for (int64_t g = 0; g < {plan.groups}; g++) {{"
    return [
        f"const int64_t oc = panel * {vectors * plan.lanes};",
        *(f"const vi start{v} = {{0}};" for v in range(vectors)),
        f"for (int64_t i = 0; i < {plan.products}; i++) {{",
        f"    const int16_t *const wn = u + (panel * {plan.products} + i) * {plan.slice};",
        f"    const uint8_t *later = (const uint8_t *)(wn + {plan.slice});",
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


def _store(plan: QWinogradPlan, sums: Sums) -> list[str]:
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
