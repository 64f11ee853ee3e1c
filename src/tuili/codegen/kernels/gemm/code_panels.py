"""Weights of a few bits as a kernel reads them: panels of codes, and C that makes numbers of them.

A panel is four vectors of columns: [K][bytes], the scales [blocks][columns], and the zero points as
well where codes do not all have the usual one. A byte holds codes of columns that lie vectors
apart, so that a shift and a mask make a vector of each:

    bits    vectors of bytes a step of k    columns whose codes share a byte
    1, 2    1                               c, c + V, c + 2 V, c + 3 V
    3, 4    2                               c, c + 2 V
    5 to 8  4                               c

The number that stands for a code is `code * scale - zero * scale`, the last product rounded first;
it is the same to the last bit wherever it is made.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tuili.codegen.kernels.gemm.panel_rows import VECTORS
from tuili.tensors import Array

_BYTE = 8
_WIDTHS = (2, 4, 8)  # bits that a code may take in a panel


@dataclass(frozen=True, slots=True)
class CodePanels:
    """How codes of `bits` lie in the panels of a target with so many lanes."""

    bits: int
    lanes: int
    block: int  # steps of k that share a scale
    has_zeros: bool  # else the middle code is zero
    depth: int  # steps of k

    @property
    def columns(self) -> int:
        """Columns of a panel."""
        return VECTORS * self.lanes

    @property
    def width(self) -> int:
        """The bits that a code takes."""
        return next(width for width in _WIDTHS if self.bits <= width)

    @property
    def bytes(self) -> int:
        """Bytes of a panel for one step of k."""
        return self.columns * self.width // _BYTE

    def pack(self, codes: Array) -> Array:
        """Codes [N, K] as [panels][K][bytes]."""
        shared = _BYTE // self.width
        padded = self._padded(codes).reshape(-1, shared, self.bytes, codes.shape[1])
        packed = padded[:, 0]
        for place in range(1, shared):
            packed = packed | padded[:, place] << np.uint8(place * self.width)
        return np.ascontiguousarray(packed.transpose(0, 2, 1))

    def pack_blocks(self, numbers: Array) -> Array:
        """Numbers [N, blocks] as [panels][blocks][columns]."""
        padded = self._padded(numbers).reshape(-1, self.columns, numbers.shape[1])
        return np.ascontiguousarray(padded.transpose(0, 2, 1), np.float32)

    def _padded(self, rows: Array) -> Array:
        return np.pad(rows, ((0, -len(rows) % self.columns), (0, 0)))

    @property
    def most_tiles(self) -> int:
        """Tiles of rows that had better make the numbers anew than share them: by measurement."""
        return 2

    @property
    def parameters(self) -> list[str]:
        """Pointers to a panel's codes, scales and zero points."""
        names = ("scales", "zeros") if self.has_zeros else ("scales",)
        return ["const uint8_t *restrict codes", *(f"const float *restrict {n}" for n in names)]

    def print_pointers(self) -> list[str]:
        """C that declares them for `panel`."""
        step = -(-self.depth // self.block) * self.columns
        zeros = [f"const float *const zeros = zero + panel * {step};"] if self.has_zeros else []
        return [
            f"const uint8_t *const codes = w + panel * K * {self.bytes};",
            f"const float *const scales = scale + panel * {step};",
            *zeros,
        ]

    def print_steps(self, vectors: range, each: list[str]) -> list[str]:
        """C for the steps from `k` until `stop`: numbers `w{v}` of some vectors, then `each`.

        `codes`, `scales` and `zeros` point to the panel.
        """
        at = f"const float *const {{0}} = {{1}} + k / {self.block} * {self.columns};"
        return [
            "while (k < stop) {",
            f"    const int64_t rest = tl_min((k / {self.block} + 1) * {self.block}, stop);",
            f"    {at.format('s', 'scales')}",
            *([f"    {at.format('z', 'zeros')}"] if self.has_zeros else ()),
            *(f"    {line}" for line in self._factors(vectors)),
            "    for (; k < rest; k++) {",
            f"        const uint8_t *const q = codes + k * {self.bytes};",
            *(f"        {line}" for line in (*self._numbers(vectors), *each)),
            "    }",
            "}",
        ]

    def _factors(self, vectors: range) -> list[str]:
        lines = [f"const vf s{v} = v_load(s + {v} * V);" for v in vectors]
        if self.has_zeros:
            return lines + [f"const vf z{v} = v_load(z + {v} * V);" for v in vectors]
        middle = 2 ** (self.bits - 1)
        return lines + [f"const vf z{v} = v_exact(s{v} * {middle}.0f);" for v in vectors]

    def _numbers(self, vectors: range) -> list[str]:
        sources = self.bytes // self.lanes
        lines = [
            f"const vi q{source} = v_load_bytes(q + {source} * V);"
            for source in sorted({v % sources for v in vectors})
        ]
        for v in vectors:
            code = self._code(f"q{v % sources}", v // sources * self.width)
            lines.append(f"const vf w{v} = v_to_float({code}) * s{v} - z{v};")
        return lines

    def _code(self, source: str, shift: int) -> str:
        moved = f"{source} >> {shift}" if shift else source
        is_last = shift + self.width == _BYTE
        return moved if is_last else f"({moved}) & {2**self.width - 1}"
