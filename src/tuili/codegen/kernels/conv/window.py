"""Windows over single channels: depthwise convolution, max and average pools on blocked maps.

Every lane is a channel, so lanes that hold nothing never meet others. A grid item is one block of
channels for one band of rows; tiles of pixels slide along a row, one accumulator for each pixel.
"""

from __future__ import annotations

from collections.abc import Callable, Container
from dataclasses import dataclass

import numpy as np

from tuili.codegen.epilogue import CODES, Epilogue
from tuili.codegen.kernel import Context, KernelBuilder
from tuili.codegen.kernels.conv.register_tile import choose_tile
from tuili.codegen.kernels.conv.rows import (
    Taps,
    bordered_tiles,
    full_tiles,
    known_tiles,
    tap_range,
    tap_rows,
)
from tuili.codegen.kernels.conv.shape import Axis, ConvShape, conv_problem, conv_shape
from tuili.codegen.packing import pad_to_multiple
from tuili.codegen.targets import Target
from tuili.codegen.text import indent
from tuili.ir import Node, Value
from tuili.ops.frames import count_windows
from tuili.ops.table import attr
from tuili.tensors import Array, Dim, DType, ceil_div

ENOUGH_ITEMS = 128
CONV_SLOTS, POOL_SLOTS, FRAMES_SLOTS = 3, 1, 4  # inputs that come before the epilogue's
FRAMES_BIAS = 3


def supports_depthwise(node: Node, ctx: Context) -> bool:
    """Whether every output channel reads the one input channel of its number."""
    weights, bias = node.required(1), node.input(2)
    known = weights.is_constant and (bias is None or bias.is_constant)
    group, x = attr(node, "group"), node.required(0)
    return known and _is_blocked(node, ctx) and group == x.shape[1] == node.output.shape[1]


def supports_pool(node: Node, ctx: Context) -> bool:
    """Whether x and y are blocked maps of rank 3 or 4: of f32, for MaxPool of codes too."""
    codes = CODES if node.op == "MaxPool" else ()
    return _is_blocked(node, ctx, codes) and len(node.outputs) == 1


def _is_blocked(node: Node, ctx: Context, codes: Container[DType] = ()) -> bool:
    x, y = node.required(0), node.output
    blocked = x.layout == y.layout == ctx.target.layout
    return blocked and (x.dtype is DType.F32 or x.dtype in codes) and len(x.shape) in (3, 4)


@dataclass(frozen=True, slots=True)
class Window:
    """What is done with the taps; texts use `{acc}` and `{x}`."""

    name: str
    start: str
    step: str
    finish: Callable[[int, Taps], str] | None = None  # pixel, taps -> factor of the sum
    has_weights: bool = False
    depth: Axis | None = None  # of volumes whose pictures the batch is
    ctype: str = "float"
    codes: str = ""  # what loads and stores are called for: see `byte_vectors`


def emit_depthwise(node: Node, ctx: Context) -> None:
    """A convolution of each channel with its own window."""
    weights = node.required(1).constant
    assert weights is not None  # supports_depthwise
    shape = conv_shape(node, weights.shape[2:])
    k = KernelBuilder(ctx, node, _name("depthwise", shape))
    k.read("x", node.required(0))
    k.write("y", node.output)
    start = _weights(k, weights, node.input(2))
    window = Window("depthwise", start, "{acc} += {x} * wv;", has_weights=True)
    _emit(k, node, shape, window, ctx.target, CONV_SLOTS)


