"""`tuili run`: one answer of a model, from files or made-up inputs."""

from __future__ import annotations

from collections.abc import Iterable
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from zipfile import BadZipFile

import numpy as np
import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from tuili.artifact import Artifact, is_artifact
from tuili.bench.feeds import random_feeds
from tuili.cli.outputs import check_outputs, write_output
from tuili.cli.shapes import SizeOptions, concrete_shapes
from tuili.errors import InvalidArgument, NotFound, in_words, nearest
from tuili.runtime import Model
from tuili.runtime import load as load_artifact
from tuili.tensors import Array, DType, TensorSpec

if TYPE_CHECKING:
    from tuili.host import HostSteps

RANDOM = "random"
MOST_SHOWN = 100  # characters of a value that is no array


def run(
    model: Annotated[Path, typer.Argument(help="An artifact or an ONNX file.")],
    inputs: Annotated[
        list[str] | None,
        typer.Option(
            "--input",
            metavar="NAME=FILE.npy|FILE.npz|random",
            help="Values of an input. Inputs that are not given are random.",
        ),
    ] = None,
    shape: SizeOptions = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Save the outputs to this .npz file.")
    ] = None,
    threads: Annotated[int, typer.Option(min=0, help="Threads of the run; 0: all cores.")] = 0,
    seed: Annotated[int, typer.Option(min=0, help="Of the random inputs.")] = 0,
) -> None:
    """Run a model once and print its outputs, or save them."""
    check_outputs(output)
    loaded = _load(model, threads)
    given = _given(inputs, loaded.inputs)
    shapes = concrete_shapes(shape) | {name: value.shape for name, value in given.items()}
    answers = loaded.run(random_feeds(loaded.inputs, shapes, seed) | given)
    _show(answers, loaded.outputs)
    if output:
        _save(output, answers)


def _load(path: Path, threads: int) -> Model:
    """The model; an artifact needs nothing of the compiler, which would only take memory."""
    if is_artifact(path):
        return load_artifact(path, threads=threads, host=_host_steps)
    import tuili

    return tuili.load(path, threads=threads)


def _host_steps(artifact: Artifact) -> HostSteps:
    from tuili.host import HostSteps

    return HostSteps(artifact)


def _given(options: Iterable[str] | None, specs: Iterable[TensorSpec]) -> dict[str, Array]:
    known = [spec.name for spec in specs]
    given: dict[str, Array] = {}
    for option in options or ():
        name, found, source = option.rpartition("=")
        if not found or not name:
            raise InvalidArgument(f"--input {option!r}: expected NAME=FILE.npy or NAME={RANDOM}")
        if name not in known:
            raise InvalidArgument(
                f"the model has no input {name!r}.{nearest(name, known)} Its inputs: {known}"
            )
        if source != RANDOM:
            given[name] = _read(Path(source), name)
    return given


def _read(path: Path, name: str) -> Array:
    if not path.is_file():
        raise NotFound(f"no input file {str(path)!r}")
    try:
        found = np.load(path, allow_pickle=False)
        return found if isinstance(found, np.ndarray) else found[_chosen(path, name, found.files)]
    except OSError as error:
        raise InvalidArgument(f"{str(path)!r} cannot be read: {in_words(error)}") from error
    except (ValueError, EOFError, BadZipFile) as error:
        why = "it holds Python objects, or is something else" if "pickle" in str(error) else error
        raise InvalidArgument(f"{str(path)!r} is not a .npy or .npz file: {why}") from error


def _chosen(path: Path, name: str, names: list[str]) -> str:
    """Which array of an .npz file is meant: that of the input's name, or the only one."""
    if name in names or len(names) == 1:
        return name if name in names else names[0]
    raise InvalidArgument(
        f"{str(path)!r} holds {', '.join(names) or 'nothing'}, and no array called {name!r}; "
        "save it under the name of the input"
    )


def _save(path: Path, answers: dict[str, Any]) -> None:
    arrays: dict[str, Array] = {}
    for name, value in answers.items():
        if not isinstance(value, np.ndarray):
            raise InvalidArgument(
                f"output {name!r} is a {type(value).__name__}, and a .npz file holds arrays only; "
                "compile with --plain-maps, or use tuili.load in Python"
            )
        arrays[name] = value.astype(np.str_) if value.dtype == object else value
    found = BytesIO()
    np.savez(found, **arrays)  # pyright: ignore[reportArgumentType] - names are free text
    write_output(path, found.getvalue())


def _show(answers: dict[str, Any], specs: Iterable[TensorSpec]) -> None:
    types = {spec.name: spec.type for spec in specs}
    table = Table()
    for heading in ("output", "type", "shape", "min", "mean", "max", "first values"):
        table.add_column(heading, overflow="fold")
    for name, value in answers.items():
        if not isinstance(value, np.ndarray):
            table.add_row(Text(name), types[name], *[""] * 4, Text(_shortened(repr(value))))
            continue
        text = DType.of(value.dtype).value
        first = np.array2string(value.ravel()[:4], precision=4)
        stats = ["", "", ""]
        if value.size and value.dtype.kind in "fiu":
            stats = [f"{float(each):.4g}" for each in (value.min(), value.mean(), value.max())]
        # As they are: [nan nan] is no markup, nor are names.
        table.add_row(Text(name), text, str(list(value.shape)), *stats, Text(first))
    Console().print(table)


def _shortened(text: str) -> str:
    return text if len(text) <= MOST_SHOWN else f"{text[:MOST_SHOWN]}..."
