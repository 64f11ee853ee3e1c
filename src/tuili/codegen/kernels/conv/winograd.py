"""Winograd convolution on blocked maps: 3x3 or 3 of stride 1 or 2, and any line of stride 1.

Output tiles of m x m pixels (m in a row) are counted through the batch, in blocks of P. For a block
    V[i][c / V][p][V] = B d B'           every tile of the block, i < (m + 2)^2
    M[i][v][p][V]     = sum over c of V[i][c][p] * U[panel][i][c][v]     a register tile for each i
    y                 = A M A' + bias, epilogue
Where there are few blocks of tiles, V is made by a kernel of its own, so that threads can share the
panels of output channels; where there are many, V stays in a thread's own cache. Few tiles that
meet large weights go product by product, see `winograd_spread`. Panels of grouped convolutions read
the input blocks of their groups; a group of small weights is an item of its own, V included.
A dilated line is as many lines side by side; the parts of a long window are blocks of V.
"""

from __future__ import annotations

from tuili.codegen.epilogue import Epilogue
from tuili.codegen.kernel import Context, KernelBuilder
from tuili.codegen.kernels.conv.choice import plan_conv
from tuili.codegen.kernels.conv.direct import OWN_SLOTS, supports_direct
from tuili.codegen.kernels.conv.winograd_input import (
    input_function,
    transform_tiles,
    v_blocks_text,
)
from tuili.codegen.kernels.conv.winograd_numbers import support_numbers
from tuili.codegen.kernels.conv.winograd_plan import (
    AHEAD,
    L2_BYTES,
    WinogradPlan,
    pack_transformed,
)
from tuili.codegen.kernels.conv.winograd_spread import emit_products, groups_of
from tuili.codegen.packing import pad_to_multiple
from tuili.codegen.text import indent
from tuili.ir import Node
from tuili.lower.program import View
from tuili.ops.table import attr
from tuili.tensors import Array, Dim, ceil_div

# Of the map, one after the other: who has whole ones reads what it wrote itself in the step before.
PARTS = 4


def supports_winograd(node: Node, ctx: Context) -> bool:
    """Whether the node is a convolution that is best done so."""
    return supports_direct(node, ctx) and isinstance(plan_conv(node, ctx), WinogradPlan)


def emit_winograd(node: Node, ctx: Context) -> None:
    """One call, or one for V and one for the rest."""
    weights, plan = node.required(1).constant, plan_conv(node, ctx)
    assert weights is not None  # supports_winograd
    assert isinstance(plan, WinogradPlan)
    emit_with(node, ctx, plan, weights)


def emit_with(node: Node, ctx: Context, plan: WinogradPlan, weights: Array) -> None:
    """The calls of a plan: all in one, V apart, or V, products and outputs apart."""
    blocks, packed = (
        ceil_div(plan.tiles, plan.block),
        pack_transformed(weights, attr(node, "group"), plan),
    )
    if not plan.is_shared:
        _emit_rest(node, ctx, plan, blocks, packed)
        return
    v = _emit_transform(node, ctx, plan, blocks)
    if not plan.is_spread:
        _emit_rest(node, ctx, plan, blocks, packed, v)
        return
    near = ctx.target.near_bytes
    m = emit_products(lambda part: _builder(node, ctx, plan, part), plan, v, packed, near)
    _emit_outputs(node, ctx, plan, blocks, m)


def _emit_rest(
    node: Node, ctx: Context, plan: WinogradPlan, blocks: Dim, packed: Array, v: View | None = None
) -> None:
    """The call that makes products and outputs, and V where that is not made yet."""
    k, number = _builder(node, ctx, plan, "winograd"), plan.numbers.dtype
    support_numbers(k, plan.numbers)
    if v is not None:
        k.read("v", v, number.c)
    else:
        k.read("x", node.required(0))
        k.support(input_function(plan))
    k.write("y", node.output)
    k.weight("u", packed)
    has_bias, epilogue = _read_outputs(k, node, plan, blocks)
    k.body("\n".join(_main(plan, epilogue, shared=v is not None, has_bias=has_bias)))
    m_floats = plan.products * plan.m_step * plan.groups
    v_bytes = 0 if v is not None else plan.groups * plan.v_group * number.itemsize
    k.scratch(m_floats * 4 + v_bytes)
    size = plan.tiles * plan.products * plan.sums * plan.shape.outputs
    pixels = plan.shape.batch * plan.shape.pixels
    traffic = pixels * (plan.shape.channels + plan.shape.outputs) * 4
    k.emit(
        grid=blocks * (plan.panels if v is not None else _units(plan)), flops=size * 2,
        bytes=traffic + plan.panels * plan.panel_floats * number.itemsize,
    )  # fmt: skip


