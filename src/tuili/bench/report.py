"""Comparisons as a table for people and as JSON for the record."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from rich.table import Table

from tuili.bench.engines import LOADERS, Settings
from tuili.bench.rounds import OWN, Comparison, geometric_mean
from tuili.runtime.cpu import cpu_model


def table(comparisons: Sequence[Comparison], settings: Settings) -> Table:
    """Median milliseconds (best round in brackets) per model and engine, and the ratio."""
    engines = _engines(comparisons)
    threads = f"{settings.threads} thread{'s' if settings.threads > 1 else ''}"
    shapes = "fixed shapes" if settings.fixed_shapes else "dynamic shapes"
    grid = Table(
        title=f"{settings.precision}, {threads}, {shapes}: median ms (min)", title_justify="left"
    )
    grid.add_column("model")
    for engine in engines:
        grid.add_column(engine, justify="right")
    for heading in ("best peer / tuili", "load ms", "difference"):
        grid.add_column(heading, justify="right")
    for comparison in comparisons:
        grid.add_row(*_row(comparison, engines))
    ratios = [c.ratio for c in comparisons if c.ratio]
    if len(ratios) > 1:
        grid.add_section()
        blanks = [""] * len(engines)
        grid.add_row("geometric mean", *blanks, f"{geometric_mean(ratios):.2f}", "", "")
    return grid


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
        row.append(f"{timing.median_ms:.2f} ({timing.min_ms:.2f})" if timing else "failed")
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
