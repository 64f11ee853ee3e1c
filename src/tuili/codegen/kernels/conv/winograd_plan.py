"""What Winograd convolution decides before it prints: which F(m, r) pays, tiles, packing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from tuili.codegen.kernels.conv.plan import panel_blocks, spread_groups, whole_panels
from tuili.codegen.kernels.conv.register_tile import Tile, rank_tiles
from tuili.codegen.kernels.conv.shape import ConvShape
from tuili.codegen.kernels.conv.winograd_blocks import (
    DIRECT_FACTOR,
    FEW_BLOCKS,
    RIVAL,
    Blocks,
    likely_pixels,
    likely_tiles,
    products_of,
)
from tuili.codegen.kernels.conv.winograd_lines import line_ways
from tuili.codegen.kernels.conv.winograd_numbers import FLOATS, Numbers
from tuili.codegen.kernels.conv.winograd_transforms import F2, F4, S2, S4, Winograd
from tuili.codegen.targets import Target
from tuili.tensors import Array

L2_BYTES = 768 * 1024  # of the second-level cache, for one core to rely on
FEW_ITEMS = 8  # of groups and blocks of tiles: with fewer, threads share output channels too
AHEAD = 2048  # numbers that transformed weights are prefetched ahead, when they are large


@dataclass(frozen=True, slots=True)
class WinogradPlan(Blocks):
    """Everything that the printer decides from."""

    winograd: Winograd
    first: tuple[int, ...]  # the first input block that each panel reads
    depth: int  # how many blocks it reads, those of all parts of the window
    numbers: Numbers = FLOATS  # that are multiplied
    is_sharing: bool = False  # reads weights in the order of plans that are not spread

    @property
    def is_line(self) -> bool:
        """Whether windows go along one row only."""
        return self.shape.rows.taps == 1

    @property
    def parts(self) -> int:
        """Parts of the window, each read as if it had input channels of its own."""
        return self.winograd.parts(self.shape)

    @property
    def sums(self) -> int:
        """What an output adds up in each product: channels of all parts."""
        return self.parts * min(self.shape.channels, self.depth // self.parts * self.lanes)

    @property
    def weight_bytes(self) -> int:
        """All transformed weights."""
        count = self.products * self.depth * self.lanes * self.out_blocks * self.lanes
        return count * self.numbers.dtype.itemsize

    @property
    def units(self) -> int:
        """Runs of panels, equally long, that read the same input blocks: often the groups."""
        starts = sorted(set(self.first))
        runs = [start for start in starts for _ in range(self.panels // len(starts))]
        return len(starts) if runs == list(self.first) else 1

    @property
    def is_shared(self) -> bool:
        """Whether V is made by a kernel of its own: where threads share a block's panels.

        A unit of small weights is an item of its own, V of its channels beside it in the cache.
        """
        is_small = self.weight_bytes <= L2_BYTES * self.units
        if self.units > 1 and is_small and self.likely_tiles * self.units > FEW_ITEMS * self.block:
            return False
        return self.likely_tiles <= FEW_BLOCKS * self.block

    @property
    def is_spread(self) -> bool:
        """Whether weights are so large, and tiles so few, that products are made one by one."""
        return self.is_shared and self.weight_bytes > L2_BYTES

    @property
    def has_units(self) -> bool:
        """Whether an item is one unit and one block of tiles, and V holds the unit's channels."""
        return self.units > 1 and not self.is_shared

    @property
    def v_blocks(self) -> int:
        """Blocks of channels in V."""
        return self.depth if self.has_units else self.channel_blocks * self.parts

    @property
    def v_step(self) -> int:
        """Numbers from one product to the next in V; an odd number of vectors spreads the sets."""
        return (self.v_blocks * self.tile.pixels + 1) * self.lanes

    @property
    def v_group(self) -> int:
        """Numbers of V for one register tile."""
        return self.products * self.v_step

    @property
    def m_step(self) -> int:
        """Floats from one product to the next in M."""
        return (self.tile.pixels * self.tile.vectors + 1) * self.lanes

    @property
    def panel_floats(self) -> int:
        """Transformed weights of a panel."""
        return self.products * self.depth * self.lanes * self.tile.vectors * self.lanes

    def first_text(self, panel: str = "panel") -> list[str]:
        """C that names the first input block of a panel, where panels begin at different ones."""
        if not any(self.first):
            return []
        blocks = ", ".join(map(str, self.first))
        table = f"static const int32_t firsts[{len(self.first)}] = {{{blocks}}};"
        return [table, f"const int64_t first = firsts[{panel}];"]

    @property
    def first_step(self) -> str:
        """C: from a product in V to what the panel reads of it."""
        is_whole = any(self.first) and not self.has_units
        return f" + first * {self.tile.pixels} * V" if is_whole else ""

    @property
    def lanes_text(self) -> str:
        """C: how many channels the panel's input block `b` has."""
        rest = self.shape.channels % self.lanes
        block = "first + b" if any(self.first) else "b" if self.parts == 1 else "b % CB"
        return f"{block} + 1 < CB ? {self.lanes} : {rest}" if rest else str(self.lanes)


