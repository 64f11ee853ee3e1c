"""Winograd convolution of maps with few tiles and large weights: product by product.

    V[g][i][c / V][p][V] = B d B'                     a kernel of its own, see `winograd`
    M[panel][g][i][v][p][V] = sum over c of V * U     a grid item is one product and one panel
    y = A M A' + bias, epilogue                       a grid item is one panel and one group

The weights of an item are read from memory once, whatever the number of tiles; every group of tiles
asks for its share of those of the next item, so that memory answers while arithmetic goes on.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from tuili.codegen.kernel import KernelBuilder
from tuili.codegen.kernels.conv.winograd_numbers import support_numbers
from tuili.codegen.kernels.conv.winograd_plan import WinogradPlan
from tuili.codegen.text import indent
from tuili.lower.program import View
from tuili.tensors import Array, Dim, DType, ceil_div

CACHE_LINE = 64  # bytes
NewKernel = Callable[[str], KernelBuilder]


def spread_order(panels: Array) -> Array:
    """[panel][i][C][NV * V] as [i][panel][C][NV * V]."""
    return np.ascontiguousarray(panels.swapaxes(0, 1))


def groups_of(plan: WinogradPlan) -> Dim:
    """Groups of tiles, each as many as a register tile holds."""
    return ceil_div(plan.tiles, plan.tile.pixels)


def emit_products(new: NewKernel, plan: WinogradPlan, v: View, packed: Array, near: int) -> View:
    """The call that multiplies; returns where the products lie."""
    k = new("multiply")
    groups = groups_of(plan)
    m_group, number = plan.products * plan.m_step, plan.numbers.dtype
    support_numbers(k, plan.numbers)
    m = k.temp("m", DType.F32, groups * (plan.panels * m_group))
    k.read("v", v, number.c)
    k.write("m", m)
    k.weight("u", packed if plan.is_sharing else spread_order(packed))
    k.dims("PANELS GROUPS", (plan.panels, groups))
    k.dims("CB CHUNK", (plan.channel_blocks, _chunk(plan, near)))
    slice_floats = plan.panel_floats // plan.products
    at, next_item = "item", slice_floats
    if plan.is_sharing:
        at, next_item = f"(panel * {plan.products} + i)", plan.panel_floats
    source = f"v + g * {plan.v_group} + i * {plan.v_step}{plan.first_step}"
    body = [
        "(void)CB;",
        "for (int64_t item = begin; item < end; item++) {",
        "    const int64_t i = item / PANELS, panel = item % PANELS;",
        f"    const {number.c} *const ui = u + {at} * {slice_floats};",
        f"    const {number.c} *ahead = ui + {next_item};",
        *indent(plan.first_text()),
        f"    for (int64_t low = 0; low < {plan.depth}; low += CHUNK) {{",
        f"        const int64_t high = tl_min(low + CHUNK, {plan.depth});",
        "        for (int64_t g = 0; g < GROUPS; g++) {",
        f"            const {number.c} *const vg = {source};",
        f"            float *const mg = m + (panel * GROUPS + g) * {m_group} + i * {plan.m_step};",
        *indent(_multiply(plan), 3),
        "        }",
        "    }",
        "}",
    ]
    k.body("\n".join(body))
    flops = plan.tiles * (2 * plan.products * plan.sums * plan.shape.outputs)
    moved = packed.size + plan.tiles * (plan.products * plan.shape.channels * plan.parts)
    k.emit(grid=plan.products * plan.panels, flops=flops, bytes=moved * number.itemsize)
    return m


def _chunk(plan: WinogradPlan, near: int) -> int:
    """Input blocks whose weights stay in the nearest cache together."""
    each = plan.lanes * plan.tile.vectors * plan.lanes * plan.numbers.dtype.itemsize
    most = max(1, near // each) if near else plan.depth
    return -(-plan.depth // -(-plan.depth // most))


def _multiply(plan: WinogradPlan) -> list[str]:
    """The register tile of group `g`, product `i`, input blocks low .. high - 1."""
    pixels, vectors, lanes = plan.tile.pixels, plan.tile.vectors, plan.lanes
    names = [f"acc{p}_{v}" for p in range(pixels) for v in range(vectors)]
    places = [f"mg + {v * pixels + p} * V" for p in range(pixels) for v in range(vectors)]
    pairs = list(zip(names, places, strict=True))
    groups = max(1, -(-plan.likely_tiles // pixels))
    share = -(-lanes * vectors * lanes // groups)
    number, line = plan.numbers.dtype, CACHE_LINE // plan.numbers.dtype.itemsize
    return [
        f"vf {', '.join(f'{name} = {{0}}' for name in names)};",
        "if (low > 0) {",
        *(f"    {name} = v_load({place});" for name, place in pairs),
        "}",
        "for (int64_t b = low; b < high; b++) {",
        f"    const int64_t lanes = {plan.lanes_text};",
        f"    const {number.c} *const xr = vg + b * {pixels} * V;",
        f"    const {number.c} *const wr = ui + b * {lanes * vectors} * V;",
        *(f"    __builtin_prefetch(ahead + {at}, 0, 2);" for at in range(0, share, line)),
        f"    ahead += {share};",
        *indent(plan.numbers.print_tile(plan.tile, lanes, 0)),
        "}",
        *(f"v_store({place}, {name});" for name, place in pairs),
    ]