def _weights(k: KernelBuilder, weights: Array, bias: Value | None) -> str:
    """Packs both, the weights as [blocks][taps][V]; returns what sums start from."""
    lanes, channels, count = k.ctx.target.lanes, weights.shape[0], weights[0].size
    blocks = -(-channels // lanes)
    packed = np.zeros((blocks * lanes, count), np.float32)
    packed[:channels] = weights.reshape(channels, count)
    k.weight("w", packed.reshape(blocks, lanes, count).transpose(0, 2, 1))
    if bias is None or bias.constant is None:
        return "(vf){0}"
    k.weight("bias", pad_to_multiple(bias.constant, lanes))
    return "v_load(bias + cb * V)"


def supports_frames(node: Node, ctx: Context) -> bool:
    """Whether pictures are blocked, weights known, and the counts too."""
    weights, bias = node.required(1), node.input(FRAMES_BIAS)
    known = weights.is_constant and (bias is None or bias.is_constant)
    return known and _is_blocked(node, ctx) and ctx.contents.dims(node.required(2)) is not None


def emit_frames(node: Node, ctx: Context) -> None:
    """The same over volumes: the taps over the depth are one more loop."""
    weights, counts = node.required(1).constant, ctx.contents.dims(node.required(2))
    assert weights is not None
    assert counts is not None  # supports_frames
    stride, dilation, pads = (attr(node, name) for name in ("stride", "dilation", "depth_pads"))
    taps = weights.shape[2]
    windows = count_windows(counts[1], taps, stride, dilation, pads)
    depth = Axis(counts[1], windows, taps, stride, dilation, *pads)
    shape = conv_shape(node, weights.shape[3:])
    k = KernelBuilder(ctx, node, _name(f"depthwise{taps}x", shape))
    k.read("x", node.required(0))
    k.write("y", node.output)
    k.dims("DEPTH WINDOWS PD", (depth.size, depth.out, depth.pad))
    start = _weights(k, weights, node.input(FRAMES_BIAS))
    window = Window("depthwise", start, "{acc} += {x} * wv;", has_weights=True, depth=depth)
    _emit(k, node, shape, window, ctx.target, FRAMES_SLOTS)


def emit_max_pool(node: Node, ctx: Context) -> None:
    """The largest of each window."""
    shape = conv_shape(node, attr(node, "kernel_shape"))
    k = KernelBuilder(ctx, node, _name("max_pool", shape))
    k.read("x", node.required(0))
    k.write("y", node.output)
    dtype = node.output.dtype
    start, step = "v_set1(-INFINITY)", "{acc} = v_max({acc}, {x});"
    window = Window("max_pool", start, step, ctype=dtype.c, codes=CODES.get(dtype, ""))
    _emit(k, node, shape, window, ctx.target, POOL_SLOTS)


def emit_average_pool(node: Node, ctx: Context) -> None:
    """The mean of each window: of the input in it, or of its padding too."""
    shape = conv_shape(node, attr(node, "kernel_shape"))
    k = KernelBuilder(ctx, node, _name("average_pool", shape))
    k.read("x", node.required(0))
    k.write("y", node.output)
    padded = bool(attr(node, "count_include_pad"))
    k.dims("ENDH ENDW", (shape.rows.end, shape.columns.end))
    mean = _Mean(shape, padded=padded)
    window = Window("average_pool", "(vf){0}", "{acc} += {x};", mean.factor)
    _emit(k, node, shape, window, ctx.target, POOL_SLOTS)


@dataclass(frozen=True, slots=True)
class _Mean:
    """How many numbers a window holds."""

    shape: ConvShape
    padded: bool

    def factor(self, pixel: int, taps: Taps) -> str:
        """The C factor that makes a mean of the sum of a pixel."""
        return f"(1.0f / (float)({self._rows()} * {self._columns(pixel, taps)}))"

    def _rows(self) -> str:
        axis = self.shape.rows
        return _inside_padding("h", "PT", "H", "ENDH", axis) if self.padded else "(kh1 - kh0)"

    def _columns(self, pixel: int, taps: Taps) -> str:
        axis = self.shape.columns
        if self.padded:
            start = f"((ow + {pixel}) * {axis.stride} - PL)"
            return _inside_padding(start, "PL", "W", "ENDW", axis)
        if taps is None:
            return "(kw1 - kw0)" if axis.taps > 1 else "1"
        return str(sum(low <= pixel < high for low, high in taps))


def _inside_padding(start: str, pad: str, size: str, end: str, axis: Axis) -> str:
    """Taps of a window that lie in the padded input; ceil_mode lets windows stick out."""
    room = f"({size} + {end} - {start} + {axis.dilation - 1}) / {axis.dilation}"
    return f"tl_min({axis.taps}, {room})"


def _name(kind: str, shape: ConvShape) -> str:
    sizes = [shape.channels, shape.rows.size, shape.columns.size]
    known = "x".join(str(size) for size in sizes if isinstance(size, int))
    return f"{kind}{shape.rows.taps}x{shape.columns.taps}s{shape.columns.stride}_{known}"


def _emit(
    k: KernelBuilder, node: Node, shape: ConvShape, window: Window, target: Target, own_slots: int
) -> None:
    rows, columns = shape.rows, shape.columns
    blocks = -(-shape.channels // target.lanes)
    pixels = _pixels(node, k.ctx, shape, window)
    band = _band(shape, blocks)
    bands = ceil_div(rows.out, band)
    epilogue = Epilogue(k, node, own_slots)
    k.dims("H W OH OW", (rows.size, columns.size, rows.out, columns.out))
    k.dims("PT PL CB BAND BANDS", (rows.pad, columns.pad, blocks, band, bands))
    k.body(_WindowPrinter(shape, window, pixels, epilogue).body())
    images = shape.batch if window.depth is None else node.output.shape[0]
    items = images * blocks
    traffic = items * target.lanes * (rows.size * columns.size + shape.pixels) * 4
    taps = shape.taps * (window.depth.taps if window.depth else 1)
    flops = images * shape.channels * shape.pixels * (2 * taps)
    k.emit(grid=items * bands, flops=flops, bytes=traffic)


def _pixels(node: Node, ctx: Context, shape: ConvShape, window: Window) -> int:
    """Pixels of a tile. All taps of a row are printed for each: long rows get narrow tiles."""
    columns = shape.columns
    pixels = min(choose_tile(ctx.target, columns.out, 1).pixels, max(4, 448 // columns.taps))
    if not window.has_weights:
        return pixels
    problem = conv_problem("Conv", shape, shape.channels, ctx.target.block)
    return ctx.choose(node, problem, {f"{n} pixels": n for n in (pixels, -(-pixels // 2))})


def _band(shape: ConvShape, blocks: int) -> Dim:
    images = shape.batch if isinstance(shape.batch, int) else 1
    wanted = -(-ENOUGH_ITEMS // max(1, blocks * images))
    if isinstance(shape.rows.out, int):
        return max(1, shape.rows.out // wanted)
    return 8


def _depth_range(depth: Axis) -> list[str]:
    """`d`: the first picture of a window; `kd0` .. `kd1`: its taps inside the volume."""
    start = f"const int64_t d = n % WINDOWS * {depth.stride} - PD;"
    return [start, *tap_range("kd0", "kd1", "d", "DEPTH", depth)]


class _WindowPrinter:
    """Prints the loops over items, rows and tiles."""

    def __init__(self, shape: ConvShape, window: Window, pixels: int, epilogue: Epilogue) -> None:
        self.shape = shape
        self.window = window
        self.pixels = pixels
        self.epilogue = epilogue

    def body(self) -> str:
        taps, depth = self.shape.taps, self.window.depth
        picture = [f"    const {self.window.ctype} *const xn = x + (n * CB + cb) * H * W * V;"]
        if self.window.has_weights:
            picture.append(f"    const float *const wn = w + cb * {taps} * V;")
        return "\n".join(
            [
                "(void)PT, (void)PL, (void)H;",
                "for (int64_t item = begin; item < end; item++) {",
                "    const int64_t band = item % BANDS, cb = item / BANDS % CB;",
                "    const int64_t n = item / (BANDS * CB);",
                *(picture if depth is None else indent(_depth_range(depth))),
                "    for (int64_t oh = band * BAND; oh < tl_min((band + 1) * BAND, OH); oh++) {",
                *indent([*tap_rows(self.shape.rows), *self._row()], 2),
                "    }",
                "}",
            ]
        )

    def _row(self) -> list[str]:
        columns = self.shape.columns
        at = "const int64_t at = ((n * CB + cb) * OH + oh) * OW * V;"
        if self.shape.is_static:
            assert isinstance(columns.out, int)
            return [at, *known_tiles(columns, full_tiles(columns.out, self.pixels), self._tile)]
        return [
            at,
            *bordered_tiles(columns, self.pixels, self._tile, self._tile(1, None, at_border=True)),
        ]

    def _tile(self, pixels: int, taps: Taps, *, at_border: bool = False) -> list[str]:
        columns = self.shape.columns
        names = [f"acc{p}" for p in range(pixels)]
        rows = [
            (
                f"const {self.window.ctype} *const xr ="
                f" xw + (h + kh * {self.shape.rows.dilation}) * W * V;"
            ),
            *(
                [f"const float *const wr = wn + kh * {columns.taps} * V;"]
                if self.window.has_weights
                else []
            ),
            *(self._border_taps() if at_border else self._known_taps(pixels, taps)),
        ]
        start = f"ow * {columns.stride} - PL"
        edge = (
            [f"const int64_t w0 = {start};", *tap_range("kw0", "kw1", "w0", "W", columns)]
            if at_border
            else [f"const int64_t kw0 = 0, kw1 = {columns.taps};"]
        )
        picture = [
            f"const {self.window.ctype} *const xw = xn + ({start}) * V;",
            "for (int64_t kh = kh0; kh < kh1; kh++) {",
            *indent(rows),
            "}",
        ]
        return [
            *edge,
            "(void)kw0, (void)kw1;",
            f"vf {' = '.join(names[:1])} = {self.window.start};",
            *([f"vf {', '.join(f'{name} = acc0' for name in names[1:])};"] if names[1:] else []),
            *(picture if self.window.depth is None else self._pictures(picture)),
            *self._store(pixels, taps),
        ]

    def _pictures(self, lines: list[str]) -> list[str]:
        """The lines for each picture that the window sees."""
        depth = self.window.depth
        assert depth is not None
        return [
            "for (int64_t kd = kd0; kd < kd1; kd++) {",
            f"    const int64_t picture = n / WINDOWS * DEPTH + d + kd * {depth.dilation};",
            "    const float *const xn = x + (picture * CB + cb) * H * W * V;",
            f"    const float *const wn = w + (cb * {depth.taps} + kd) * {self.shape.taps} * V;",
            *indent(lines),
            "}",
        ]

    def _known_taps(self, pixels: int, taps: Taps) -> list[str]:
        columns = self.shape.columns
        lines: list[str] = []
        for tap, (low, high) in enumerate(taps or [(0, pixels)] * columns.taps):
            if low >= high:
                continue
            if self.window.has_weights:
                lines += [f"{{ const vf wv = v_load(wr + {tap} * V);"]
            for p in range(low, high):
                offset = p * columns.stride + tap * columns.dilation
                lines.append("  " + self._step(f"acc{p}", self._load(f"xr + {offset} * V")))
            if self.window.has_weights:
                lines[-1] += " }"
        return lines

    def _border_taps(self) -> list[str]:
        dilation = self.shape.columns.dilation
        weight = ["    const vf wv = v_load(wr + kw * V);"] if self.window.has_weights else []
        return [
            "for (int64_t kw = kw0; kw < kw1; kw++) {",
            *weight,
            "    " + self._step("acc0", self._load(f"xr + kw * {dilation} * V")),
            "}",
        ]

    def _load(self, place: str) -> str:
        return f"v_load{self.window.codes}({place})"

    def _step(self, acc: str, value: str) -> str:
        return self.window.step.format(acc=acc, x=value)

    def _store(self, pixels: int, taps: Taps) -> list[str]:
        lines: list[str] = []
        for p in range(pixels):
            acc = f"acc{p}"
            if self.window.finish is not None:
                acc = f"({acc} * v_set1{self.window.finish(p, taps)})"
            where = f"at + (ow + {p}) * V"
            statements, result = self.epilogue.vector(acc, where, "cb * V")
            lines.append(
                "{ "
                + " ".join([*statements, f"v_store{self.window.codes}(y + {where}, {result});"])
                + " }"
            )
        return lines
