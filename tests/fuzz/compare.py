"""When two engines' answers are the same."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from tests.fuzz.part import Part
from tuili.ir import Value
from tuili.tensors import Array, DType

# Of the largest magnitude of an output, by element type.
TOLERANCE = {DType.F32: 1e-4, DType.F64: 1e-4, DType.F16: 2e-2, DType.BF16: 6e-2}
SHAKES = 4
NOISE = 1e-6
_AMPLIFIED = 20.0  # how many times the answer's own unrest a difference may be


def difference(found: Array, wanted: Array, slack: float = 0.0) -> str:
    """What differs, in words; empty when nothing does."""
    if found.shape != wanted.shape:
        return f"shape {found.shape}, expected {wanted.shape}"
    if found.dtype != wanted.dtype:
        return f"type {found.dtype}, expected {wanted.dtype}"
    dtype = DType.of(wanted.dtype)
    if not dtype.is_float:
        wrong = found != wanted if not slack else _far(found, wanted, slack)
        return _worst(found, wanted, wrong)
    left, right = found.astype(np.float64), wanted.astype(np.float64)
    scale = float(np.abs(right).max(initial=0.0))
    allowed = TOLERANCE[dtype] * max(scale, 1e-2) + slack
    with np.errstate(invalid="ignore"):
        wrong = ~((np.abs(left - right) <= allowed) | (left == right))
    return _worst(found, wanted, wrong)


def _far(found: Array, wanted: Array, slack: float) -> Array:
    return np.abs(found.astype(np.float64) - wanted.astype(np.float64)) > slack


def _worst(found: Array, wanted: Array, wrong: Array) -> str:
    if not wrong.any():
        return ""
    at = tuple(int(i) for i in np.argwhere(wrong)[0])
    count = f"{int(wrong.sum())} of {wrong.size} elements"
    return f"{count}, at {list(at)}: {found[at]}, expected {wanted[at]}"


def unrest(part: Part, value: Value, feeds: Mapping[Value, Array]) -> float:
    """How far an output may move when roundings go another way: ill-conditioned ones do a lot."""
    quiet = part.replay(feeds)[value]
    moved = 0.0
    for seed in range(SHAKES):
        shaken = part.replay(feeds, NOISE, seed)[value]
        if shaken.shape == quiet.shape:
            step = np.abs(shaken.astype(np.float64) - quiet.astype(np.float64))
            moved = max(moved, float(step.max(initial=0.0)))
    return _AMPLIFIED * moved