def rank_winograd(shape: ConvShape, groups: int, target: Target) -> list[Winograd | None]:
    """The transforms that may pay, and None for direct convolution, best first."""
    costs: list[tuple[float, Winograd | None]] = [(direct_cost(shape, groups, target), None)]
    for way in winograd_ways(shape, groups):
        costs += [(winograd_cost(way, shape, groups, target), way)]
    costs.sort(key=lambda each: each[0])
    return [way for cost, way in costs if cost <= RIVAL * costs[0][0]]


def direct_cost(shape: ConvShape, groups: int, target: Target, numbers: Numbers = FLOATS) -> float:
    """Estimated cycles of direct convolution."""
    pairs = _pairs(shape, groups, target) * shape.taps
    stream = pairs * target.lanes * numbers.dtype.itemsize / target.stream_bytes
    return max(likely_pixels(shape) * pairs * numbers.cycles, stream) * DIRECT_FACTOR


def winograd_cost(
    winograd: Winograd, shape: ConvShape, groups: int, target: Target, numbers: Numbers = FLOATS
) -> float:
    """Estimated cycles of a transform."""
    lanes, tiles, parts = target.lanes, likely_tiles(winograd, shape), winograd.parts(shape)
    ins, outs = -(-shape.channels // lanes), -(-shape.outputs // lanes)
    products = products_of(winograd, shape) * parts
    pairs = _pairs(shape, groups, target) * products
    compute = tiles * pairs * numbers.cycles * 1.08
    stream = pairs * lanes * numbers.dtype.itemsize / target.stream_bytes
    # About one cycle for each load, store and sum of the transforms.
    effort = winograd.effort * numbers.effort
    transforms = tiles * products * (ins * 3.5 + outs * 3 / parts) * effort
    return max(compute, stream) + transforms


def _pairs(shape: ConvShape, groups: int, target: Target) -> int:
    """Input channels, of a panel's, times vectors of output channels."""
    lanes = target.lanes
    _, depth = panel_blocks(shape, groups, lanes, lanes)
    return min(shape.channels, depth * lanes) * -(-shape.outputs // lanes)


def winograd_ways(shape: ConvShape, groups: int) -> Sequence[Winograd]:
    """The transforms that fit the window; its parts are no groups."""
    if shape.columns.stride == 2:
        return (S4, S2)
    if shape.rows.taps > 1:
        return (F4, F2)
    return [way for way in line_ways(shape.columns.taps) if groups == 1 or way.parts(shape) == 1]


def winograd_tiles(shape: ConvShape, groups: int, target: Target, winograd: Winograd) -> list[Tile]:
    """The register tiles that fit, the cost model's first."""
    out_blocks = -(-shape.outputs // target.lanes)
    divides = whole_panels(shape, groups, target)
    tiles = likely_tiles(winograd, shape)
    return rank_tiles(target, tiles, out_blocks, divides=divides, whole=True)


def plan_winograd(
    shape: ConvShape,
    groups: int,
    target: Target,
    winograd: Winograd,
    tile: Tile,
    numbers: Numbers = FLOATS,
) -> WinogradPlan:
    """The plan of a tile: blocks of one register tile or two."""
    lanes = target.lanes
    first, depth = panel_blocks(shape, groups, tile.vectors * lanes, lanes)
    plan = WinogradPlan(
        winograd, shape, lanes, tile, 1, first, depth * winograd.parts(shape), numbers
    )
    return replace(plan, groups=_groups(plan, tile))


def _groups(plan: WinogradPlan, tile: Tile) -> int:
    """Register tiles in a block: two share weights that come from beyond the caches."""
    count = plan.products * plan.shape.channels * plan.parts * tile.pixels
    v_bytes = count * plan.numbers.dtype.itemsize
    alone = plan.likely_tiles <= tile.pixels
    return 1 if alone or plan.weight_bytes <= L2_BYTES or 2 * v_bytes > L2_BYTES else 2


def pack_transformed(weights: Array, groups: int, plan: WinogradPlan) -> Array:
    """[OC, C / groups, taps] as [panel][i][blocks * V][NV * V], zeros where nothing belongs."""
    wide = plan.tile.vectors * plan.lanes
    moved = plan.winograd.transform_filters(_in_parts(weights, plan)).astype(np.float32)
    panels = spread_groups(moved, groups, plan.first, plan.depth * plan.lanes, wide, plan.lanes)
    return plan.numbers.pack(np.ascontiguousarray(panels.swapaxes(1, 2)))


def _in_parts(weights: Array, plan: WinogradPlan) -> Array:
    """[OC, C, k] as [OC, parts * whole blocks of C, r]; a window of one part stays as it is."""
    taps, outputs = plan.winograd.taps, weights.shape[0]
    if not plan.is_line or plan.shape.columns.taps == taps:
        return weights
    missing = plan.parts * taps - weights.shape[2]
    rest = -weights.shape[1] % plan.lanes if plan.parts > 1 else 0
    padded = np.pad(weights, ((0, 0), (0, rest), (0, missing)))
    cut = padded.reshape(outputs, -1, plan.parts, taps).swapaxes(1, 2)
    return cut.reshape(outputs, -1, taps)
