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
from tuili.codegen.targets import Target
from tuili.ir import Node, Value
from tuili.lower.program import View
from tuili.ops.table import attr
from tuili.tensors import Dim, DType, ceil_div, numel

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


@dataclass(frozen=True, slots=True)
class _Sizes:
    """What is multiplied with what, and in which tiles."""

    groups: int
    ins: int  # of a group
    rows: int  # of a group: its outputs
    taps: int
    pixels: Dim
    tile: Tile
    columns: int  # of a panel
    chunk: int  # channels that a panel holds

    @property
    def kept(self) -> int:
        """Rows of sums that wait for the next chunk."""
        return self.rows if self.chunk < self.ins else 0


def _sizes(node: Node, target: Target, windows: Sequence[Window]) -> _Sizes:
    channels, outputs = node.required(0).shape[1], node.output.shape[1]
    assert isinstance(channels, int)
    assert isinstance(outputs, int)
    groups = attr(node, "group")
    pixels = numel([window.count for window in windows])
    taps = prod(len(window.taps) for window in windows)
    ins, rows = channels // groups, outputs // groups
    width = pixels if isinstance(pixels, int) else None
    stride_bytes = ins * taps * node.output.dtype.itemsize
    tile = rank_tiles(target, stride_bytes=stride_bytes, columns=width, rows=rows)[0]
    columns = tile.columns(target.lanes)
    chunk = max(1, min(ins, PANEL_BYTES // (columns * node.output.dtype.itemsize * taps)))
    return _Sizes(groups, ins, rows, taps, pixels, tile, columns, chunk)


def emit_product(
    node: Node,
    ctx: Context,
    operands: Operands,
    windows: Sequence[Window],
    name: str,
    make_fill: MakeFill = _fill_windows,
) -> None:
    """The call that multiplies."""
    x, y = node.required(0), node.output
    is_double, size = y.dtype is DType.F64, y.dtype.itemsize
    sizes = _sizes(node, half_lanes(ctx.target) if is_double else ctx.target, windows)
    depth = sizes.ins * sizes.taps
    k = KernelBuilder(ctx, node, f"{name}_{sizes.rows}x{depth}_{y.dtype.value}")
    k.read("x", operands.source)
    k.read("w", operands.weights)
    bias = node.input(operands.bias_slot)
    if bias is not None:
        k.read("bias", bias)
    k.write("y", y)
    epilogue = Epilogue(k, node, operands.own_slots)
    panels = _declare(k, sizes, windows)
    fill = make_fill(k, windows, sizes.tile)
    k.dim("KEPT", sizes.kept)
    text = ProductText(
        windows, sizes.tile, sizes.columns, sizes.rows, sizes.kept > 0, bias is not None,
        epilogue, fill,
    ).body()  # fmt: skip
    k.body(in_doubles(text) if is_double else text)
    k.support(DOUBLES if is_double else "")
    k.scratch((sizes.chunk * sizes.taps + sizes.kept) * sizes.columns * size + fill.bytes)
    outputs = sizes.groups * sizes.rows
    products = numel((y.shape[0], outputs)) * sizes.pixels
    traffic = (numel(x.shape) + numel(y.shape) + outputs * depth) * size
    grid = y.shape[0] * sizes.groups * panels
    k.emit(grid=grid, flops=products * (2 * depth), bytes=traffic)


def _declare(k: KernelBuilder, sizes: _Sizes, windows: Sequence[Window]) -> Dim:
    """The dims that the text speaks of; returns the panels of an image."""
    depth, panels = sizes.ins * sizes.taps, ceil_div(sizes.pixels, sizes.columns)
    numbers = (sizes.groups, sizes.ins, sizes.rows, depth, sizes.taps, sizes.chunk)
    k.dims("G GC GM K TAPS CHUNK", numbers)
    k.dims("PIX PANELS OUT", (sizes.pixels, panels, numel([window.out for window in windows])))
    k.dim("PLANE", numel([window.size for window in windows]))
    for axis, window in enumerate(windows):
        k.dims(f"X{axis} Q{axis} O{axis}", (window.size, window.count, window.out))
        k.body(f"(void)X{axis}, (void)Q{axis}, (void)O{axis};")
    k.body(
        f"enum {{ NV = {sizes.tile.vectors}, COLS = {sizes.columns} }};\n"
        "(void)OUT, (void)PLANE, (void)K;"
    )
    return panels
