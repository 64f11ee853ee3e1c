"""Times tuili beside other engines on the real models: `make bench`, `make bench-engines`.

Prints the table, with floors and what was asked for, and writes every round to `--json` (default
build/engines.json); `--keep` puts it among the results that the repository keeps.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.floors import Floor, Machine, floor_of
from benchmarks.models import MODELS, Feeds, RealModel
from tuili.bench.engines import Settings, installed
from tuili.bench.report import markdown, record, table
from tuili.bench.rounds import Comparison, compare, geometric_mean

# Ratios to the best peer that were asked for: fp32, one thread, batch 1.
ASKED = {
    "efficientnet_lite0": 1.22,
    "resnet50": 1.40,
    "minilm": 1.10,
    "ppocr_det": 1.70,
    "ppocr_rec": 1.18,
    "ppocr_cls": 1.50,
    "silero_vad": 4.0,
    "magika": 1.15,
    "basic_pitch": 2.5,
    "digits_mlp": 1.5,
}


def main() -> None:
    """Measure what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="*", help="all real models when none is named")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--dynamic", action="store_true", help="leave batch and sizes open")
    parser.add_argument("--precision", choices=("f32", "bf16"), default="f32")
    parser.add_argument("--json", type=Path, default=Path("build/engines.json"))
    parser.add_argument("--keep", action="store_true", help="write to benchmarks/results")
    parser.add_argument("--markdown", action="store_true", help="print the table of README")
    options = parser.parse_args()
    settings = Settings(
        options.threads, fixed_shapes=not options.dynamic, precision=options.precision
    )
    console = Console(width=160, log_path=False)
    machine = Machine.measure()
    comparisons: list[Comparison] = []
    floors: dict[str, Floor] = {}
    for name in options.models or MODELS:
        feeds = feeds_of(MODELS[name], options.batch)
        comparisons.append(_measured(name, feeds, settings, options.rounds, console))
        floors[name] = floor_of(MODELS[name].path(), feeds)
    console.print(table(comparisons, settings))
    console.print(_floor_table(comparisons, floors, machine, options.threads, options.batch))
    if options.markdown:
        print(markdown(comparisons))
    kept = record(comparisons, settings)
    kept["machine"] |= asdict(machine)
    kept["batch"] = options.batch
    kept["floors"] = {name: asdict(floor) for name, floor in floors.items()}
    place = _place(machine, settings, options.batch) if options.keep else options.json
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text(json.dumps(kept, indent=1) + "\n")
    console.print(f"every round: {place}")


def feeds_of(model: RealModel, batch: int) -> Feeds:
    """Inputs of the first size, for another number of items."""
    return model.inputs((batch, *model.sizes[0][1:]))


def _place(machine: Machine, settings: Settings, batch: int) -> Path:
    threads, many = settings.threads, f"-batch-{batch}" if batch > 1 else ""
    many += "" if settings.precision == "f32" else f"-{settings.precision}"
    unit = "threads" if threads > 1 else "thread"
    folder = Path(__file__).parent / "results"
    return folder / f"engines-{machine.target}-{threads}-{unit}{many}.json"


def _measured(
    name: str, feeds: Feeds, settings: Settings, rounds: int, console: Console
) -> Comparison:
    found = compare(MODELS[name].path(), feeds, installed(), settings, rounds, name)
    times = ", ".join(f"{t.engine} {t.median_ms:.3g}" for t in found.timings)
    console.log(f"{name}: {times}")
    for engine, reason in found.failures.items():
        console.log(f"{name}: {engine} failed: {reason}")
    return found


def _floor_table(
    comparisons: list[Comparison],
    floors: dict[str, Floor],
    machine: Machine,
    threads: int,
    batch: int,
) -> Table:
    """Per model: the best peer, the ratio and the one asked for, the floor, memory."""
    rates = f"{machine.peak_gflops:.0f} GFLOP/s a core, {machine.read_gbytes:.0f} GB/s"
    grid = Table(title=f"{machine.target}: {rates}; medians in ms", title_justify="left")
    for heading in ("model", "tuili", "best peer", "ratio", "asked", "ratio of minima"):
        grid.add_column(heading, justify="left" if heading == "model" else "right")
    for heading in ("floor", "% of floor", "arena MB", "live MB"):
        grid.add_column(heading, justify="right")
    asked = ASKED if threads == batch == 1 else {}
    for found in comparisons:
        own = next((t for t in found.timings if t.engine == "tuili"), None)
        peer, floor = found.best_peer, floors[found.model]
        if own is None or peer is None or not found.ratio:
            grid.add_row(found.model, *["-"] * 9)
            continue
        least = min(t.min_ms for t in found.timings if t.engine != "tuili")
        floor_ms = floor.ms(machine, threads)
        grid.add_row(
            found.model,
            f"{own.median_ms:.3g}",
            f"{peer.median_ms:.3g} {peer.engine}",
            f"{found.ratio:.2f}",
            f"{asked[found.model]:.2f}" if found.model in asked else "",
            f"{least / own.min_ms:.2f}",
            f"{floor_ms:.3g}",
            f"{100 * floor_ms / own.median_ms:.0f}",
            *map(_megabytes, (floor.arena_bytes, floor.live_bytes)),
        )
    ratios = [found.ratio for found in comparisons if found.ratio]
    if ratios:
        grid.add_section()
        grid.add_row("geometric mean", "", "", f"{geometric_mean(ratios):.2f}", *[""] * 6)
    return grid


def _megabytes(size: int | None) -> str:
    return f"{size / 1e6:.2f}" if size else "-"


if __name__ == "__main__":
    main()
