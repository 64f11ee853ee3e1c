"""RoiAlign: the mean or the maximum of places inside each bin of a region (He et al., 1703.06870).

A grid item is some channels of one region: where a sample reads, and with which weights, is found
once for them.
"""

from __future__ import annotations

from tuili.codegen.element_types import loaded, register_type, stored
from tuili.codegen.kernel import Context, KernelBuilder, size_of
from tuili.ir import Node
from tuili.ops.table import attr
from tuili.tensors import DType, ceil_div, numel

CHANNELS = 32  # of a grid item
_FLOATS = (DType.F32, DType.F64, DType.F16, DType.BF16)

_SUPPORT = """
typedef struct { int64_t low, high; double first, second; } tl_edge;

/* The elements beside a place, and their weights: 0 more than one element beyond the edge. */
static inline tl_edge tl_edge_at(double place, int64_t size)
{
    const int valid = place >= -1 && place <= size;
    const double inside = valid ? fmin(fmax(place, 0), size - 1) : 0;
    const int64_t low = (int64_t)inside;
    const double t = inside - low;
    return (tl_edge){low, tl_min(low + 1, size - 1), valid ? 1 - t : 0, valid ? t : 0};
}

/* Samples of a bin along one axis. */
static inline int64_t tl_samples(int64_t ratio, double size, int64_t bins)
{
    return ratio ? ratio : (int64_t)fmin(fmax(ceil(size / bins), 0), 1e6);
}
"""


def supports(node: Node, ctx: Context) -> bool:
    """Floats in row-major order."""
    x, y = node.required(0), node.output
    return x.dtype in _FLOATS and not x.layout and not y.layout


def emit(node: Node, ctx: Context) -> None:
    """Regions times blocks of channels."""
    x, rois, batches, y = node.required(0), node.required(1), node.required(2), node.output
    if 0 in y.shape:
        return
    half = attr(node, "coordinate_transformation_mode") == "half_pixel"
    real = "double" if x.dtype is DType.F64 else register_type(x.dtype)
    k = KernelBuilder(ctx, node, f"roi_align_{attr(node, 'mode')}_{x.dtype.value}")
    k.support(_SUPPORT)
    k.read("x", x)
    k.read("rois", rois)
    k.read("batches", batches)
    k.write("y", y)
    blocks = ceil_div(x.shape[1], CHANNELS)
    k.dims("N C H W BLOCKS", (*x.shape, blocks))
    k.dims("PH PW RATIO", (y.shape[2], y.shape[3], int(attr(node, "sampling_ratio"))))
    fault = k.fault("the index of a region's picture is out of range")
    corners = [loaded(rois.dtype, f"rois[r * 4 + {at}]") for at in range(4)]
    least = "" if half else "width = fmax(width, 1), height = fmax(height, 1);"
    picture = [loaded(x.dtype, f"p[{row} * W + {column}]") for row, column in _CORNERS]
    maximum = attr(node, "mode") == "max"
    take = _MAX if maximum else _MEAN
    k.body(
        _BODY.format(
            channels=CHANNELS,
            fault=fault,
            half=0.5 if half else 0.0,
            scale=repr(float(attr(node, "spatial_scale"))),
            x1=corners[0],
            y1=corners[1],
            x2=corners[2],
            y2=corners[3],
            least=least,
            kind=x.dtype.c,
            real=real,
            idle="-INFINITY" if maximum else "0",
            take=take.format(*picture, real=real),
            stored=stored(y.dtype, "any ? sums[c] : 0" if maximum else "any ? sums[c] / any : 0"),
        )
    )
    k.emit(grid=y.shape[0] * blocks, flops=numel(y.shape) * 32, bytes=size_of(y.tensor) * 2)


_CORNERS = (
    ("down.low", "across.low"),
    ("down.low", "across.high"),
    ("down.high", "across.low"),
    ("down.high", "across.high"),
)

_MEAN = "sums[c] += ll * {0} + lh * {1} + hl * {2} + hh * {3};"
_MAX = """const {real} a = ll * {0}, b = lh * {1}, d = hl * {2}, e = hh * {3};
                const {real} ab = a > b ? a : b, de = d > e ? d : e, most = ab > de ? ab : de;
                sums[c] = most > sums[c] ? most : sums[c];"""

_BODY = """
for (int64_t item = begin; item < end; item++) {{
    const int64_t r = item / BLOCKS, first = item % BLOCKS * {channels};
    const int64_t count = tl_min({channels}, C - first), batch = (int64_t)batches[r];
    if (batch < 0 || batch >= N) {{
        {fault}
        continue;
    }}
    const double left = {x1} * {scale} - {half}, top = {y1} * {scale} - {half};
    double width = {x2} * {scale} - {half} - left, height = {y2} * {scale} - {half} - top;
    {least}
    const int64_t rows = tl_samples(RATIO, height, PH), columns = tl_samples(RATIO, width, PW);
    const double any = H > 0 && W > 0 ? (double)rows * columns : 0;
    for (int64_t bin = 0; bin < PH * PW; bin++) {{
        const double bin_top = top + bin / PW * (height / PH);
        const double bin_left = left + bin % PW * (width / PW);
        {real} sums[{channels}];
        for (int64_t c = 0; c < count; c++)
            sums[c] = {idle};
        for (int64_t i = 0; any && i < rows * columns; i++) {{
            const double place_y = bin_top + (i / columns + 0.5) * (height / PH) / rows;
            const double place_x = bin_left + (i % columns + 0.5) * (width / PW) / columns;
            const tl_edge down = tl_edge_at(place_y, H), across = tl_edge_at(place_x, W);
            const {real} ll = down.first * across.first, lh = down.first * across.second;
            const {real} hl = down.second * across.first, hh = down.second * across.second;
            for (int64_t c = 0; c < count; c++) {{
                const {kind} *const p = x + ((batch * C + first + c) * H) * W;
                {take}
            }}
        }}
        for (int64_t c = 0; c < count; c++)
            y[((r * C + first + c) * PH * PW) + bin] = {stored};
    }}
}}
"""
