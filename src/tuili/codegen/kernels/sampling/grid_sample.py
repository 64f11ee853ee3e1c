"""GridSample: a picture or volume read at places that a grid names, between its elements.

A grid item is one place. What it reads, and with which weights, is the same for all channels, so
that is found once: a short list of offsets, from which elements beyond the edge are left out.
"""

from __future__ import annotations

from tuili.codegen.element_types import loaded, register_type, stored
from tuili.codegen.kernel import Context, KernelBuilder, size_of
from tuili.codegen.strides import contiguous
from tuili.ir import Node
from tuili.ops.table import attr
from tuili.tensors import DType, numel

_TAPS = {"nearest": 1, "linear": 2, "cubic": 4}

# What a tap is at `place`: the first index, then the weights of it and the following ones.
_WEIGHTS = {
    "nearest": "rint(place)|1",
    "linear": "floor(place)|1 - t|t",
    "cubic": "floor(place) - 1|tl_far(t + 1)|tl_near(t)|tl_near(1 - t)|tl_far(2 - t)",
}

_SUPPORT = """
static inline double tl_near(double d) { return ((-0.75 + 2) * d - (-0.75 + 3)) * d * d + 1; }
static inline double tl_far(double d) { return ((-0.75 * d + 3.75) * d - 6) * d + 3; }
static inline double tl_bounce(double x, double low, double high)
{
    const double span = high - low;
    if (span <= 0)
        return 0;
    double folded = fmod(x - low, 2 * span);
    folded += folded < 0 ? 2 * span : 0;
    return low + (folded > span ? 2 * span - folded : folded);
}
"""


def supports(node: Node, ctx: Context) -> bool:
    """Floats in row-major order, at places that are floats."""
    x, grid = node.required(0), node.required(1)
    floats = (DType.F32, DType.F64, DType.F16, DType.BF16)
    plain = not x.layout and not node.output.layout
    return plain and x.dtype in floats and grid.dtype in floats and len(x.shape) > 2


def emit(node: Node, ctx: Context) -> None:
    """The list of taps of a place, then a sum for every channel."""
    x, grid, y = node.required(0), node.required(1), node.output
    if 0 in y.shape:
        return
    mode = {"bilinear": "linear", "bicubic": "cubic"}.get(mode := str(attr(node, "mode")), mode)
    rank, taps = len(x.shape) - 2, _TAPS[mode]
    real = "double" if x.dtype is DType.F64 else register_type(x.dtype)
    k = KernelBuilder(ctx, node, f"grid_sample_{mode}_{x.dtype.value}")
    k.support(_SUPPORT)
    k.read("x", x)
    k.read("grid", grid)
    k.write("y", y)
    steps = contiguous(x.shape[2:])
    for axis in range(rank):
        k.dims(f"SIZE{axis} STEP{axis}", (x.shape[2 + axis], steps[axis]))
    k.dims("CHANNELS PICTURE PLACES", (x.shape[1], numel(x.shape[2:]), numel(y.shape[2:])))
    lines = [
        f"int64_t index[{rank}][{taps}];",
        f"double weight[{rank}][{taps}];",
        *(line for axis in range(rank) for line in _axis(node, axis, mode, grid.dtype)),
        "int count = 0;",
        f"int64_t offset[{taps**rank}];",
        f"{real} part[{taps**rank}];",
        *_products(rank, taps, real),
        "const int64_t batch = item / PLACES;",
        f"const {x.dtype.c} *const from = x + batch * CHANNELS * PICTURE;",
        f"{y.dtype.c} *const to = y + batch * CHANNELS * PLACES + item % PLACES;",
        "for (int64_t c = 0; c < CHANNELS; c++) {",
        f"    {real} total = 0;",
        "    for (int i = 0; i < count; i++)",
        f"        total += part[i] * {loaded(x.dtype, 'from[c * PICTURE + offset[i]]')};",
        f"    to[c * PLACES] = {stored(y.dtype, 'total')};",
        "}",
    ]
    body = "\n".join(f"    {line}" for line in lines)
    k.body(f"for (int64_t item = begin; item < end; item++) {{\n{body}\n}}")
    flops = numel(y.shape) * 2 * taps**rank
    k.emit(grid=y.shape[0] * numel(y.shape[2:]), flops=flops, bytes=size_of(y.tensor) * 2)


def _axis(node: Node, axis: int, mode: str, kind: DType) -> list[str]:
    """The taps along one axis; an index below 0 is beyond the edge. The grid names x first."""
    rank, size = len(node.required(0).shape) - 2, f"SIZE{axis}"
    corners, padding = bool(attr(node, "align_corners")), str(attr(node, "padding_mode"))
    edges = f"0, {size} - 1" if corners else f"-0.5, {size} - 0.5"
    g = loaded(kind, f"grid[item * {rank} + {rank - 1 - axis}]")
    whole = "(named + 1)"
    place = f"{whole} / 2 * ({size} - 1)" if corners else f"({whole} * {size} - 1) / 2"
    first, *weights = _WEIGHTS[mode].split("|")
    lines = [
        "{",
        f"    double named = {g};",
        "    named = isnan(named) ? -1 : named;  // as PyTorch documents",
        f"    double place = {place};",
    ]
    if padding == "border" and mode != "cubic":
        lines.append(f"    place = fmin(fmax(place, 0), {size} - 1);")
    elif padding == "reflection":
        lines.append(f"    place = tl_bounce(place, {edges});")
    lines += [
        "    place = fmin(fmax(place, -1e9), 1e9);",
        "    const double t = place - floor(place);",
        "    (void)t;",
        *(f"    weight[{axis}][{tap}] = {weight};" for tap, weight in enumerate(weights)),
        f"    for (int tap = 0; tap < {len(weights)}; tap++) {{",
        f"        int64_t at = (int64_t)({first}) + tap;",
    ]
    if padding == "zeros":
        lines.append(f"        at = at < {size} ? at : -1;")
    else:
        if padding == "reflection":
            lines.append(f"        at = (int64_t)rint(tl_bounce((double)at, {edges}));")
        lines.append(f"        at = at < 0 ? 0 : at < {size} ? at : {size} - 1;")
    return [*lines, f"        index[{axis}][tap] = at;", "    }", "}"]


def _products(rank: int, taps: int, real: str) -> list[str]:
    """Every combination of a tap for each axis that weighs something inside the picture."""
    names = [f"t{axis}" for axis in range(rank)]
    lines = [
        f"{'    ' * axis}for (int {name} = 0; {name} < {taps}; {name}++)"
        for axis, name in enumerate(names)
    ]
    weight = " * ".join(f"weight[{axis}][{name}]" for axis, name in enumerate(names))
    inside = " && ".join(f"index[{axis}][{name}] >= 0" for axis, name in enumerate(names))
    offset = " + ".join(f"index[{axis}][{name}] * STEP{axis}" for axis, name in enumerate(names))
    deep = "    " * (rank - 1)
    lines[-1] += " {"
    return [
        *lines,
        f"{deep}    const {real} w = ({real})({weight});",
        f"{deep}    if (w != 0 && {inside}) {{",
        f"{deep}        offset[count] = {offset};",
        f"{deep}        part[count++] = w;",
        f"{deep}    }}",
        f"{deep}}}",
    ]
