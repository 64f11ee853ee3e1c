"""What a direct convolution decides before it prints: register tile, panels, blocking, packing."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tuili.codegen.kernels.conv.register_tile import Steps, Tile, cut_row, rank_tiles
from tuili.codegen.kernels.conv.shape import ConvShape
from tuili.codegen.targets import Target
from tuili.tensors import Array, Dim, ceil_div, dim_max, dim_min

L2_BYTES = 512 * 1024  # of the second-level cache, for one core to rely on
FAR_BYTES = 128 * 1024  # larger weights are asked for one chunk early
# Of the nearest cache, for weights: pixels pass through it too, and threads may share the core.
NEAR_PART = 0.625
MOST_SHARE = 128  # floats: more at once would wait for each other
GUESSED_TILES = 16  # tiles that share a chunk of weights, when the map's size is not known
ENOUGH_ITEMS = 128  # grid items that balance over many threads


@dataclass(frozen=True, slots=True)
class Scatter:
    """Where results go: output (i, j) to (i * stride + phase, ...) of a map of the full size."""

    height: Dim
    width: Dim
    strides: tuple[int, int] = (1, 1)
    phase: tuple[int, int] = (0, 0)

    def row(self, row: str) -> str:
        """The output row as C."""
        return _scaled(row, self.strides[0], self.phase[0])

    def column(self, column: str) -> str:
        """The output column as C."""
        return _scaled(column, self.strides[1], self.phase[1])


def _scaled(index: str, stride: int, phase: int) -> str:
    text = index if stride == 1 else f"{index} * {stride}"
    return text if phase == 0 else f"({text} + {phase})"


@dataclass(frozen=True, slots=True)
class DirectPlan:
    """Everything that the printer decides from."""

    shape: ConvShape
    tile: Tile
    lanes: int  # V
    block: int  # B
    first: tuple[int, ...]  # the first input block that each panel reads
    blocks: int  # NB: how many it reads
    chunk: int  # input blocks whose weights stay in the cache together
    band: Dim  # rows of a grid item; tiles when the map is one known row, else pixels of it
    together: int  # bands that are best run one after the other, with the same weights
    scatter: Scatter
    is_gathered: bool = False  # whether x is a copy of the pixels that a stride leaves

    @property
    def steps(self) -> Steps:
        """Distances of the micro-kernel."""
        columns = self.shape.columns
        tap = columns.dilation * self.block
        return Steps(columns.stride * self.block, tap, self.block, ranged=self.has_borders)

    @property
    def share(self) -> int:
        """Floats of the next chunk of weights that each row of taps asks for; 0: they are near.

        All tiles that use a chunk take their share: memory answers while arithmetic goes on.
        """
        is_last = len(self.first) == 1 and self.chunk >= self.blocks
        if is_last or len(self.first) * self.panel_floats * 4 <= FAR_BYTES:
            return 0
        row = self.shape.columns.taps * self.block * self.tile.vectors * self.lanes
        return min(-(-row // self._tiles), MOST_SHARE)

    @property
    def _tiles(self) -> int:
        """Tiles that use a chunk of weights before the next one."""
        units, width = self.band * self.together, self.shape.columns.out
        if not (isinstance(units, int) and isinstance(width, int)):
            return GUESSED_TILES
        return units if self.is_row else -(-width // self.tile.pixels) * units

    @property
    def widths(self) -> list[int]:
        """The tiles of a row of known width."""
        width = self.shape.columns.out
        assert isinstance(width, int)
        return cut_row(self.tile, width)

    @property
    def bands(self) -> Dim:
        """How many bands a map has."""
        if not self.is_row:
            return ceil_div(self.shape.rows.out, self.band)
        tiles = len(self.widths) if self.shape.is_static else self.shape.columns.out
        return ceil_div(tiles, self.band)

    @property
    def groups(self) -> Dim:
        """How many times `together` bands those are, the last ones perhaps empty."""
        return ceil_div(self.bands, self.together)

    @property
    def channel_blocks(self) -> int:
        """Blocks of the whole input."""
        return -(-self.shape.channels // self.block)

    @property
    def out_blocks(self) -> int:
        """Vectors of output channels."""
        return -(-self.shape.outputs // self.lanes)

    @property
    def tail(self) -> int:
        """Vectors of the last panel when it has fewer than the others, else 0."""
        return self.out_blocks % self.tile.vectors

    @property
    def step_floats(self) -> int:
        """Weights of one input block in one panel."""
        return self.shape.taps * self.block * self.tile.vectors * self.lanes

    @property
    def panel_floats(self) -> int:
        """Weights of one panel."""
        return self.blocks * self.step_floats

    @property
    def is_row(self) -> bool:
        """Whether bands are cut along the only row."""
        return self.shape.rows.out == 1

    @property
    def has_borders(self) -> bool:
        """Whether tiles of an unknown row may need a padded copy."""
        return not self.shape.is_static and not self.shape.columns.is_inside


def direct_tiles(shape: ConvShape, groups: int, block: int, target: Target) -> list[Tile]:
    """The register tiles that fit a convolution, the cost model's first."""
    out_blocks, divides = -(-shape.outputs // target.lanes), whole_panels(shape, groups, target)
    # Taps printed side by side (plain input) make gcc spill unless registers are left over.
    free = target.registers // 3 if block == 1 and shape.columns.taps > 1 else 0
    return rank_tiles(target, shape.columns.out, out_blocks, divides=divides, free=free)


def whole_panels(shape: ConvShape, groups: int, target: Target) -> int:
    """What the vectors of a panel must divide so that it does not cross groups; 0: there is one."""
    vectors, rest = divmod(shape.outputs // groups, target.lanes)
    return 0 if groups == 1 else 1 if rest else vectors


def plan_direct(
    shape: ConvShape,
    groups: int,
    block: int,
    target: Target,
    tile: Tile,
    scatter: Scatter | None = None,
) -> DirectPlan:
    """The plan of a convolution whose input comes in blocks of `block` channels."""
    lanes = target.lanes
    first, blocks = panel_blocks(shape, groups, tile.vectors * lanes, block)
    step = shape.taps * block * tile.vectors * lanes * 4
    room = int(target.near_bytes * NEAR_PART) or L2_BYTES // 2
    most = blocks if _is_one_tile(shape, tile) else max(1, room // step)
    chunk = -(-blocks // -(-blocks // most))
    band, together = _bands(shape, tile, len(first), len(first) * blocks * step)
    scatter = scatter or Scatter(shape.rows.out, shape.columns.out)
    return DirectPlan(shape, tile, lanes, block, first, blocks, chunk, band, together, scatter)


def _is_one_tile(shape: ConvShape, tile: Tile) -> bool:
    return shape.rows.out == 1 and shape.columns.out == tile.pixels


def panel_blocks(
    shape: ConvShape, groups: int, panel: int, block: int
) -> tuple[tuple[int, ...], int]:
    """The first input block of every panel of `panel` output channels, and how many all read."""
    ins, outs = shape.channels // groups, shape.outputs // groups
    ranges: list[tuple[int, int]] = []
    for start in range(0, shape.outputs, panel):
        last = min(start + panel, shape.outputs) - 1
        ranges.append((start // outs * ins // block, ((last // outs + 1) * ins - 1) // block + 1))
    most = max(end - begin for begin, end in ranges)
    limit = -(-shape.channels // block) - most
    return tuple(min(begin, limit) for begin, _ in ranges), most


def _bands(shape: ConvShape, tile: Tile, panels: int, weight_bytes: int) -> tuple[Dim, int]:
    """The band of a grid item, and how many bands go together.

    Together they are input that stays in the cache; alone they are short enough for many items.
    """
    is_row = shape.rows.out == 1
    unit = tile.pixels if is_row else 1
    row = tile.pixels if is_row else dim_max(shape.columns.size, 1)
    room = L2_BYTES // 2 if weight_bytes > L2_BYTES else L2_BYTES // 4
    count = dim_max(room // (row * (shape.channels * 4 * shape.rows.stride)), 1)
    units = ceil_div(shape.columns.out if is_row else shape.rows.out, unit)
    images = shape.batch if isinstance(shape.batch, int) else 1
    wanted = -(-ENOUGH_ITEMS // (panels * images))
    # Small weights cost nothing when they are read again: there bands may be short.
    least = 1 if weight_bytes <= L2_BYTES else dim_min(count, ceil_div(units, 4))
    short = dim_max(dim_max(dim_min(count, units // wanted), least), 1)
    in_tiles = is_row and shape.is_static
    if weight_bytes > L2_BYTES:  # read once, where the whole image can stay beside what passes
        stays = dim_min(_room_beside(shape) // dim_max(units * row, 1), 1)
        if isinstance(stays, int):
            count = units if stays else count
        elif panels >= ENOUGH_ITEMS // 2:
            short = dim_max(short, units * stays)
    return short * (1 if in_tiles else unit), _together(units, short, count)


def _room_beside(shape: ConvShape) -> int:
    """Pixels that stay in the second-level cache beside weights that pass through it."""
    return L2_BYTES * 3 // 4 // (shape.channels * 4 * shape.rows.stride)


def _together(units: Dim, short: Dim, count: Dim) -> int:
    """How many bands of `short` units make up to `count`, in equal parts where sizes are known."""
    if not (isinstance(units, int) and isinstance(short, int) and isinstance(count, int)):
        return 1
    bands = -(-units // short)
    groups = 1 if count >= units else -(-bands // max(count // short, 1))
    return max(-(-bands // max(groups, 1)), 1)


def pack_panels(weights: Array, groups: int, plan: DirectPlan) -> Array:
    """[OC, C / groups, (KH,) KW] as [panel][NB][KH][KW][B][NV * V], zeros where nothing belongs."""
    outputs, ins = weights.shape[:2]
    taps = weights.shape[2:] if weights.ndim == 4 else (1, *weights.shape[2:])
    wide, block = plan.tile.vectors * plan.lanes, plan.block
    flat = weights.reshape(outputs, ins, -1)
    packed = spread_groups(flat, groups, plan.first, plan.blocks * block, wide, block)
    blocked = np.moveaxis(packed.reshape(len(plan.first), plan.blocks, block, *taps, wide), 2, -2)
    result = np.ascontiguousarray(blocked).reshape(len(plan.first), -1)
    if plan.tail:
        narrow = blocked[-1, ..., : plan.tail * plan.lanes].flatten()
        result[-1] = 0
        result[-1, : narrow.size] = narrow
    return result


def spread_groups(
    weights: Array, groups: int, first: tuple[int, ...], depth: int, wide: int, block: int
) -> Array:
    """[OC, C / groups, N] as [panel][depth][N][wide]: zeros for inputs of other groups."""
    outputs, ins, count = weights.shape
    packed = np.zeros((len(first), depth, count, wide), np.float32)
    per_group = outputs // groups
    for panel, begin in enumerate(first):
        start, stop = panel * wide, min((panel + 1) * wide, outputs)
        for group in range(start // per_group, (stop - 1) // per_group + 1):
            low, high = max(start, group * per_group), min(stop, (group + 1) * per_group)
            channel = group * ins - begin * block
            packed[panel, channel : channel + ins, :, low - start : high - start] = np.moveaxis(
                weights[low:high], 0, -1
            )
    return packed
