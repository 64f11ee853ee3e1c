"""`tuili explain` and `tuili profile`: where the time of a run goes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.text import Text

from tuili.artifact import is_artifact
from tuili.cli.outputs import check_outputs, write_output
from tuili.cli.precision import PrecisionOption
from tuili.cli.shapes import SizeOptions, concrete_shapes
from tuili.cli.tuning import TuningOption
from tuili.errors import InvalidArgument, NotFound
from tuili.precision import EXACT

if TYPE_CHECKING:
    from tuili.bench.explain.timing import Timed
    from tuili.compiler import Options

Model = Annotated[Path, typer.Argument(help="A model file; an artifact cannot be timed inside.")]
Threads = Annotated[int, typer.Option(min=1, help="Threads of the run.")]
Exact = Annotated[bool, typer.Option(help="Keep the order of arithmetic: no Winograd.")]


def explain(
    model: Model,
    shape: SizeOptions = None,
    threads: Threads = 1,
    exact: Exact = False,
    precision: PrecisionOption = EXACT,
    tuning: TuningOption = None,
    top: Annotated[int, typer.Option(min=1, help="How many calls to show, slowest first.")] = 30,
    html: Annotated[Path | None, typer.Option(help="Write a page with a roofline plot.")] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write all rows.")] = None,
) -> None:
    """Time every kernel call of a model: its rate, its limit on this machine, and why."""
    from tuili.bench.explain.account import account
    from tuili.bench.explain.page import page
    from tuili.bench.explain.peaks import peaks
    from tuili.bench.explain.text import choices, summary, table
    from tuili.compiler import Options

    check_outputs(html, json_file)
    options = Options(exact=exact, tuning=tuning, precision=precision)
    options, found = _timed(model, shape, threads, options)
    target = options.resolve()
    whole = account(found, peaks(target), target.name, threads)
    console = Console(highlight=False, soft_wrap=True)
    for line in summary(whole):
        console.print(Text(line))
    for line in choices(whole):
        console.print(Text(f"  {line}"))
    console.print()
    Console(highlight=False, width=max(console.width, 160)).print(table(whole, top))
    if html is not None:
        write_output(html, page(whole))
        console.print(f"page: {html}", markup=False)
    if json_file is not None:
        write_output(json_file, json.dumps(asdict(whole), indent=1))


def profile(
    model: Model,
    shape: SizeOptions = None,
    threads: Threads = 1,
    exact: Exact = False,
    precision: PrecisionOption = EXACT,
    tuning: TuningOption = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="The trace.")] = Path("trace.json"),
) -> None:
    """Write the timeline of one run, every thread's, for Perfetto or chrome://tracing."""
    from tuili.bench.explain.trace import trace
    from tuili.compiler import Options

    check_outputs(output)
    options = Options(exact=exact, tuning=tuning, precision=precision)
    _, found = _timed(model, shape, threads, options)
    write_output(output, json.dumps(trace(found)))
    Console(soft_wrap=True, highlight=False).print(
        f"{len(found.spans)} spans of {len(found.calls)} kernel calls: {output}", markup=False
    )


def _timed(
    model: Path, shape: Sequence[str] | None, threads: int, options: Options
) -> tuple[Options, Timed]:
    from tuili.bench.explain.timing import timed
    from tuili.bench.feeds import random_feeds
    from tuili.importers.onnx import import_model
    from tuili.tensors import TensorSpec

    if not model.exists():
        raise NotFound(f"no model file {str(model)!r}")
    if is_artifact(model):
        raise InvalidArgument(
            f"{str(model)!r} is an artifact, which has no clock in it; name the model file that it "
            "was compiled from"
        )
    shapes = concrete_shapes(list(shape) if shape else None)
    graph = import_model(model)
    specs = [TensorSpec(v.name, v.dtype, v.shape) for v in graph.inputs]
    feeds = random_feeds(specs, shapes)
    dims = {name: feed.shape for name, feed in feeds.items()}
    options = replace(options, shapes=dims)
    return options, timed(model, options, threads, feeds)
