"""Pairs of bfloat16 as Winograd convolution multiplies them.

Both factors of a product are rounded after their transforms, which enlarges errors: beside direct
convolution of rounded numbers F(2, 3) errs 1.1 to 1.7 times as much, by how alike neighbours are,
and so does its like of stride 2; F(4, 3) would up to five times as much.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from tuili.codegen.kernels.bf16.dot import BF16_DOT, ROUND, STORE, as_bf16
from tuili.codegen.kernels.conv.register_tile import Tile
from tuili.codegen.kernels.conv.winograd_numbers import Numbers
from tuili.codegen.kernels.conv.winograd_transforms import F2, S2
from tuili.codegen.text import indent
from tuili.tensors import Array

WAYS: Final = (F2, S2)


def _pack(weights: Array) -> Array:
    """[..., channels, outputs] as bits [..., channels / 2, outputs, 2]."""
    *outer, channels, outputs = weights.shape
    pairs = as_bf16(weights).reshape(*outer, channels // 2, 2, outputs).swapaxes(-1, -2)
    return np.ascontiguousarray(pairs).reshape(weights.shape)


def _print_tile(tile: Tile, lanes: int, ahead: int) -> list[str]:
    body: list[str] = []
    for v in range(tile.vectors):
        place = f"wr + (c * {tile.vectors} + {2 * v}) * V"
        body.append(f"const vi w{v} = {BF16_DOT.weights_at(place)};")
        if ahead:
            body.append(f"__builtin_prefetch({place} + {ahead});")
    for p in range(tile.pixels):
        dots = " ".join(f"acc{p}_{v} = q_dot(acc{p}_{v}, a, w{v});" for v in range(tile.vectors))
        body.append(f"{{ const vi a = q_spread(xr + c + {p * lanes}); {dots} }}")
    return [
        f"#pragma GCC unroll {lanes // BF16_DOT.group}",
        f"for (int64_t c = 0; c < lanes; c += {BF16_DOT.group}) {{",
        *indent(body),
        "}",
    ]


HALVES: Final = Numbers(
    name="bf16_",
    dtype=BF16_DOT.weights,
    store="q_store",
    cycles=BF16_DOT.cycles,
    effort=0.75,  # as measured: half of what floats store
    support=(BF16_DOT.text, ROUND, STORE),
    pack=_pack,
    print_tile=_print_tile,
)