def _emit_outputs(node: Node, ctx: Context, plan: WinogradPlan, blocks: Dim, m: View) -> None:
    """The call that makes outputs of products."""
    k = _builder(node, ctx, plan, "output")
    k.read("m", m)
    k.write("y", node.output)
    has_bias, epilogue = _read_outputs(k, node, plan, blocks)
    k.body("\n".join(_output(plan, epilogue, has_bias=has_bias)))
    products = plan.tiles * (plan.products * plan.shape.outputs)
    pixels = plan.shape.batch * plan.shape.pixels
    moved = (products + pixels * plan.shape.outputs) * 4
    k.emit(grid=groups_of(plan) * plan.panels, flops=products * 4, bytes=moved)


def _read_outputs(
    k: KernelBuilder, node: Node, plan: WinogradPlan, blocks: Dim
) -> tuple[bool, Epilogue]:
    """What the end of every output needs: whether there is a bias, and the epilogue."""
    bias = node.input(2)
    if bias is not None and bias.constant is not None:
        k.weight("bias", pad_to_multiple(bias.constant, plan.tile.vectors * plan.lanes))
    k.support(_output_function(plan))
    epilogue = Epilogue(k, node, OWN_SLOTS)
    _dims(k, plan, blocks)
    return bias is not None, epilogue


def _emit_transform(node: Node, ctx: Context, plan: WinogradPlan, blocks: Dim) -> View:
    """The call that makes V; returns where it lies."""
    k, number = _builder(node, ctx, plan, "transform"), plan.numbers.dtype
    support_numbers(k, plan.numbers)
    v = k.temp("v", number, blocks * plan.groups * plan.v_group)
    k.read("x", node.required(0))
    k.write("v", v, number.c)
    k.support(input_function(plan))
    _dims(k, plan, blocks)
    body, blocks_of_v = transform_tiles(plan, "cb", "cb + 1"), v_blocks_text(plan)
    head = [
        "for (int64_t item = begin; item < end; item++) {",
        f"    const int64_t cb = item % {blocks_of_v}, group = item / {blocks_of_v};",
        f"    {number.c} *const vg = v + group * {plan.v_group};",
        f"    const int64_t t0 = group * {plan.tile.pixels};",
    ]
    k.body("\n".join([*head, *indent(body), "}"]))
    moved = plan.tiles * plan.v_blocks * plan.products * plan.lanes
    k.emit(
        grid=blocks * plan.groups * plan.v_blocks,
        flops=moved * 4,
        bytes=moved * (4 + number.itemsize),
    )
    return v


def _output(plan: WinogradPlan, epilogue: Epilogue, *, has_bias: bool) -> list[str]:
    """The outputs of one panel and one group of tiles from their products."""
    pixels, wide = plan.tile.pixels, plan.tile.vectors * plan.lanes
    return [
        "for (int64_t item = begin; item < end; item++) {",
        f"    const int64_t groups = (TILES + {pixels - 1}) / {pixels};",
        f"    const int64_t oc = item / groups * {wide}, t0 = item % groups * {pixels};",
        f"    const float *const mg = m + item * {plan.products * plan.m_step};",
        *indent(_store(plan, epilogue, has_bias=has_bias)),
        "}",
    ]


def _builder(node: Node, ctx: Context, plan: WinogradPlan, part: str) -> KernelBuilder:
    shape = plan.shape
    sizes = [shape.channels, shape.rows.size, shape.columns.size, shape.outputs]
    known = "x".join(str(size) for size in sizes if isinstance(size, int))
    taps = f"{shape.rows.taps}x{shape.columns.taps}"
    part = plan.numbers.name + part
    return KernelBuilder(ctx, node, f"conv{taps}_{part}{plan.winograd.outputs}_{known}")


