"""DFT: fast transforms of f32 along one axis, several lines side by side.

Lengths without large primes go by Stockham's passes over their factors; others become a circular
convolution of a power of two (Bluestein). What a factor needs of sines and cosines is one table.
"""

from __future__ import annotations

import numpy as np

from tuili.codegen.kernel import Context, KernelBuilder, size_of
from tuili.codegen.kernels.signals.stockham import AROUND, PASSES, STRAIGHT
from tuili.ir import Node
from tuili.ops.table import attr
from tuili.tensors import Array, Dim, DType, ceil_div, dim_min, numel

LINES = 8  # side by side: what a pass does to one it does to all by vectors
LARGEST = 31  # prime; a pass by a prime p takes p products for each element


def _axis(node: Node, ctx: Context) -> int | None:
    """Which axis is transformed, when it is known."""
    rank = len(node.required(0).shape)
    if node.input(2) is None:
        return rank - 2
    known = ctx.contents.dims(node.required(2))
    return known[0] % rank if known and isinstance(known[0], int) else None


def _length(node: Node, ctx: Context, axis: int) -> Dim | None:
    """How many points a line has while it is transformed."""
    if node.input(1) is not None:
        known = ctx.contents.dims(node.required(1))
        return known[0] if known else None
    given = node.required(0).shape[axis]
    return (given - 1) * 2 if attr(node, "inverse") and attr(node, "onesided") else given


def factors(length: int) -> list[int] | None:
    """The radices of the passes, or None where a prime is too large."""
    found: list[int] = []
    for radix in (4, 2, 3, 5, *range(7, LARGEST + 1, 2)):
        while length % radix == 0:
            found.append(radix)
            length //= radix
    return found if length == 1 else None


def supports(node: Node, ctx: Context) -> bool:
    """f32 along a known axis with a known number of points."""
    x = node.required(0)
    axis = _axis(node, ctx)
    if x.dtype is not DType.F32 or x.layout or axis is None or x.shape[-1] not in (1, 2):
        return False
    length = _length(node, ctx, axis)
    return isinstance(length, int) and length > 0


def turns(count: int) -> Array:
    """exp(-2 pi i k / count) for k < count: all real parts, then all imaginary ones."""
    angles = 2 * np.pi * np.arange(count) / count
    return np.concatenate([np.cos(angles), -np.sin(angles)]).astype(np.float32)


def chirp(length: int) -> Array:
    """exp(-pi i k^2 / length), real parts and then imaginary ones."""
    angles = np.pi * (np.arange(length, dtype=np.int64) ** 2 % (2 * length)) / length
    return np.concatenate([np.cos(angles), -np.sin(angles)]).astype(np.float32)


def answer(length: int, count: int) -> Array:
    """The transform of the conjugate chirp around zero, with the share of the way back."""
    angles = np.pi * (np.arange(length, dtype=np.int64) ** 2 % (2 * length)) / length
    around = np.zeros(count, np.complex128)
    around[:length] = np.exp(1j * angles)
    around[count - length + 1 :] = around[1:length][::-1]
    whole = np.fft.fft(around) / count
    return np.concatenate([whole.real, whole.imag]).astype(np.float32)


def emit(node: Node, ctx: Context) -> None:
    """One grid item is a block of neighbouring lines: gathered, transformed in scratch, written."""
    x, y = node.required(0), node.output
    axis = _axis(node, ctx)
    assert axis is not None  # supports
    length = _length(node, ctx, axis)
    assert isinstance(length, int)
    if 0 in y.shape:
        return
    inverse, one_sided = bool(attr(node, "inverse")), bool(attr(node, "onesided"))
    radices = factors(length)
    count = length if radices is not None else 1 << (2 * length - 2).bit_length()
    k = KernelBuilder(ctx, node, "dft")
    k.support(PASSES)
    k.read("x", x)
    k.write("y", y)
    k.weight("turns", turns(count))
    if radices is None:
        k.weight("chirp", chirp(length))
        k.weight("answer", answer(length, count))
    inner, outer = numel(x.shape[axis + 1 : -1]), numel(x.shape[:axis])
    k.dims("N M GIVEN KEPT INNER", (length, count, x.shape[axis], y.shape[axis], inner))
    k.dim("LINES", dim_min(LINES, outer * inner))
    k.dim("ALL", outer * inner)
    text = _BODY.replace("PARTS", str(x.shape[-1]))
    text = text.replace("RADICES", ", ".join(map(str, radices or factors(count) or [1])))
    text = text.replace("SIGN", "-1.0f" if inverse else "1.0f")
    text = text.replace("HALF", str(int(one_sided and inverse)))
    text = text.replace("REAL", str(int(one_sided and not inverse)))
    text = text.replace("TRANSFORM", AROUND if radices is None else STRAIGHT)
    text = text.replace("ONLY", str(int(y.shape[-1] == 1)))
    text = text.replace("SCALE", f"{1 / length!r}f" if inverse else "1.0f")
    k.body(text)
    k.scratch(4 * 4 * count * LINES)
    passes = max(1, (count - 1).bit_length()) * (1 if radices is not None else 2)
    k.emit(
        grid=ceil_div(outer * inner, LINES),
        flops=outer * inner * count * passes * 5,
        bytes=size_of(x.tensor) + size_of(y.tensor),
    )


_BODY = """
static const int radices[] = {RADICES, 0};
for (int64_t item = begin; item < end; item++) {
    const int64_t first = item * LINES, w = tl_min(LINES, ALL - first);
    tl_planes a = {(float *)scratch, (float *)scratch + M * w};
    tl_planes b = {a.im + M * w, a.im + 2 * M * w};
    const int64_t taken = tl_min(GIVEN, HALF ? N / 2 + 1 : N);
    memset(a.re, 0, sizeof(float) * 2 * M * w);
    for (int64_t c = 0; c < w; c++) {
        const int64_t line = first + c, inner = line % INNER;
        const float *const from = x + (line / INNER * GIVEN * INNER + inner) * PARTS;
        for (int64_t i = 0; i < taken; i++) {
            a.re[i * w + c] = from[i * INNER * PARTS];
            if (PARTS == 2 && !REAL)
                a.im[i * w + c] = SIGN * from[i * INNER * PARTS + PARTS - 1];
        }
        if (HALF)   /* the other half mirrors this one; what would not be real is left out */
            for (int64_t i = 0; 2 * i <= N; i++) {
                if (i == 0 || 2 * i == N)
                    a.im[i * w + c] = 0;
                else {
                    a.re[(N - i) * w + c] = a.re[i * w + c];
                    a.im[(N - i) * w + c] = -a.im[i * w + c];
                }
            }
    }
    TRANSFORM
    for (int64_t c = 0; c < w; c++) {
        const int64_t line = first + c, inner = line % INNER;
        float *const to = y + (line / INNER * KEPT * INNER + inner) * (2 - ONLY);
        for (int64_t i = 0; i < KEPT; i++) {
            to[i * INNER * (2 - ONLY)] = SCALE * a.re[i * w + c];
            if (!ONLY)
                to[i * INNER * (2 - ONLY) + 1] = SIGN * SCALE * a.im[i * w + c];
        }
    }
}"""
