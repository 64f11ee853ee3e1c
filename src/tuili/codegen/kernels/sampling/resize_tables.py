"""Resize tables: for every place along an axis the source indices and weights of its taps.

Known sizes: the tables are packed with the weights. Sizes of the run: a small kernel fills them
first. An index below 0 stands for a place outside of the crop, which gets a fixed value.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tuili.codegen.kernel import Context, KernelBuilder
from tuili.errors import Unsupported
from tuili.ir import Node
from tuili.lower.program import View
from tuili.ops.resize import resize_axis
from tuili.ops.table import attributes
from tuili.tensors import Dim, DType


@dataclass(frozen=True, slots=True)
class Axis:
    """One axis that changes: `scale` is None when it is result / size."""

    position: int
    size: Dim
    result: Dim
    scale: float | None
    crop: tuple[float, float]


@dataclass(frozen=True, slots=True)
class Table:
    """Where the tables of an axis are, and how many taps a place has."""

    axis: Axis
    taps: int
    indices: View
    weights: View


def make_table(node: Node, ctx: Context, axis: Axis) -> Table:
    """Tables of one axis."""
    if isinstance(axis.size, int) and isinstance(axis.result, int):
        return _known(node, ctx, axis, axis.size, axis.result)
    return _at_run_time(node, ctx, axis)


def _known(node: Node, ctx: Context, axis: Axis, size: int, result: int) -> Table:
    scale = axis.scale if axis.scale is not None else result / size if size else 1.0
    indices, weights = resize_axis(size, result, scale, axis.crop, attributes(node))
    name = f"{node.output.name}.axis{axis.position}"
    # Nearest needs no weights; the same table of ones serves every such axis.
    return Table(
        axis,
        indices.shape[1],
        View(ctx.add_weight(f"{name}.indices", indices.astype(np.int32))),
        View(ctx.add_weight(f"{name}.weights", weights.astype(np.float32))),
    )


# -- at run time ----------------------------------------------------------------------------------

_PLACES = {
    "asymmetric": "i / scale",
    "align_corners": "RESULT > 1 ? i * (SIZE - 1) / (scale * SIZE - 1) : 0",
    "half_pixel": "(i + 0.5) / scale - 0.5",
    "pytorch_half_pixel": "RESULT > 1 ? (i + 0.5) / scale - 0.5 : 0",
    "tf_half_pixel_for_nn": "(i + 0.5) / scale",
    "half_pixel_symmetric": (
        "SIZE / 2.0 * (1 - RESULT / (scale * SIZE)) + (i + 0.5) / scale - 0.5"
    ),
    "tf_crop_and_resize": (
        "RESULT > 1 ? START * (SIZE - 1) + i * ((END - START) * (SIZE - 1)) / (RESULT - 1)"
        " : i + 0.5 * (START + END) * (SIZE - 1)"
    ),
}

_NEAREST = {
    "round_prefer_floor": "ceil(place - 0.5)",
    "round_prefer_ceil": "floor(place + 0.5)",
    "floor": "floor(place)",
    "ceil": "ceil(place)",
}

_LINEAR = "fmax(1 - fabs(distance), 0)"
_CUBIC = (
    "fabs(distance) <= 1"
    " ? ((CUBIC + 2) * fabs(distance) - (CUBIC + 3)) * distance * distance + 1"
    " : fabs(distance) < 2"
    " ? ((CUBIC * fabs(distance) - 5 * CUBIC) * fabs(distance) + 8 * CUBIC) * fabs(distance)"
    " - 4 * CUBIC : 0"
)


def _at_run_time(node: Node, ctx: Context, axis: Axis) -> Table:
    attrs = attributes(node)
    if attrs["antialias"]:
        raise Unsupported(f"{node.label}: antialias needs sizes known when the model is compiled")
    taps = {"nearest": 1, "linear": 2, "cubic": 4}[attrs["mode"]]
    k = KernelBuilder(ctx, node, f"resize_table_{attrs['mode']}")
    count = axis.result * taps
    indices = k.temp(f"indices{axis.position}", DType.I32, count)
    weights = k.temp(f"weights{axis.position}", DType.F32, count)
    k.write("indices", indices)
    k.write("weights", weights)
    k.dims("SIZE RESULT", (axis.size, axis.result))
    real = "float" if taps == 1 else "double"  # as the meaning of the operator
    mode = attrs["coordinate_transformation_mode"]
    place = _PLACES[mode].replace("0.5", f"({real})0.5").replace("2.0", f"({real})2.0")
    scale = f"({real})RESULT / ({real})SIZE" if axis.scale is None else repr(float(axis.scale))
    outside = "place < 0 || place > SIZE - 1" if mode == "tf_crop_and_resize" else "0"
    lines = [f"const double place = {place};", f"const int outside = {outside};"]
    if taps == 1:
        lines += [
            f"const double nearest = {_NEAREST[attrs['nearest_mode']]};",
            "indices[i] = outside ? -1 : (int32_t)fmin(fmax(nearest, 0), SIZE - 1);",
            "weights[i] = 1;",
        ]
    else:
        kernel = _LINEAR if taps == 2 else _CUBIC.replace("CUBIC", repr(attrs["cubic_coeff_a"]))
        lines += _tap_lines(taps, kernel, exclude=bool(attrs["exclude_outside"]))
    body = "\n".join(f"        {line}" for line in lines)
    k.body(
        f"if (begin < end) {{\n    const {real} scale = {scale};\n"
        f"    const {real} START = {axis.crop[0]!r}, END = {axis.crop[1]!r};\n"
        "    (void)START, (void)END;\n"
        f"    for (int64_t i = 0; i < RESULT; i++) {{\n{body}\n    }}\n}}"
    )
    k.emit(grid=1, flops=count * 10, bytes=count * 8)
    return Table(axis, taps, indices, weights)


def _tap_lines(taps: int, kernel: str, *, exclude: bool) -> list[str]:
    keep = "tap >= 0 && tap < SIZE" if exclude else "1"
    return [
        f"const int64_t first = (int64_t)ceil(place) - {taps // 2};",
        "double total = 0;",
        f"for (int64_t t = 0; t < {taps}; t++) {{",
        "    const int64_t tap = first + t;",
        "    const double distance = (double)tap - place;",
        f"    const double weight = {keep} ? ({kernel}) : 0;",
        "    total += weight;",
        f"    weights[i * {taps} + t] = (float)weight;",
        f"    indices[i * {taps} + t] =",
        "        outside ? -1 : (int32_t)tl_min(tl_max(tap, 0), SIZE - 1);",
        "}",
        *(
            [
                f"for (int64_t t = 0; t < {taps}; t++)",
                f"    weights[i * {taps} + t] /= (float)total;",
            ]
            if exclude
            else []
        ),
    ]
