"""The `tuili` command: which commands there are, and how their errors are shown."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text
from typer.core import TyperGroup

from tuili import __version__
from tuili.cli.bench import bench
from tuili.cli.compile import compile_model
from tuili.cli.inspect import inspect
from tuili.cli.run import run
from tuili.cli.serve import serve
from tuili.errors import TuiliError


class _Commands(TyperGroup):
    """The group of commands; an error of ours is one line on stderr and exit code 1."""

    def invoke(self, ctx: typer.Context) -> object:
        try:
            return super().invoke(ctx)
        except TuiliError as error:
            shown = Text.assemble(("error: ", "bold red"), str(error))
            Console(stderr=True, soft_wrap=True).print(shown)
            raise typer.Exit(1) from None


app = typer.Typer(
    cls=_Commands,
    no_args_is_help=True,
    add_completion=False,
    # A traceback of ours is a bug report: it is shown as Python shows it, without our locals.
    pretty_exceptions_enable=False,
    help="Compiles trained models to native code and serves them.",
)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"tuili {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Print it."),
    ] = False,
) -> None:
    """Options before the command."""


app.command("compile")(compile_model)
app.command("run")(run)
app.command("inspect")(inspect)
app.command("bench")(bench)
app.command("serve")(serve)


def main() -> None:
    """Run the command line."""
    app()
