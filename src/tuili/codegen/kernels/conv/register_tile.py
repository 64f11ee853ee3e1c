"""The register tile of convolutions: output pixels times vectors of output channels.

For every input channel the micro-kernel loads one weight vector per output vector and one number
per pixel, and does pixels * vectors multiply-adds on accumulators that never leave registers.
"""

from __future__ import annotations

from dataclasses import dataclass

from tuili.codegen.kernels.conv.rows import even_tiles, full_tiles
from tuili.codegen.targets import Target
from tuili.codegen.text import indent
from tuili.tensors import Dim

# Two multiply-adds and two loads per cycle, four cycles until a sum can be added to again: true of
# the large x86 and Arm cores of the last ten years.
_PER_CYCLE = 2
_LATENCY = 4
_LONE = 1.2
_MOST_LONE = 16
_RIVAL = 1.25  # what the model of costs may be wrong by: tiles in that range are worth measuring
_GUESSED_WIDTH = 168  # stands for a width that is not known: many tiles divide it


@dataclass(frozen=True, slots=True, order=True)
class Tile:
    """Pixels and vectors of the register tile."""

    pixels: int
    vectors: int

    def __str__(self) -> str:
        """As candidates are named."""
        return f"{self.pixels}x{self.vectors}"

    def cycles(self, pixels: int, *, near: bool = False) -> float:
        """Estimated cycles for an input channel of a tile of `pixels`; `near`: its weights are."""
        work = pixels * self.vectors / _PER_CYCLE
        if self.vectors == 1:
            work *= _LONE  # every multiply-add then has a load of its own
        loads = (pixels + self.vectors) / _PER_CYCLE
        # A cycle lost to the caches now and then: weights are streamed, pixels are not.
        # Where both are near, what is left is the instructions: two threads of a core share them.
        return max(work, loads, _LATENCY) + 0.02 * (pixels + (1 if near else 3) * self.vectors)


def choose_tile(
    target: Target,
    width: Dim,
    blocks: int,
    *,
    divides: int = 0,
    whole: bool = False,
    free: int = 0,
) -> Tile:
    """The cheapest of `rank_tiles`."""
    return rank_tiles(target, width, blocks, divides=divides, whole=whole, free=free)[0]


def rank_tiles(
    target: Target,
    width: Dim,
    blocks: int,
    *,
    divides: int = 0,
    whole: bool = False,
    free: int = 0,
) -> list[Tile]:
    """For every number of vectors the cheapest tile that is nearly as cheap as any, best first.

    Of rows of `width` pixels and `blocks` vectors of output channels. `divides`: the number of
    vectors must divide it (panels must not cross groups). `whole`: the last tile of a row and the
    last panel cost as much as any. `free`: registers to leave alone. Weights that the target's row
    keeps in the first-level cache are no further away than pixels.
    """
    near = target.near_bytes > 0
    known = width if isinstance(width, int) else _GUESSED_WIDTH
    costs: list[tuple[float, int, int, Tile]] = []
    for tile in _candidates(target, known, blocks, free):
        if divides % tile.vectors == 0:
            cost = (_whole_cost if whole else _cost)(tile, known, blocks, near=near)
            costs.append((round(cost, 6), -tile.pixels, tile.vectors, tile))
    least = min(costs)[0]
    best: dict[int, Tile] = {}
    for cost, _, vectors, tile in sorted(costs):
        if cost <= least * _RIVAL:
            best.setdefault(vectors, tile)
    return list(best.values())


def _candidates(target: Target, width: int, blocks: int, free: int) -> list[Tile]:
    # Without FMA the product needs a register; a broadcast of its own as well, unless one vector
    # is all that it is multiplied with and the instruction set can broadcast from memory.
    embedded = target.lanes == 16
    tiles: list[Tile] = []
    for vectors in range(1, min(blocks, 8) + 1):
        spare = vectors + (0 if vectors == 1 and embedded else 1) + (0 if target.fma else 1)
        most = (target.registers - free - spare) // vectors
        # One vector: more sums than this hide nothing, and gcc begins to spill.
        most = min(most, _MOST_LONE) if vectors == 1 else most
        tiles += [Tile(pixels, vectors) for pixels in range(1, min(most, width) + 1)]
    return tiles


def _cost(tile: Tile, width: int, blocks: int, *, near: bool) -> float:
    """Cycles for one input channel: panels of `tile.vectors` and a narrower last one."""
    panels, tail = divmod(blocks, tile.vectors)
    cost = panels * _row_cycles(tile, width, near)
    return cost + (_row_cycles(Tile(tile.pixels, tail), width, near) if tail else 0)


