"""`--tune` and `--tuning FILE`: what is measured before compiling, and whose times count."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer
from rich.console import Console

if TYPE_CHECKING:
    from tuili.bench.tune.tuner import Tuned

TuneOption: TypeAlias = Annotated[
    bool,
    typer.Option(
        "--tune", help="Time the plans of each kernel first, and keep the times in a record."
    ),
]
TuningOption: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        "--tuning",
        metavar="FILE",
        help="A tuning record, in the place of the user's own; /dev/null for none.",
    ),
]
TuneSecondsOption: TypeAlias = Annotated[
    float, typer.Option(min=0, help="How long --tune measures, after what it compiles.")
]
TuneShapeOption: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME=8x128", help="Dims of an input with open dims while --tune measures."
    ),
]


def tell(tuned: Tuned) -> None:
    """What a measurement found, on stderr."""
    count = len(tuned.entries)
    said = f"{count} problems measured, {tuned.changed} are better solved than by the cost model"
    said = said if count else "every problem of this model was measured before"
    console = Console(stderr=True, soft_wrap=True, highlight=False)
    console.print(f"{said}: {tuned.record}", markup=False)
