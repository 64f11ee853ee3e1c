"""Resize: nearest in one pass over rows, interpolation axis by axis.

Both run on memory as it lies, so blocked layouts work alike: a pixel is then one vector.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tuili.codegen.element_types import is_native, loaded, register_type, stored
from tuili.codegen.kernel import Context, KernelBuilder, physical_shape, size_of
from tuili.codegen.kernels.movement.copy import share_or_copy
from tuili.codegen.kernels.movement.strided import is_movable
from tuili.codegen.kernels.movement.strided_copy import UNSIGNED
from tuili.codegen.kernels.sampling.resize_lines import line_body
from tuili.codegen.kernels.sampling.resize_tables import Axis, Table, make_table
from tuili.errors import Unsupported
from tuili.ir import Node, Value
from tuili.lower.program import View
from tuili.ops.resize import resize_axis
from tuili.ops.table import attr, attributes
from tuili.tensors import Dim, DType, numel


def supports(node: Node, ctx: Context) -> bool:
    """Interpolation of numbers, nearest of anything; channels stay in a blocked layout."""
    x, y = node.required(0), node.output
    if x.layout != y.layout or (x.layout and x.shape[1] != y.shape[1]):
        return False
    return is_movable(x) if attr(node, "mode") == "nearest" else is_native(x.dtype)


def _scales(node: Node, ctx: Context) -> list[float | None] | None:
    """The scale of each resized axis: a number, None for result / size; None when unknown."""
    sizes = node.input(3)
    if sizes is not None and sizes.shape != (0,):
        return None
    scales = node.required(2)
    if scales.constant is not None:
        return [float(scale) for scale in scales.constant.reshape(-1)]
    dims = ctx.contents.dims(scales)
    if dims is None:
        raise Unsupported(f"{node.label}: its scales are not known when the model is compiled")
    return [float(dim) if isinstance(dim, int) else None for dim in dims]


def resized_axes(node: Node, ctx: Context) -> list[Axis]:
    """The axes that change, with positions in memory."""
    x, y = node.required(0), node.output
    rank = len(x.shape)
    axes = attr(node, "axes")
    chosen = list(range(rank)) if axes is None else [axis % rank for axis in axes]
    scales = _scales(node, ctx)
    if scales is None and attr(node, "keep_aspect_ratio_policy") != "stretch":
        scales = _kept_aspect(node, ctx, chosen)
    cropped = attr(node, "coordinate_transformation_mode") == "tf_crop_and_resize"
    crops = _crops(node, len(chosen)) if cropped else [(0.0, 1.0)] * len(chosen)
    found: list[Axis] = []
    for index, axis in enumerate(chosen):
        size, result = x.shape[axis], y.shape[axis]
        scale = None if scales is None else scales[index]
        same = size == result and (scale is None or scale == 1)
        if not same or (cropped and crops[index] != (0.0, 1.0)):
            found.append(Axis(axis, size, result, scale, crops[index]))
    return found


def _kept_aspect(node: Node, ctx: Context, axes: Sequence[int]) -> list[float | None]:
    sizes = ctx.contents.dims(node.input(3)) or ()
    shape = [node.required(0).shape[axis] for axis in axes]
    ratios = [
        size / old for size, old in zip(sizes, shape, strict=True)
        if isinstance(size, int) and isinstance(old, int)
    ]  # fmt: skip
    if len(ratios) < len(axes):
        raise Unsupported(f"{node.label}: keeping the aspect ratio needs known sizes")
    policy = attr(node, "keep_aspect_ratio_policy")
    return [min(ratios) if policy == "not_larger" else max(ratios)] * len(axes)


def _crops(node: Node, count: int) -> list[tuple[float, float]]:
    roi = node.input(1)
    if roi is None or roi.constant is None:
        raise Unsupported(f"{node.label}: its region is not known when the model is compiled")
    corners = np.asarray(roi.constant, np.float64)
    return [(float(corners[i]), float(corners[i + count])) for i in range(count)]


def emit(node: Node, ctx: Context) -> None:
    """Nearest over rows where only the last axes change, else axis by axis."""
    y = node.output
    if 0 in y.shape:
        return
    axes = resized_axes(node, ctx)
    spatial = [axis.position for axis in axes]
    if attr(node, "mode") == "nearest" and _are_last_two(spatial, len(y.shape)):
        _emit_nearest(node, ctx, axes)
    else:
        _emit_passes(node, ctx, [make_table(node, ctx, axis) for axis in axes])


def _are_last_two(axes: Sequence[int], rank: int) -> bool:
    return all(axis >= rank - 2 for axis in axes) and rank >= 2 and bool(axes)


# -- nearest ------------------------------------------------------------------------------------


def _emit_nearest(node: Node, ctx: Context, axes: Sequence[Axis]) -> None:
    x, y = node.required(0), node.output
    rank = len(y.shape)
    block = physical_shape(y.tensor)[rank:]
    size = y.dtype.itemsize * (int(numel(block)) if block else 1)  # pyright: ignore[reportArgumentType]
    repeats = {axis.position: _repeats(node, axis) for axis in axes}
    tables = {
        axis.position: make_table(node, ctx, axis) for axis in axes if not repeats[axis.position]
    }
    k = KernelBuilder(ctx, node, f"resize_nearest_{8 * size}")
    k.read("x", x, "uint8_t")
    k.write("y", y, "uint8_t")
    for axis, name in ((rank - 2, "rows"), (rank - 1, "columns")):
        if axis in tables:
            k.read(name, tables[axis].indices)
    k.dims("H W OH OW", (*x.shape[-2:], *y.shape[-2:]))
    fill = float(attr(node, "extrapolation_value"))
    cropped = attr(node, "coordinate_transformation_mode") == "tf_crop_and_resize"
    if cropped and fill != 0:
        raise Unsupported(f"{node.label}: nearest crops with a value other than 0 have no kernel")
    row = f"item % OH / {repeats.get(rank - 2) or 1}"
    line = _nearest_line(size, repeats.get(rank - 1, 1), cropped=cropped)
    k.body(
        "\n".join(
            [
                "for (int64_t item = begin; item < end; item++) {",
                f"    const int64_t row = {'rows[item % OH]' if rank - 2 in tables else row};",
                f"    const uint8_t *const from = x + (item / OH * H + row) * W * {size};",
                f"    uint8_t *const to = y + item * OW * {size};",
                *(f"    {text}" for text in line),
                "}",
            ]
        )
    )
    outer = numel(physical_shape(y.tensor)[: rank - 2])
    k.emit(grid=outer * y.shape[-2], bytes=size_of(x.tensor) + size_of(y.tensor))


def _nearest_line(size: int, repeats: int, *, cropped: bool) -> list[str]:
    """One row; `repeats` is 0 when a table of columns leads."""
    if repeats == 1 and not cropped:
        return [f"memcpy(to, from, (size_t)OW * {size});"]
    if repeats:
        # Every pixel comes as often: no table is needed.
        word = UNSIGNED.get(size)
        copy = (
            f"(({word} *)to)[c * {repeats} + r] = ((const {word} *)from)[c];"
            if word
            else f"memcpy(to + (c * {repeats} + r) * {size}, from + c * {size}, {size});"
        )
        return [
            f"for (int64_t c = 0; c < OW / {repeats}; c++)",
            f"    for (int64_t r = 0; r < {repeats}; r++)",
            f"        {copy}",
        ]
    column = "columns[c]"
    copy = f"memcpy(to + c * {size}, from + {column} * (int64_t){size}, {size});"
    if cropped:
        copy = f"if (row < 0 || {column} < 0) memset(to + c * {size}, 0, {size}); else {copy}"
    return ["for (int64_t c = 0; c < OW; c++)", f"    {copy}"]


def _repeats(node: Node, axis: Axis) -> int:
    """How often each pixel is repeated, 0 when that differs along the axis or with its size."""
    scale = axis.scale
    if scale is None and isinstance(axis.size, int) and isinstance(axis.result, int):
        scale = axis.result / axis.size
    attrs = attributes(node)
    if scale is None or scale != int(scale) or scale < 1 or axis.result != axis.size * int(scale):
        return 0
    if attrs["coordinate_transformation_mode"] not in _SIZE_FREE:
        return 0
    times = int(scale)
    for size in (2, 3, 64):
        indices, _ = resize_axis(size, size * times, scale, axis.crop, attrs)
        if (indices[:, 0] != np.arange(size * times) // times).any():
            return 0
    return times


# In these modes a place depends on the scale only.
_SIZE_FREE = ("asymmetric", "half_pixel")


# -- axis by axis -------------------------------------------------------------------------------


def _emit_passes(node: Node, ctx: Context, tables: Sequence[Table]) -> None:
    x, y = node.required(0), node.output
    shape = list(physical_shape(x.tensor))
    real = DType.F64 if y.dtype is DType.F64 else DType.F32
    exact = attr(node, "mode") == "nearest"
    between = y.dtype if exact else real
    source: Value | View = x
    source_type = x.dtype
    if not tables:
        # Sizes that were open are equal after all.
        share_or_copy(node.label, x, y, ctx)
    for index, table in enumerate(tables):
        position = table.axis.position
        new_shape = [*shape[:position], table.axis.result, *shape[position + 1 :]]
        last = index == len(tables) - 1
        k = KernelBuilder(ctx, node, f"resize_axis_{y.dtype.value}")
        target = y if last else k.temp(f"pass{index}", between, numel(new_shape))
        target_type = y.dtype if last else between
        _pass(k, table, (source, target), (source_type, target_type), shape, real)
        source, source_type, shape = target, target_type, new_shape


def _pass(
    k: KernelBuilder,
    table: Table,
    ends: tuple[Value | View, Value | View],
    types: tuple[DType, DType],
    shape: Sequence[Dim],
    real: DType,
) -> None:
    position, taps = table.axis.position, table.taps
    outer, inner = numel(shape[:position]), numel(shape[position + 1 :])
    k.read("x", ends[0])
    k.read("indices", table.indices)
    k.read("weights", table.weights)
    k.write("y", ends[1])
    k.dims("SIZE RESULT INNER", (table.axis.size, table.axis.result, inner))
    fill = float(attr(k.node, "extrapolation_value"))
    if types[0] is DType.F32 is types[1] and inner == 1 and taps <= 4:
        k.body(line_body(k, table))
        count = outer * table.axis.result
        k.emit(grid=outer, flops=count * 2 * taps, bytes=count * 8)
        return
    if types[0] is DType.F32 is types[1]:
        lines = _vector_taps(taps)
    else:
        lines = _plain_taps(taps, types, real, exact=attr(k.node, "mode") == "nearest")
    k.body(
        "\n".join(
            [
                "for (int64_t item = begin; item < end; item++) {",
                "    const int64_t place = item % RESULT, outer = item / RESULT;",
                f"    const int32_t *const tap = indices + place * {taps};",
                f"    const float *const weight = weights + place * {taps};",
                f"    const {types[0].c} *const from = x + outer * SIZE * INNER;",
                f"    {types[1].c} *const to = y + item * INNER;",
                "    (void)weight;",
                "    if (tap[0] < 0) {",
                "        for (int64_t i = 0; i < INNER; i++)",
                f"            to[i] = ({types[1].c}){fill!r};",
                "        continue;",
                "    }",
                *(f"    {line}" for line in lines),
                "}",
            ]
        )
    )
    count = outer * table.axis.result * inner
    k.emit(grid=outer * table.axis.result, flops=count * 2 * taps, bytes=count * 8)


def _vector_taps(taps: int) -> list[str]:
    few = taps <= 4

    def total(load: str, weight: str) -> list[str]:
        if few:
            terms = [f"{load.format(t=t)} * {weight.format(t=t)}" for t in range(taps)]
            return [f"total = {' + '.join(terms)};"]
        term = f"{load.format(t='t')} * {weight.format(t='t')}"
        return ["total = 0 * total;", f"for (int t = 0; t < {taps}; t++)", f"    total += {term};"]

    whole = total("v_load(from + tap[{t}] * INNER + i)", "weight[{t}]")
    one = total("from[tap[{t}] * INNER + i]", "weight[{t}]")
    return [
        "int64_t i = 0;",
        "vf total = v_set1(0.0f);",
        "for (; i + V <= INNER; i += V) {",
        *(f"    {line}" for line in whole),
        "    v_store(to + i, total);",
        "}",
        "for (; i < INNER; i++) {",
        "    float total = 0.0f;",
        *(f"    {line}" for line in one),
        "    to[i] = total;",
        "}",
    ]


def _plain_taps(taps: int, types: tuple[DType, DType], real: DType, *, exact: bool) -> list[str]:
    if exact:
        return [
            "for (int64_t i = 0; i < INNER; i++)",
            "    to[i] = from[tap[0] * INNER + i];",
        ]
    wide = register_type(real)
    element = loaded(types[0], "from[tap[t] * INNER + i]")
    result = stored(types[1], "total") if types[1].is_float else _clipped(types[1])
    return [
        "for (int64_t i = 0; i < INNER; i++) {",
        f"    {wide} total = 0;",
        f"    for (int t = 0; t < {taps}; t++)",
        f"        total += ({wide}){element} * weight[t];",
        f"    to[i] = {result};",
        "}",
    ]


def _clipped(dtype: DType) -> str:
    low, high = f"INT{dtype.bits}_MIN", f"INT{dtype.bits}_MAX"
    if dtype.is_unsigned_int:
        low, high = "0", f"UINT{dtype.bits}_MAX"
    return f"({dtype.c})fmin(fmax(rint((double)total), {low}), {high})"