def _whole_cost(tile: Tile, width: int, blocks: int, *, near: bool) -> float:
    tiles = -(-blocks // tile.vectors) * -(-width // tile.pixels)
    return tiles * tile.cycles(tile.pixels, near=near)


def _row_cycles(tile: Tile, width: int, near: bool) -> float:
    return min(_full_cycles(tile, width, near), _even_cycles(tile, width, near))


def cut_row(tile: Tile, width: int) -> list[int]:
    """The widths of the tiles of a row: full ones and a rest, or nearly equal ones if cheaper."""
    if _full_cycles(tile, width) <= _even_cycles(tile, width):
        return full_tiles(width, tile.pixels)
    return even_tiles(width, tile.pixels)


def _full_cycles(tile: Tile, width: int, near: bool = False) -> float:
    """What `full_tiles` cost; counted, not listed: rows of whole maps are long."""
    whole, rest = divmod(width, tile.pixels)
    cost = whole * tile.cycles(tile.pixels, near=near)
    return round(cost + (tile.cycles(rest, near=near) if rest else 0), 6)


def _even_cycles(tile: Tile, width: int, near: bool = False) -> float:
    """What `even_tiles` cost."""
    count = max(1, -(-width // tile.pixels))
    small, wide = divmod(width, count)
    rest = (count - wide) * tile.cycles(small, near=near)
    return round(wide * tile.cycles(small + 1, near=near) + rest, 6)


@dataclass(frozen=True, slots=True)
class Steps:
    """C texts of distances, in floats, that the micro-kernel moves by."""

    pixel: int  # input, from an output pixel to the next
    tap: int  # input, from a tap to the next in a row
    lanes: int  # input channels that lie side by side
    prefetch: int = 0  # weights that come from afar are asked for so many floats ahead
    ranged: bool = False  # only taps kw0 .. kw1 - 1 of a row meet input


def print_accumulate(
    tile: Tile, pixels: int, steps: Steps, taps: list[tuple[int, int]] | int
) -> list[str]:
    """C that adds all taps of one window row; `xr` (input), `wr` (weights) and `lanes` in scope.

    `taps` is how many there are, or, where some pixels miss some taps, the pixels of each.
    """
    weights = steps.lanes * tile.vectors
    if isinstance(taps, int):
        return _print_tap_loop(tile, pixels, steps, taps, weights)
    lines: list[str] = []
    for tap, (low, high) in enumerate(taps):
        if low < high:
            lines += ["{", f"    const float *const xt = xr + {tap * steps.tap};"]
            lines += [f"    const float *const wt = wr + {tap * weights} * V;"]
            lines += indent(_print_lanes(tile, range(low, high), steps))
            lines.append("}")
    return lines


def _print_tap_loop(tile: Tile, pixels: int, steps: Steps, taps: int, weights: int) -> list[str]:
    if taps == 1:
        head = ["const float *const xt = xr, *const wt = wr;"]
        return [*head, *_print_lanes(tile, range(pixels), steps, whole=True)]
    body = _print_lanes(tile, range(pixels), steps)
    first, last = ("kw0", "kw1") if steps.ranged else ("0", str(taps))
    skip = f" + kw0 * {steps.tap}, *wt = wr + kw0 * {weights} * V" if steps.ranged else ", *wt = wr"
    return [
        f"const float *xt = xr{skip};",
        f"for (int64_t kw = {first}; kw < {last}; kw++, xt += {steps.tap}, wt += {weights} * V) {{",
        *indent(body),
        "}",
    ]


def _print_lanes(tile: Tile, pixels: range, steps: Steps, *, whole: bool = False) -> list[str]:
    if steps.lanes == 1:
        return ["const int64_t c = 0;", *_print_channel(tile, pixels, steps)]
    # Left alone, gcc peels this loop whole for short vectors and runs out of registers. To unroll a
    # part it must find the count again, and often does not: then one instruction in six is the
    # loop's own. `whole` is where there is room for all of it.
    times = 2 if steps.lanes != 8 else 8 if whole else 4
    return [
        f"#pragma GCC unroll {times}",
        "for (int64_t c = 0; c < lanes; c++) {",
        *indent(_print_channel(tile, pixels, steps)),
        "}",
    ]


def _print_channel(tile: Tile, pixels: range, steps: Steps) -> list[str]:
    lines: list[str] = []
    for v in range(tile.vectors):
        place = f"wt + (c * {tile.vectors} + {v}) * V"
        lines.append(f"const vf w{v} = v_load({place});")
        if steps.prefetch:
            lines.append(f"__builtin_prefetch({place} + {steps.prefetch});")
    for p in pixels:
        adds = " ".join(f"acc{p}_{v} += a * w{v};" for v in range(tile.vectors))
        lines.append(f"{{ const vf a = v_set1(xt[c + {p * steps.pixel}]); {adds} }}")
    return lines
