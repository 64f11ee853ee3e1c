"""`--precision`: what products may be rounded to."""

from __future__ import annotations

from typing import Annotated, TypeAlias

import typer

from tuili.precision import Precision

PrecisionOption: TypeAlias = Annotated[
    Precision,
    typer.Option(
        help="bf16: products round to bfloat16 where the target multiplies it, and large weights "
        "are kept in it.",
    ),
]
