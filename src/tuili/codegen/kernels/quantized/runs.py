"""Few channels: a pixel holds just these, and the taps of a row are one run of numbers.

Three channels by seven taps are then 21 numbers, 11 pairs, where pixels of four channels take 14;
6 groups of four instead of 7. One channel takes half, and so do eight of a block of sixteen.
"""

from __future__ import annotations

import numpy as np

from tuili.codegen.kernels.conv.shape import ConvShape
from tuili.codegen.kernels.quantized.input import Run
from tuili.tensors import Array

LEAST_SAVED = 0.1  # of the products: less does not pay for a copy that is not in whole vectors
MOST_QUADS = 12  # in a part of a run that is printed out


def run_of(shape: ConvShape, cell: int, group: int) -> Run | None:
    """How the taps of a row are read as a run of groups, where that saves enough beside cells."""
    taps = shape.columns.taps
    if shape.columns.dilation > 1 and taps > 1:
        return None
    groups = -(-taps * shape.channels // group)
    blocks = -(-shape.channels // cell)
    if groups > (1 - LEAST_SAVED) * taps * blocks * cell / group:
        return None
    quads = min(range(1, min(groups, MOST_QUADS) + 1), key=lambda q: (-(-groups // q) * q, -q))
    return Run(-(-groups // quads), quads)


def run_steps(weights: Array, run: Run, group: int) -> Array:
    """[OC, C, (KH,) KW] as [OC, 1, KH, count, quads, group], zeros behind the last tap."""
    outputs, channels, *taps = weights.shape
    rows, columns = taps if len(taps) == 2 else (1, *taps)
    moved = weights.reshape(outputs, channels, rows, columns).transpose(0, 2, 3, 1)
    length = run.count * run.quads * group
    padded = np.zeros((outputs, rows, length), weights.dtype)
    padded[..., : columns * channels] = moved.reshape(outputs, rows, -1)
    return padded.reshape(outputs, 1, rows, run.count, run.quads, group)
