"""A load's levels as a table for people, as JSON and CSV for the record, and as a picture."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from rich.table import Table

from tuili.bench.load.session import Level, Settings
from tuili.bench.load.windows import PERCENTILES
from tuili.bench.picture import new_axes
from tuili.bench.report import machine

_NAMES: Final = {50.0: "p50", 90.0: "p90", 95.0: "p95", 99.0: "p99", 99.9: "p99.9"}


def table(title: str, levels: Sequence[Level]) -> Table:
    """One row per level; milliseconds."""
    grid = Table(title=title, title_justify="left")
    grid.add_column("load")
    cpu = any(level.cpu_us is not None for level in levels)
    for heading in ("answers/s", *_NAMES.values(), "max", *(("CPU us",) if cpu else ())):
        grid.add_column(heading, justify="right")
    grid.add_column("")
    for level in levels:
        window = level.window
        row = [load_text(level), f"{window.rate:,.0f}"]
        row += [f"{window.percentile(share):.3g}" for share in PERCENTILES]
        row.append(f"{window.max_ms:.3g}")
        if cpu:
            row.append("" if level.cpu_us is None else f"{level.cpu_us:.1f}")
        grid.add_row(*row, remarks(level))
    return grid


def load_text(level: Level) -> str:
    """`c=8`, or `500/s`."""
    return f"c={level.load:g}" if level.loop == "closed" else f"{level.load:,.0f}/s due"


def remarks(level: Level) -> str:
    """What spoils a level."""
    window = level.window
    found = [] if level.stable else ["unstable"]
    for name in ("wrong", "refused", "lost"):
        count = getattr(window, name)
        if count:
            found.append(f"{count} {name}")
    return ", ".join(found)


def record(
    title: dict[str, Any], settings: Settings, levels: Sequence[Level], found: dict[str, Any]
) -> dict[str, Any]:
    """Everything measured, with the machine."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine(),
        **title,
        "settings": asdict(settings),
        **found,
        "levels": [asdict(level) for level in levels],
    }


def rows(levels: Sequence[Level]) -> str:
    """The levels as CSV, a heading first."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    names = [f"{name}_ms" for name in _NAMES.values()]
    writer.writerow(
        ["loop", "load", "answers_per_s", "mean_ms", *names, "max_ms", "wrong", "refused", "lost",
         "stable", "cpu_us"]
    )  # fmt: skip
    for level in levels:
        window = level.window
        numbers = [f"{window.percentile(share):.6g}" for share in PERCENTILES]
        writer.writerow(
            [level.loop, f"{level.load:g}", f"{window.rate:.6g}", f"{window.mean_ms:.6g}",
             *numbers, f"{window.max_ms:.6g}", window.wrong, window.refused, window.lost,
             int(level.stable), "" if level.cpu_us is None else f"{level.cpu_us:.4g}"]
        )  # fmt: skip
    return text.getvalue()


def plot(title: str, levels: Sequence[Level], path: Path) -> None:
    """Latency over throughput, one line per percentile, as PNG or SVG by the file's name."""
    axes, save = new_axes(path)
    shown = sorted(levels, key=lambda level: level.window.rate)
    rates = [level.window.rate for level in shown]
    for share, name in _NAMES.items():
        axes.plot(rates, [level.window.percentile(share) for level in shown], "o-", label=name)
    for level in shown:
        at = (level.window.rate, level.window.percentile(50.0))
        axes.annotate(load_text(level), at, textcoords="offset points", xytext=(0, -12), fontsize=7)
    axes.set(title=title, xlabel="answers per second", ylabel="milliseconds", yscale="log")
    axes.grid(visible=True, which="both", alpha=0.3)
    axes.legend()
    save()
