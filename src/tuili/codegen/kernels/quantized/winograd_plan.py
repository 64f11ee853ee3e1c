"""What Winograd convolution of codes decides before it prints: which F(m, 3), tiles, packing."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from tuili.codegen.kernels.conv.shape import ConvShape
from tuili.codegen.kernels.conv.winograd_blocks import (
    DIRECT_FACTOR,
    RIVAL,
    Blocks,
    likely_pixels,
    likely_tiles,
)
from tuili.codegen.kernels.quantized.dot import Dot, dot_of_shorts, dots_for
from tuili.codegen.kernels.quantized.tile import rank_q_tiles
from tuili.codegen.kernels.quantized.winograd_transforms import (
    WHOLE_F2,
    WHOLE_F4,
    CodeRange,
    WholeWinograd,
)
from tuili.codegen.targets import Target
from tuili.tensors import Array

WholeFilters: TypeAlias = "tuple[WholeWinograd, Array]"  # and the transformed weights

STREAM = 4  # bytes of weights per cycle from beyond the second-level cache
V_BYTES = 320 * 1024  # of transformed input that all panels read before the next block


@dataclass(frozen=True, slots=True)
class QWinogradPlan(Blocks):
    """Everything that the printer decides from."""

    winograd: WholeWinograd
    dot: Dot
    filters: Array  # i16 [OC, C, products]: transformed weights

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


def rank_whole(
    shape: ConvShape, target: Target, weights: Array, codes: CodeRange
) -> list[WholeFilters | None]:
    """F(4, 3) and F(2, 3) as far as exact, and None for direct: what may pay, best first."""
    narrow, wide = dots_for(target, weights)[0], dot_of_shorts(target)
    ins, outs = -(-shape.channels // target.lanes), -(-shape.outputs // target.lanes)
    pairs = ins * target.lanes * outs
    direct = max(
        likely_pixels(shape) * 9 * pairs * narrow.cycles,
        9 * pairs * target.lanes / STREAM,
    )
    costs: list[tuple[float, WholeWinograd | None]] = [(direct * DIRECT_FACTOR, None)]
    for winograd in (WHOLE_F2, WHOLE_F4):
        tiles, products = likely_tiles(winograd, shape), winograd.size**2
        compute = tiles * products * pairs * wide.cycles
        stream = products * pairs * target.lanes * 2 / STREAM
        # About one cycle for each load, store and sum of the transforms.
        transforms = tiles * products * 3.5 * (ins + outs)
        costs.append((max(compute, stream) + transforms, winograd))
    costs.sort(key=lambda each: each[0])
    return _exact(costs, weights, codes)


def _exact(
    costs: list[tuple[float, WholeWinograd | None]], weights: Array, codes: CodeRange
) -> list[WholeFilters | None]:
    """Those whose filters fit, and that cost not much more than the first of them."""
    found: list[WholeFilters | None] = []
    most = math.inf
    for cost, winograd in costs:
        filters = None if winograd is None else winograd.transform_filters(weights, codes)
        if cost > most or (winograd is not None and filters is None):
            continue
        most = min(most, RIVAL * cost)
        found.append(None if winograd is None or filters is None else (winograd, filters))
    return found


def plan_whole(
    shape: ConvShape, target: Target, winograd: WholeWinograd, filters: Array
) -> QWinogradPlan:
    """Register tiles and blocks."""
    tiles = likely_tiles(winograd, shape)
    tile = rank_q_tiles(target, tiles, -(-shape.outputs // target.lanes))[0]
    each = winograd.size**2 * shape.channels * 2 * tile.pixels
    groups = max(1, min(V_BYTES // each, -(-tiles // tile.pixels)))
    dot = dot_of_shorts(target)
    return QWinogradPlan(winograd, shape, target.lanes, tile, groups, dot, filters)


def pack_whole(plan: QWinogradPlan) -> Array:
    """[OC, C, i] as [panel][i][C / 2][vectors][V][2], zero padded."""
    outputs, channels, products = plan.filters.shape
    wide = plan.tile.vectors * plan.lanes
    padded = np.zeros((plan.panels * wide, plan.channel_blocks * plan.lanes, products), np.int16)
    padded[:outputs, :channels] = plan.filters
    split = padded.reshape(plan.panels, wide, -1, 2, products)
    return np.ascontiguousarray(split.transpose(0, 4, 2, 1, 3))
