"""`tuili bench MODEL.onnx`: models on several engines, side by side."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from tuili.bench.engines import Settings, installed
from tuili.bench.feeds import random_feeds
from tuili.bench.report import record, table
from tuili.bench.rounds import compare
from tuili.errors import InvalidModel, NotFound
from tuili.importers.onnx import import_model
from tuili.tensors import TensorSpec


def bench_engines(
    models: Sequence[Path],
    shapes: dict[str, tuple[int, ...]],
    settings: Settings,
    rounds: int,
    engines: Sequence[str],
    output: Path | None,
) -> None:
    """Time models on tuili and its peers, and print a table."""
    console = Console()
    comparisons = []
    for path in models:
        if not path.exists():
            raise NotFound(f"no model file {str(path)!r}")
        with console.status(f"compiling and timing {path.name}"):
            feeds = random_feeds(_inputs(path), shapes)
            found = compare(path, feeds, engines or installed(), settings, rounds)
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
