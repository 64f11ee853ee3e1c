"""Rows of output pixels: the taps that lie inside, and the tiles that cover a row."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

from tuili.codegen.kernels.conv.shape import Axis
from tuili.codegen.text import indent

# For each tap of a row the pixels of the tile that have it; None when all have all.
Taps: TypeAlias = "list[tuple[int, int]] | None"
PrintTile: TypeAlias = Callable[[int, Taps], list[str]]


def tap_rows(rows: Axis) -> list[str]:
    """`h`: the input row of the first tap of output row `oh`; taps kh0 .. kh1 - 1 lie inside."""
    head = [f"const int64_t h = oh * {rows.stride} - PT;"]
    if rows.is_inside:
        return [*head, f"const int64_t kh0 = 0, kh1 = {rows.taps};"]
    return [*head, *tap_range("kh0", "kh1", "h", "H", rows)]


def tap_range(low: str, high: str, start: str, size: str, axis: Axis) -> list[str]:
    """C that names the range of taps inside the input for a window that begins at `start`."""
    up = axis.dilation - 1
    first = f"({up} - {start}) / {axis.dilation}" if up else f"-{start}"
    last = f"({size} - {start} + {up}) / {axis.dilation}" if up else f"{size} - {start}"
    return [
        f"const int64_t {low} = {start} < 0 ? {first} : 0;",
        f"const int64_t {high} = tl_min({axis.taps}, {last});",
    ]


def full_tiles(width: int, pixels: int) -> list[int]:
    """The widths of tiles: all of `pixels`, the last of what is left."""
    whole, rest = divmod(width, pixels)
    return [pixels] * whole + [rest] * bool(rest)


def even_tiles(width: int, pixels: int) -> list[int]:
    """The widths of as few tiles of at most `pixels`, nearly equal, wide ones first."""
    count = max(1, -(-width // pixels))
    return [width // count + (at < width % count) for at in range(count)]


def tile_start(tile: str, widths: Sequence[int]) -> str:
    """C of the pixel at which a tile of a known row begins; the row's width for tiles beyond it."""
    wide, small = widths[0], widths[-1]
    if widths.count(wide) >= len(widths) - 1:
        start = f"({tile}) * {wide}"
    else:
        start = f"({tile}) * {small} + tl_min({tile}, {widths.count(wide)})"
    return f"tl_min({start}, {sum(widths)})"


def known_tiles(
    columns: Axis, widths: Sequence[int], tile: PrintTile, *, limited: bool = False
) -> list[str]:
    """Tiles of a row of known width; equal neighbours share their text.

    `limited`: only those that begin in left .. right - 1.
    """
    runs: list[tuple[int, int, int, list[tuple[int, int]]]] = []
    start = 0
    for count in widths:
        taps = columns.inside(start, count)
        if runs and runs[-1][2:] == (count, taps):
            runs[-1] = (runs[-1][0], start + count, count, taps)
        else:
            runs.append((start, start + count, count, taps))
        start += count
    lines: list[str] = []
    for start, stop, count, taps in runs:
        full = all(pair == (0, count) for pair in taps)
        if limited:
            bounds = f"int64_t ow = tl_max({start}, left); ow < tl_min({stop}, right)"
        else:
            bounds = f"int64_t ow = {start}; ow < {stop}"
        lines += [f"for ({bounds}; ow += {count}) {{"]
        lines += [*indent(tile(count, None if full else taps)), "}"]
    return lines


def tail_widths(pixels: int) -> list[int]:
    """The tile widths that cover any row: the full one, then powers of two below it."""
    widths = [pixels]
    while widths[-1] > 1:
        widths.append(1 << ((widths[-1] - 1).bit_length() - 1))
    return widths


def equal_tiles(pixels: int, tile: PrintTile, stop: str) -> list[str]:
    """Tiles from `ow` up to `stop`, as few as possible and nearly equal: every width is printed."""
    lines = [
        f"while (ow < {stop}) {{",
        f"    const int64_t tiles = ({stop} - ow + {pixels - 1}) / {pixels};",
        f"    const int64_t wide = ({stop} - ow + tiles - 1) / tiles;",
        "    switch (wide) {",
    ]
    for count in range(1, pixels + 1):
        lines += [f"    case {count}: {{", *indent(tile(count, None), 2), "        break;", "    }"]
    return [*lines, "    }", "    ow += wide;", "}"]


def unknown_tiles(pixels: int, tile: PrintTile, stop: str) -> list[str]:
    """Tiles from `ow` up to `stop`: as many full ones as fit, then ever smaller ones."""
    lines: list[str] = []
    for count in tail_widths(pixels):
        lines += [
            f"for (; ow + {count} <= {stop}; ow += {count}) {{",
            *indent(tile(count, None)),
            "}",
        ]
    return lines


def print_panels(blocks: int, vectors: int, panel: Callable[[int], list[str]]) -> list[str]:
    """C for a panel of `vectors` of the `blocks` vectors of outputs; the last may have fewer."""
    tail = blocks % vectors
    if not tail or blocks < vectors:
        return panel(tail or vectors)
    return [
        "if (panel + 1 < PANELS) {",
        *indent(panel(vectors)),
        "} else {  /* fewer vectors */",
        *indent(panel(tail)),
        "}",
    ]


def bordered_tiles(columns: Axis, pixels: int, tile: PrintTile, border: list[str]) -> list[str]:
    """Tiles of a row of unknown width: inner ones, and `border`, one pixel, on either side."""
    step = columns.stride
    right = f"tl_max(left, tl_min(OW, (W + PL - {columns.reach} + {step}) / {step}))"
    single = indent(border)
    return [
        f"const int64_t left = tl_min(OW, (PL + {step - 1}) / {step});",
        f"const int64_t right = W + PL >= {columns.reach} ? {right} : left;",
        "int64_t ow = 0;",
        "for (; ow < left; ow++) {",
        *single,
        "}",
        *unknown_tiles(pixels, tile, "right"),
        "for (; ow < OW; ow++) {",
        *single,
        "}",
    ]
