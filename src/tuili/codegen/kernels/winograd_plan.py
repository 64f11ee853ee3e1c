"""What Winograd convolution decides before it prints: which F(m, 3) pays, tiles, packing."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tuili.codegen.kernels.conv_shape import ConvShape
from tuili.codegen.kernels.register_tile import Tile, choose_tile
from tuili.codegen.kernels.winograd_transforms import F2, F4, S2, S4, Winograd
from tuili.codegen.targets import Target
from tuili.tensors import Array, Dim, ceil_div

L2_BYTES = 768 * 1024  # of the second-level cache, for one core to rely on
AHEAD = 2048  # floats that transformed weights are prefetched ahead, when they are large
FEW_BLOCKS = 24  # up to so many blocks of tiles, threads share output channels too
STREAM = 6  # bytes of weights per cycle from beyond the second-level cache
GUESSED_SIZE = 80  # rows and columns when they are not known


@dataclass(frozen=True, slots=True)
class WinogradPlan:
    """Everything that the printer decides from."""

    winograd: Winograd
    shape: ConvShape
    lanes: int
    tile: Tile  # tiles of pixels times vectors of output channels
    groups: int  # register tiles in a block

    @property
    def products(self) -> int:
        """Products per tile and channel pair."""
        return products_of(self.winograd, self.shape)

    @property
    def is_line(self) -> bool:
        """Whether windows go along one row only."""
        return self.shape.rows.taps == 1

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
    def weight_bytes(self) -> int:
        """All transformed weights."""
        return self.products * self.shape.channels * self.out_blocks * self.lanes * 4

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
    def likely_tiles(self) -> int:
        """Tiles of one image of the size that is known or likely."""
        m, rows, columns = self.winograd.outputs, self.shape.rows.out, self.shape.columns.out
        batch = self.shape.batch if isinstance(self.shape.batch, int) else 1
        return batch * -(-_known(rows) // m) * -(-_known(columns) // m)

    @property
    def is_shared(self) -> bool:
        """Whether threads share the output channels of a block of tiles."""
        return self.likely_tiles <= FEW_BLOCKS * self.block

    @property
    def is_spread(self) -> bool:
        """Whether weights are so large, and tiles so few, that products are made one by one."""
        return self.is_shared and self.weight_bytes > L2_BYTES

    @property
    def v_step(self) -> int:
        """Floats from one product to the next in V; an odd number of vectors spreads the sets."""
        return (self.channel_blocks * self.tile.pixels + 1) * self.lanes

    @property
    def v_group(self) -> int:
        """Floats of V for one register tile."""
        return self.products * self.v_step

    @property
    def m_step(self) -> int:
        """Floats from one product to the next in M."""
        return (self.tile.pixels * self.tile.vectors + 1) * self.lanes

    @property
    def panel_floats(self) -> int:
        """Transformed weights of a panel."""
        return self.products * self.shape.channels * self.tile.vectors * self.lanes


def products_of(winograd: Winograd, shape: ConvShape) -> int:
    """Products per tile and channel pair, in one direction or two."""
    return winograd.size if shape.rows.taps == 1 else winograd.size**2


def choose_winograd(shape: ConvShape, target: Target) -> Winograd | None:
    """The cheaper of four and two outputs a tile; None when direct convolution is cheaper still."""
    lanes = target.lanes
    rows, columns = _known(shape.rows.out), _known(shape.columns.out)
    batch = shape.batch if isinstance(shape.batch, int) else 1
    ins, outs = -(-shape.channels // lanes), -(-shape.outputs // lanes)
    pairs = shape.channels * outs
    taps = shape.taps
    direct = max(batch * rows * columns * taps * pairs / 2, taps * pairs * lanes * 4 / STREAM)
    best, choice = direct * 0.9, None
    for winograd in (F4, F2) if shape.columns.stride == 1 else (S4, S2):
        tiles = batch * -(-rows // winograd.outputs) * -(-columns // winograd.outputs)
        products = products_of(winograd, shape)
        compute = tiles * products * pairs / 2 * 1.08
        # About one cycle for each load, store and sum of the transforms.
        transforms = tiles * (ins * 3.5 * products + outs * 3 * products)
        cost = max(compute, products * pairs * lanes * 4 / STREAM) + transforms
        if cost < best:
            best, choice = cost, winograd
    return choice


def _known(dim: Dim) -> int:
    return dim if isinstance(dim, int) else GUESSED_SIZE


def plan_winograd(shape: ConvShape, target: Target, winograd: Winograd) -> WinogradPlan:
    """Register tiles and blocks."""
    out_blocks = -(-shape.outputs // target.lanes)
    first = WinogradPlan(winograd, shape, target.lanes, Tile(1, 1), 1)
    tile = choose_tile(target, first.likely_tiles, out_blocks, whole=True)
    return WinogradPlan(winograd, shape, target.lanes, tile, _groups(first, tile))


def _groups(plan: WinogradPlan, tile: Tile) -> int:
    """Register tiles in a block: two share weights that come from beyond the caches."""
    v_bytes = plan.products * plan.shape.channels * tile.pixels * 4
    alone = plan.likely_tiles <= tile.pixels
    return 1 if alone or plan.weight_bytes <= L2_BYTES or 2 * v_bytes > L2_BYTES else 2


def pack_transformed(weights: Array, plan: WinogradPlan) -> Array:
    """[OC, C, (3,) 3] as [panel][i][C][NV * V]."""
    outputs, channels = weights.shape[:2]
    wide = plan.tile.vectors * plan.lanes
    packed = np.zeros((plan.panels * wide, channels, plan.products), np.float32)
    packed[:outputs] = plan.winograd.transform_filters(weights)
    panels = packed.reshape(plan.panels, wide, channels, plan.products)
    return np.ascontiguousarray(panels.transpose(0, 3, 2, 1))
