"""`tuili config`: writes, checks and explains the configurations of a model repository."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from tuili.errors import InvalidModel, NotFound, TuiliError

if TYPE_CHECKING:
    from tuili.server.dataplane import DataPlane
    from tuili.server.loading.explaining import Explained
    from tuili.server.options import ServerOptions

config = typer.Typer(
    help="Write, check and explain the configurations of models.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

_FILENAME = "default_model_filename"

ModelFolder = Annotated[
    Path, typer.Argument(help="A model's folder: REPOSITORY/NAME.", exists=True, file_okay=False)
]
Repositories = Annotated[
    list[Path], typer.Argument(help="Folders of models.", exists=True, file_okay=False)
]


@config.command()
def generate(
    model: ModelFolder,
    form: Annotated[
        Literal["pbtxt", "yaml", "json"], typer.Option("--format", help="The form to write.")
    ] = "pbtxt",
    full: Annotated[bool, typer.Option(help="Write defaults too.")] = False,
) -> None:
    """Print the configuration that a model has, as a file to start from."""
    from tuili.server.repository.writing import FORMS, essential

    explained = _loaded(model)
    raw = dict(explained.effective)
    if _FILENAME not in explained.config.raw:
        # Versions need not be alike: one may be an ONNX file, the next one an artifact.
        raw.pop(_FILENAME, None)
    typer.echo(FORMS[form](raw if full else essential(raw)), nl=False)


@config.command()
def validate(
    repository: Repositories,
    load: Annotated[
        bool, typer.Option(help="Load the models too, as the server would; else only read.")
    ] = True,
) -> None:
    """Check every model of a repository, or one by its folder; exit 1 when one would not load."""
    from tuili.server.repository.layout import find_models

    names = sorted(find_models(repository))
    if len(repository) == 1 and _is_model(repository[0]):
        folder = repository[0].resolve()
        repository, names = [folder.parent], [folder.name]
    found = _read_all(tuple(repository), names)
    wanted = [name for name in names if not found[name]]
    if load and wanted:
        found |= _failures(tuple(repository), wanted)
    console = Console(soft_wrap=True, highlight=False)
    for name in names:
        _print_verdict(console, name, found.get(name, ""), _doubts(tuple(repository), name))
    wrong = sum(bool(found.get(name)) for name in names)
    console.print(f"{len(names) - wrong} of {len(names)} models are in order", markup=False)
    if wrong:
        raise typer.Exit(1)


@config.command()
def explain(model: ModelFolder) -> None:
    """Print what is in effect for a model, where it was decided and what it means."""
    from tuili.server.loading.explaining import settings

    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("setting", "value", "from", "meaning"):
        table.add_column(title, overflow="fold")
    for row in settings(_loaded(model)):
        table.add_row(*(Text(cell) for cell in row))
    Console(highlight=False).print(table)


# --------------------------------------------------------------------------------- behind it


def _is_model(folder: Path) -> bool:
    """Whether a folder is a model's own: it holds a configuration, or versions and nothing else."""
    from tuili.server.repository.formats import FILES

    inside = [each for each in folder.iterdir() if each.is_dir() and each.name[0] != "."]
    versions = bool(inside) and all(each.name.isdecimal() for each in inside)
    return versions or any((folder / name).is_file() for name in FILES)


def _options(repositories: tuple[Path, ...]) -> ServerOptions:
    from tuili.server.options import ServerOptions

    return ServerOptions(repository=repositories)


def _loaded(folder: Path) -> Explained:
    from tuili.server.control.split import Split
    from tuili.server.loading.explaining import Explained
    from tuili.server.repository import config as configuration
    from tuili.server.trial import on_loaded

    folder = folder.resolve()
    options = _options((folder.parent,))

    def look(dataplane: DataPlane) -> Explained:
        versions = dataplane.repository.live.get(folder.name)
        if versions is None:
            causes = dataplane.repository.failures()
            raise InvalidModel(causes.get(folder.name, f"{folder} does not load"))
        served = sorted((version for version in versions if version), key=int)
        answering = versions[""]
        assert not isinstance(answering, Split), "no roll-out runs in a trial"
        return Explained(configuration.read(folder), answering, served, options)

    return on_loaded(options, [folder.name], look)


def _read_all(repositories: tuple[Path, ...], names: list[str]) -> dict[str, str]:
    """What is wrong with each model's configuration by itself, or ""."""
    from tuili.server.repository import config as configuration
    from tuili.server.repository.layout import find_model, versions_of

    found: dict[str, str] = {}
    for name in names:
        try:
            folder = find_model(repositories, name)
            if folder is None:
                raise NotFound(f"model {name!r} is gone")
            read = configuration.read(folder)
            there = versions_of(folder)
            if not read.versions.select(there):
                raise InvalidModel(f"{folder} has no version to serve; it has {there or 'none'}")
            found[name] = ""
        except TuiliError as error:
            found[name] = str(error)
    return found


def _failures(repositories: tuple[Path, ...], names: list[str]) -> dict[str, str]:
    from tuili.server.trial import on_loaded

    return on_loaded(
        _options(repositories), names, lambda dataplane: dataplane.repository.failures()
    )


def _doubts(repositories: tuple[Path, ...], name: str) -> list[str]:
    from tuili.server.repository import config as configuration
    from tuili.server.repository.layout import find_model
    from tuili.server.repository.model_parameters import doubtful

    try:
        folder = find_model(repositories, name)
        read = configuration.read(folder) if folder is not None else None
    except TuiliError:
        return []  # told as the model's error already
    return doubtful(read.backend, read.parameters) if read is not None else []


def _print_verdict(console: Console, name: str, wrong: str, doubts: list[str]) -> None:
    mark, style = ("wrong", "bold red") if wrong else ("ok   ", "green")
    console.print(Text.assemble((mark, style), f"  {name}", f": {wrong}" if wrong else ""))
    for doubt in doubts:
        console.print(Text.assemble(("  note", "yellow"), f"  {doubt}"))
