"""`tuili bench --server`: load on a running server, as a table, files and a picture."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import typer
from numpy.lib.npyio import NpzFile
from rich.console import Console
from rich.text import Text

from tuili.bench.load import report
from tuili.bench.load.payloads import Question
from tuili.bench.load.search import Promise
from tuili.bench.load.session import Level, Session, Settings
from tuili.bench.load.sockets import parse_target
from tuili.bench.load.windows import PERCENTILES
from tuili.bench.picture import check_picture
from tuili.cli.outputs import check_outputs, write_output
from tuili.errors import InvalidArgument, NotFound
from tuili.tensors import Array


@dataclass(frozen=True, slots=True)
class Loads:
    """Which levels are measured."""

    concurrencies: list[int]
    rates: list[float]
    slo_ms: float | None
    percentile: float
    shared_memory: bool


@dataclass(frozen=True, slots=True)
class Files:
    """What is read, and where results go."""

    shapes: dict[str, tuple[int, ...]]
    inputs: Path | None
    expect: Path | None
    json: Path | None
    csv: Path | None
    plot: Path | None


def numbers(option: str, text: str) -> list[float]:
    """`1,8,32`; InvalidArgument for anything but positive numbers."""
    try:
        found = [float(part) for part in text.split(",")] if text else []
    except ValueError:
        found = [0.0]
    if any(number <= 0 for number in found):
        raise InvalidArgument(f"{option} {text!r}: expected positive numbers such as 1,8,32")
    return found


def bench_server(
    url: str, question: Question, settings: Settings, loads: Loads, files: Files
) -> None:
    """Measure every level and show them; exit code 1 when an answer was wrong or missing."""
    if loads.percentile not in PERCENTILES:
        known = ", ".join(f"{share:g}" for share in PERCENTILES)
        raise InvalidArgument(f"--percentile {loads.percentile:g}: expected one of {known}")
    check_outputs(files.json, files.csv, files.plot)
    if files.plot:
        check_picture(files.plot)
    console = Console()
    found: dict[str, float] = {}
    session = Session(
        parse_target(url),
        question,
        settings,
        inputs=_arrays(files.inputs),
        expected=_arrays(files.expect),
        shapes=files.shapes,
        shared=loads.shared_memory,
    )
    title = f"{question.model} at {url}{', shared memory' if loads.shared_memory else ''}"
    with session, console.status(Text(f"loading {title}")):
        if loads.slo_ms is not None:
            promise = Promise(loads.percentile, loads.slo_ms)
            found["largest_rate"], levels = session.largest_rate(promise)
        elif loads.rates:
            levels = [session.open(rate) for rate in loads.rates]
        else:
            levels = [session.closed(count) for count in loads.concurrencies]
    console.print(report.table(title, levels))
    if loads.slo_ms is not None:
        text = f"p{loads.percentile:g} stays below {loads.slo_ms:g} ms"
        console.print(f"{text} up to {found['largest_rate']:,.0f} requests/s", highlight=False)
    _write(title, settings, levels, found, files)
    _end(console, levels, searched=loads.slo_ms is not None)


def _arrays(path: Path | None) -> dict[str, Array] | None:
    if path is None:
        return None
    if not path.exists():
        raise NotFound(f"no file {str(path)!r}")
    try:
        stored = np.load(path, allow_pickle=False)
        if isinstance(stored, NpzFile):
            return dict(stored)
    except (ValueError, EOFError, OSError, BadZipFile) as error:
        raise InvalidArgument(f"{str(path)!r} is not an .npz file: {error}") from error
    raise InvalidArgument(
        f"{str(path)!r} holds one array without a name; save arrays by name with numpy.savez"
    )


def _write(
    title: str, settings: Settings, levels: list[Level], found: dict[str, float], files: Files
) -> None:
    if files.json:
        record = report.record({"title": title}, settings, levels, found)
        write_output(files.json, json.dumps(record, indent=1))
    if files.csv:
        write_output(files.csv, report.rows(levels))
    if files.plot:
        report.plot(title, levels, files.plot)


def _end(console: Console, levels: list[Level], *, searched: bool) -> None:
    """A search overloads on purpose; any other load should be answered, and rightly."""
    for text in dict.fromkeys(text for level in levels for text in level.texts):
        console.print(text, markup=False, highlight=False)
    wrong = any(level.window.wrong for level in levels)
    if wrong or (not searched and not all(level.window.clean for level in levels)):
        raise typer.Exit(1)
