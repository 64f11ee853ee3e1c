"""Winograd convolution in whole numbers, exact to the bit: F(4, 3) and F(2, 3) modulo 2^32.

    S Y = A [U * (B d B')] A',  U = (g G) w (g G)'        (Lavin and Gray, 2016, scaled by g)

With the points 0, +-1, +-2, infinity every matrix is whole once G is multiplied by g = 24 (2 for
F(2, 3)), so no step rounds. Inputs and filters then fit 16 bits. Products and sums may wrap around
in 32: what comes out is S Y modulo 2^32 with S = 576 (4), and Y is found by multiplying with the
inverse of the odd part of S and shifting the rest off, as long as |Y| < 2^31 / 64 (4).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from tuili.tensors import Array

CodeRange: TypeAlias = "tuple[int, int]"

ANY_CODES: CodeRange = (-255, 255)
_FITS = 2**15


@dataclass(frozen=True, slots=True)
class WholeWinograd:
    """F(m, 3): `m` outputs from `m + 2` inputs; C texts of the input and output transforms."""

    outputs: int
    filter_rows: tuple[tuple[int, int, int], ...]  # g G; what is missing stands in `output_text`
    inverse: int  # of the odd part of S, modulo 2^32
    shift: int  # the even part
    input_text: str  # from d[] to t[]
    output_text: str  # from m[] to r[]

    @property
    def size(self) -> int:
        """Inputs, and products, along one direction."""
        return self.outputs + 2

    def transform_filters(self, weights: Array, codes: CodeRange = ANY_CODES) -> Array | None:
        """[OC, C, 3, 3] as i16 [OC, C, size * size]; None when a result might not be exact.

        `codes` are the least and the largest distance of a code from its zero point.
        """
        if _largest_sum(weights, codes) >= 2 ** (31 - self.shift):
            return None
        rows = np.array(self.filter_rows, np.int64)
        moved = rows @ weights.astype(np.int64) @ rows.T
        if moved.size and not -_FITS <= moved.min() <= moved.max() < _FITS:
            return None
        return moved.astype(np.int16).reshape(*weights.shape[:2], -1)


def _largest_sum(weights: Array, codes: CodeRange) -> int:
    """How far from 0 the sum of an output may be."""
    flat = weights.astype(np.int64).reshape(len(weights), -1)
    up, down = np.maximum(flat, 0).sum(1), -np.minimum(flat, 0).sum(1)
    below, above = -codes[0], codes[1]
    most = np.maximum(up * above + down * below, down * above + up * below)
    return int(most.max(initial=0))


WHOLE_F2 = WholeWinograd(
    2,
    ((2, 0, 0), (1, 1, 1), (1, -1, 1), (0, 0, 2)),
    1,
    2,
    """\
t[0] = d[0] - d[2];
t[1] = d[1] + d[2];
t[2] = d[2] - d[1];
t[3] = d[1] - d[3];""",
    """\
r[0] = m[0] + (m[1] + m[2]);
r[1] = (m[1] - m[2]) - m[3];""",
)

# The last row of the filters is halved to fit 16 bits; the output makes up for it.
WHOLE_F4 = WholeWinograd(
    4,
    ((6, 0, 0), (-4, -4, -4), (-4, 4, -4), (1, 2, 4), (1, -2, 4), (0, 0, 12)),
    0x38E38E39,
    6,
    """\
const vs e1 = d[4] - d[2] * 4, o1 = d[3] - d[1] * 4;
const vs e2 = d[4] - d[2], o2 = (d[3] - d[1]) * 2;
t[0] = (d[0] - d[2]) * 4 + (d[4] - d[2]);
t[1] = e1 + o1;
t[2] = e1 - o1;
t[3] = e2 + o2;
t[4] = e2 - o2;
t[5] = (d[1] - d[3]) * 4 + (d[5] - d[3]);""",
    """\
const vu s1 = m[1] + m[2], d1 = m[1] - m[2], s2 = m[3] + m[4], d2 = m[3] - m[4];
r[0] = m[0] + (s1 + s2);
r[1] = d1 + d2 * 2;
r[2] = s1 + s2 * 4;
r[3] = d1 + (d2 * 8 + m[5] * 2);""",
)


def input_function(winograd: WholeWinograd) -> str:
    """C: `q_transform_input` of codes in rows `row` apart, to products `step` apart."""
    n = winograd.size
    return f"""
static inline void q_row_b(const vs d[{n}], vs t[{n}])
{{
{_indented(winograd.input_text)}
}}
static inline void q_transform_input(
    const CODES *d, int64_t row, vs middle, int16_t *v, int64_t step)
{{
    vs half[{n}][{n}];
    for (int j = 0; j < {n}; j++) {{
        vs in[{n}], out[{n}];
        for (int i = 0; i < {n}; i++)
            in[i] = LOAD(d + i * row + j * V) - middle;
        q_row_b(in, out);
        for (int i = 0; i < {n}; i++)
            half[i][j] = out[i];
    }}
    for (int i = 0; i < {n}; i++) {{
        vs out[{n}];
        q_row_b(half[i], out);
        for (int j = 0; j < {n}; j++)
            *(vs_any *)(v + (i * {n} + j) * step) = out[j];
    }}
}}
"""


def output_function(winograd: WholeWinograd) -> str:
    """C: `q_transform_output` from products `step` apart to the sums of one tile."""
    n, m = winograd.size, winograd.outputs
    return f"""
static inline void q_row_a(const vu m[{n}], vu r[{m}])
{{
{_indented(winograd.output_text)}
}}
static inline void q_transform_output(const int32_t *from, int64_t step, vi r[{m}][{m}])
{{
    vu half[{m}][{n}];
    for (int j = 0; j < {n}; j++) {{
        vu in[{n}], out[{m}];
        for (int i = 0; i < {n}; i++)
            in[i] = *(const vu_any *)(from + (i * {n} + j) * step);
        q_row_a(in, out);
        for (int i = 0; i < {m}; i++)
            half[i][j] = out[i];
    }}
    for (int i = 0; i < {m}; i++) {{
        vu out[{m}];
        q_row_a(half[i], out);
        for (int j = 0; j < {m}; j++)
            r[i][j] = (vi)(out[j] * {winograd.inverse}u) >> {winograd.shift};
    }}
}}
"""


def _indented(text: str) -> str:
    return "\n".join(f"    {line}" for line in text.split("\n"))