def _dims(k: KernelBuilder, plan: WinogradPlan, blocks: Dim) -> None:
    rows, columns = plan.shape.rows, plan.shape.columns
    k.dims("H W OH OW", (rows.size, columns.size, rows.out, columns.out))
    k.dims("PT PL CB OCB", (rows.pad, columns.pad, plan.channel_blocks, plan.out_blocks))
    k.dims("TILES HIGH WIDE", (plan.tiles, plan.high, plan.wide))
    k.dims("BLOCKS PANELS", (blocks, plan.panels))
    k.body("(void)H, (void)W, (void)OH, (void)OW, (void)PT, (void)PL, (void)CB, (void)OCB;")
    k.body("(void)HIGH, (void)WIDE, (void)BLOCKS, (void)PANELS;")


def _output_function(plan: WinogradPlan) -> str:
    n, m = plan.winograd.size, plan.winograd.outputs
    head = [
        f"static inline void row_a(const vf m[{n}], vf r[{m}])",
        "{",
        *indent(plan.winograd.output_text.split("\n")),
        "}",
        "/* A M A': the outputs of one tile from products `step` floats apart. */",
        "static inline void transform_output(",
        f"    const float *from, int64_t step, vf r[{1 if plan.is_line else m}][{m}])",
        "{",
    ]
    if plan.is_line:
        body = [
            f"vf in[{n}];",
            f"for (int j = 0; j < {n}; j++)",
            "    in[j] = v_load(from + j * step);",
            "row_a(in, r[0]);",
        ]
    else:
        body = [
            f"vf half[{m}][{n}];",
            f"for (int j = 0; j < {n}; j++) {{",
            f"    vf in[{n}], out[{m}];",
            f"    for (int i = 0; i < {n}; i++)",
            f"        in[i] = v_load(from + (i * {n} + j) * step);",
            "    row_a(in, out);",
            f"    for (int i = 0; i < {m}; i++)",
            "        half[i][j] = out[i];",
            "}",
            f"for (int i = 0; i < {m}; i++)",
            "    row_a(half[i], r[i]);",
        ]
    return "\n".join([*head, *indent(body), "}"])


def _main(plan: WinogradPlan, epilogue: Epilogue, *, shared: bool, has_bias: bool) -> list[str]:
    group_loop = f"for (int64_t g = 0; g < {plan.groups}; g++) {{"
    m_group, number = plan.products * plan.m_step, plan.numbers.dtype.c
    source = f"vb + g * {plan.v_group} + i * {plan.v_step}{plan.first_step}"
    work = [
        *([] if plan.has_units else plan.first_text()),
        f"const {number} *const un = u + panel * {plan.panel_floats};",
        f"const int64_t oc = panel * {plan.tile.vectors * plan.lanes};",
        f"for (int64_t i = 0; i < {plan.products}; i++)",
        f"    {group_loop}",
        f"        const {number} *const vg = {source};",
        f"        float *const mg = sums + g * {m_group} + i * {plan.m_step};",
        *indent(_multiply(plan), 2),
        "    }",
        group_loop,
        f"    const float *const mg = sums + g * {m_group};",
        f"    const int64_t t0 = block * {plan.block} + g * {plan.tile.pixels};",
        *indent(_store(plan, epilogue, has_bias=has_bias)),
        "}",
    ]
    head = ["float *const sums = (float *)scratch;"]
    if shared:
        return [
            *head,
            "for (int64_t item = begin; item < end; item++) {",
            f"    const int64_t part = ((item / PANELS + 1) * {PARTS} - 1) / BLOCKS;",
            f"    const int64_t low = part * BLOCKS / {PARTS};",
            f"    const int64_t high = (part + 1) * BLOCKS / {PARTS};",
            "    const int64_t at = item - low * PANELS, panel = at / (high - low);",
            "    const int64_t block = low + at % (high - low);",
            f"    const {number} *const vb = v + block * {plan.groups * plan.v_group};",
            *indent(work),
            "}",
        ]
    return [
        *head,
        f"{number} *const vb = ({number} *)(sums + {plan.groups * m_group});",
        *_blocks(plan),
        f"    {group_loop}",
        f"        {number} *const vg = vb + g * {plan.v_group};",
        f"        const int64_t t0 = block * {plan.block} + g * {plan.tile.pixels};",
        *indent(transform_tiles(plan, "0", v_blocks_text(plan)), 2),
        "    }",
        *indent(_panels(plan)),
        *indent(work, 2),
        "    }",
        "}",
    ]


