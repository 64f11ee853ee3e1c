"""Comparisons as a table for people and as JSON for the record."""

from __future__ import annotations

import csv
import io
import os
import platform
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from rich.table import Table

from tuili.bench.engines import LOADERS, Settings
from tuili.bench.picture import new_axes
from tuili.bench.rounds import OWN, Comparison, Timing, geometric_mean
from tuili.errors import InvalidArgument
from tuili.runtime.cpu import cpu_model


def heading(settings: Settings) -> str:
    """What is measured, as a title."""
    threads = f"{settings.threads} thread{'s' if settings.threads > 1 else ''}"
    shapes = "fixed shapes" if settings.fixed_shapes else "dynamic shapes"
    unit = "ms an answer" if settings.is_offline else "median ms"
    return f"{settings.precision}, {threads}, {settings.scenario}, {shapes}: {unit}"


def table(comparisons: Sequence[Comparison], settings: Settings) -> Table:
    """Median milliseconds (best round in brackets) per model and engine, and the ratio."""
    engines = _engines(comparisons)
    grid = Table(title=f"{heading(settings)} (min)", title_justify="left")
    grid.add_column("model")
    for engine in engines:
        grid.add_column(engine, justify="right")
    for name in ("best peer / tuili", "load ms", "difference"):
        grid.add_column(name, justify="right")
    for comparison in comparisons:
        grid.add_row(*_row(comparison, engines))
    ratios = [c.ratio for c in comparisons if c.ratio]
    if len(ratios) > 1:
        grid.add_section()
        blanks = [""] * len(engines)
        grid.add_row("geometric mean", *blanks, f"{geometric_mean(ratios):.2f}", "", "")
    return grid


def details(comparisons: Sequence[Comparison]) -> Table:
    """Every engine on every model in a row: percentiles of calls, and its costs where measured."""
    rows = list(_details(comparisons))
    names = [name for name in _COLUMNS if any(name in row for row in rows)]
    grid = Table(title="each engine", title_justify="left")
    for name in names:
        words = name.replace("_per_", "/").replace("_", " ")
        grid.add_column(words, justify="left" if name in ("model", "engine") else "right")
    for row in rows:
        grid.add_row(*(_short(row.get(name, "")) for name in names))
    return grid


def csv_rows(comparisons: Sequence[Comparison]) -> str:
    """The same as CSV, a heading first."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_COLUMNS)
    for row in _details(comparisons):
        writer.writerow([_exact(row.get(name, "")) for name in _COLUMNS])
    return text.getvalue()


_COLUMNS = (
    "model", "engine", "p50_ms", "p90_ms", "p99_ms", "min_ms", "answers_per_s", "load_ms",
    "compile_ms", "first_run_ms", "cpu_ms", "peak_MB", "size_MB", "difference",
)  # fmt: skip


def _details(comparisons: Sequence[Comparison]) -> Iterator[dict[str, str | float]]:
    for comparison in comparisons:
        for timing in comparison.timings:
            row: dict[str, str | float] = {
                "model": comparison.model,
                "engine": timing.engine,
                **{f"p{share}_ms": ms for share, ms in timing.percentiles_ms.items()},
                "min_ms": timing.min_ms,
                "answers_per_s": 1000 / timing.median_ms,
                "load_ms": timing.load_ms,
                "compile_ms": timing.compile_ms,
                "difference": timing.difference,
            }
            if timing.costs is not None:
                row["first_run_ms"] = timing.costs.first_run_ms
                row["cpu_ms"] = timing.costs.cpu_ms
                row["peak_MB"] = timing.costs.peak_mb
                row["size_MB"] = timing.costs.size_mb
            yield row


def _exact(cell: str | float) -> str:
    return cell if isinstance(cell, str) else f"{cell:.6g}"


def _short(cell: str | float) -> str:
    return cell if isinstance(cell, str) else f"{cell:.3g}" if cell < 1000 else f"{cell:,.0f}"


def plot(comparisons: Sequence[Comparison], title: str, path: Path) -> None:
    """Bars of medians over the first engine's, with a line up to the 99th percentile of calls."""
    timed = [each for each in comparisons if each.timings]
    if not timed:
        raise InvalidArgument(f"--plot {str(path)!r}: no engine ran any model; nothing to draw")
    axes, save = new_axes(path)
    engines = [name for name in _engines(timed) if any(_of(c, name) for c in timed)]
    first = {each.model: _of(each, engines[0]) or each.timings[0] for each in timed}
    width = 0.8 / len(engines)
    for at, engine in enumerate(engines):
        found = [(place, c, _of(c, engine)) for place, c in enumerate(timed)]
        shown = [(place, t, first[c.model].median_ms) for place, c, t in found if t]
        places = [place + (at - (len(engines) - 1) / 2) * width for place, _, _ in shown]
        heights = [timing.median_ms / unit for _, timing, unit in shown]
        tops = [timing.percentiles_ms.get(99, 0) / unit for _, timing, unit in shown]
        above = [max(top - height, 0) for top, height in zip(tops, heights, strict=True)]
        axes.bar(places, heights, width, yerr=([0] * len(above), above), label=engine, capsize=2)
    labels = [f"{each.model}\n{first[each.model].median_ms:.3g} ms" for each in timed]
    axes.set_xticks(range(len(labels)), labels, rotation=30 if len(labels) > 4 else 0)
    axes.set(title=title, ylabel=f"times {engines[0]}'s median")
    axes.grid(visible=True, axis="y", alpha=0.3)
    axes.legend()
    save()


