"""`tuili tritonserver`: Triton's own command line, so that moving is one word before it."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from rich.console import Console

from tuili.cli.triton_line import translated


def tritonserver(
    arguments: Annotated[
        list[str],
        typer.Argument(help="Options of tritonserver, as --model-repository=FOLDER."),
    ],
) -> None:
    """Serve as `tuili serve --compat triton`, told by the options of tritonserver."""
    from tuili.cli.serve import serve

    line, ignored = translated(arguments)
    console = Console(stderr=True, soft_wrap=True, highlight=False)
    console.print(f"tuili serve {' '.join(line)}", markup=False)
    if ignored:
        console.print(f"without a meaning here: --{', --'.join(ignored)}", markup=False)
    alone = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    alone.command("serve")(serve)
    command: Any = typer.main.get_command(alone)
    code = command.main(args=line, prog_name="tuili serve", standalone_mode=False)
    raise typer.Exit(code or 0)
