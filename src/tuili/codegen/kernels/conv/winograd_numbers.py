"""The numbers that Winograd convolution multiplies: how they lie in V and U, and C that does it.

Transforms and sums are f32 always; what is multiplied may be shorter (`bf16/winograd`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tuili.codegen.kernel import KernelBuilder
from tuili.codegen.kernels.conv.register_tile import Steps, Tile, print_accumulate
from tuili.tensors import Array, DType


@dataclass(frozen=True, slots=True)
class Numbers:
    """One kind; `print_tile` says what adds a block of channels to a register tile.

    Given the channels of a block and how far weights are prefetched; `xr` (V of the tile), `wr` (U
    of the panel) and `lanes`, the channels that this block has, are in scope.
    """

    name: str  # in those of kernels
    dtype: DType
    store: str  # C function that stores V floats
    cycles: float  # of V products, see `winograd_plan`
    effort: float  # of the transforms, beside those of floats
    support: tuple[str, ...]  # C that the others need
    pack: Callable[[Array], Array]  # U as [..., channels, outputs of a panel]
    print_tile: Callable[[Tile, int, int], list[str]]


def _print_floats(tile: Tile, lanes: int, ahead: int) -> list[str]:
    return print_accumulate(tile, tile.pixels, Steps(lanes, 0, lanes, ahead), 1)


def _as_they_are(weights: Array) -> Array:
    return weights


FLOATS = Numbers("", DType.F32, "v_store", 0.5, 1.0, (), _as_they_are, _print_floats)


def support_numbers(k: KernelBuilder, numbers: Numbers) -> None:
    """Declare what stores and multiplies them."""
    for text in numbers.support:
        k.support(text)
