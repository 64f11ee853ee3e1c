"""`tuili bench`: models on several engines, side by side."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from tuili.bench.engines import Settings, installed
from tuili.bench.feeds import random_feeds
from tuili.bench.report import record, table
from tuili.bench.rounds import compare
from tuili.cli.shapes import ShapeOptions, concrete_shapes
from tuili.errors import InvalidModel, NotFound
from tuili.importers.onnx import import_model
from tuili.tensors import TensorSpec


def bench(
    models: Annotated[list[Path], typer.Argument(help="ONNX files.", show_default=False)],
    shape: ShapeOptions = None,
    threads: Annotated[int, typer.Option(min=1, help="Threads of every engine.")] = 1,
    rounds: Annotated[int, typer.Option(min=1, help="Interleaved rounds.")] = 20,
    engine: Annotated[
        list[str] | None, typer.Option(help="An engine; all installed ones by default.")
    ] = None,
    dynamic: Annotated[
        bool, typer.Option("--dynamic", help="Compile with open dims, as in the file.")
    ] = False,
    output: Annotated[
        Path | None, typer.Option("--json", help="Write every round to this file.")
    ] = None,
) -> None:
    """Time models on tuili, onnxruntime and openvino, and print a table."""
    console = Console()
    settings = Settings(threads, fixed_shapes=not dynamic)
    comparisons = []
    for path in models:
        if not path.exists():
            raise NotFound(f"no model file {str(path)!r}")
        with console.status(f"compiling and timing {path.name}"):
            feeds = random_feeds(_inputs(path), concrete_shapes(shape))
            found = compare(path, feeds, engine or installed(), settings, rounds)
        for name, reason in found.failures.items():
            console.print(f"{path.name}: {name} failed: {reason}", markup=False)
        comparisons.append(found)
    console.print(table(comparisons, settings))
    if output:
        output.write_text(json.dumps(record(comparisons, settings), indent=1))


def _inputs(path: Path) -> list[TensorSpec]:
    """The inputs that the file declares."""
    specs: list[TensorSpec] = []
    for value in import_model(path).inputs:
        if value.tensor.shape is None:
            raise InvalidModel(f"{path}: input {value.name!r} has no rank; nothing to make up")
        specs.append(TensorSpec(value.name, value.tensor.dtype, value.tensor.shape))
    return specs
