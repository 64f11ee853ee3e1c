"""Weights of 16 bits as a kernel reads them: panels of half floats, and C that widens them.

A panel is four vectors of columns, [K][columns]. Widening is exact, so that results are those of
the same weights in f32, in half of the memory.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tuili.codegen.kernels.gemm.panel_rows import VECTORS
from tuili.tensors import Array, DType

_SAMPLE = 1024  # numbers that tell most weights of f32 from half floats
# Less stays in the caches, where widening costs and nothing is won.
_LEAST_WEIGHTS = 64 * 1024


@dataclass(frozen=True, slots=True)
class HalfPanels:
    """How half floats of a type lie in the panels of a target with so many lanes."""

    dtype: DType
    lanes: int

    @property
    def columns(self) -> int:
        """Columns of a panel."""
        return VECTORS * self.lanes

    def pack(self, matrix: Array) -> Array:
        """[K, N] as [panels][K][columns], zero padded, as bits."""
        bits = matrix.astype(self.dtype.numpy).view(np.uint16)
        padded = np.pad(bits, ((0, 0), (0, -bits.shape[1] % self.columns)))
        panels = padded.reshape(len(padded), -1, self.columns)
        return np.ascontiguousarray(panels.transpose(1, 0, 2))

    @property
    def most_tiles(self) -> None:
        """However many tiles of rows, each widens anew: it costs nothing that shows."""
        return None

    @property
    def parameters(self) -> list[str]:
        """The pointer to a panel."""
        return ["const uint16_t *restrict halves"]

    def print_pointers(self) -> list[str]:
        """C that declares it for `panel`."""
        return [f"const uint16_t *const halves = w + panel * K * {self.columns};"]

    def print_steps(self, vectors: range, each: list[str]) -> list[str]:
        """C for the steps from `k` until `stop`: numbers `w{v}` of some vectors, then `each`."""
        load = f"v_load_{self.dtype.value}"
        return [
            "for (; k < stop; k++) {",
            f"    const uint16_t *const h = halves + k * {self.columns};",
            *(f"    const vf w{v} = {load}(h + {v} * V);" for v in vectors),
            *(f"    {line}" for line in each),
            "}",
        ]


def kept_type(weights: Array | None, *, rounded: bool) -> DType | None:
    """The type of 16 bits that weights are kept in: where they are known, and enough for it.

    Those that it does not hold exactly may be `rounded` to bfloat16.
    """
    if weights is None or weights.size < _LEAST_WEIGHTS:
        return None
    return half_type(weights) or (DType.BF16 if rounded else None)


def half_type(weights: Array) -> DType | None:
    """The type of 16 bits that holds finite f32 weights exactly."""
    for dtype in (DType.BF16, DType.F16):
        if _holds(dtype, weights.reshape(-1)[:_SAMPLE]) and _holds(dtype, weights):
            return dtype
    return None


def _holds(dtype: DType, weights: Array) -> bool:
    with np.errstate(over="ignore"):
        halves = weights.astype(dtype.numpy).astype(np.float32)
    return bool(np.array_equal(halves, weights) and np.isfinite(halves).all())
