"""The `tuili` command: which commands there are, and how their errors are shown."""

from __future__ import annotations

import warnings
from importlib import import_module
from typing import Annotated, Any, TextIO

import typer
from rich.console import Console
from rich.text import Text
from typer.core import TyperGroup

from tuili import __version__
from tuili.errors import ModelWarning, TuiliError, in_words, nearest

# Imported when used: `tuili serve` needs the server's extra, `tuili compile` does not.
COMMANDS = {
    "compile": "tuili.cli.compile:compile_model",
    "run": "tuili.cli.run:run",
    "inspect": "tuili.cli.inspect:inspect",
    "explain": "tuili.cli.explain:explain",
    "profile": "tuili.cli.explain:profile",
    "bench": "tuili.cli.bench:bench",
    "serve": "tuili.cli.serve:serve",
    "tritonserver": "tuili.cli.tritonserver:tritonserver",
    "config": "tuili.cli.config:config",
    "publish": "tuili.cli.publish:publish",
    "history": "tuili.cli.registry:history",
    "diff": "tuili.cli.registry:diff",
    "tag": "tuili.cli.registry:tag",
    "rollout": "tuili.cli.rollout:rollout",
    "rollback": "tuili.cli.registry:rollback",
    "label": "tuili.cli.rollout:label",
    "mirror": "tuili.cli.mirror:mirror",
}
# The extra that brings a module; all others come with the server's.
_EXTRAS = {
    "onnx": "onnx",
    "onnxruntime": "bench",
    "openvino": "bench",
    "matplotlib": "plot",
    "fsspec": "remote",
    "mlflow": "mlflow",
    "cryptography": "signing",
}
# Whose options are another program's.
_FOREIGN = {"tritonserver": {"ignore_unknown_options": True}}


def _shown(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """A warning about a model is for its user: without the place in our code that it comes from."""
    told = f"{message}"
    if not issubclass(category, ModelWarning):
        told = warnings.formatwarning(message, category, filename, lineno, line).rstrip()
    shown = Text.assemble(("warning: ", "bold yellow"), told)
    Console(stderr=True, soft_wrap=True).print(shown)


class _Commands(TyperGroup):
    """The group of commands; an error of ours is one line on stderr and exit code 1.

    Contexts and commands are typed Any: newer typer carries its own copy of click.
    """

    def list_commands(self, ctx: Any) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name not in COMMANDS:
            ctx.fail(f"No such command {cmd_name!r}.{nearest(cmd_name, COMMANDS)}")
        module, _, attribute = COMMANDS[cmd_name].partition(":")
        found = getattr(import_module(module), attribute)
        if isinstance(found, typer.Typer):  # a command with commands of its own
            group: Any = typer.main.get_command(found)
            group.name = cmd_name
            return group
        alone = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
        alone.command(cmd_name, context_settings=_FOREIGN.get(cmd_name))(found)
        return typer.main.get_command(alone)

    def invoke(self, ctx: Any) -> object:
        try:
            with warnings.catch_warnings():
                warnings.showwarning = _shown
                return super().invoke(ctx)
        except TuiliError as error:
            shown = Text.assemble(("error: ", "bold red"), str(error))
            Console(stderr=True, soft_wrap=True).print(shown)
            raise typer.Exit(1) from None
        except ModuleNotFoundError as error:
            module = (error.name or "tuili").partition(".")[0]
            if module == "tuili":
                raise  # a bug of ours
            extra = _EXTRAS.get(module, "server")
            told = f"this needs the package {module!r}: pip install 'tuili[{extra}]'"
            Console(stderr=True, soft_wrap=True).print(Text(f"error: {told}"))
            raise typer.Exit(1) from None
        except BrokenPipeError:
            raise  # whoever reads our output has gone, which Click knows how to end
        except OSError as error:
            # A full disk, a file that may not be read: no bug of ours.
            where = f"{str(error.filename)!r}: " if error.filename is not None else ""
            Console(stderr=True, soft_wrap=True).print(Text(f"error: {where}{in_words(error)}"))
            raise typer.Exit(1) from None
        except MemoryError as error:
            told = f"memory ran out{f': {error}' if str(error) else ''}"
            Console(stderr=True, soft_wrap=True).print(Text(f"error: {told}"))
            raise typer.Exit(1) from None


app = typer.Typer(
    cls=_Commands,
    no_args_is_help=True,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    # A traceback of ours is a bug report: it is shown as Python shows it, without our locals.
    pretty_exceptions_enable=False,
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"tuili {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version and exit."
        ),
    ] = False,
) -> None:
    """Compiles trained models to native code and serves them."""
