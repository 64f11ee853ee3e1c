"""The options of `tuili serve` that say which models it serves, and when it looks for them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

Repositories = Annotated[
    list[str], typer.Argument(help="Folders of models, or URLs: s3, gs, az, http, https.")
]
RepositoryConfig = Annotated[
    Path | None, typer.Option(help="Credentials of remote repositories, TOML.")
]
RequireSignature = Annotated[
    list[Path] | None,
    typer.Option(help="A public key, PEM: only versions signed with such a key are loaded."),
]
Restricted = Annotated[
    list[str] | None,
    typer.Option(
        help="Who may use parts of the interface: CATEGORY,CATEGORY:HEADER=VALUE.",
        show_default=False,
    ),
]
ControlMode = Annotated[
    Literal["none", "explicit", "poll", "events", "demand"],
    typer.Option(
        help="Load all models, those named, all and their changes as looked for or as told, "
        "or those that requests come for."
    ),
]
MemoryBudget = Annotated[
    int, typer.Option(min=0, help="Most memory of models in demand mode, MB; 0 for any.")
]
LoadModel = Annotated[
    list[str] | None, typer.Option(help="A model to load in explicit mode; '*' for all.")
]
PollInterval = Annotated[float, typer.Option(min=0.01, help="Seconds between polls.")]
Settle = Annotated[
    float, typer.Option(min=0, help="Seconds without a change before a copy counts as whole.")
]
