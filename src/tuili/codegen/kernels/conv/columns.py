"""Convolutions as products of matrices, made panel by panel: any rank, any groups, f32 and f64.

For a panel of output pixels the inputs under their windows are put side by side, [K][pixels], where
they stay near; the rows of the weights, [M][K] as they lie in memory, pass over them in register
tiles. So weights may come from the run, and a transposed convolution is one product for each phase.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod
from typing import TypeAlias

from tuili.codegen.doubles import DOUBLES, half_lanes, in_doubles
from tuili.codegen.epilogue import Epilogue
from tuili.codegen.kernel import Context, KernelBuilder
from tuili.codegen.kernels.conv.borders import padded
from tuili.codegen.kernels.conv.plain import CONV_SLOTS, supports_plain_conv
from tuili.codegen.kernels.conv.product import Fill, ProductText, Window, fill_windows
from tuili.codegen.kernels.conv.shape import window_axes
from tuili.codegen.kernels.gemm.tile import Tile, rank_tiles
from tuili.ir import Node, Value
from tuili.lower.program import View
from tuili.ops.table import attr
from tuili.tensors import DType, ceil_div, numel

LEAST_ROWS = 4  # outputs of a group: fewer do not pay for the panel
PANEL_BYTES = 192 * 1024  # of the second-level cache


def supports_columns(node: Node, ctx: Context) -> bool:
    """Whether channels and taps are known, in f32 or f64, and groups have several outputs."""
    if node.output.dtype not in (DType.F32, DType.F64) or not supports_plain_conv(node, ctx):
        return False
    sizes = (node.required(0).shape[1], node.output.shape[1], *node.required(1).shape[2:])
    if not all(isinstance(size, int) and size > 0 for size in sizes):
        return False
    outputs = node.output.shape[1]
    assert isinstance(outputs, int)
    return outputs // attr(node, "group") >= LEAST_ROWS


def emit_columns(node: Node, ctx: Context) -> None:
    """Conv: a product with the weights as they lie."""
    axes = window_axes(node, node.required(1).shape[2:])
    around = padded(node, ctx, [axis.pad for axis in axes], [axis.end for axis in axes])
    windows = [
        Window(
            size,
            axis.out,
            axis.stride,
            tuple(tap * axis.dilation for tap in range(axis.taps)),
            axis.out,
        )
        for axis, size in zip(axes, around.sizes, strict=True)
    ]
    emit_product(node, ctx, Operands(around.source, node.required(1)), windows, "conv")


@dataclass(frozen=True, slots=True)
class Operands:
    """What is multiplied: the input as its windows see it, and weights [M][K], group by group."""

    source: Value | View
    weights: Value | View
    bias_slot: int = 2
    own_slots: int = CONV_SLOTS


MakeFill: TypeAlias = "Callable[[KernelBuilder, Sequence[Window], Tile], Fill]"


def _fill_windows(k: KernelBuilder, windows: Sequence[Window], tile: Tile) -> Fill:
    return fill_windows(windows, tile)


def emit_product(
    node: Node,
    ctx: Context,
    operands: Operands,
    windows: Sequence[Window],
    name: str,
    make_fill: MakeFill = _fill_windows,
) -> None:
    """The call that multiplies."""
    x, y, groups = node.required(0), node.output, attr(node, "group")
    channels, outputs = x.shape[1], y.shape[1]
    assert isinstance(channels, int)
    assert isinstance(outputs, int)
    is_double, size = y.dtype is DType.F64, y.dtype.itemsize
    target = half_lanes(ctx.target) if is_double else ctx.target
    pixels, taps = (
        numel([window.count for window in windows]),
        prod(len(window.taps) for window in windows),
    )
    ins, rows = channels // groups, outputs // groups
    width = pixels if isinstance(pixels, int) else None
    tile = rank_tiles(target, known_stride=True, columns=width, rows=rows)[0]
    columns = tile.columns(target.lanes)
    chunk = max(1, min(ins, PANEL_BYTES // (columns * size * taps)))
    k = KernelBuilder(ctx, node, f"{name}_{rows}x{ins * taps}_{y.dtype.value}")
    k.read("x", operands.source)
    k.read("w", operands.weights)
    bias = node.input(operands.bias_slot)
    if bias is not None:
        k.read("bias", bias)
    k.write("y", y)
    epilogue = Epilogue(k, node, operands.own_slots)
    panels = ceil_div(pixels, columns)
    k.dims("G GC GM K TAPS CHUNK", (groups, ins, rows, ins * taps, taps, chunk))
    k.dims("PIX PANELS OUT", (pixels, panels, numel([window.out for window in windows])))
    k.dim("PLANE", numel([window.size for window in windows]))
    for axis, window in enumerate(windows):
        k.dims(f"X{axis} Q{axis} O{axis}", (window.size, window.count, window.out))
        k.body(f"(void)X{axis}, (void)Q{axis}, (void)O{axis};")
    k.body(f"enum {{ NV = {tile.vectors}, COLS = {columns} }};\n(void)OUT, (void)PLANE, (void)K;")
    fill = make_fill(k, windows, tile)
    kept = rows if chunk < ins else 0
    k.dim("KEPT", kept)
    text = ProductText(
        windows, tile, columns, rows, chunk < ins, bias is not None, epilogue, fill
    ).body()
    k.body(in_doubles(text) if is_double else text)
    k.support(DOUBLES if is_double else "")
    k.scratch((chunk * taps + kept) * columns * size + fill.bytes)
    products = numel((y.shape[0], outputs)) * pixels
    traffic = (numel(x.shape) + numel(y.shape) + outputs * ins * taps) * size
    k.emit(grid=y.shape[0] * groups * panels, flops=products * (2 * ins * taps), bytes=traffic)
