"""Pictures of measurements, PNG or SVG by the file's name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from tuili.errors import InvalidArgument, Unsupported

PICTURES: Final = (".png", ".svg")


def new_axes(path: Path) -> tuple[Any, Callable[[], None]]:
    """Matplotlib's axes to draw on, and the function that writes the file."""
    if path.suffix not in PICTURES:
        raise InvalidArgument(f"--plot {str(path)!r}: the name must end in {' or '.join(PICTURES)}")
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise Unsupported(f"{error}; plots need `pip install 'tuili[plot]'`") from error

    figure = Figure(figsize=(8, 5), layout="constrained")
    FigureCanvasAgg(figure)
    return figure.add_subplot(), lambda: figure.savefig(path)