def _of(comparison: Comparison, engine: str) -> Timing | None:
    return next((each for each in comparison.timings if each.engine == engine), None)


def markdown(comparisons: Sequence[Comparison]) -> str:
    """The medians as a table for README."""
    engines = _engines(comparisons)
    lines = [
        f"| model | {' | '.join(engines)} | best peer / tuili |",
        f"|---|{'---:|' * (len(engines) + 1)}",
    ]
    for comparison in comparisons:
        medians = {t.engine: f"{t.median_ms:.3g} ms" for t in comparison.timings}
        cells = [medians.get(engine, "-") for engine in engines]
        ratio = f"{comparison.ratio:.2f}" if comparison.ratio else "-"
        lines.append(f"| {_label(comparison)} | {' | '.join(cells)} | {ratio} |")
    ratios = [c.ratio for c in comparisons if c.ratio]
    if ratios:
        blanks = "| " * len(engines)
        lines.append(f"| geometric mean {blanks}| {geometric_mean(ratios):.2f} |")
    return "\n".join(lines)


def _label(comparison: Comparison) -> str:
    """`resnet50 1x3x224x224`."""
    shapes = ("x".join(map(str, shape)) or "()" for shape in comparison.shapes.values())
    return f"{comparison.model} {' '.join(dict.fromkeys(shapes))}"


def _engines(comparisons: Sequence[Comparison]) -> list[str]:
    used = {t.engine for c in comparisons for t in c.timings}
    used |= {engine for c in comparisons for engine in c.failures}
    return [engine for engine in LOADERS if engine in used]


def _row(comparison: Comparison, engines: Sequence[str]) -> list[str]:
    by_engine = {timing.engine: timing for timing in comparison.timings}
    row = [_label(comparison)]
    for engine in engines:
        timing = by_engine.get(engine)
        row.append(f"{_short(timing.median_ms)} ({_short(timing.min_ms)})" if timing else "failed")
    row.append(f"{comparison.ratio:.2f}" if comparison.ratio else "-")
    row.append(" / ".join(f"{by_engine[e].load_ms:.1f}" for e in engines if e in by_engine))
    own = by_engine.get(OWN)
    row.append(f"{own.difference:.1e}" if own else "-")
    return row


def record(comparisons: Sequence[Comparison], settings: Settings) -> dict[str, Any]:
    """Everything measured, with the machine, the versions and the commit."""
    ratios = [c.ratio for c in comparisons if c.ratio]
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": _commit(),
        "machine": machine(),
        "versions": {name: _version(name) for name in ("numpy", *LOADERS)},
        "settings": asdict(settings),
        "geometric_mean": geometric_mean(ratios) if ratios else None,
        "comparisons": [{**asdict(c), "ratio": c.ratio} for c in comparisons],
    }


def machine() -> dict[str, Any]:
    """The processor, how much of it we may use, and the system."""
    return {
        "processor": cpu_model(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None,
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _commit() -> str | None:
    """The commit of the source tree that this runs from, or None outside one."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return None
    return done.stdout.strip() or None