def _units(plan: WinogradPlan) -> int:
    return plan.units if plan.has_units else 1


def _blocks(plan: WinogradPlan) -> list[str]:
    """The head of the loop over items: blocks of tiles, of one unit after the other."""
    if not plan.has_units:
        return ["for (int64_t block = begin; block < end; block++) {"]
    return [
        "for (int64_t item = begin; item < end; item++) {",
        "    const int64_t block = item % BLOCKS, unit = item / BLOCKS;",
        *indent(plan.first_text(f"unit * {plan.panels // plan.units}")),
    ]


def _panels(plan: WinogradPlan) -> list[str]:
    """The head of the loop over panels, of all or of a unit."""
    if not plan.has_units:
        return ["for (int64_t panel = 0; panel < PANELS; panel++) {"]
    each = plan.panels // plan.units
    return [f"for (int64_t panel = unit * {each}; panel < (unit + 1) * {each}; panel++) {{"]


def _multiply(plan: WinogradPlan) -> list[str]:
    """The register tile of product i: all input channels."""
    pixels, vectors, lanes = plan.tile.pixels, plan.tile.vectors, plan.lanes
    names = [f"acc{p}_{v}" for p in range(pixels) for v in range(vectors)]
    number = plan.numbers.dtype.c
    ahead = AHEAD if plan.weight_bytes > L2_BYTES * _units(plan) else 0
    return [
        f"vf {', '.join(f'{name} = {{0}}' for name in names)};",
        f"for (int64_t b = 0; b < {plan.depth}; b++) {{",
        f"    const int64_t lanes = {plan.lanes_text};",
        f"    const {number} *const xr = vg + b * {pixels} * V;",
        f"    const {number} *const wr = un + (i * {plan.depth} + b) * {lanes * vectors} * V;",
        *indent(plan.numbers.print_tile(plan.tile, lanes, ahead)),
        "}",
        *(
            f"v_store(mg + {v * pixels + p} * V, acc{p}_{v});"
            for v in range(vectors)
            for p in range(pixels)
        ),
    ]


def _store(plan: WinogradPlan, epilogue: Epilogue, *, has_bias: bool) -> list[str]:
    """Outputs of the tiles of a group, cut at the edges of the map."""
    m, pixels = plan.winograd.outputs, plan.tile.pixels
    value = "(r[i][j] + v_load(bias + channel))" if has_bias else "r[i][j]"
    statements, result = epilogue.vector(value, "at", "channel")
    dilation = plan.shape.columns.dilation
    left = "OW - ow" if dilation == 1 else f"(OW - ow + {dilation - 1}) / {dilation}"
    across = "j" if dilation == 1 else f"j * {dilation}"
    return [
        f"for (int64_t v = 0; v < tl_min({plan.tile.vectors}, OCB - oc / V); v++)",
        f"    for (int64_t p = 0; p < tl_min({pixels}, TILES - t0); p++) {{",
        "        const int64_t t = t0 + p, n = t / (HIGH * WIDE), channel = oc + v * V;",
        f"        {_place(plan)}",
        "        (void)channel;",
        f"        vf r[{1 if plan.is_line else m}][{m}];",
        f"        transform_output(mg + (v * {pixels} + p) * V, {plan.m_step}, r);",
        f"        for (int64_t i = 0; i < tl_min({m}, OH - oh); i++)",
        f"            for (int64_t j = 0; j < tl_min({m}, {left}); j++) {{",
        "                const int64_t line = ((n * OCB + oc / V + v) * OH + oh + i) * OW;",
        f"                const int64_t at = (line + ow + {across}) * V;",
        *indent(statements, 4),
        f"                v_store(y + at, {result});",
        "            }",
        "    }",
    ]


def _place(plan: WinogradPlan) -> str:
    """C: where the outputs of tile `t` begin."""
    m, dilation = plan.winograd.outputs, plan.shape.columns.dilation
    if dilation == 1:
        return f"const int64_t oh = t / WIDE % HIGH * {m}, ow = t % WIDE * {m};"
    return f"const int64_t oh = 0, ow = t % WIDE * {m * dilation} + t / WIDE % HIGH;"
