"""`--tuning FILE`: which record of measured times a compilation uses."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, TypeAlias

import typer

TuningOption: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        "--tuning",
        metavar="FILE",
        help="A tuning record; the user's own by default (/dev/null: none).",
    ),
]
