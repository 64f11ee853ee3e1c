"""Blocks: how Winograd convolution cuts its output into tiles, and its channels into panels.

True of floats and of codes: output tiles of m x m pixels are counted through the batch, a register
tile takes some of them by some vectors of output channels, and blocks hold some register tiles.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from tuili.codegen.kernels.conv.register_tile import Tile
from tuili.codegen.kernels.conv.shape import ConvShape
from tuili.tensors import Dim, ceil_div, evaluate, symbols_of

FEW_BLOCKS = 24  # up to so many blocks of tiles, threads share output channels too
DIRECT_FACTOR = 0.9  # Winograd must save a tenth to be worth its memory
RIVAL = 1.7  # the model of costs may be wrong by so much: ways in that range may be measured
LIKELY_SIZE = 256  # of the model's open dims; what strides leave of it deeper down follows
LIKELY_LINE = 2048  # the same where there is one such dim: sound, or the steps of a series


class Transform(Protocol):
    """F(m, r), of floats or of whole numbers."""

    @property
    def outputs(self) -> int:
        """Outputs of a tile along one direction: m."""
        ...

    @property
    def size(self) -> int:
        """Inputs, and products, along one direction."""
        ...


@dataclass(frozen=True, slots=True)
class Blocks:
    """The cut of one convolution."""

    winograd: Transform
    shape: ConvShape
    lanes: int
    tile: Tile  # tiles of pixels times vectors of output channels
    groups: int  # register tiles in a block

    @property
    def products(self) -> int:
        """Products per tile and channel pair."""
        return products_of(self.winograd, self.shape)

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
        """Tiles in a column of the map; of a dilated line, the lines that it consists of."""
        return ceil_div(self.shape.rows.out, self.winograd.outputs) * self.shape.columns.dilation

    @property
    def wide(self) -> Dim:
        """Tiles in a row of the map."""
        columns = self.shape.columns
        return ceil_div(ceil_div(columns.out, columns.dilation), self.winograd.outputs)

    @property
    def tiles(self) -> Dim:
        """Tiles of the batch."""
        return self.shape.batch * self.high * self.wide

    @property
    def likely_tiles(self) -> int:
        """Tiles of the batch at the sizes that are known or likely."""
        return likely_tiles(self.winograd, self.shape)

    @property
    def is_shared(self) -> bool:
        """Whether threads share the output channels of a block of tiles."""
        return self.likely_tiles <= FEW_BLOCKS * self.block


def products_of(winograd: Transform, shape: ConvShape) -> int:
    """Products per tile and channel pair, in one direction or two."""
    return winograd.size if shape.rows.taps == 1 else winograd.size**2


def likely_tiles(winograd: Transform, shape: ConvShape) -> int:
    """Tiles of the batch at the sizes that are known or likely."""
    m, lines = winograd.outputs, shape.columns.dilation
    batch, high, wide = _likely_sizes(shape)
    return batch * lines * -(-high // m) * -(-wide // (lines * m))


def likely_pixels(shape: ConvShape) -> int:
    """Output pixels of the batch at the sizes that are known or likely."""
    batch, high, wide = _likely_sizes(shape)
    return batch * high * wide


def _likely_sizes(shape: ConvShape) -> tuple[int, int, int]:
    size = LIKELY_LINE if shape.rows.size == 1 else LIKELY_SIZE
    return shape.likely_batch, _known(shape.rows.out, size), _known(shape.columns.out, size)


def _known(dim: Dim, likely: int) -> int:
    return max(1, evaluate(dim, dict.fromkeys(symbols_of(dim), likely)))
