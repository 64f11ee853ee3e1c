"""The transforms of Winograd convolution F(m, 3): matrices, and C for one direction of each.

    y = A [(G g G') * (B d B')] A'      (elementwise product, all summed over input channels)

Along one direction alone it is y = A [(G g) * (B d)]. With stride 2 the even inputs meet the outer
two taps as a convolution of stride 1, F(m, 2), and the odd ones meet the middle tap: 9 products for
12 (81 for 144 in two directions).

Built from points as Toom-Cook (Lavin and Gray, "Fast Algorithms for Convolutional Neural
Networks", 2016; points by Barabasz et al., "Error Analysis and Improving the Accuracy of Winograd
Convolution", 2020). For F(4, 3) the points 0, +-1/sqrt 2, +-sqrt 2, infinity err half as much as
0, +-1, +-2, infinity.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tuili.codegen.kernels.conv.shape import ConvShape
from tuili.tensors import Array


@dataclass(frozen=True, slots=True)
class Winograd:
    """F(m, r): `m` outputs from `m + r - 1` inputs; C texts of the input and output transforms."""

    outputs: int
    points: tuple[float, ...]
    input_text: str  # from d[] to t[]
    output_text: str  # from m[] to r[]
    stride: int = 1
    effort: float = 1.0  # of the transforms, as measured, beside a cycle for each load, sum, store
    taps: int = 3

    @property
    def size(self) -> int:
        """Inputs, and products, along one direction."""
        return self.outputs + self.taps - 1 if self.stride == 1 else 2 * self.outputs + 1

    def parts(self, shape: ConvShape) -> int:
        """How many parts of so many taps a window along a line is cut into."""
        return -(-shape.columns.taps // self.taps)

    def filter_matrix(self) -> Array:
        """G: from the taps to `size` factors."""
        rows: list[list[float]] = []
        for index, point in enumerate(self.points):
            others = [point - other for j, other in enumerate(self.points) if j != index]
            powers = [point**k for k in range(self.taps)] if self.stride == 1 else [1, 0, point]
            rows.append([power / float(np.prod(others)) for power in powers])
        middle = [[0, 1, 0]] * self.outputs if self.stride == 2 else []
        return np.array([*rows, [*[0] * (self.taps - 1), 1], *middle], np.float64)

    def transform_filters(self, weights: Array) -> Array:
        """[OC, C, (taps,) taps] as [OC, C, products], in double precision."""
        matrix = self.filter_matrix()
        moved = weights.astype(np.float64) @ matrix.T
        if weights.ndim == 4:
            moved = matrix @ moved
        return moved.reshape(*weights.shape[:2], -1)


F2 = Winograd(
    2,
    (0.0, 1.0, -1.0),
    """\
t[0] = d[2] - d[0];
t[1] = d[1] + d[2];
t[2] = d[2] - d[1];
t[3] = d[3] - d[1];""",
    """\
r[0] = m[0] + (m[1] + m[2]);
r[1] = (m[1] - m[2]) + m[3];""",
)

_A, _B = 0.5**0.5, 2**0.5
F4 = Winograd(
    4,
    (0.0, _A, -_A, _B, -_B),
    f"""\
const vf e1 = d[2] * -2.0f + d[4], o1 = d[1] * -2.0f + d[3];
const vf e2 = d[2] * -0.5f + d[4], o2 = d[1] * -0.5f + d[3];
t[0] = d[2] * -2.5f + (d[0] + d[4]);
t[1] = o1 * {_A:.9f}f + e1;
t[2] = o1 * -{_A:.9f}f + e1;
t[3] = o2 * {_B:.9f}f + e2;
t[4] = o2 * -{_B:.9f}f + e2;
t[5] = d[3] * -2.5f + (d[1] + d[5]);""",
    f"""\
const vf s1 = m[1] + m[2], d1 = m[1] - m[2], s2 = m[3] + m[4], d2 = m[3] - m[4];
r[0] = m[0] + (s1 + s2);
r[1] = d1 * {_A:.9f}f + d2 * {_B:.9f}f;
r[2] = s1 * 0.5f + s2 * 2.0f;
r[3] = d1 * {_A**3:.9f}f + (d2 * {_B**3:.9f}f + m[5]);""",
)

S2 = Winograd(
    2,
    (0.0, 1.0),
    """\
t[0] = d[2] - d[0];
t[1] = d[2];
t[2] = d[4] - d[2];
t[3] = d[1];
t[4] = d[3];""",
    """\
r[0] = m[1] + (m[0] + m[3]);
r[1] = m[1] + (m[2] + m[4]);""",
    2,
)

S4 = Winograd(
    4,
    (1.0, -1.0, 0.5, -0.5),
    """\
const vf e1 = d[4] + d[0] * -0.25f, o1 = d[6] + d[2] * -0.25f;
const vf e2 = (d[4] - d[0]) * 0.5f, o2 = d[6] - d[2];
t[0] = o1 + e1;
t[1] = o1 - e1;
t[2] = o2 + e2;
t[3] = o2 - e2;
t[4] = d[4] * -1.25f + (d[0] * 0.25f + d[8]);
t[5] = d[1];
t[6] = d[3];
t[7] = d[5];
t[8] = d[7];""",
    """\
const vf s1 = m[0] + m[1], d1 = m[0] - m[1], s2 = m[2] + m[3], d2 = m[2] - m[3];
r[0] = s1 + s2 + m[5];
r[1] = d1 + d2 * 0.5f + m[6];
r[2] = s1 + s2 * 0.25f + m[7];
r[3] = d1 + d2 * 0.125f + (m[4] + m[8]);""",
    2,
    2.8,  # 81 numbers of a tile do not stay in registers
)
