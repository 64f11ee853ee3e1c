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
SAMPLES = 256  # places that are found at a time
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
    picture = [loaded(x.dtype, f"p[at[s].place[{at}]]") for at in range(4)]
    maximum = attr(node, "mode") == "max"
    take = _MAX if maximum else _MEAN
    k.body(
        _BODY.format(
            channels=CHANNELS,
            samples=SAMPLES,
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
            whole=stored(y.dtype, "sum" if maximum else "sum / any"),
            nothing=stored(y.dtype, "0"),
        )
    )
    k.emit(grid=y.shape[0] * blocks, flops=numel(y.shape) * 32, bytes=size_of(y.tensor) * 2)


_MEAN = "sum += w[0] * {0} + w[1] * {1} + w[2] * {2} + w[3] * {3};"
_MAX = """const {real} a = w[0] * {0}, b = w[1] * {1}, d = w[2] * {2}, e = w[3] * {3};
                    const {real} ab = a > b ? a : b, de = d > e ? d : e, most = ab > de ? ab : de;
                    sum = most > sum ? most : sum;"""

# A sum that goes on in the next piece of samples waits in `open`.
_BODY = """
struct {{ int64_t place[4]; {real} weight[4]; }} at[{samples}];
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
    const int64_t each = H > 0 && W > 0 ? rows * columns : 0;
    const {real} any = ({real})each;
    for (int64_t i = 0; !each && i < count * PH * PW; i++)
        y[(r * C + first) * PH * PW + i] = {nothing};
    {real} open[{channels}];
    for (int64_t from = 0; from < PH * PW * each; from += {samples}) {{
        const int64_t until = tl_min(from + {samples}, PH * PW * each);
        for (int64_t s = from; s < until; s++) {{
            const int64_t bin = s / each, i = s % each;
            const double down = (bin / PW + (i / columns + 0.5) / rows) * (height / PH);
            const double across = (bin % PW + (i % columns + 0.5) / columns) * (width / PW);
            const tl_edge v = tl_edge_at(top + down, H), h = tl_edge_at(left + across, W);
            const int64_t place[] = {{v.low * W + h.low, v.low * W + h.high,
                                     v.high * W + h.low, v.high * W + h.high}};
            const double weight[] = {{v.first * h.first, v.first * h.second,
                                     v.second * h.first, v.second * h.second}};
            for (int k = 0; k < 4; k++)
                at[s - from].place[k] = place[k], at[s - from].weight[k] = ({real})weight[k];
        }}
        for (int64_t c = 0; c < count; c++) {{
            const {kind} *const p = x + (batch * C + first + c) * H * W;
            for (int64_t s = 0; s < until - from;) {{
                const int64_t bin = (from + s) / each, last = (bin + 1) * each - from;
                {real} sum = (from + s) % each ? open[c] : {idle};
                for (; s < tl_min(last, until - from); s++) {{
                    const {real} *const w = at[s].weight;
                    {take}
                }}
                open[c] = sum;
                if (s == last)
                    y[(r * C + first + c) * PH * PW + bin] = {whole};
            }}
        }}
    }}
}}
"""
