"""`tuili compile`: a model file becomes an artifact."""

from __future__ import annotations

import time
import warnings
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from tuili.cli.precision import PrecisionOption
from tuili.cli.shapes import ShapeOptions, concrete_shapes, parse_shapes
from tuili.cli.tuning import TuneOption, TuneSecondsOption, TuneShapeOption, TuningOption, tell
from tuili.errors import InvalidArgument, ModelWarning, nearest
from tuili.ir.text import to_text
from tuili.precision import EXACT

if TYPE_CHECKING:
    from collections.abc import Callable

    from tuili.ir import Graph


def compile_model(
    model: Annotated[Path, typer.Argument(help="An ONNX file.", show_default=False)],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="A folder, or a .tuiliz file; MODEL.tuili by default."),
    ] = None,
    target: Annotated[
        str, typer.Option(help="native, or a name in docs/how-to/targets.md.")
    ] = "native",
    shape: ShapeOptions = None,
    exact: Annotated[
        bool,
        typer.Option("--exact", help="No Winograd, no cheaper arithmetic that rounds otherwise."),
    ] = False,
    plain_maps: Annotated[
        bool,
        typer.Option("--plain-maps", help="Outputs that are a dictionary per row become tensors."),
    ] = False,
    precision: PrecisionOption = EXACT,
    tune: TuneOption = False,
    tuning: TuningOption = None,
    tune_seconds: TuneSecondsOption = 30.0,
    tune_shape: TuneShapeOption = None,
    print_after: Annotated[
        str | None, typer.Option(metavar="PASS", help="Print the graph after this pass.")
    ] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Run the verifier between all passes.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print errors only.")] = False,
) -> None:
    """Compile a model to native code."""
    import tuili
    from tuili.bench.tune.tuner import tune as measure
    from tuili.compiler import Options

    if quiet:
        warnings.simplefilter("ignore", ModelWarning)
    seen = _Seen(print_after)
    shapes = parse_shapes(shape)
    start = time.perf_counter()
    with progress_bar(quiet) as report:
        if tune:
            options = Options(target, shapes, exact, plain_maps, tuning, precision)
            found = measure(model, options, concrete_shapes(tune_shape), tune_seconds, report)
            if not quiet:
                tell(found)
        artifact = tuili.compile(
            model,
            output or model.with_suffix(".tuili"),
            target=target,
            shapes=shapes or None,
            exact=exact,
            plain_maps=plain_maps,
            tuning=tuning,
            precision=precision,
            check=check,
            on_pass=seen if print_after else None,
            on_progress=report,
        )
    seen.refuse_unknown()
    if not quiet:
        seconds = time.perf_counter() - start
        console = Console(stderr=True, soft_wrap=True, highlight=False)
        console.print(f"{artifact.path} ({seconds:.1f} s)", markup=False)


class _Seen:
    """Prints the graph after the pass that was asked for, and remembers which passes ran."""

    def __init__(self, wanted: str | None) -> None:
        self.wanted = wanted
        self.names: list[str] = []

    def __call__(self, name: str, graph: Graph) -> None:
        self.names.append(name)
        if name == self.wanted:
            typer.echo(to_text(graph))

    def refuse_unknown(self) -> None:
        """Raise when the pass that was asked for did not run."""
        if self.wanted and self.wanted not in self.names:
            ran = list(dict.fromkeys(self.names))
            raise InvalidArgument(
                f"--print-after {self.wanted!r}: no such pass ran."
                f"{nearest(self.wanted, ran)} These did: {', '.join(ran) or 'none'}"
            )


@contextmanager
def progress_bar(quiet: bool) -> Generator[Callable[[str, int, int], None] | None]:
    """A bar on stderr while the block runs; what it yields moves it: (step, done, total)."""
    console = Console(stderr=True)
    if quiet or not console.is_terminal:
        yield None
        return
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        bar = progress.add_task("compiling", total=None)

        def report(step: str, done: int, total: int) -> None:
            progress.update(bar, description=step, completed=done, total=total or None)

        yield report
