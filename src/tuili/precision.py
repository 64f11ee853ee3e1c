"""Precision: what products, convolutions and large weights may be rounded to."""

from __future__ import annotations

from typing import Final, Literal, TypeAlias, get_args

Precision: TypeAlias = Literal["f32", "bf16"]
PRECISIONS: Final[tuple[Precision, ...]] = get_args(Precision)
EXACT: Final[Precision] = "f32"
"""Nothing is rounded beyond what the model says; what is asked for when nothing is."""
