"""A convolution's input with its padding around it: a copy, or the input itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tuili.codegen.kernel import Context, KernelBuilder
from tuili.codegen.text import indent
from tuili.ir import Node, Value
from tuili.lower.program import View
from tuili.tensors import Dim, numel


@dataclass(frozen=True, slots=True)
class Padded:
    """Where it lies, and its spatial sizes."""

    source: Value | View
    sizes: tuple[Dim, ...]


def padded(node: Node, ctx: Context, begins: Sequence[Dim], ends: Sequence[Dim]) -> Padded:
    """Row-major input 0 of a node with so many zeros before and after each spatial axis."""
    x = node.required(0)
    batch, channels, *spatial = x.shape
    sizes = tuple(b + size + e for b, size, e in zip(begins, spatial, ends, strict=True))
    if all(each == 0 for each in (*begins, *ends)):
        return Padded(x, sizes)
    rank = len(spatial)
    k = KernelBuilder(ctx, node, f"pad{rank}d_{x.dtype.value}")
    count = numel((batch, channels, *sizes))
    copy = k.temp("padded", x.dtype, count)
    k.read("x", x)
    k.write("y", copy)
    for axis, (size, begin, wide) in enumerate(zip(spatial, begins, sizes, strict=True)):
        k.dims(f"I{axis} B{axis} X{axis}", (size, begin, wide))
    k.body("\n".join(_lines(rank, x.dtype.c)))
    k.emit(grid=numel((batch, channels, *sizes[:-1])), bytes=2 * count * x.dtype.itemsize)
    return Padded(copy, sizes)


def _lines(rank: int, ctype: str) -> list[str]:
    """A grid item is a row: all zeros outside the input, else zeros before and after."""
    z = rank - 1
    outer = range(z)
    places: list[str] = []
    for axis in reversed(outer):
        places += [f"const int64_t i{axis} = rest % X{axis} - B{axis};", f"rest /= X{axis};"]
    inside = " && ".join(f"i{axis} >= 0 && i{axis} < I{axis}" for axis in outer)
    at = "rest"
    for axis in outer:
        at = f"({at} * I{axis} + i{axis})"
    return [
        "for (int64_t item = begin; item < end; item++) {",
        "    int64_t rest = item;",
        *indent(places),
        f"    {ctype} *const to = y + item * X{z};",
        *([f"    if (!({inside})) {{"] if z else []),
        *(
            [f"        memset(to, 0, (size_t)X{z} * sizeof *to);", "        continue;", "    }"]
            * bool(z)
        ),
        f"    memset(to, 0, (size_t)B{z} * sizeof *to);",
        f"    memcpy(to + B{z}, x + {at} * I{z}, (size_t)I{z} * sizeof *to);",
        f"    memset(to + B{z} + I{z}, 0, (size_t)(X{z} - B{z} - I{z}) * sizeof *to);",
        "}",
    ]
