"""The story as a picture: every request by the version that answered it."""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt

from examples.canary.load import Seen

_COLOURS = {"1": "#7f7f7f", "2": "#1f77b4", "3": "#ff7f0e", "4": "#d62728", "5": "#9467bd"}


def draw(path: Path, seen: Seen, chapters: list[tuple[float, str]]) -> None:
    """Write the picture as a PNG; `chapters` are moments and what happened then."""
    figure, axes = plt.subplots(figsize=(12, 5))
    for version, colour in _COLOURS.items():
        rows = [row for row in seen.rows if row[2] == version]
        label = f"version {version}: {len(rows)} answers"
        axes.plot(
            [r[0] for r in rows], [1e3 * r[1] for r in rows], ".", ms=3, c=colour, label=label
        )
    times = sorted(row[1] for row in seen.rows)
    axes.set_ylim(0, 1.6e3 * times[int(0.99 * len(times))])
    top = axes.get_ylim()[1]
    for at, (moment, text) in enumerate(chapters):
        axes.axvline(moment, color="black", lw=0.6)
        axes.text(moment, top * (0.98 - 0.05 * (at % 4)), " " + text, fontsize=7, va="top")
    axes.set_xlabel("seconds")
    axes.set_ylabel("ms, as the client saw it")
    axes.legend(loc="lower right", fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
