"""Pictures of measurements, PNG or SVG by the file's name."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path
from typing import Any, Final

from tuili.codegen.whole import put
from tuili.errors import InvalidArgument, Unsupported

PICTURES: Final = (".png", ".svg")


def new_axes(path: Path) -> tuple[Any, Callable[[], None]]:
    """Matplotlib's axes to draw on, and the function that writes the file."""
    check_picture(path)
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5), layout="constrained")
    FigureCanvasAgg(figure)

    def save() -> None:
        drawn = BytesIO()
        figure.savefig(drawn, format=path.suffix[1:])
        put(path, drawn.getvalue())

    return figure.add_subplot(), save


def check_picture(path: Path) -> None:
    """Raise for a picture that cannot be drawn: no such form, or nothing to draw with."""
    if path.suffix not in PICTURES:
        raise InvalidArgument(f"--plot {str(path)!r}: the name must end in {' or '.join(PICTURES)}")
    if find_spec("matplotlib") is None:
        raise Unsupported("plots need the package 'matplotlib': pip install 'tuili[plot]'")
