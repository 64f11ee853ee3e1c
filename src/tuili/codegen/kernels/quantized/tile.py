"""The register tile of quantized products: pixels (or rows) times vectors of outputs in 32 bits.

Weights lie as [panel][steps][vectors][V][group], in the order in which the loops of a *nest* take
the steps. Extra steps, each with its own place in the input, add what saturation made us split off.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from tuili.codegen.kernel import KernelBuilder
from tuili.codegen.kernels.conv.register_tile import Tile
from tuili.codegen.kernels.quantized.dot import Dot, clamp_pairs, dots_for
from tuili.codegen.targets import Target
from tuili.codegen.text import indent
from tuili.tensors import Array, Dim

MOST_PIXELS, MOST_FEW = 14, 12  # of a tile; where registers are few
SHORT_PIXELS, MANY_STEPS = 8, 65  # of a tile whose sums have fewer steps
AHEAD = 8192  # bytes: two pages of weights, since hardware does not look beyond one
LINE = 64  # bytes of the cache
MOST_EXTRA = 0.25  # extra steps for each step; 16-bit codes take a quarter longer than bytes


def rank_q_tiles(target: Target, width: Dim, blocks: int, steps: int = MANY_STEPS) -> list[Tile]:
    """Tiles that keep the multipliers busy and divide the row evenly, the likely best first.

    Multiplying takes two instructions a step on AVX2, so that one vector leaves enough time for the
    loads of its codes; where it takes one, two vectors share them. After few `steps` the ends of
    the sums are much of the work: small tiles let a processor begin the next one meanwhile.
    """
    few = target.registers <= 16  # there `Dot` has no step of several vectors
    most = MOST_FEW if few else MOST_PIXELS if steps >= MANY_STEPS else SHORT_PIXELS
    first = _tile_of(target, width, 1 if few else min(2, blocks), most)
    other = _tile_of(target, width, 1, MOST_FEW * 2 // 3 if few else MOST_PIXELS)
    return list(dict.fromkeys((first, other)))


def _tile_of(target: Target, width: Dim, vectors: int, pixels: int) -> Tile:
    """A tile of at most so many pixels."""
    most = min((target.registers - vectors - 2) // vectors, pixels)
    if not isinstance(width, int):
        return Tile(most, vectors)
    tiles = -(-width // most)
    return Tile(max(1, -(-width // max(tiles, 1))), vectors)


@dataclass(frozen=True, slots=True)
class Loop:
    """One loop over steps: its variable, its count and how far the input moves (C texts)."""

    name: str
    count: Dim
    step: str


@dataclass(frozen=True, slots=True)
class Packed:
    """Weights of all panels, and the extra steps."""

    panels: Array  # [panels, steps * vectors * V * group], the last panel may use less
    extra: Array  # i16 [extras, vectors * V * 2]
    places: Array  # i32 [extras, number of loops + 1]: where in the nest
    firsts: Array  # i32 [panels + 1]: the extra steps of each panel
    sums: Array  # i32 [panels * vectors * V]: of all weights of an output


def pack_steps(weights: Array, dot: Dot, tile: Tile, lanes: int) -> Packed:
    """Centred weights [outputs, *loops, quads, group] for a tile, zero padded."""
    split = in_panels(weights, tile, lanes)
    wide = tile.vectors * lanes
    summed = tuple(axis for axis in range(1, split.ndim) if axis != split.ndim - 2)
    sums = split.astype(np.int64).sum(summed).astype(np.int32).reshape(-1)
    rest = np.zeros((*split.shape[:-1], 2), np.int16)
    if dot.saturates:
        split, rest = clamp_pairs(split)
    extras = np.argwhere(rest.any((-1, -2)))
    flat = flat_panels(split, len(weights), tile, lanes).astype(dot.weights.numpy)
    extra = rest[tuple(extras.T)].reshape(len(extras), wide * 2)
    firsts = np.searchsorted(extras[:, 0], np.arange(len(split) + 1)).astype(np.int32)
    return Packed(flat, extra, extras[:, 1:].astype(np.int32), firsts, sums)


def in_panels(weights: Array, tile: Tile, lanes: int) -> Array:
    """[outputs, *loops, quads, group] as [panels, *loops, quads, columns, group], zero padded."""
    wide = tile.vectors * lanes
    panels = -(-len(weights) // wide)
    padded = np.zeros((panels * wide, *weights.shape[1:]), weights.dtype)
    padded[: len(weights)] = weights
    return np.moveaxis(padded.reshape(panels, wide, *weights.shape[1:]), 1, -2)


def flat_panels(split: Array, outputs: int, tile: Tile, lanes: int) -> Array:
    """Panels as they lie in memory, [panels, size]: the last one is packed for what it has."""
    flat = np.ascontiguousarray(split).reshape(len(split), -1)
    tail = -(-outputs // lanes) % tile.vectors
    if tail:
        narrow = split[-1, ..., : tail * lanes, :].flatten()
        flat[-1] = 0
        flat[-1, : narrow.size] = narrow
    return flat


def pack_best(
    target: Target, weights: Array, tile: Tile, arrange: Callable[[Dot], Array]
) -> tuple[Dot, Packed]:
    """The fastest way to multiply, and the weights packed for it.

    Where many steps would need an extra one, codes of 16 bits are faster: they never saturate.
    """
    *first, last = dots_for(target, weights)
    for dot in first:
        steps = arrange(dot)
        packed = pack_steps(steps, dot, tile, target.lanes)
        count = len(packed.panels) * steps[0].size // dot.group
        if len(packed.extra) <= MOST_EXTRA * count:
            return dot, packed
    return last, pack_steps(arrange(last), last, tile, target.lanes)


@dataclass(frozen=True, slots=True)
class Later:
    """Weights of a later nest, at `later`: what each pass of the inner loop asks for of them."""

    share: int  # bytes
    cache: int  # 3: the nearest, 2: the one behind it


@dataclass(frozen=True, slots=True)
class Nest:
    """The steps of a tile: loops from the outside in, then `quads` groups side by side."""

    loops: Sequence[Loop]
    quads: int
    pixel: str  # C text: codes from one pixel of the tile to the next
    has_extra: bool
    is_flat: bool = False  # places are distances in codes; else the counters of the loops
    overlaps: bool = False  # a pixel's later quads are the first ones of pixels beside it
    ahead: int = 0  # bytes that weights are asked for ahead, or 0: pages end what hardware foresees
    later: Later | None = None

    @property
    def extra_range(self) -> list[str]:
        """C that names the extra steps of a panel, where there are any."""
        if not self.has_extra:
            return []
        return ["const int32_t extra_first = firsts[panel], extra_last = firsts[panel + 1];"]


def read_panels(k: KernelBuilder, packed: Packed, nest: Nest, distances: Sequence[int]) -> None:
    """Declare the weights, and the extra steps where there are any.

    `distances`, for flat nests: how far one step of every loop and one quad move, in codes.
    """
    k.weight("w", packed.panels)
    if nest.has_extra:
        k.weight("extra", packed.extra)
        places = _flat(packed.places, distances) if nest.is_flat else packed.places
        k.weight("places", places)
        k.weight("firsts", packed.firsts)
        k.dim("EXTRA", packed.extra.shape[1])


def _flat(places: Array, distances: Sequence[int]) -> Array:
    """The distance in codes of every place."""
    return (places.astype(np.int64) @ np.array(distances, np.int64)).astype(np.int32)


def print_sums(dot: Dot, nest: Nest, tile: Tile, pixels: int) -> list[str]:
    """C that adds up a tile: `xp` (first pixel), `wn` (panel) and `start0..` are in scope."""
    size = nest.quads * tile.vectors * dot.group
    accs = [f"acc{p}_{v} = start{v}" for p in range(pixels) for v in range(tile.vectors)]
    lines = [f"{dot.sum} {', '.join(accs)};", f"const {dot.weights.c} *wt = wn;"]
    body: list[str] = []
    for quad in range(nest.quads):
        place = f"wt + {quad * tile.vectors * dot.group} * V"
        places = [f"{place} + {v * dot.group} * V" for v in range(tile.vectors)]
        if nest.ahead:
            body += [
                f"__builtin_prefetch((const uint8_t *)({at}) + {nest.ahead});" for at in places
            ]
        body += _step(nest, tile, pixels, list(map(dot.weights_at, places)), quad * dot.group)
    body.append(f"wt += {size} * V;")
    if nest.later is not None:
        share, cache = nest.later.share, nest.later.cache
        body += [f"__builtin_prefetch(later + {at}, 0, {cache});" for at in range(0, share, LINE)]
        body.append(f"later += {share};")
    inner = f"xt{len(nest.loops) - 1}"
    body = [f"const {dot.ctype} *const xt = {inner};", *body]
    for depth in reversed(range(len(nest.loops))):
        loop = nest.loops[depth]
        outer = f"xt{depth - 1}" if depth else "xp"
        head = f"const {dot.ctype} *const xt{depth} = {outer} + {loop.name} * ({loop.step});"
        body = [
            f"for (int64_t {loop.name} = 0; {loop.name} < {loop.count}; {loop.name}++) {{",
            *indent([head, *body]),
            "}",
        ]
    lines += body
    return [*lines, *(_extra(dot, nest, tile, pixels) if nest.has_extra else [])]


def _step(
    nest: Nest, tile: Tile, pixels: int, weights: Sequence[str], code: int, kind: str = ""
) -> list[str]:
    """One group of codes of every pixel times the weights of every vector (C texts)."""
    lines = [f"const vi w{v} = {text};" for v, text in enumerate(weights)]
    base, offset = "xt", f" + {code}"
    if nest.overlaps:
        # Else gcc keeps in registers what is met again, and runs out of them: a fifth of the time.
        base, offset = "xq", ""
        lines += [f"__typeof__(xt[0]) *xq = xt + {code};", '__asm__("" : "+r"(xq));']
    for p in range(pixels):
        at = f"{base} + {p} * {nest.pixel}{offset}"
        if tile.vectors == 1:
            lines.append(f"acc{p}_0 = q_add{kind}(acc{p}_0, {at}, w0);")
            continue
        dots = " ".join(
            f"acc{p}_{v} = q_dot{kind}(acc{p}_{v}, a, w{v});" for v in range(tile.vectors)
        )
        lines.append(f"{{ const vi a = q_spread({at}); {dots} }}")
    return ["{", *indent(lines), "}"]


def _extra(dot: Dot, nest: Nest, tile: Tile, pixels: int) -> list[str]:
    """The steps that `clamp_pairs` split off."""
    weights = [f"*(const vi_any *)(extra + e * EXTRA + {2 * v} * V)" for v in range(tile.vectors)]
    if nest.is_flat:
        return [
            "for (int32_t e = extra_first; e < extra_last; e++) {",
            f"    const {dot.ctype} *const xt = xp + places[e];",
            *indent(_step(nest, tile, pixels, weights, 0, "_even")),
            "}",
        ]
    width = len(nest.loops) + 1
    terms = [f"place[{i}] * ({loop.step})" for i, loop in enumerate(nest.loops)]
    at = " + ".join([*terms, f"place[{width - 1}] * {dot.group}"])
    return [
        "for (int32_t e = extra_first; e < extra_last; e++) {",
        f"    const int32_t *const place = places + e * {width};",
        f"    const {dot.ctype} *const xt = xp + {at};",
        *indent(_step(nest, tile, pixels, weights, 0, "_even")),
        "}",
    ]
