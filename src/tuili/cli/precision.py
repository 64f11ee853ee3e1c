"""`--precision`: what products may be rounded to."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

import typer

PrecisionOption: TypeAlias = Annotated[
    Literal["f32", "bf16"],
    typer.Option(
        help="bf16: products round to bfloat16 where the target multiplies it, and large weights "
        "are kept in it.",
    ),
]
