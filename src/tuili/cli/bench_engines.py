"""`tuili bench MODEL.onnx`: models on several engines, side by side."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import typer
from rich.console import Console
from rich.text import Text

from tuili.bench.engines import Settings, installed, known
from tuili.bench.feeds import random_feeds
from tuili.bench.picture import check_picture
from tuili.bench.report import csv_rows, details, heading, plot, record, table
from tuili.bench.rounds import OWN, Comparison, compare
from tuili.cli.outputs import check_outputs, write_output
from tuili.errors import InvalidModel, NotFound
from tuili.importers.onnx import import_model
from tuili.tensors import TensorSpec

TABLE_WIDTH = 150


@dataclass(frozen=True, slots=True)
class Asked:
    """What is measured of which engines, and where it is written."""

    rounds: int
    engines: Sequence[str]
    costs: bool
    json: Path | None
    csv: Path | None
    plot: Path | None


def bench_engines(
    models: Sequence[Path], shapes: dict[str, tuple[int, ...]], settings: Settings, asked: Asked
) -> None:
    """Time models on tuili and its peers, and print a table."""
    console = Console()
    known(asked.engines)
    check_outputs(asked.json, asked.csv, asked.plot)
    if asked.plot:
        check_picture(asked.plot)
    for path in models:
        if not path.exists():
            raise NotFound(f"no model file {str(path)!r}")
    if not asked.engines and installed() == [OWN]:
        told = "no other engine is installed; pip install 'tuili[bench]' brings two to compare with"
        console.print(told, markup=False)
    comparisons: list[Comparison] = []
    for path in models:
        with console.status(Text(f"compiling and timing {path.name}")):
            feeds = random_feeds(_inputs(path), shapes)
            engines = asked.engines or installed()
            found = compare(path, feeds, engines, settings, asked.rounds, with_costs=asked.costs)
        for name, reason in found.failures.items():
            console.print(f"{path.name}: {name} failed: {reason}", markup=False)
        if found.failures and not shapes:
            said = f"{path.name}: open dims were 1; --shape NAME=DIMS gives others"
            console.print(said, markup=False)
        comparisons.append(found)
    # Numbers that are cut tell nothing: a narrow screen folds the lines instead.
    wide = Console(width=max(console.width, TABLE_WIDTH))
    wide.print(table(comparisons, settings))
    wide.print(details(comparisons))
    if asked.json:
        write_output(asked.json, json.dumps(record(comparisons, settings), indent=1))
    if asked.csv:
        write_output(asked.csv, csv_rows(comparisons))
    if asked.plot:
        plot(comparisons, heading(settings), asked.plot)
    if not any(each.timings for each in comparisons):
        raise typer.Exit(1)  # what was said above is all there is


def _inputs(path: Path) -> list[TensorSpec]:
    """The inputs that the file declares."""
    specs: list[TensorSpec] = []
    for value in import_model(path).inputs:
        if value.tensor.shape is None:
            raise InvalidModel(f"{path}: input {value.name!r} has no rank; nothing to make up")
        specs.append(TensorSpec(value.name, value.tensor.dtype, value.tensor.shape))
    return specs
