"""Writes `reference/command-line.md` from the commands: `python docs/command_line.py`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer

from tuili.cli.main import COMMANDS, app

PAGE = Path(__file__).with_name("reference") / "command-line.md"
HEAD = """\
# Command line

Written by `python docs/command_line.py`; a test compares it with the program.

An error is a sentence on stderr and exit code 1; a wrong option is exit code 2; Ctrl-C is 130 and
leaves nothing half written. `python -m tuili` is the same as `tuili`.

`--shape NAME=1x3x224x224` gives an input its dims; a word instead of a number (`batchx3x224x224`)
leaves that dim open, and `NAME=*` lets its open dims differ from others that the file calls alike.
Names may hold any character; the last `=` counts.
"""


def page() -> str:
    """The whole page."""
    group: Any = typer.main.get_command(app)
    context: Any = typer.Context(group)
    commands = ((name, group.get_command(context, name)) for name in COMMANDS)
    return "\n".join([HEAD, *(text for pair in commands for text in sections(*pair))])


def sections(name: str, command: Any) -> list[str]:
    """A command, or a group's own commands."""
    if not hasattr(command, "commands"):
        return [section(name, command)]
    head = f"## `tuili {name}`\n{command.help}\n"
    below = command.commands.items()
    return [head, *(section(f"{name} {each}", one).replace("##", "###", 1) for each, one in below)]


def section(name: str, command: Any) -> str:
    """One command: what it does, then a row per parameter."""
    rows = [row(parameter) for parameter in command.params if parameter.name != "help"]
    table = ["| parameter | default | meaning |", "|---|---|---|", *rows]
    return "\n".join([f"## `tuili {name}`", command.help or "", "", *table, ""])


def row(parameter: Any) -> str:
    """Its spelling, its default, its help."""
    is_option = parameter.param_type_name == "option"
    name = ", ".join([*parameter.opts, *parameter.secondary_opts])
    if not is_option:
        name = parameter.name.upper() + ("..." if parameter.nargs == -1 else "")
    default = parameter.default
    shown = "" if default is None or default == () or callable(default) else f"`{default}`"
    shown = "required" if parameter.required else shown
    return f"| `{name}` | {shown} | {getattr(parameter, 'help', None) or ''} |"


if __name__ == "__main__":
    PAGE.write_text(page())
